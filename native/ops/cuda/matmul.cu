// Matrix products in the three transposes that a layer needs: tiles of 64 x 64, K in steps of 32 through two
// buffers that are filled by asynchronous copies, bf16 on the tensor cores with f32 sums. An element is
// summed over K in one order and by one warp, so that a row's bits depend on nothing but the row. Tiles lie
// in shared memory with their pieces of 16 bytes exchanged, so that neither ldmatrix nor the copies meet in a
// bank.
#include "ops/cuda/matmul.h"

namespace ssrl::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kTile = 64, kDepth = 32;

struct Tiles {
  Shared<Bf16, 2 * kTile * kDepth> a, b;  // two buffers each
};

// Where in a buffer the piece of 8 elements lies that begins at (line, 8 * piece). Lines are rows of the
// tile, 32 along K; or, Transposed, steps of K, 64 along the rows.
template <bool Transposed>
__device__ __forceinline__ int place_of(int line, int piece) {
  return Transposed ? line * kTile + 8 * (piece ^ (line & 7)) : line * kDepth + 8 * (piece ^ (line >> 1 & 3));
}

// What a copy of 16 bytes can't take: rows that are not aligned.
__device__ Words gather_words(const Bf16* from, int64_t left) {
  Words words{};
  for (int i = 0; i < 8; ++i) {
    if (i < left) words.word[i / 2] |= static_cast<uint32_t>(from[i].bits) << (16 * (i % 2));
  }
  return words;
}

struct Operand {
  const Bf16* data;
  int64_t lines, width;  // the matrix as it is stored
};

// Lines first_line .. and columns first_column .. of the operand; zeros past its ends.
template <bool Transposed>
__device__ __forceinline__ void fill(Shared<Bf16, 2 * kTile * kDepth>& tile, int buffer, const Operand& from,
                                     int64_t first_line, int64_t first_column) {
  constexpr int kPieces = (Transposed ? kTile : kDepth) / 8;
  const bool aligned = from.width % 8 == 0 && aligned16(from.data);
  for (int item = thread_index(); item < kTile * kDepth / 8; item += kThreads) {
    const int64_t line = first_line + item / kPieces, column = first_column + item % kPieces * 8;
    const int to = buffer * kTile * kDepth + place_of<Transposed>(item / kPieces, item % kPieces);
    const bool inside = line < from.lines && column < from.width;
    const Bf16* source = inside ? from.data + line * from.width + column : from.data;
    if (aligned) {
      cp_async(tile, to, source, inside);
    } else {
      tile.store_words(to, gather_words(source, inside ? from.width - column : 0));
    }
  }
}

// The fragment [16, 16] of a at (row, k).
template <bool Transposed>
__device__ __forceinline__ Matrices load_a(const Shared<Bf16, 2 * kTile * kDepth>& tile, int buffer, int row,
                                           int k) {
  const int lane = lane_index(), matrix = lane / 8;
  const int at_row = row + (matrix & 1) * 8, at_k = k + (matrix >> 1) * 8;
  const int place =
      Transposed ? place_of<true>(at_k + lane % 8, at_row / 8) : place_of<false>(at_row + lane % 8, at_k / 8);
  return ldmatrix<Transposed>(tile, buffer * kTile * kDepth + place);
}

// The fragments [16, 8] of b at (k, column) and (k, column + 8).
template <bool Transposed>
__device__ __forceinline__ Matrices load_b(const Shared<Bf16, 2 * kTile * kDepth>& tile, int buffer,
                                           int column, int k) {
  const int lane = lane_index(), matrix = lane / 8;
  const int at_column = column + (matrix >> 1) * 8, at_k = k + (matrix & 1) * 8;
  const int place = Transposed ? place_of<true>(at_k + lane % 8, at_column / 8)
                               : place_of<false>(at_column + lane % 8, at_k / 8);
  return ldmatrix<Transposed>(tile, buffer * kTile * kDepth + place);
}

__device__ __forceinline__ void store_product(const Gemm& g, int64_t row, int64_t column, float value) {
  if (row >= g.rows || column >= g.columns) return;
  if (g.bias != nullptr) value += g.bias[column];
  const int64_t at = row * g.columns + column;
  if (g.c_type == DType::kF32) {
    float* c = static_cast<float*>(g.c) + at;
    *c = g.accumulate ? *c + value : value;
  } else {
    static_cast<Bf16*>(g.c)[at] = from_float<Bf16>(value);
  }
}

// Four warps, each with 32 x 32 of the tile.
template <bool TransposedA, bool TransposedB>
__global__ void __launch_bounds__(kThreads) multiply_bf16(Gemm g) {
  Tiles& tiles = shared_memory<Tiles>();
  const int64_t row = static_cast<int64_t>(block_x()) * kTile,
                column = static_cast<int64_t>(block_y()) * kTile;
  const Operand a{static_cast<const Bf16*>(g.a), TransposedA ? g.depth : g.rows,
                  TransposedA ? g.rows : g.depth};
  const Operand b{static_cast<const Bf16*>(g.b), TransposedB ? g.depth : g.columns,
                  TransposedB ? g.columns : g.depth};
  const auto fill_both = [&](int buffer, int64_t k) {
    fill<TransposedA>(tiles.a, buffer, a, TransposedA ? k : row, TransposedA ? row : k);
    fill<TransposedB>(tiles.b, buffer, b, TransposedB ? k : column, TransposedB ? column : k);
    commit();
  };
  const int warp_row = warp_index() / 2 * 32, warp_column = warp_index() % 2 * 32;
  Accumulator sums[2][4] = {};
  fill_both(0, 0);
  int buffer = 0;
  for (int64_t k = 0; k < g.depth; k += kDepth, buffer ^= 1) {
    if (k + kDepth < g.depth) {
      fill_both(buffer ^ 1, k + kDepth);
      wait<1>();
    } else {
      wait<0>();
    }
    sync_threads();
#pragma unroll
    for (int step = 0; step < kDepth; step += 16) {
      Matrices left[2], right[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        left[i] = load_a<TransposedA>(tiles.a, buffer, warp_row + 16 * i, step);
        right[i] = load_b<TransposedB>(tiles.b, buffer, warp_column + 16 * i, step);
      }
#pragma unroll
      for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const uint32_t pair[2] = {right[j / 2].part[j % 2 * 2], right[j / 2].part[j % 2 * 2 + 1]};
          mma(&sums[i][j], left[i].part, pair);
        }
      }
    }
    sync_threads();
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        store_product(g, row + warp_row + 16 * i + lane_index() / 4 + 8 * (e / 2),
                      column + warp_column + 8 * j + lane_index() % 4 * 2 + e % 2, sums[i][j].value[e]);
      }
    }
  }
}

// ---- f32, without tensor cores: the oracle's precision, for tests and for f32 models

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

// Column sums, rows in order.
template <typename T>
__global__ void __launch_bounds__(kThreads) add_columns(const T* x, int64_t rows, int64_t width, float* out) {
  const int64_t column = grid_index();
  if (column >= width) return;
  float sum = 0;
  for (int64_t row = 0; row < rows; ++row) sum += to_float(x[row * width + column]);
  out[column] += sum;
}

template <bool TransposedA, bool TransposedB>
Status launch_product(const Gemm& g, Stream stream) {
  const bool wide = g.type == DType::kF32;
  const int64_t side = wide ? kSide : kTile;
  const LaunchShape shape{
      {static_cast<unsigned>(pieces_of(g.rows, side)), static_cast<unsigned>(pieces_of(g.columns, side))},
      kThreads,
      wide ? sizeof(FloatTiles) : sizeof(Tiles)};
  if (wide) return launch(multiply_f32<TransposedA, TransposedB>, shape, stream, g);
  return launch(multiply_bf16<TransposedA, TransposedB>, shape, stream, g);
}

}  // namespace

Status multiply(const Gemm& g, Stream stream) {
  if (g.rows == 0 || g.columns == 0) return {};
  if (g.transposed_a) return launch_product<true, true>(g, stream);
  return g.transposed_b ? launch_product<false, true>(g, stream) : launch_product<false, false>(g, stream);
}

Status add_column_sums(const void* x, DType type, int64_t rows, int64_t width, float* out, Stream stream) {
  if (rows == 0 || width == 0) return {};
  const LaunchShape shape{{static_cast<unsigned>(pieces_of(width, kThreads))}, kThreads};
  return with_type(type, [&](auto element) {
    using T = decltype(element);
    return launch(add_columns<T>, shape, stream, static_cast<const T*>(x), rows, width, out);
  });
}

}  // namespace ssrl::cuda
