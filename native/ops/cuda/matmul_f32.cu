// Matrix products in f32, without tensor cores: the oracle's precision, for tests and for f32 models. A sum
// runs over K in one order in one thread.
#include "ops/cuda/matmul_tile.h"

namespace ssrl::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kSide = 32, kPerThread = kSide * kSide / kThreads;

struct FloatTiles {
  Shared<float, kSide*(kSide + 1)> a, b;  // [k, row or column]; the odd stride keeps columns in other banks
};

template <bool Transposed>
__device__ __forceinline__ float element(const void* data, int64_t line, int64_t k, int64_t lines,
                                         int64_t depth) {
  if (line >= lines || k >= depth) return 0.0f;
  return static_cast<const float*>(data)[Transposed ? k * lines + line : line * depth + k];
}

template <bool TransposedA, bool TransposedB>
__global__ void __launch_bounds__(kThreads, 4) multiply_f32(Gemm g) {
  FloatTiles& tiles = shared_memory<FloatTiles>();
  const int64_t row = static_cast<int64_t>(block_x()) * kSide,
                column = static_cast<int64_t>(block_y()) * kSide;
  float sums[kPerThread] = {};
  for (int64_t k = 0; k < g.depth; k += kSide) {
    for (int item = thread_index(); item < kSide * kSide; item += kThreads) {
      // Neighbouring threads read neighbouring addresses, whichever way the operand is stored.
      const int line = item / kSide, along = item % kSide;
      const int a_line = TransposedA ? along : line, a_k = TransposedA ? line : along;
      const int b_line = TransposedB ? along : line, b_k = TransposedB ? line : along;
      tiles.a.store(a_k * (kSide + 1) + a_line,
                    element<TransposedA>(g.a, row + a_line, k + a_k, g.rows, g.depth));
      tiles.b.store(b_k * (kSide + 1) + b_line,
                    element<TransposedB>(g.b, column + b_line, k + b_k, g.columns, g.depth));
    }
    sync_threads();
    for (int step = 0; step < kSide; ++step) {
      const float right = tiles.b.load(step * (kSide + 1) + lane_index());
#pragma unroll
      for (int i = 0; i < kPerThread; ++i) {
        const float left = tiles.a.load(step * (kSide + 1) + warp_index() * kPerThread + i);
        sums[i] = fmaf(left, right, sums[i]);
      }
    }
    sync_threads();
  }
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    store_product(g, row + warp_index() * kPerThread + i, column + lane_index(), sums[i]);
  }
}

template <bool TransposedA, bool TransposedB>
Status launch_floats(const Gemm& g, Stream stream) {
  const LaunchShape shape{
      {static_cast<unsigned>(pieces_of(g.rows, kSide)), static_cast<unsigned>(pieces_of(g.columns, kSide))},
      kThreads,
      sizeof(FloatTiles)};
  return launch<multiply_f32<TransposedA, TransposedB>>(shape, stream, g);
}

}  // namespace

Status multiply_floats(const Gemm& g, Stream stream) {
  if (g.transposed_a) return launch_floats<true, true>(g, stream);
  return g.transposed_b ? launch_floats<false, true>(g, stream) : launch_floats<false, false>(g, stream);
}

}  // namespace ssrl::cuda
