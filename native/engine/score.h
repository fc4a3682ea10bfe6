// Log-probs and entropies of given sequences: one forward pass over packed rows, no cache, nothing kept.
#pragma once

#include <cstdint>
#include <vector>

#include "abort.h"
#include "engine/transformer.h"
#include "status.h"

namespace ssrl {

// Sequences one after another: sequence s is tokens[offsets[s]] .. tokens[offsets[s + 1]].
struct Sequences {
  const int32_t* tokens;   // [offsets[count]]
  const int32_t* offsets;  // [count + 1]
  int64_t count;
};

// kInvalidArg unless offsets rise from 0 to `tokens`, each sequence has 1 to max_positions tokens, and every
// token is in the vocabulary.
Status check_sequences(const ModelConfig& config, const Sequences& sequences, int64_t tokens);

// Flat, T - 1 values for a sequence of T tokens: value t belongs to token t + 1, under softmax(logits /
// temperature).
struct Scores {
  std::vector<float> log_probs;
  std::vector<float> entropies;
};

Result<Scores> score(Model& model, Workspace& workspace, const Sequences& sequences, float temperature,
                     const AbortFlag* abort);

// out [count, V], of one sequence.
Status logits(Model& model, Workspace& workspace, const int32_t* tokens, int64_t count, float* out);

}  // namespace ssrl
