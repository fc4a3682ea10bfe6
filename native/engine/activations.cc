#include "engine/activations.h"

#include <algorithm>

namespace ssrl {
namespace {

size_t round_up(int64_t rows) {
  return size_t((rows + ops::kRowTile - 1) / ops::kRowTile * ops::kRowTile);
}

}  // namespace

// What one layer's backward pass reads, its input aside. Normed rows and the activated MLP are left out: they
// cost one cheap kernel each to compute again.
void Activations::carve_layer(const Model& model, Carver& carver, LayerBuffers& layer) {
  const ModelConfig& c = model.config();
  const size_t element = size_of(model.compute());
  layer.middle = carver.take_floats(rows_ * c.hidden);
  layer.qkv = carver.take(rows_ * c.qkv_width() * element);
  layer.raw_qkv = c.qk_norm ? carver.take(rows_ * c.qkv_width() * element) : nullptr;
  layer.attended = carver.take(rows_ * c.q_width() * element);
  layer.gate_up = carver.take(rows_ * 2 * c.ffn * element);
  layer.log_sum_exp = carver.take_floats(rows_ * c.heads);
  layer.input_inverse_rms = carver.take_floats(rows_);
  layer.post_inverse_rms = carver.take_floats(rows_);
  layer.q_inverse_rms = c.qk_norm ? carver.take_floats(rows_ * c.heads) : nullptr;
  layer.k_inverse_rms = c.qk_norm ? carver.take_floats(rows_ * c.kv_heads) : nullptr;
}

void Activations::carve_gradients(const Model& model, Carver& carver) {
  const ModelConfig& c = model.config();
  const size_t element = size_of(model.compute());
  GradientBuffers& g = gradients_;
  g.residual = carver.take_floats(rows_ * c.hidden);
  g.rounded = model.compute() == DType::kF32 ? g.residual : carver.take(rows_ * c.hidden * element);
  g.normed = carver.take_floats(rows_ * c.hidden);
  g.qkv = carver.take(rows_ * c.qkv_width() * element);
  g.attended = carver.take(rows_ * c.q_width() * element);
  g.activated = carver.take(rows_ * c.ffn * element);
  g.norm_scratch = carver.take_floats(size_t(model.ops().max_threads()) * std::max(c.hidden, c.head_dim));
}

size_t Activations::carve(const Model& model, void* base, int kept) {
  const ModelConfig& c = model.config();
  const size_t element = size_of(model.compute());
  Carver carver(base);
  LayerBuffers shared = {};
  shared.normed = carver.take(rows_ * c.hidden * element);
  shared.activated = carver.take(rows_ * c.ffn * element);
  if (kept < c.layers) carve_layer(model, carver, shared);
  layers_.assign(c.layers, shared);
  // The backward pass begins with the last layers: theirs are kept.
  first_kept_ = c.layers - kept;
  final_input_ = carver.take_floats(rows_ * c.hidden);
  for (int i = 0; i < c.layers; ++i) {
    layers_[i].input = carver.take_floats(rows_ * c.hidden);
    if (i >= first_kept_) carve_layer(model, carver, layers_[i]);
  }
  for (int i = 0; i < c.layers; ++i)
    layers_[i].output = i + 1 < c.layers ? layers_[i + 1].input : final_input_;
  active_input_ = carver.take_floats(active_ * c.hidden);
  inverse_rms_ = carver.take_floats(active_);
  hidden_ = carver.take(active_ * c.hidden * element);
  hidden_gradient_ = carver.take_floats(active_ * c.hidden);
  carve_gradients(model, carver);
  return carver.used();
}

Status Activations::reserve(const Model& model, int64_t rows, int64_t active, int64_t budget) {
  if (size_t(rows) <= rows_ && size_t(active) <= active_) return {};
  rows_ = std::max(rows_, round_up(rows));
  active_ = std::max(active_, round_up(active));
  memory_.reset();
  Carver one_layer(nullptr);
  LayerBuffers unused = {};
  carve_layer(model, one_layer, unused);
  const int layers = model.config().layers;
  int kept = int(std::clamp<int64_t>(budget / int64_t(one_layer.used()), 0, layers));
  for (;;) {
    const Status status = memory_.allocate(model.ops(), carve(model, nullptr, kept));
    if (status.ok()) break;
    if (status.code() != Code::kOutOfMemory || kept == 0) {
      rows_ = active_ = 0;
      return status;
    }
    kept /= 2;
  }
  carve(model, memory_.data(), kept);
  gradients_.attention_scratch = attention_scratch_.floats();
  return {};
}

Status Activations::reserve_attention_scratch(const Model& model, size_t floats) {
  SSRL_RETURN_IF_ERROR(attention_scratch_.reserve(model.ops(), floats * sizeof(float)));
  gradients_.attention_scratch = attention_scratch_.floats();
  return {};
}

}  // namespace ssrl
