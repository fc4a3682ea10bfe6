#include "engine/learner.h"

#include <algorithm>
#include <cmath>

#include "engine/packing.h"

namespace ssrl {
namespace {

// The batch as the layers see it. A sequence ends with its last row that enters the loss: what comes after
// can't influence it. Rows before its first one may be shared: none of them has a target to learn.
struct PackedRows {
  Packing packing;
  ActiveRows active;
  std::vector<int64_t> flat;  // [active.count()] index into the batch's per-token arrays
};

struct ActiveToken {
  int64_t row;       // in the packed batch
  int64_t flat;      // in the per-token arrays
  int64_t sequence;  // in the batch
  int32_t target;
};

void add_active(const LearnerBatch& batch, const ActiveToken& token, PackedRows* packed) {
  const int64_t flat = token.flat;
  ActiveRows& active = packed->active;
  active.rows.push_back(token.row);
  active.targets.push_back(token.target);
  active.weights.push_back(batch.weights[flat]);
  if (batch.advantages) active.advantages.push_back(batch.advantages[flat]);
  if (batch.old_log_probs) active.old_log_probs.push_back(batch.old_log_probs[flat]);
  if (batch.reference_log_probs) active.reference_log_probs.push_back(batch.reference_log_probs[flat]);
  if (batch.drift_weights) active.drift_weights.push_back(batch.drift_weights[flat]);
  if (batch.returns) active.returns.push_back(batch.returns[flat]);
  if (batch.old_values) active.old_values.push_back(batch.old_values[flat]);
  if (batch.sequence_ratio) active.sequences.push_back(int32_t(token.sequence));
  packed->flat.push_back(flat);
}

PackedRows pack_rows(const LearnerBatch& batch) {
  PackedRows packed;
  int64_t first = 0;  // of the sequence's values in the flat arrays
  for (int64_t s = 0; s < batch.sequences.count; ++s) {
    const int32_t* tokens = batch.sequences.tokens + batch.sequences.offsets[s];
    const int64_t values = int64_t(batch.sequences.offsets[s + 1]) - batch.sequences.offsets[s] - 1;
    int64_t rows = values, inactive = 0;
    while (rows > 0 && batch.weights[first + rows - 1] == 0) --rows;
    while (inactive < rows && batch.weights[first + inactive] == 0) ++inactive;
    packed.packing.add(tokens, rows, inactive);
    for (int64_t i = inactive; i < rows; ++i) {
      if (batch.weights[first + i] == 0) continue;
      add_active(batch, {packed.packing.path()[i], first + i, s, tokens[i + 1]}, &packed);
    }
    first += values;
  }
  return packed;
}

}  // namespace

Result<std::unique_ptr<Learner>> Learner::create(Model& model, const LearnerOptions& options) {
  if (model.frozen()) return invalid_arg("Expected a policy that can be trained but received a frozen clone");
  ops::Ops& ops = model.ops();
  const size_t bytes = model.slab_bytes();
  Status status = check_memory(ops, 3.0 * double(bytes), "Gradients and optimizer state");
  if (!status.ok()) return status;
  std::unique_ptr<Learner> learner(new Learner(model, options));
  for (Buffer* buffer : {&learner->gradients_, &learner->first_moments_, &learner->second_moments_}) {
    status = buffer->allocate(ops, bytes);
    if (status.ok()) status = ops.fill_zero(buffer->data(), bytes);
    if (!status.ok()) return status;
  }
  if (!options.value_head) return learner;
  auto head = ValueHead::create(model);
  if (!head.ok()) return head.status();
  learner->value_head_ = std::move(head.value());
  return learner;
}

Status Learner::run(const LearnerBatch& batch, const PassLoss& loss, const AbortFlag* abort,
                    LearnerStatistics* statistics) {
  if (value_head_ == nullptr && (batch.returns || !loss.has_policy)) {
    return invalid_arg("Expected a learner with a value head for a loss of values");
  }
  const Sequences& sequences = batch.sequences;
  statistics->log_probs.assign(sequences.offsets[sequences.count] - sequences.count, 0.0f);
  const PackedRows packed = pack_rows(batch);
  if (packed.active.count() == 0) return {};
  std::vector<float> log_probs(packed.active.count());
  SSRL_RETURN_IF_ERROR(pass_.run(packed.packing.batch(), packed.active, loss, value_head_.get(),
                                 gradients_.floats(), log_probs.data(), &statistics->loss, abort));
  statistics->recomputed = pass_.recomputed();
  for (size_t i = 0; i < log_probs.size(); ++i) statistics->log_probs[packed.flat[i]] = log_probs[i];
  if (!loss.has_policy) statistics->loss.policy.rows = packed.active.count();
  const double total = statistics->loss.policy.loss + statistics->loss.value.loss;
  if (!std::isfinite(total)) {
    return {Code::kNonFinite, "Expected a finite loss but received " + std::to_string(total) +
                                  "; lower the learning rate or look for extreme advantages and log-probs"};
  }
  return {};
}

Result<LearnerStatistics> Learner::accumulate(const LearnerBatch& batch, const PassLoss& loss,
                                              const AbortFlag* abort) {
  LearnerStatistics statistics;
  const Status status = run(batch, loss, abort, &statistics);
  if (status.ok()) return statistics;
  const Status cleared = zero_gradients();
  return cleared.ok() ? status : cleared;
}

Result<std::vector<float>> Learner::read_gradient(const std::string& name) const {
  if (value_head_ != nullptr && name == kValueHeadName) return value_head_->read(value_head_->gradient());
  const auto found = model_.find(name);
  if (!found.ok()) return found.status();
  const Parameter& parameter = *found.value();
  std::vector<float> values(size_t(parameter.count));
  const float* from =
      gradients_.floats() + model_.layout().tensors[parameter.tensor].offset + parameter.offset;
  SSRL_RETURN_IF_ERROR(model_.ops().copy_to_host(values.data(), from, values.size() * sizeof(float)));
  return values;
}

Status Learner::zero_gradients() {
  if (value_head_ != nullptr) SSRL_RETURN_IF_ERROR(value_head_->zero_gradient());
  return model_.ops().fill_zero(gradients_.data(), gradients_.bytes());
}

Status Learner::sum_of_squares(bool value_head_only, double* squares) {
  ops::Ops& ops = model_.ops();
  *squares = 0;
  if (!value_head_only) {
    SSRL_RETURN_IF_ERROR(ops.sum_of_squares(gradients_.floats(), model_.layout().elements, squares));
  }
  if (value_head_ == nullptr) return {};
  double own = 0;
  SSRL_RETURN_IF_ERROR(ops.sum_of_squares(value_head_->gradient().floats(), value_head_->width(), &own));
  *squares += own;
  return {};
}

Status Learner::step(const StepOptions& options, double* gradient_norm) {
  if (options.value_head_only && value_head_ == nullptr) {
    return invalid_arg("Expected a learner with a value head for a step of it alone");
  }
  double squares = 0;
  SSRL_RETURN_IF_ERROR(sum_of_squares(options.value_head_only, &squares));
  *gradient_norm = std::sqrt(squares);
  if (!std::isfinite(squares)) {
    SSRL_RETURN_IF_ERROR(zero_gradients());
    return {Code::kNonFinite, "Expected finite gradients but their norm is " +
                                  std::to_string(*gradient_norm) +
                                  "; the step was left undone and the gradients cleared"};
  }
  ops::AdamW shared = {};
  shared.learning_rate = options.learning_rate;
  shared.beta1 = options_.beta1;
  shared.beta2 = options_.beta2;
  shared.epsilon = options_.epsilon;
  shared.weight_decay = options_.weight_decay;
  shared.gradient_scale = float(std::min(1.0, options.max_gradient_norm / (*gradient_norm + 1e-6)));
  if (!options.value_head_only) SSRL_RETURN_IF_ERROR(step_model(shared));
  shared.learning_rate = options.value_head_learning_rate;
  if (value_head_ != nullptr) SSRL_RETURN_IF_ERROR(value_head_->step(shared));
  return zero_gradients();
}

Status Learner::step_model(ops::AdamW settings) {
  SSRL_RETURN_IF_ERROR(model_.make_unique());
  settings.gradient = gradients_.floats();
  settings.first_moment = first_moments_.floats();
  settings.second_moment = second_moments_.floats();
  settings.step = steps_ + 1;
  SSRL_RETURN_IF_ERROR(model_.update(settings));
  ++steps_;
  return {};
}

}  // namespace ssrl
