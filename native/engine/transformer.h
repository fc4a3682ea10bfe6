// The transformer's forward pass, written once over packed rows: prompts, decoded tokens and training
// sequences run through the same layer code with the same kernels, so that a row has the same bits in all of
// them.
#pragma once

#include <cstdint>
#include <vector>

#include "abort.h"
#include "engine/model.h"
#include "ops/ops.h"

namespace ssrl {

// Rows of one sequence in a paged batch. A page holds kKeyBlock tokens of every layer:
// [layers, 2 (keys, values), kKeyBlock, kv_heads, head_dim] of the compute type.
struct PagedSequence {
  int64_t first_row;  // its first row in the batch
  int32_t rows;
  int32_t position;    // position of that row; the pages hold all keys before it
  void* const* pages;  // [ceil((position + rows) / kKeyBlock)]
};

struct PagedBatch {
  const int32_t* tokens;     // [rows], each below the vocabulary size
  const int32_t* positions;  // [rows]
  int64_t rows;
  const PagedSequence* sequences;  // in row order, covering all rows
  int64_t sequence_count;
};

// Sequences one after another. One whose first row is at a position above 0 goes on from the rows of the one
// before: its first tokens are theirs, and stand in the batch once.
struct PackedBatch {
  const int32_t* tokens;     // [rows], each below the vocabulary size
  const int32_t* positions;  // [rows], rising by 1 within a sequence
  int64_t rows;
  const int64_t* starts;  // [sequence_count + 1], from 0 to rows
  int64_t sequence_count;
};

inline size_t page_bytes(const ModelConfig& config, DType compute) {
  return size_t(config.layers) * 2 * ops::kKeyBlock * config.kv_width() * size_of(compute);
}

// Hands out consecutive, aligned pieces of one block of memory; with a null base it only measures.
class Carver {
 public:
  explicit Carver(void* base) : base_(reinterpret_cast<uintptr_t>(base)) {}
  void* take(size_t bytes) {
    void* piece = reinterpret_cast<void*>(base_ + used_);
    used_ += (bytes + 63) / 64 * 64;
    return piece;
  }
  float* take_floats(size_t count) { return static_cast<float*>(take(count * sizeof(float))); }
  size_t used() const { return used_; }

 private:
  uintptr_t base_;
  size_t used_ = 0;
};

// Where the activations of one layer go; [rows, ...] of the compute type unless they are float. Pointers may
// coincide where nothing is kept for a backward pass.
struct LayerBuffers {
  float* input;     // [D] the residual stream as the layer finds it
  float* middle;    // [D] after attention; may be `input`
  float* output;    // [D] as the layer leaves it; may be `middle`; null: end at gate_up, for a backward pass
  void* normed;     // [D] the input of a fused matrix product
  void* qkv;        // [qkv_width] rotated queries and keys, values
  void* raw_qkv;    // [qkv_width] before the q and k norms, or null
  void* attended;   // [q_width]
  void* gate_up;    // [2 F]
  void* activated;  // [F]
  float* log_sum_exp;        // [H], or null like the four below
  float* input_inverse_rms;  // [1]
  float* post_inverse_rms;   // [1]
  float* q_inverse_rms;      // [H]
  float* k_inverse_rms;      // [K]
};

// Says where the keys and values of a layer lie.
class KeyValues {
 public:
  virtual ~KeyValues() = default;
  // Called when qkv holds the layer's fresh keys and values; afterwards sequences() leads to all of them.
  virtual Status bind(int layer, const void* qkv) = 0;
  const std::vector<ops::AttentionSequence>& sequences() const { return sequences_; }
  virtual int64_t stride() const = 0;  // elements between neighbouring tokens of a block

 protected:
  std::vector<ops::AttentionSequence> sequences_;
};

// Attention over this model's fused q/k/v rows; `kv_stride` as in ops::AttentionShape.
ops::AttentionShape attention_shape(const Model& model, int64_t kv_stride);

// One layer: input -> middle -> output. `cosines` etc. must reach all positions (Model::reserve_positions).
Status forward_layer(Model& model, int layer, const int32_t* positions, int64_t rows,
                     const LayerBuffers& buffers, KeyValues& key_values);

// Memory for a forward pass that keeps nothing; grows to the largest batch seen and is used again.
class Workspace {
 public:
  // Room for `rows` rows. kOutOfMemory leaves the workspace empty.
  Status reserve(const Model& model, int64_t rows);
  const LayerBuffers& buffers() const { return buffers_; }

  std::vector<void*> key_pointers, value_pointers;  // where fresh rows of a paged batch go
  Buffer gathered;                                  // keys and values of a packed batch
  Buffer hidden, head_scratch, scores;              // for those who go on from the hidden rows

 private:
  Buffer memory_;
  int64_t rows_ = 0;
  LayerBuffers buffers_ = {};
};

// hidden [rows, D] of the compute type, after the final norm: what the head multiplies. Fresh keys and values
// are written to their pages. `layers` limits how many run (-1: all), for self-tests.
Status forward_paged(Model& model, Workspace& workspace, const PagedBatch& batch, void* hidden,
                     int layers = -1);

// The same over packed sequences, whose keys and values are forgotten again. The flag is looked at before
// every layer.
Status forward_packed(Model& model, Workspace& workspace, const PackedBatch& batch, void* hidden,
                      const AbortFlag* abort = nullptr, int layers = -1);

}  // namespace ssrl
