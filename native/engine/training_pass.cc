#include "engine/training_pass.h"

#include <algorithm>

#include "engine/packing.h"

namespace ssrl {
namespace {

// The mean log-ratio of each row's sequence, its rows weighted as in the loss: then the gradients of its rows
// add up to that of the sequence's loss.
std::vector<float> mean_log_ratios(const ActiveRows& active, const std::vector<float>& log_probs) {
  std::vector<float> means(log_probs.size());
  for (size_t first = 0, end = 0; first < means.size(); first = end) {
    double sum = 0, weights = 0;
    for (; end < means.size() && active.sequences[end] == active.sequences[first]; ++end) {
      const double weight = active.weights[end];
      sum += weight * (double(log_probs[end]) - double(active.old_log_probs[end]));
      weights += weight;
    }
    std::fill(means.begin() + int64_t(first), means.begin() + int64_t(end), float(sum / weights));
  }
  return means;
}

}  // namespace

Status TrainingPass::run(const PackedBatch& batch, const ActiveRows& active, const PassLoss& loss,
                         ValueHead* values, float* slab, float* log_probs, PassStatistics* statistics,
                         const AbortFlag* abort) {
  const int32_t last = *std::max_element(batch.positions, batch.positions + batch.rows);
  SSRL_RETURN_IF_ERROR(model_.reserve_positions(int64_t(last) + 1));
  PackedKeyValues key_values(model_, gathered_, batch);
  const BackwardContext context{model_, batch, key_values, activations_, slab};
  // What can't do with less comes before the activations, which take what is left.
  SSRL_RETURN_IF_ERROR(key_values.reserve());
  SSRL_RETURN_IF_ERROR(reserve_backward(context));
  const size_t head_bytes = std::max(model_.ops().policy_loss_scratch(model_.head()),
                                     model_.ops().log_probs_scratch(model_.head()));
  SSRL_RETURN_IF_ERROR(head_scratch_.reserve(model_.ops(), head_bytes));
  SSRL_RETURN_IF_ERROR(head_scores_.reserve(model_.ops(), size_t(2 * active.count()) * sizeof(float)));
  SSRL_RETURN_IF_ERROR(activations_.reserve(model_, batch.rows, active.count(), budget_));
  SSRL_RETURN_IF_ERROR(forward(batch, key_values, abort));
  SSRL_RETURN_IF_ERROR(final_norm(active));
  if (loss.has_policy) {
    SSRL_RETURN_IF_ERROR(policy_head(active, loss.policy, slab, log_probs, &statistics->policy));
  }
  if (!active.returns.empty()) {
    const ValueRows rows{activations_.hidden(), active.weights.data(), active.returns.data(),
                         active.old_values.empty() ? nullptr : active.old_values.data(), active.count()};
    SSRL_RETURN_IF_ERROR(
        values->learn(rows, loss.value, activations_.hidden_gradient(), loss.has_policy, &statistics->value));
  }
  if (!loss.has_policy && loss.value.detached) return {};
  SSRL_RETURN_IF_ERROR(backward_final_norm(batch, active, slab));
  return backward(context, key_values, abort);
}

Status TrainingPass::forward(const PackedBatch& batch, KeyValues& key_values, const AbortFlag* abort) {
  const ModelConfig& c = model_.config();
  SSRL_RETURN_IF_ERROR(model_.embed(batch.tokens, batch.rows, activations_.layer(0).input));
  for (int layer = 0; layer < c.layers; ++layer) {
    SSRL_RETURN_IF_ERROR(check_abort(abort));
    SSRL_RETURN_IF_ERROR(
        forward_layer(model_, layer, batch.positions, batch.rows, activations_.layer(layer), key_values));
  }
  return check_abort(abort);
}

// Only rows that enter the loss reach the final norm and the vocabulary.
Status TrainingPass::final_norm(const ActiveRows& active) {
  const ModelConfig& c = model_.config();
  ops::Ops& ops = model_.ops();
  SSRL_RETURN_IF_ERROR(ops.gather_rows(activations_.final_input(), DType::kF32, active.rows.data(),
                                       active.count(), c.hidden, activations_.active_input()));
  return ops.rms_norm({.x = activations_.active_input(),
                       .x_type = DType::kF32,
                       .x_stride = c.hidden,
                       .y = activations_.hidden(),
                       .y_type = model_.compute(),
                       .y_stride = c.hidden,
                       .weight = model_.master(model_.layout().final_norm),
                       .inverse_rms = activations_.inverse_rms(),
                       .tokens = active.count(),
                       .groups = 1,
                       .width = c.hidden,
                       .epsilon = c.rms_epsilon});
}

Status TrainingPass::policy_head(const ActiveRows& active, const ops::PolicyLossOptions& loss, float* slab,
                                 float* log_probs, ops::PolicyLossStatistics* statistics) {
  const Layout& layout = model_.layout();
  ops::Ops& ops = model_.ops();
  std::vector<float> log_ratios;
  if (!active.sequences.empty() && !active.old_log_probs.empty()) {
    SSRL_RETURN_IF_ERROR(sequence_log_ratios(active, loss.temperature, &log_ratios));
  }
  const auto optional = [](const std::vector<float>& values) {
    return values.empty() ? nullptr : values.data();
  };
  SSRL_RETURN_IF_ERROR(ops.policy_loss({.hidden = activations_.hidden(),
                                        .weight = &model_.head(),
                                        .targets = active.targets.data(),
                                        .weights = active.weights.data(),
                                        .advantages = optional(active.advantages),
                                        .old_logprobs = optional(active.old_log_probs),
                                        .ref_logprobs = optional(active.reference_log_probs),
                                        .log_ratios = optional(log_ratios),
                                        .drift_weights = optional(active.drift_weights),
                                        .logprobs = head_scores_.floats(),
                                        .entropies = nullptr,
                                        .dhidden = activations_.hidden_gradient(),
                                        .dweight = slab + layout.tensors[layout.head].offset,
                                        .scratch = head_scratch_.data(),
                                        .rows = active.count(),
                                        .options = loss},
                                       statistics));
  return ops.copy_to_host(log_probs, head_scores_.data(), size_t(active.count()) * sizeof(float));
}

Status TrainingPass::sequence_log_ratios(const ActiveRows& active, float temperature,
                                         std::vector<float>* log_ratios) {
  ops::Ops& ops = model_.ops();
  const size_t bytes = size_t(active.count()) * sizeof(float);
  SSRL_RETURN_IF_ERROR(ops.log_probs({.hidden = activations_.hidden(),
                                      .weight = &model_.head(),
                                      .targets = active.targets.data(),
                                      .temperature = temperature,
                                      .logprobs = head_scores_.floats(),
                                      .entropies = head_scores_.floats() + active.count(),
                                      .scratch = head_scratch_.data(),
                                      .rows = active.count()}));
  std::vector<float> log_probs(active.count());
  SSRL_RETURN_IF_ERROR(ops.copy_to_host(log_probs.data(), head_scores_.data(), bytes));
  *log_ratios = mean_log_ratios(active, log_probs);
  return {};
}

Status TrainingPass::backward_final_norm(const PackedBatch& batch, const ActiveRows& active, float* slab) {
  const ModelConfig& c = model_.config();
  const GradientBuffers& g = activations_.gradients();
  ops::Ops& ops = model_.ops();
  const int weight = model_.layout().final_norm;
  SSRL_RETURN_IF_ERROR(ops.rms_norm_backward({.dy = activations_.hidden_gradient(),
                                              .dy_type = DType::kF32,
                                              .dy_stride = c.hidden,
                                              .x = activations_.active_input(),
                                              .x_type = DType::kF32,
                                              .x_stride = c.hidden,
                                              .weight = model_.master(weight),
                                              .inverse_rms = activations_.inverse_rms(),
                                              .dx = activations_.hidden_gradient(),
                                              .dx_type = DType::kF32,
                                              .dx_stride = c.hidden,
                                              .accumulate = false,
                                              .dweight = slab + model_.layout().tensors[weight].offset,
                                              .scratch = g.norm_scratch,
                                              .tokens = active.count(),
                                              .groups = 1,
                                              .width = c.hidden}));
  SSRL_RETURN_IF_ERROR(ops.fill_zero(g.residual, size_t(batch.rows) * c.hidden * sizeof(float)));
  std::vector<void*> to;
  to.reserve(active.rows.size());
  for (const int64_t row : active.rows) to.push_back(g.residual + row * c.hidden);
  return ops.scatter_rows(activations_.hidden_gradient(), DType::kF32, c.hidden, active.count(), c.hidden,
                          to.data());
}

Status TrainingPass::backward(const BackwardContext& context, KeyValues& key_values, const AbortFlag* abort) {
  const ModelConfig& c = model_.config();
  const PackedBatch& batch = context.batch;
  for (int layer = c.layers - 1; layer >= 0; --layer) {
    SSRL_RETURN_IF_ERROR(check_abort(abort));
    if (activations_.is_kept(layer)) {
      SSRL_RETURN_IF_ERROR(key_values.bind(layer, activations_.layer(layer).qkv));
    } else {
      LayerBuffers again = activations_.layer(layer);
      again.output = nullptr;
      SSRL_RETURN_IF_ERROR(forward_layer(model_, layer, batch.positions, batch.rows, again, key_values));
    }
    SSRL_RETURN_IF_ERROR(backward_layer(context, layer));
  }
  return model_.ops().embedding_backward(batch.tokens, batch.rows, activations_.gradients().residual,
                                         c.hidden, context.gradient(model_.layout().embedding));
}

}  // namespace ssrl
