// Which tensors a model has, how they are fused, and the Hugging Face parameter that each range of rows is.
#include <cmath>

#include "engine/model.h"

namespace ssrl {
namespace {

class LayoutBuilder {
 public:
  explicit LayoutBuilder(Layout& layout) : layout_(layout) {}

  int tensor(int64_t rows, int64_t columns, bool matrix) {
    layout_.tensors.push_back({rows, columns, matrix, layout_.elements});
    layout_.elements += layout_.tensors.back().elements();
    return static_cast<int>(layout_.tensors.size()) - 1;
  }

  void parameter(std::string name, int tensor, int64_t first_row, int64_t rows) {
    const TensorShape& shape = layout_.tensors[tensor];
    std::vector<int64_t> dimensions = {rows};
    if (shape.columns > 1 || shape.matrix) dimensions.push_back(shape.columns);
    layout_.by_name.emplace(name, static_cast<int>(layout_.parameters.size()));
    layout_.parameters.push_back(
        {std::move(name), std::move(dimensions), tensor, first_row * shape.columns, rows * shape.columns});
  }

  int whole(std::string name, int64_t rows, int64_t columns, bool matrix) {
    const int index = tensor(rows, columns, matrix);
    parameter(std::move(name), index, 0, rows);
    return index;
  }

 private:
  Layout& layout_;
};

LayerTensors add_attention(LayoutBuilder& builder, const ModelConfig& c, const std::string& prefix) {
  LayerTensors layer;
  const std::string attention = prefix + "self_attn.";
  layer.input_norm = builder.whole(prefix + "input_layernorm.weight", c.hidden, 1, false);
  layer.qkv = builder.tensor(c.qkv_width(), c.hidden, true);
  layer.qkv_bias = c.qkv_bias ? builder.tensor(c.qkv_width(), 1, false) : -1;
  const struct {
    const char* name;
    int first, rows;
  } parts[] = {{"q_proj", 0, c.q_width()},
               {"k_proj", c.q_width(), c.kv_width()},
               {"v_proj", c.q_width() + c.kv_width(), c.kv_width()}};
  for (const auto& part : parts) {
    builder.parameter(attention + part.name + ".weight", layer.qkv, part.first, part.rows);
    if (c.qkv_bias) builder.parameter(attention + part.name + ".bias", layer.qkv_bias, part.first, part.rows);
  }
  layer.q_norm = c.qk_norm ? builder.whole(attention + "q_norm.weight", c.head_dim, 1, false) : -1;
  layer.k_norm = c.qk_norm ? builder.whole(attention + "k_norm.weight", c.head_dim, 1, false) : -1;
  layer.output = builder.whole(attention + "o_proj.weight", c.hidden, c.q_width(), true);
  layer.output_bias = c.output_bias ? builder.whole(attention + "o_proj.bias", c.hidden, 1, false) : -1;
  return layer;
}

void add_mlp(LayoutBuilder& builder, const ModelConfig& c, const std::string& prefix, LayerTensors& layer) {
  layer.post_norm = builder.whole(prefix + "post_attention_layernorm.weight", c.hidden, 1, false);
  layer.gate_up = builder.tensor(2 * int64_t(c.ffn), c.hidden, true);
  layer.gate_up_bias = c.mlp_bias ? builder.tensor(2 * int64_t(c.ffn), 1, false) : -1;
  const char* parts[] = {"gate_proj", "up_proj"};
  for (int i = 0; i < 2; ++i) {
    const std::string name = prefix + "mlp." + parts[i];
    builder.parameter(name + ".weight", layer.gate_up, i * int64_t(c.ffn), c.ffn);
    if (c.mlp_bias) builder.parameter(name + ".bias", layer.gate_up_bias, i * int64_t(c.ffn), c.ffn);
  }
  layer.down = builder.whole(prefix + "mlp.down_proj.weight", c.hidden, c.ffn, true);
  layer.down_bias = c.mlp_bias ? builder.whole(prefix + "mlp.down_proj.bias", c.hidden, 1, false) : -1;
}

}  // namespace

Layout::Layout(const ModelConfig& c) {
  LayoutBuilder builder(*this);
  embedding = builder.whole("model.embed_tokens.weight", c.vocabulary, c.hidden, c.tied);
  // A matrix of one column is still a matrix to Hugging Face.
  parameters.back().shape = {c.vocabulary, c.hidden};
  for (int i = 0; i < c.layers; ++i) {
    const std::string prefix = "model.layers." + std::to_string(i) + ".";
    LayerTensors layer = add_attention(builder, c, prefix);
    add_mlp(builder, c, prefix, layer);
    layers.push_back(layer);
  }
  final_norm = builder.whole("model.norm.weight", c.hidden, 1, false);
  head = c.tied ? embedding : builder.whole("lm_head.weight", c.vocabulary, c.hidden, true);
}

Status check_config(const ModelConfig& c) {
  const struct {
    const char* name;
    int value, most;
  } sizes[] = {
      {"hidden_size", c.hidden, 1 << 20},           {"intermediate_size", c.ffn, 1 << 22},
      {"num_hidden_layers", c.layers, 1 << 14},     {"num_attention_heads", c.heads, 1 << 14},
      {"num_key_value_heads", c.kv_heads, 1 << 14}, {"head_dim", c.head_dim, 256},
      {"vocab_size", c.vocabulary, 1 << 26},        {"max_position_embeddings", c.max_positions, 1 << 30}};
  for (const auto& size : sizes) {
    if (size.value < 1 || size.value > size.most) {
      return model_format("Expected an integer from 1 to " + std::to_string(size.most) + " for " + size.name +
                          " but received " + std::to_string(size.value));
    }
  }
  if (c.head_dim % 2 != 0) {
    return model_format("Expected an even number for head_dim but received " + std::to_string(c.head_dim));
  }
  if (c.heads % c.kv_heads != 0) {
    return model_format("Expected a divisor of num_attention_heads (" + std::to_string(c.heads) +
                        ") for num_key_value_heads but received " + std::to_string(c.kv_heads));
  }
  if (!(c.rms_epsilon >= 0) || !std::isfinite(c.rms_epsilon) || !(c.rope_theta > 0) ||
      !std::isfinite(c.rope_theta)) {
    return model_format("Expected positive finite numbers for rms_norm_eps and rope_theta but received " +
                        std::to_string(c.rms_epsilon) + " and " + std::to_string(c.rope_theta));
  }
  if (!c.rope_factors.empty() && c.rope_factors.size() != size_t(c.head_dim / 2)) {
    return model_format("Expected " + std::to_string(c.head_dim / 2) + " rope factors but received " +
                        std::to_string(c.rope_factors.size()));
  }
  return {};
}

}  // namespace ssrl
