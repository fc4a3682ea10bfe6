#include "engine/score.h"

#include <cmath>
#include <numeric>

#include "engine/forward_passes.h"

namespace ssrl {

Status check_sequences(const ModelConfig& config, const Sequences& sequences, int64_t tokens) {
  const int32_t* offsets = sequences.offsets;
  if (offsets[0] != 0 || offsets[sequences.count] != tokens) {
    return invalid_arg("Expected offsets from 0 to the number of tokens (" + std::to_string(tokens) +
                       ") but received " + std::to_string(offsets[0]) + " to " +
                       std::to_string(offsets[sequences.count]));
  }
  for (int64_t s = 0; s < sequences.count; ++s) {
    const int64_t length = int64_t(offsets[s + 1]) - offsets[s];
    if (length < 1 || length > config.max_positions) {
      return invalid_arg("Expected 1 to " + std::to_string(config.max_positions) +
                         " tokens (the model's context) in sequence " + std::to_string(s) + " but received " +
                         std::to_string(length));
    }
  }
  for (int64_t i = 0; i < tokens; ++i) {
    const int32_t token = sequences.tokens[i];
    if (token < 0 || token >= config.vocabulary) {
      return invalid_arg("Expected token ids from 0 to " + std::to_string(config.vocabulary - 1) +
                         " but received " + std::to_string(token));
    }
  }
  return {};
}

Result<Scores> score(Model& model, Workspace& workspace, const Sequences& sequences, float temperature,
                     const AbortFlag* abort) {
  if (!(temperature > 0) || !std::isfinite(temperature)) {
    return invalid_arg("Expected a positive temperature but received " + std::to_string(temperature));
  }
  ops::Ops& ops = model.ops();
  Scores scores;
  std::vector<float> values;  // log-probs, then entropies
  const auto read = [&](const ForwardPass& pass) -> Status {
    const int64_t rows = pass.rows;
    Buffer& scratch = workspace.head_scratch;
    SSRL_RETURN_IF_ERROR(scratch.reserve(ops, ops.log_probs_scratch(model.head())));
    SSRL_RETURN_IF_ERROR(workspace.scores.reserve(ops, size_t(2 * rows) * sizeof(float)));
    float* const results = workspace.scores.floats();
    SSRL_RETURN_IF_ERROR(ops.log_probs({.hidden = pass.hidden,
                                        .weight = &model.head(),
                                        .targets = pass.targets.data(),
                                        .temperature = temperature,
                                        .logprobs = results,
                                        .entropies = results + rows,
                                        .scratch = scratch.data(),
                                        .rows = rows}));
    values.resize(2 * rows);
    SSRL_RETURN_IF_ERROR(ops.copy_to_host(values.data(), results, values.size() * sizeof(float)));
    for (const int64_t row : pass.wanted) {
      scores.log_probs.push_back(values[row]);
      scores.entropies.push_back(values[rows + row]);
    }
    return {};
  };
  const Status status = for_each_pass(model, workspace, sequences, abort, read);
  if (!status.ok()) return status;
  return scores;
}

Status logits(Model& model, Workspace& workspace, const int32_t* tokens, int64_t count, float* out) {
  const int64_t starts[] = {0, count};
  std::vector<int32_t> positions(count);
  std::iota(positions.begin(), positions.end(), 0);
  const PackedBatch batch{tokens, positions.data(), count, starts, 1};
  Buffer hidden, result;
  const ModelConfig& c = model.config();
  const size_t bytes = size_t(count) * c.vocabulary * sizeof(float);
  SSRL_RETURN_IF_ERROR(hidden.allocate(model.ops(), size_t(count) * c.hidden * size_of(model.compute())));
  SSRL_RETURN_IF_ERROR(result.allocate(model.ops(), bytes));
  SSRL_RETURN_IF_ERROR(forward_packed(model, workspace, batch, hidden.data()));
  SSRL_RETURN_IF_ERROR(
      model.ops().linear(model.head(), hidden.data(), count, nullptr, result.data(), DType::kF32, false));
  return model.ops().copy_to_host(out, result.data(), bytes);
}

}  // namespace ssrl
