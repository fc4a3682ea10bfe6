#include "engine/score.h"

#include <cmath>
#include <numeric>

namespace ssrl {
namespace {

// Enough for the matrix products to run at full speed; more only takes memory.
constexpr int64_t kRowsPerPass = 1024;

// Sequences that go through the layers together; the last token of each predicts nothing and is left out.
class Pass {
 public:
  void add(const int32_t* tokens, int64_t rows) {
    tokens_.insert(tokens_.end(), tokens, tokens + rows);
    targets_.insert(targets_.end(), tokens + 1, tokens + 1 + rows);
    for (int64_t i = 0; i < rows; ++i) positions_.push_back(int32_t(i));
    starts_.push_back(int64_t(tokens_.size()));
  }
  int64_t rows() const { return int64_t(tokens_.size()); }
  const int32_t* targets() const { return targets_.data(); }
  PackedBatch batch() const {
    return {tokens_.data(), positions_.data(), rows(), starts_.data(), int64_t(starts_.size()) - 1};
  }
  void clear() {
    tokens_.clear();
    targets_.clear();
    positions_.clear();
    starts_.assign(1, 0);
  }

 private:
  std::vector<int32_t> tokens_, targets_, positions_;
  std::vector<int64_t> starts_ = {0};
};

class Scorer {
 public:
  Scorer(Model& model, Workspace& workspace, float temperature, const AbortFlag* abort)
      : model_(model), workspace_(workspace), temperature_(temperature), abort_(abort) {}

  Status add(const int32_t* tokens, int64_t rows) {
    if (pass_.rows() > 0 && pass_.rows() + rows > kRowsPerPass) SSRL_RETURN_IF_ERROR(flush());
    pass_.add(tokens, rows);
    return {};
  }

  Status flush() {
    const int64_t rows = pass_.rows();
    if (rows == 0) return {};
    ops::Ops& ops = model_.ops();
    const size_t row_bytes = size_t(model_.config().hidden) * size_of(model_.compute());
    Buffer& hidden = workspace_.hidden;
    Buffer& scratch = workspace_.head_scratch;
    SSRL_RETURN_IF_ERROR(hidden.reserve(ops, size_t(rows) * row_bytes));
    SSRL_RETURN_IF_ERROR(scratch.reserve(ops, ops.log_probs_scratch(model_.head())));
    SSRL_RETURN_IF_ERROR(forward_packed(model_, workspace_, pass_.batch(), hidden.data(), abort_));
    SSRL_RETURN_IF_ERROR(check_abort(abort_));
    const size_t done = scores.log_probs.size();
    scores.log_probs.resize(done + rows);
    scores.entropies.resize(done + rows);
    SSRL_RETURN_IF_ERROR(ops.log_probs({.hidden = hidden.data(),
                                        .weight = &model_.head(),
                                        .targets = pass_.targets(),
                                        .temperature = temperature_,
                                        .logprobs = scores.log_probs.data() + done,
                                        .entropies = scores.entropies.data() + done,
                                        .scratch = scratch.data(),
                                        .rows = rows}));
    pass_.clear();
    return {};
  }

  Scores scores;

 private:
  Model& model_;
  Workspace& workspace_;
  float temperature_;
  const AbortFlag* abort_;
  Pass pass_;
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
