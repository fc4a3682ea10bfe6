// What the functions of a learner take, read from JavaScript. All of it throws ERR_INVALID_ARG.
#pragma once

#include <napi.h>

#include <string>
#include <vector>

#include "engine/learner.h"

namespace ssrl {

// What a micro-batch is on its way to the compute thread: copies, since JavaScript may change or transfer its
// arrays.
struct BatchCopy {
  std::vector<int32_t> tokens, offsets;
  std::vector<float> weights, advantages, old_log_probs, reference_log_probs, drift_weights, returns,
      old_values;
  bool has_advantages = false, has_old = false, has_reference = false, has_drift = false;
  bool has_returns = false, has_old_values = false;
  bool sequence_ratio = false;

  LearnerBatch view() const {
    const auto optional = [](bool given, const std::vector<float>& values) {
      return given ? values.data() : nullptr;
    };
    return {.sequences = {tokens.data(), offsets.data(), int64_t(offsets.size()) - 1},
            .weights = weights.data(),
            .advantages = optional(has_advantages, advantages),
            .old_log_probs = optional(has_old, old_log_probs),
            .reference_log_probs = optional(has_reference, reference_log_probs),
            .drift_weights = optional(has_drift, drift_weights),
            .sequence_ratio = sequence_ratio,
            .returns = optional(has_returns, returns),
            .old_values = optional(has_old_values, old_values)};
  }
};

BatchCopy read_batch(const Napi::Object& object, const ModelConfig& config);
PassLoss read_loss(const Napi::Object& object, const BatchCopy& batch);
StepOptions read_step(const Napi::Object& object);
LearnerOptions read_learner_options(const Napi::Object& object);

// Tokens and offsets alone, checked against the model.
BatchCopy read_sequences(const Napi::Value& tokens, const Napi::Value& offsets, const ModelConfig& config);

}  // namespace ssrl
