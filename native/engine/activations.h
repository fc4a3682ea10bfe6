// Memory of a training pass: what the backward pass needs of each layer, kept as far as the budget goes and
// computed again from the layer's input beyond it - with the same bits, as it is the same code on the same
// rows.
#pragma once

#include <vector>

#include "engine/buffer.h"
#include "engine/transformer.h"

namespace ssrl {

// Gradients in flight; [rows, ...].
struct GradientBuffers {
  float* residual;           // [D] with respect to the residual stream
  void* rounded;             // [D] the same in the compute type; `residual` itself when that is F32
  float* normed;             // [D] with respect to the input of a matrix product, f32
  void* qkv;                 // [qkv_width] compute type
  void* attended;            // [q_width]
  void* activated;           // [F]
  float* norm_scratch;       // [max_threads, max(D, d)]
  float* attention_scratch;  // as large as asked for
};

class Activations {
 public:
  // Room for `rows` rows of which `active` enter the loss, keeping whole layers while `budget` bytes hold
  // them. Where memory runs out, fewer layers are kept; kOutOfMemory when not even one layer at a time fits.
  Status reserve(const Model& model, int64_t rows, int64_t active, int64_t budget);
  Status reserve_attention_scratch(const Model& model, size_t floats);

  bool is_kept(int layer) const { return layer >= first_kept_; }
  int kept() const { return int(layers_.size()) - first_kept_; }
  const LayerBuffers& layer(int index) const { return layers_[index]; }
  const GradientBuffers& gradients() const { return gradients_; }

  float* final_input() const { return final_input_; }          // [rows, D] what the last layer leaves
  float* active_input() const { return active_input_; }        // [active, D] its rows that enter the loss
  float* inverse_rms() const { return inverse_rms_; }          // [active] of the final norm
  void* hidden() const { return hidden_; }                     // [active, D] compute type, final-normed
  float* hidden_gradient() const { return hidden_gradient_; }  // [active, D]

  size_t bytes() const { return memory_.bytes() + attention_scratch_.bytes(); }

 private:
  size_t carve(const Model& model, void* base, int kept);
  void carve_layer(const Model& model, Carver& carver, LayerBuffers& layer);
  void carve_gradients(const Model& model, Carver& carver);

  Buffer memory_, attention_scratch_;
  size_t rows_ = 0, active_ = 0;
  int first_kept_ = 0;
  std::vector<LayerBuffers> layers_;
  GradientBuffers gradients_ = {};
  float *final_input_ = nullptr, *active_input_ = nullptr, *inverse_rms_ = nullptr,
        *hidden_gradient_ = nullptr;
  void* hidden_ = nullptr;
};

}  // namespace ssrl
