#include "engine/transformer.h"

#include <algorithm>
#include <cmath>

#include "engine/packing.h"

namespace ssrl {
namespace {

// Address of element `index` of a buffer of the compute type.
void* at(const void* base, int64_t index, size_t element) {
  return const_cast<char*>(static_cast<const char*>(base)) + index * int64_t(element);
}

Status normalize(Model& model, int weight, const float* x, void* y, float* inverse_rms, int64_t rows) {
  const ModelConfig& c = model.config();
  return model.ops().rms_norm({.x = x,
                               .x_type = DType::kF32,
                               .x_stride = c.hidden,
                               .y = y,
                               .y_type = model.compute(),
                               .y_stride = c.hidden,
                               .weight = model.master(weight),
                               .inverse_rms = inverse_rms,
                               .tokens = rows,
                               .groups = 1,
                               .width = c.hidden,
                               .epsilon = c.rms_epsilon});
}

// Qwen 3: every head of q (or k) is normalized on its own, in place.
Status normalize_heads(Model& model, int weight, void* x, int heads, float* inverse_rms, int64_t rows) {
  const ModelConfig& c = model.config();
  return model.ops().rms_norm({.x = x,
                               .x_type = model.compute(),
                               .x_stride = c.qkv_width(),
                               .y = x,
                               .y_type = model.compute(),
                               .y_stride = c.qkv_width(),
                               .weight = model.master(weight),
                               .inverse_rms = inverse_rms,
                               .tokens = rows,
                               .groups = heads,
                               .width = c.head_dim,
                               .epsilon = c.rms_epsilon});
}

Status project_qkv(Model& model, const LayerTensors& tensors, const int32_t* positions, int64_t rows,
                   const LayerBuffers& b) {
  const ModelConfig& c = model.config();
  ops::Ops& ops = model.ops();
  const size_t element = size_of(model.compute());
  void* const keys = at(b.qkv, c.q_width(), element);
  SSRL_RETURN_IF_ERROR(normalize(model, tensors.input_norm, b.input, b.normed, b.input_inverse_rms, rows));
  SSRL_RETURN_IF_ERROR(ops.linear(model.packed(tensors.qkv), b.normed, rows, model.master(tensors.qkv_bias),
                                  b.qkv, model.compute(), false));
  if (c.qk_norm) {
    if (b.raw_qkv != nullptr) {
      SSRL_RETURN_IF_ERROR(ops.copy(b.raw_qkv, b.qkv, size_t(rows) * c.qkv_width() * element));
    }
    SSRL_RETURN_IF_ERROR(normalize_heads(model, tensors.q_norm, b.qkv, c.heads, b.q_inverse_rms, rows));
    SSRL_RETURN_IF_ERROR(normalize_heads(model, tensors.k_norm, keys, c.kv_heads, b.k_inverse_rms, rows));
  }
  // Keys follow the queries in the fused row and turn by the same angles.
  return ops.rope({.x = b.qkv,
                   .type = model.compute(),
                   .stride = c.qkv_width(),
                   .positions = positions,
                   .cosines = model.cosines(),
                   .sines = model.sines(),
                   .tokens = rows,
                   .heads = c.heads + c.kv_heads,
                   .head_dim = c.head_dim,
                   .backward = false});
}

Status run_mlp(Model& model, const LayerTensors& tensors, int64_t rows, const LayerBuffers& b) {
  const ModelConfig& c = model.config();
  ops::Ops& ops = model.ops();
  SSRL_RETURN_IF_ERROR(normalize(model, tensors.post_norm, b.middle, b.normed, b.post_inverse_rms, rows));
  SSRL_RETURN_IF_ERROR(ops.linear(model.packed(tensors.gate_up), b.normed, rows,
                                  model.master(tensors.gate_up_bias), b.gate_up, model.compute(), false));
  if (b.output == nullptr) return {};
  SSRL_RETURN_IF_ERROR(ops.swiglu(
      {.gate_up = b.gate_up, .y = b.activated, .type = model.compute(), .tokens = rows, .width = c.ffn}));
  if (b.output != b.middle) {
    SSRL_RETURN_IF_ERROR(ops.copy(b.output, b.middle, size_t(rows) * c.hidden * sizeof(float)));
  }
  return ops.linear(model.packed(tensors.down), b.activated, rows, model.master(tensors.down_bias), b.output,
                    DType::kF32, true);
}

// Keys and values in the pages of a cache.
class PagedKeyValues final : public KeyValues {
 public:
  PagedKeyValues(Model& model, Workspace& workspace, const PagedBatch& batch)
      : model_(model), workspace_(workspace), batch_(batch), element_(size_of(model.compute())) {
    const int64_t width = model.config().kv_width();
    half_page_ = size_t(ops::kKeyBlock) * width * element_;
    workspace.key_pointers.resize(batch.rows);
    workspace.value_pointers.resize(batch.rows);
    for (int64_t s = 0; s < batch.sequence_count; ++s) {
      const PagedSequence& sequence = batch.sequences[s];
      for (int32_t i = 0; i < sequence.rows; ++i) {
        const int32_t position = sequence.position + i;
        char* page = static_cast<char*>(sequence.pages[position / ops::kKeyBlock]);
        workspace.key_pointers[sequence.first_row + i] =
            page + (position % ops::kKeyBlock) * width * element_;
      }
      const int32_t blocks = (sequence.position + sequence.rows + ops::kKeyBlock - 1) / ops::kKeyBlock;
      for (int32_t block = 0; block < blocks; ++block) keys_.push_back(sequence.pages[block]);
    }
    values_.resize(keys_.size());
    size_t first = 0;
    for (int64_t s = 0; s < batch.sequence_count; ++s) {
      const PagedSequence& sequence = batch.sequences[s];
      sequences_.push_back({.query_row = sequence.first_row,
                            .query_count = sequence.rows,
                            .position = sequence.position,
                            .key_blocks = &keys_[first],
                            .value_blocks = &values_[first]});
      first += (sequence.position + sequence.rows + ops::kKeyBlock - 1) / ops::kKeyBlock;
    }
  }

  Status bind(int layer, const void* qkv) override {
    if (layer > 0) {
      for (const void*& block : keys_) block = static_cast<const char*>(block) + 2 * half_page_;
      for (void*& row : workspace_.key_pointers) row = static_cast<char*>(row) + 2 * half_page_;
    }
    for (size_t i = 0; i < keys_.size(); ++i) values_[i] = static_cast<const char*>(keys_[i]) + half_page_;
    for (int64_t i = 0; i < batch_.rows; ++i) {
      workspace_.value_pointers[i] = static_cast<char*>(workspace_.key_pointers[i]) + half_page_;
    }
    const ModelConfig& c = model_.config();
    ops::Ops& ops = model_.ops();
    SSRL_RETURN_IF_ERROR(ops.scatter_rows(at(qkv, c.q_width(), element_), model_.compute(), c.qkv_width(),
                                          batch_.rows, c.kv_width(), workspace_.key_pointers.data()));
    return ops.scatter_rows(at(qkv, c.q_width() + c.kv_width(), element_), model_.compute(), c.qkv_width(),
                            batch_.rows, c.kv_width(), workspace_.value_pointers.data());
  }
  int64_t stride() const override { return model_.config().kv_width(); }

 private:
  Model& model_;
  Workspace& workspace_;
  const PagedBatch& batch_;
  size_t element_, half_page_;
  std::vector<const void*> keys_, values_;
};

Status run_layers(Model& model, const int32_t* tokens, const int32_t* positions, int64_t rows,
                  const LayerBuffers& buffers, KeyValues& key_values, void* hidden, const AbortFlag* abort,
                  int layers) {
  const ModelConfig& c = model.config();
  SSRL_RETURN_IF_ERROR(model.embed(tokens, rows, buffers.input));
  const int count = layers < 0 ? c.layers : std::min(layers, c.layers);
  for (int layer = 0; layer < count; ++layer) {
    SSRL_RETURN_IF_ERROR(check_abort(abort));
    SSRL_RETURN_IF_ERROR(forward_layer(model, layer, positions, rows, buffers, key_values));
  }
  return normalize(model, model.layout().final_norm, buffers.output, hidden, nullptr, rows);
}

Status reserve_for(Model& model, Workspace& workspace, const int32_t* positions, int64_t rows) {
  if (rows < 1) return invalid_arg("Expected at least one row in a batch but received none");
  SSRL_RETURN_IF_ERROR(model.reserve_positions(int64_t(*std::max_element(positions, positions + rows)) + 1));
  return workspace.reserve(model, rows);
}

}  // namespace

ops::AttentionShape attention_shape(const Model& model, int64_t kv_stride) {
  const ModelConfig& c = model.config();
  return {.type = model.compute(),
          .heads = c.heads,
          .kv_heads = c.kv_heads,
          .head_dim = c.head_dim,
          .scale = float(1 / std::sqrt(double(c.head_dim))),
          .q_stride = c.qkv_width(),
          .kv_stride = kv_stride,
          .out_stride = c.q_width()};
}

Status forward_layer(Model& model, int layer, const int32_t* positions, int64_t rows, const LayerBuffers& b,
                     KeyValues& key_values) {
  const ModelConfig& c = model.config();
  const LayerTensors& tensors = model.layout().layers[layer];
  ops::Ops& ops = model.ops();
  SSRL_RETURN_IF_ERROR(project_qkv(model, tensors, positions, rows, b));
  SSRL_RETURN_IF_ERROR(key_values.bind(layer, b.qkv));
  const auto& sequences = key_values.sequences();
  SSRL_RETURN_IF_ERROR(ops.attention({.shape = attention_shape(model, key_values.stride()),
                                      .q = b.qkv,
                                      .out = b.attended,
                                      .log_sum_exp = b.log_sum_exp,
                                      .sequences = sequences.data(),
                                      .sequence_count = int64_t(sequences.size())}));
  if (b.middle != b.input) {
    SSRL_RETURN_IF_ERROR(ops.copy(b.middle, b.input, size_t(rows) * c.hidden * sizeof(float)));
  }
  SSRL_RETURN_IF_ERROR(ops.linear(model.packed(tensors.output), b.attended, rows,
                                  model.master(tensors.output_bias), b.middle, DType::kF32, true));
  return run_mlp(model, tensors, rows, b);
}

Status Workspace::reserve(const Model& model, int64_t rows) {
  if (rows <= rows_) return {};
  rows_ = 0;
  const ModelConfig& c = model.config();
  const size_t padded = size_t((rows + ops::kRowTile - 1) / ops::kRowTile * ops::kRowTile);
  const size_t element = size_of(model.compute());
  auto carve = [&](void* base) {
    Carver carver(base);
    buffers_.input = buffers_.middle = buffers_.output = carver.take_floats(padded * c.hidden);
    buffers_.normed = carver.take(padded * c.hidden * element);
    buffers_.qkv = carver.take(padded * c.qkv_width() * element);
    buffers_.attended = carver.take(padded * c.q_width() * element);
    buffers_.gate_up = carver.take(padded * 2 * c.ffn * element);
    buffers_.activated = carver.take(padded * c.ffn * element);
    return carver.used();
  };
  SSRL_RETURN_IF_ERROR(memory_.allocate(model.ops(), carve(nullptr)));
  carve(memory_.data());
  rows_ = int64_t(padded);
  return {};
}

Status forward_paged(Model& model, Workspace& workspace, const PagedBatch& batch, void* hidden, int layers) {
  SSRL_RETURN_IF_ERROR(reserve_for(model, workspace, batch.positions, batch.rows));
  PagedKeyValues key_values(model, workspace, batch);
  return run_layers(model, batch.tokens, batch.positions, batch.rows, workspace.buffers(), key_values, hidden,
                    nullptr, layers);
}

Status forward_packed(Model& model, Workspace& workspace, const PackedBatch& batch, void* hidden,
                      const AbortFlag* abort, int layers) {
  SSRL_RETURN_IF_ERROR(reserve_for(model, workspace, batch.positions, batch.rows));
  PackedKeyValues key_values(model, workspace.gathered, batch);
  return run_layers(model, batch.tokens, batch.positions, batch.rows, workspace.buffers(), key_values, hidden,
                    abort, layers);
}

}  // namespace ssrl
