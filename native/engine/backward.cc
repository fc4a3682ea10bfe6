#include "engine/backward.h"

namespace ssrl {
namespace {

void* at(const void* base, int64_t index, size_t element) {
  return const_cast<char*>(static_cast<const char*>(base)) + index * int64_t(element);
}

// The gradient of the residual stream as the matrix products read it.
Status round_residual(const BackwardContext& context) {
  const GradientBuffers& g = context.activations.gradients();
  if (g.rounded == g.residual) return {};
  const int64_t count = context.batch.rows * context.model.config().hidden;
  return context.model.ops().convert(g.residual, DType::kF32, g.rounded, context.model.compute(), count);
}

// The normed rows once more: the forward pass did not keep them.
Status renormalize(const BackwardContext& context, int weight, const float* x, void* normed) {
  const ModelConfig& c = context.model.config();
  return context.model.ops().rms_norm({.x = x,
                                       .x_type = DType::kF32,
                                       .x_stride = c.hidden,
                                       .y = normed,
                                       .y_type = context.model.compute(),
                                       .y_stride = c.hidden,
                                       .weight = context.model.master(weight),
                                       .inverse_rms = nullptr,
                                       .tokens = context.batch.rows,
                                       .groups = 1,
                                       .width = c.hidden,
                                       .epsilon = c.rms_epsilon});
}

// Through a norm of the residual stream, which goes on beside it: residual += norm'(gradients.normed).
Status backward_norm(const BackwardContext& context, int weight, const float* x, const float* inverse_rms) {
  const ModelConfig& c = context.model.config();
  const GradientBuffers& g = context.activations.gradients();
  return context.model.ops().rms_norm_backward({.dy = g.normed,
                                                .dy_type = DType::kF32,
                                                .dy_stride = c.hidden,
                                                .x = x,
                                                .x_type = DType::kF32,
                                                .x_stride = c.hidden,
                                                .weight = context.model.master(weight),
                                                .inverse_rms = inverse_rms,
                                                .dx = g.residual,
                                                .dx_type = DType::kF32,
                                                .dx_stride = c.hidden,
                                                .accumulate = true,
                                                .dweight = context.gradient(weight),
                                                .scratch = g.norm_scratch,
                                                .tokens = context.batch.rows,
                                                .groups = 1,
                                                .width = c.hidden});
}

// Through the norm of every q or k head, in place on the fused gradient; `first` is the heads' first column.
Status backward_head_norm(const BackwardContext& context, int weight, const LayerBuffers& b, int first,
                          int heads, const float* inverse_rms) {
  const ModelConfig& c = context.model.config();
  const DType compute = context.model.compute();
  const GradientBuffers& g = context.activations.gradients();
  void* const gradient = at(g.qkv, first, size_of(compute));
  return context.model.ops().rms_norm_backward({.dy = gradient,
                                                .dy_type = compute,
                                                .dy_stride = c.qkv_width(),
                                                .x = at(b.raw_qkv, first, size_of(compute)),
                                                .x_type = compute,
                                                .x_stride = c.qkv_width(),
                                                .weight = context.model.master(weight),
                                                .inverse_rms = inverse_rms,
                                                .dx = gradient,
                                                .dx_type = compute,
                                                .dx_stride = c.qkv_width(),
                                                .accumulate = false,
                                                .dweight = context.gradient(weight),
                                                .scratch = g.norm_scratch,
                                                .tokens = context.batch.rows,
                                                .groups = heads,
                                                .width = c.head_dim});
}

ops::AttentionBackward attention_arguments(const BackwardContext& context, const LayerBuffers& b) {
  const ModelConfig& c = context.model.config();
  const size_t element = size_of(context.model.compute());
  const GradientBuffers& g = context.activations.gradients();
  const int64_t keys = c.q_width(), values = c.q_width() + c.kv_width();
  const auto& sequences = context.key_values.sequences();
  return {.shape = attention_shape(context.model, context.key_values.stride()),
          .q = b.qkv,
          .out = b.attended,
          .dout = g.attended,
          .log_sum_exp = b.log_sum_exp,
          .dq = g.qkv,
          .dk = at(g.qkv, keys, element),
          .dv = at(g.qkv, values, element),
          .scratch = g.attention_scratch,
          .sequences = sequences.data(),
          .sequence_count = int64_t(sequences.size())};
}

Status backward_mlp(const BackwardContext& context, const LayerTensors& tensors, const LayerBuffers& b) {
  Model& model = context.model;
  ops::Ops& ops = model.ops();
  const ModelConfig& c = model.config();
  const DType compute = model.compute();
  const int64_t rows = context.batch.rows;
  const GradientBuffers& g = context.activations.gradients();
  SSRL_RETURN_IF_ERROR(round_residual(context));
  SSRL_RETURN_IF_ERROR(
      ops.linear_backward_input(model.packed(tensors.down), g.rounded, rows, g.activated, compute));
  // The activation, which was not kept, comes back beside its gradient: gate and up are read once for both.
  SSRL_RETURN_IF_ERROR(ops.swiglu_backward({.gate_up = b.gate_up,
                                            .dy = g.activated,
                                            .dgate_up = b.gate_up,
                                            .y = b.activated,
                                            .type = compute,
                                            .tokens = rows,
                                            .width = c.ffn}));
  SSRL_RETURN_IF_ERROR(ops.linear_backward_weight(g.rounded, b.activated, compute, rows, c.hidden, c.ffn,
                                                  context.gradient(tensors.down),
                                                  context.gradient(tensors.down_bias)));
  SSRL_RETURN_IF_ERROR(renormalize(context, tensors.post_norm, b.middle, b.normed));
  SSRL_RETURN_IF_ERROR(ops.linear_backward_weight(b.gate_up, b.normed, compute, rows, 2 * int64_t(c.ffn),
                                                  c.hidden, context.gradient(tensors.gate_up),
                                                  context.gradient(tensors.gate_up_bias)));
  SSRL_RETURN_IF_ERROR(
      ops.linear_backward_input(model.packed(tensors.gate_up), b.gate_up, rows, g.normed, DType::kF32));
  return backward_norm(context, tensors.post_norm, b.middle, b.post_inverse_rms);
}

Status backward_rotation(const BackwardContext& context, const LayerTensors& tensors, const LayerBuffers& b) {
  const Model& model = context.model;
  const ModelConfig& c = model.config();
  SSRL_RETURN_IF_ERROR(model.ops().rope({.x = context.activations.gradients().qkv,
                                         .type = model.compute(),
                                         .stride = c.qkv_width(),
                                         .positions = context.batch.positions,
                                         .cosines = model.cosines(),
                                         .sines = model.sines(),
                                         .tokens = context.batch.rows,
                                         .heads = c.heads + c.kv_heads,
                                         .head_dim = c.head_dim,
                                         .backward = true}));
  if (!c.qk_norm) return {};
  SSRL_RETURN_IF_ERROR(backward_head_norm(context, tensors.q_norm, b, 0, c.heads, b.q_inverse_rms));
  return backward_head_norm(context, tensors.k_norm, b, c.q_width(), c.kv_heads, b.k_inverse_rms);
}

Status backward_attention(const BackwardContext& context, const LayerTensors& tensors,
                          const LayerBuffers& b) {
  Model& model = context.model;
  ops::Ops& ops = model.ops();
  const ModelConfig& c = model.config();
  const DType compute = model.compute();
  const int64_t rows = context.batch.rows;
  const GradientBuffers& g = context.activations.gradients();
  SSRL_RETURN_IF_ERROR(round_residual(context));
  SSRL_RETURN_IF_ERROR(ops.linear_backward_weight(g.rounded, b.attended, compute, rows, c.hidden, c.q_width(),
                                                  context.gradient(tensors.output),
                                                  context.gradient(tensors.output_bias)));
  SSRL_RETURN_IF_ERROR(
      ops.linear_backward_input(model.packed(tensors.output), g.rounded, rows, g.attended, compute));
  SSRL_RETURN_IF_ERROR(ops.attention_backward(attention_arguments(context, b)));
  SSRL_RETURN_IF_ERROR(backward_rotation(context, tensors, b));
  SSRL_RETURN_IF_ERROR(renormalize(context, tensors.input_norm, b.input, b.normed));
  SSRL_RETURN_IF_ERROR(ops.linear_backward_weight(g.qkv, b.normed, compute, rows, c.qkv_width(), c.hidden,
                                                  context.gradient(tensors.qkv),
                                                  context.gradient(tensors.qkv_bias)));
  SSRL_RETURN_IF_ERROR(
      ops.linear_backward_input(model.packed(tensors.qkv), g.qkv, rows, g.normed, DType::kF32));
  return backward_norm(context, tensors.input_norm, b.input, b.input_inverse_rms);
}

}  // namespace

Status reserve_backward(const BackwardContext& context) {
  const size_t floats =
      context.model.ops().attention_backward_scratch(attention_arguments(context, LayerBuffers{}));
  return context.activations.reserve_attention_scratch(context.model, floats);
}

Status backward_layer(const BackwardContext& context, int layer) {
  const LayerTensors& tensors = context.model.layout().layers[layer];
  const LayerBuffers& buffers = context.activations.layer(layer);
  SSRL_RETURN_IF_ERROR(backward_mlp(context, tensors, buffers));
  return backward_attention(context, tensors, buffers);
}

}  // namespace ssrl
