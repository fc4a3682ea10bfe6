// The backward pass of the layers, over the activations of a packed forward pass.
#pragma once

#include "engine/activations.h"
#include "engine/transformer.h"

namespace ssrl {

// What the backward pass of every layer shares.
struct BackwardContext {
  Model& model;
  const PackedBatch& batch;
  const KeyValues& key_values;
  Activations& activations;
  float* slab;  // gradients of all weights, Layout::elements floats, added to

  float* gradient(int tensor) const {
    return tensor < 0 ? nullptr : slab + model.layout().tensors[tensor].offset;
  }
};

// Room for the scratch of the attention kernel.
Status reserve_backward(const BackwardContext& context);

// gradients().residual [rows, D]: in, with respect to what the layer leaves; out, to what it finds. The
// buffers of `layer` must hold its forward pass, and key_values be bound to it; gate_up is overwritten.
Status backward_layer(const BackwardContext& context, int layer);

}  // namespace ssrl
