// silu(gate) * up, forward and backward: a thread takes eight neighbouring columns of one token.
#include "ops/cuda/kernels.h"

namespace ssrl::cuda {
namespace {

constexpr int kThreads = 128;

// Below -88 it is 0: exp of the opposite would overflow, and infinity times a gradient of 0 is no number.
__device__ __forceinline__ float sigmoid(float x) {
  return x < -88.0f ? 0.0f : 1.0f / (1.0f + exponential(-x));
}

// One order of operations, as both passes give the same bits.
__device__ __forceinline__ float activation(float gate, float sigmoid_of_gate, float up) {
  return gate * sigmoid_of_gate * up;
}

template <typename T>
__global__ void __launch_bounds__(kThreads) forward(ops::Swiglu a, int64_t items) {
  const int64_t pieces = pieces_of(a.width, 8);
  for (int64_t item = grid_index(); item < items; item += grid_stride()) {
    const int64_t token = item / pieces, j = item % pieces * 8;
    const T* row = static_cast<const T*>(a.gate_up) + token * 2 * a.width;
    const Eight gate = load_eight(row, j, a.width), up = load_eight(row + a.width, j, a.width);
    Eight y;
    for (int i = 0; i < 8; ++i) y.value[i] = activation(gate.value[i], sigmoid(gate.value[i]), up.value[i]);
    store_eight(static_cast<T*>(a.y) + token * a.width, j, a.width, y);
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads) backward(ops::SwigluBackward a, int64_t items) {
  const int64_t pieces = pieces_of(a.width, 8);
  for (int64_t item = grid_index(); item < items; item += grid_stride()) {
    const int64_t token = item / pieces, j = item % pieces * 8;
    const T* row = static_cast<const T*>(a.gate_up) + token * 2 * a.width;
    const Eight gate = load_eight(row, j, a.width), up = load_eight(row + a.width, j, a.width);
    const Eight dy = load_eight(static_cast<const T*>(a.dy) + token * a.width, j, a.width);
    Eight dgate, dup, y;
    for (int i = 0; i < 8; ++i) {
      const float s = sigmoid(gate.value[i]);
      dgate.value[i] = dy.value[i] * up.value[i] * (s * fmaf(gate.value[i], 1.0f - s, 1.0f));
      dup.value[i] = dy.value[i] * (gate.value[i] * s);
      y.value[i] = activation(gate.value[i], s, up.value[i]);
    }
    T* out = static_cast<T*>(a.dgate_up) + token * 2 * a.width;
    store_eight(out, j, a.width, dgate);
    store_eight(out + a.width, j, a.width, dup);
    store_eight(static_cast<T*>(a.y) + token * a.width, j, a.width, y);
  }
}

}  // namespace

Status swiglu(const ops::Swiglu& a, Stream stream) {
  const int64_t items = a.tokens * pieces_of(a.width, 8);
  if (items == 0) return {};
  return with_type(a.type, [&](auto type) {
    return launch<forward<decltype(type)>>(grid_for(items, kThreads), stream, a, items);
  });
}

Status swiglu_backward(const ops::SwigluBackward& a, Stream stream) {
  const int64_t items = a.tokens * pieces_of(a.width, 8);
  if (items == 0) return {};
  return with_type(a.type, [&](auto type) {
    return launch<backward<decltype(type)>>(grid_for(items, kThreads), stream, a, items);
  });
}

}  // namespace ssrl::cuda
