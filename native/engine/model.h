// A model: its shape, its f32 master parameters, and their packed copies for the matrix products.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ops/ops.h"
#include "status.h"

namespace ssrl {

struct ModelConfig {
  std::string architecture;  // LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM
  int hidden = 0;            // D
  int ffn = 0;               // F
  int layers = 0;
  int heads = 0;     // H
  int kv_heads = 0;  // K
  int head_dim = 0;  // d
  int vocabulary = 0;
  int max_positions = 0;
  float rms_epsilon = 0;
  double rope_theta = 0;
  // Llama 3 rope scaling; factor 0: none.
  double rope_factor = 0, rope_low_frequency = 0, rope_high_frequency = 0, rope_original_positions = 0;
  std::vector<float> rope_factors;  // GGUF rope_freqs [d / 2]: each inverse frequency is divided by its factor
  bool qkv_bias = false, output_bias = false, mlp_bias = false, qk_norm = false, tied = false;

  int q_width() const { return heads * head_dim; }
  int kv_width() const { return kv_heads * head_dim; }
  int qkv_width() const { return q_width() + 2 * kv_width(); }
};

// One Hugging Face parameter: a range of rows of a (possibly fused) tensor.
struct Parameter {
  std::string name;            // "model.layers.0.self_attn.q_proj.weight"
  std::vector<int64_t> shape;  // [rows, columns] or [rows]
  int tensor;                  // index into the model's tensors
  int64_t offset;              // first element in the tensor
  int64_t count;
};

// A fused f32 master: q, k and v stand in one tensor, so do gate and up.
struct Tensor {
  std::string name;
  int64_t rows = 0;
  int64_t columns = 1;
  bool matrix = false;      // has a packed copy
  float* master = nullptr;  // [rows, columns]
  std::unique_ptr<ops::PackedWeight> packed;
};

}  // namespace ssrl
