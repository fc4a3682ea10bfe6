// A model: its shape, its f32 master parameters, and their packed copies for the matrix products.
//
// Everything here belongs to the compute thread, but for what never changes after creation (config, layout,
// compute).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/buffer.h"
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
  std::vector<float>
      rope_factors;  // GGUF rope_freqs [d / 2]: each inverse frequency is divided by its factor
  bool qkv_bias = false, output_bias = false, mlp_bias = false, qk_norm = false, tied = false;

  int q_width() const { return heads * head_dim; }
  int kv_width() const { return kv_heads * head_dim; }
  int qkv_width() const { return q_width() + 2 * kv_width(); }
};

// kModelFormat naming the field whose value the engine can't compute with.
Status check_config(const ModelConfig& config);

// One Hugging Face parameter: a range of rows of a (possibly fused) tensor.
struct Parameter {
  std::string name;            // "model.layers.0.self_attn.q_proj.weight"
  std::vector<int64_t> shape;  // [rows, columns] or [rows]
  int tensor;                  // index into the model's tensors
  int64_t offset;              // first element in the tensor
  int64_t count;
};

// A fused f32 tensor: q, k and v stand in one, so do gate and up. All of a model lie in one slab of
// `elements` floats, each at `offset` from its start; the padding between them stays zero. Gradients and
// moments have the same layout.
struct TensorShape {
  int64_t rows;
  int64_t columns;  // 1 for norms and biases
  bool matrix;      // has a packed copy
  int64_t offset;

  // With the padding: tensors begin at multiples of 64 bytes.
  int64_t elements() const { return (rows * columns + 15) / 16 * 16; }
};

// Indices into Layout::tensors; -1 where the architecture has none.
struct LayerTensors {
  int input_norm, qkv, qkv_bias, q_norm, k_norm, output, output_bias, post_norm, gate_up, gate_up_bias, down,
      down_bias;
};

struct Layout {
  std::vector<TensorShape> tensors;
  std::vector<Parameter> parameters;  // in Hugging Face's order
  std::vector<LayerTensors> layers;
  int embedding = -1, final_norm = -1;
  int head = -1;  // equals `embedding` when the model is tied
  int64_t elements = 0;
  std::unordered_map<std::string, int> by_name;

  explicit Layout(const ModelConfig& config);
  Layout(const Layout&) = delete;
  Layout& operator=(const Layout&) = delete;
};

// The values of a model. Models that are clones of one another share them until one writes; a frozen clone
// shares the packed ones and has of the masters only what is not packed.
struct Weights {
  Buffer slab;                                             // Layout::elements floats; fewer when frozen
  std::vector<int64_t> offsets;                            // of each tensor in the slab, -1: not there
  std::vector<std::shared_ptr<ops::PackedWeight>> packed;  // one a tensor, null where it is no matrix
};

// cos and sin of every position's rotary angles, [positions, d / 2] each; grown on demand.
struct RopeTables {
  Buffer cosines, sines;
  int64_t positions = 0;
};

class Model {
 public:
  // Memory for all weights, zeroed and not yet packed. kOutOfMemory when masters and packed copies together
  // don't fit.
  static Result<std::unique_ptr<Model>> create(ops::Ops& ops, ModelConfig config, DType compute);

  const ModelConfig& config() const { return shared_->config; }
  const Layout& layout() const { return shared_->layout; }
  DType compute() const { return compute_; }
  ops::Ops& ops() const { return *ops_; }
  // Counts the changes of the weights: keys and values that were computed under another version are stale.
  uint64_t version() const { return version_; }

  // Only samples and scores: a clone without masters of its matrices.
  bool frozen() const { return frozen_; }

  // The f32 master of a tensor [rows, columns]; null for index -1, and for a frozen model's matrices.
  float* master(int tensor) const;
  float* slab() const { return weights_->slab.floats(); }
  size_t slab_bytes() const { return size_t(layout().elements) * sizeof(float); }
  ops::PackedWeight& packed(int tensor) const { return *weights_->packed[tensor]; }
  ops::PackedWeight& head() const { return packed(layout().head); }

  // x [tokens, D] = rows of the embedding, as the compute type has them.
  Status embed(const int32_t* ids, int64_t tokens, float* x) const;

  // Copies of one parameter in host memory, `count` floats. kInvalidArg names an unknown parameter, and
  // refuses to write a frozen model.
  Result<const Parameter*> find(const std::string& name) const;
  Status read(const Parameter& parameter, float* values) const;
  Status write(const Parameter& parameter, const float* values);

  // Before masters are written: takes a copy of the weights, or of the packed ones, for this model alone if a
  // clone has them too. kInvalidArg when frozen.
  Status make_unique();
  // After masters were written: brings all packed copies up to date.
  Status repack();
  // One step of AdamW on all masters and their packed copies. Those of the arguments that are arrays are laid
  // out like the slab; `weight`, `packed` and `count` are the model's own. make_unique() comes before.
  Status update(ops::AdamW step);

  // Shares the weights until one of the two is written.
  std::unique_ptr<Model> clone() const;
  // Shares the packed weights until this one is written, and holds no others than norms and biases (and the
  // embedding, when it is not the head too).
  Result<std::unique_ptr<Model>> clone_frozen() const;
  // True when another model has the same weights in memory.
  bool shares_weights() const { return weights_.use_count() > 1; }

  // Rope tables that reach at least `positions` positions. kInvalidArg beyond the model's context.
  Status reserve_positions(int64_t positions);
  const float* cosines() const { return rope_->cosines.floats(); }
  const float* sines() const { return rope_->sines.floats(); }

 private:
  struct Shared {
    explicit Shared(ModelConfig c) : config(std::move(c)), layout(config) {}
    ModelConfig config;
    Layout layout;
  };
  Model(ops::Ops& ops, std::shared_ptr<const Shared> shared, DType compute)
      : ops_(&ops), shared_(std::move(shared)), compute_(compute) {}
  Status pack(int tensor, std::shared_ptr<ops::PackedWeight>* out) const;

  ops::Ops* ops_;
  std::shared_ptr<const Shared> shared_;
  DType compute_;
  bool frozen_ = false;
  std::shared_ptr<Weights> weights_;
  std::shared_ptr<RopeTables> rope_;
  uint64_t version_ = 0;
};

// Fails with kOutOfMemory if `bytes` more can't be had now; for needs that are allocated piece by piece.
Status check_memory(ops::Ops& ops, double bytes, const char* what);

}  // namespace ssrl
