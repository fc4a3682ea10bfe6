// Rotary position embedding, in place: a thread turns eight neighbouring pairs of one head.
#include "ops/cuda/kernels.h"

namespace ssrl::cuda {
namespace {

constexpr int kThreads = 128;

template <typename T>
__global__ void __launch_bounds__(kThreads) rotate(ops::Rope a, int64_t items) {
  const int64_t half = a.head_dim / 2, pieces = pieces_of(half, 8);
  for (int64_t item = grid_index(); item < items; item += grid_stride()) {
    const int64_t token = item / (pieces * a.heads), head = item / pieces % a.heads, j = item % pieces * 8;
    const int64_t row = static_cast<int64_t>(a.positions[token]) * half;
    T* first = static_cast<T*>(a.x) + token * a.stride + head * a.head_dim;
    T* second = first + half;
    const Eight cosine = load_eight(a.cosines + row, j, half), sine = load_eight(a.sines + row, j, half);
    Eight left = load_eight(first, j, half), right = load_eight(second, j, half);
    for (int i = 0; i < 8; ++i) {
      const float turn = a.backward ? -sine.value[i] : sine.value[i];
      const float x = left.value[i], y = right.value[i];
      left.value[i] = fmaf(-y, turn, x * cosine.value[i]);
      right.value[i] = fmaf(x, turn, y * cosine.value[i]);
    }
    store_eight(first, j, half, left);
    store_eight(second, j, half, right);
  }
}

}  // namespace

Status rope(const ops::Rope& a, Stream stream) {
  const int64_t items = a.tokens * a.heads * pieces_of(a.head_dim / 2, 8);
  if (items == 0) return {};
  return with_type(a.type, [&](auto type) {
    return launch<rotate<decltype(type)>>(grid_for(items, kThreads), stream, a, items);
  });
}

}  // namespace ssrl::cuda
