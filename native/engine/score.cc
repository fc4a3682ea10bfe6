#include "engine/score.h"

#include <cmath>
#include <numeric>

#include "engine/packing.h"

namespace ssrl {
namespace {

// Enough for the matrix products to run at full speed; more only takes memory.
constexpr int64_t kRowsPerPass = 512;

class Scorer {
 public:
  Scorer(Model& model, Workspace& workspace, float temperature, const AbortFlag* abort)
      : model_(model), workspace_(workspace), temperature_(temperature), abort_(abort) {}

  // `rows` tokens and one more, which predicts nothing.
  Status add(const int32_t* tokens, int64_t rows) {
    const int64_t more = rows - packing_.shared_rows(tokens, rows, rows);
    if (packing_.rows() > 0 && packing_.rows() + more > kRowsPerPass) SSRL_RETURN_IF_ERROR(flush());
    const int64_t before = packing_.rows();
    packing_.add(tokens, rows, rows);
    const int64_t shared = rows - (packing_.rows() - before);
    targets_.insert(targets_.end(), tokens + 1 + shared, tokens + 1 + rows);
    values_.insert(values_.end(), packing_.path().begin(), packing_.path().begin() + rows);
    return {};
  }

  Status flush() {
    const int64_t rows = packing_.rows();
    if (rows == 0) return {};
    ops::Ops& ops = model_.ops();
    const size_t row_bytes = size_t(model_.config().hidden) * size_of(model_.compute());
    Buffer& hidden = workspace_.hidden;
    Buffer& scratch = workspace_.head_scratch;
    SSRL_RETURN_IF_ERROR(hidden.reserve(ops, size_t(rows) * row_bytes));
    SSRL_RETURN_IF_ERROR(scratch.reserve(ops, ops.log_probs_scratch(model_.head())));
    SSRL_RETURN_IF_ERROR(workspace_.scores.reserve(ops, size_t(2 * rows) * sizeof(float)));
    SSRL_RETURN_IF_ERROR(forward_packed(model_, workspace_, packing_.batch(), hidden.data(), abort_));
    SSRL_RETURN_IF_ERROR(check_abort(abort_));
    float* const results = workspace_.scores.floats();
    SSRL_RETURN_IF_ERROR(ops.log_probs({.hidden = hidden.data(),
                                        .weight = &model_.head(),
                                        .targets = targets_.data(),
                                        .temperature = temperature_,
                                        .logprobs = results,
                                        .entropies = results + rows,
                                        .scratch = scratch.data(),
                                        .rows = rows}));
    results_.resize(2 * rows);
    SSRL_RETURN_IF_ERROR(ops.copy_to_host(results_.data(), results, results_.size() * sizeof(float)));
    for (const int64_t row : values_) {
      scores.log_probs.push_back(results_[row]);
      scores.entropies.push_back(results_[rows + row]);
    }
    packing_.clear();
    targets_.clear();
    values_.clear();
    return {};
  }

  Scores scores;

 private:
  Model& model_;
  Workspace& workspace_;
  float temperature_;
  const AbortFlag* abort_;
  Packing packing_;  // the sequences that go through the layers together
  std::vector<int32_t> targets_;
  std::vector<int64_t> values_;  // the row of each value that is asked for
  std::vector<float> results_;   // log-probs, then entropies
};

}  // namespace

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
  Scorer scorer(model, workspace, temperature, abort);
  for (int64_t s = 0; s < sequences.count; ++s) {
    const int64_t rows = int64_t(sequences.offsets[s + 1]) - sequences.offsets[s] - 1;
    const Status status = rows > 0 ? scorer.add(sequences.tokens + sequences.offsets[s], rows) : Status();
    if (!status.ok()) return status;
  }
  const Status status = scorer.flush();
  if (!status.ok()) return status;
  return std::move(scorer.scores);
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
