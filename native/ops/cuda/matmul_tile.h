// What the bf16 products are made of: pieces of the operands in shared memory, their fragments, and how a
// result is stored. See matmul.cu for the order of a sum.
#pragma once

#include "ops/cuda/matmul.h"

namespace ssrl::cuda {

constexpr int kDepth = 32;   // of K at a time
constexpr int kSlice = 128;  // of K that is summed from zero

// Pieces of 16 bytes in a line of a tile with `Side` rows (or columns). Lines are those rows, kDepth along K;
// or, Transposed, steps of K, Side along the rows.
template <bool Transposed, int Side>
constexpr int kLinePieces = (Transposed ? Side : kDepth) / 8;

// Where the piece lies: exchanged with its neighbours, so that neither ldmatrix nor the copies meet in a bank
// when lines are shorter than the 128 bytes of all banks, or as long.
template <bool Transposed, int Side>
__device__ __forceinline__ int tile_place(int line, int piece) {
  constexpr int kPieces = kLinePieces<Transposed, Side>, kTurns = kPieces < 8 ? kPieces : 8;
  return line * kPieces * 8 + 8 * (piece ^ (line / (8 / kTurns) & (kTurns - 1)));
}

// What a copy of 16 bytes can't take: rows that are not aligned.
__device__ inline Words gather_words(const Bf16* from, int64_t left) {
  Words words{};
  for (int i = 0; i < 8; ++i) {
    if (i < left) words.word[i / 2] |= static_cast<uint32_t>(from[i].bits) << (16 * (i % 2));
  }
  return words;
}

struct Operand {
  const Bf16* data;
  int64_t lines, width;  // the matrix as it is stored
  bool aligned;
};

template <bool Transposed>
__device__ __forceinline__ Operand operand_of(const void* data, int64_t side, int64_t depth) {
  const int64_t width = Transposed ? side : depth;
  return {static_cast<const Bf16*>(data), Transposed ? depth : side, width,
          width % 8 == 0 && aligned16(static_cast<const Bf16*>(data))};
}

// Rows `first` .. and K from `k` on, by `Threads` threads of which this is number `thread`; zeros past the
// ends.
template <bool Transposed, int Side, int Threads, int N>
__device__ __forceinline__ void fill_tile(Shared<Bf16, N>& tile, int base, const Operand& from, int64_t first,
                                          int64_t k, int thread) {
  constexpr int kPieces = kLinePieces<Transposed, Side>;
  const int64_t first_line = Transposed ? k : first, first_column = Transposed ? first : k;
  for (int item = thread; item < Side * kDepth / 8; item += Threads) {
    const int64_t line = first_line + item / kPieces, column = first_column + item % kPieces * 8;
    const int to = base + tile_place<Transposed, Side>(item / kPieces, item % kPieces);
    const bool inside = line < from.lines && column < from.width;
    const Bf16* source = inside ? from.data + line * from.width + column : from.data;
    if (from.aligned) {
      cp_async(tile, to, source, inside);
    } else {
      tile.store_words(to, gather_words(source, inside ? from.width - column : 0));
    }
  }
}

// The fragment [16, 16] of a at (row, k).
template <bool Transposed, int Side, int N>
__device__ __forceinline__ Matrices load_a(const Shared<Bf16, N>& tile, int base, int row, int k) {
  const int lane = lane_index(), matrix = lane / 8;
  const int at_row = row + (matrix & 1) * 8, at_k = k + (matrix >> 1) * 8;
  const int place = Transposed ? tile_place<true, Side>(at_k + lane % 8, at_row / 8)
                               : tile_place<false, Side>(at_row + lane % 8, at_k / 8);
  return ldmatrix<Transposed>(tile, base + place);
}

// The fragments [16, 8] of b at (k, column) and (k, column + 8).
template <bool Transposed, int Side, int N>
__device__ __forceinline__ Matrices load_b(const Shared<Bf16, N>& tile, int base, int column, int k) {
  const int lane = lane_index(), matrix = lane / 8;
  const int at_column = column + (matrix >> 1) * 8, at_k = k + (matrix & 1) * 8;
  const int place = Transposed ? tile_place<true, Side>(at_k + lane % 8, at_column / 8)
                               : tile_place<false, Side>(at_column + lane % 8, at_k / 8);
  return ldmatrix<Transposed>(tile, base + place);
}

// sums [16 Down, 8 Across] += a · b over one kDepth, for the fragments that begin at (row, column).
template <bool TransposedA, bool TransposedB, int Rows, int Columns, int Down, int Across, int NA, int NB>
__device__ __forceinline__ void multiply_step(Accumulator (&sums)[Down][Across], const Shared<Bf16, NA>& a,
                                              int a_base, int row, const Shared<Bf16, NB>& b, int b_base,
                                              int column) {
#pragma unroll
  for (int k = 0; k < kDepth; k += 16) {
    Matrices left[Down], right[Across / 2];
#pragma unroll
    for (int i = 0; i < Down; ++i) left[i] = load_a<TransposedA, Rows>(a, a_base, row + 16 * i, k);
#pragma unroll
    for (int j = 0; j < Across / 2; ++j) {
      right[j] = load_b<TransposedB, Columns>(b, b_base, column + 16 * j, k);
    }
#pragma unroll
    for (int i = 0; i < Down; ++i) {
#pragma unroll
      for (int j = 0; j < Across; ++j) {
        const uint32_t pair[2] = {right[j / 2].part[j % 2 * 2], right[j / 2].part[j % 2 * 2 + 1]};
        mma(&sums[i][j], left[i].part, pair);
      }
    }
  }
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

struct alignas(8) FloatPair {
  float first, second;
};

// Two neighbours, in one access where memory allows it.
__device__ __forceinline__ void store_products(const Gemm& g, int64_t row, int64_t column, float first,
                                               float second) {
  const int64_t at = row * g.columns + column;
  const bool wide = g.c_type == DType::kF32;
  char* c = static_cast<char*>(g.c) + at * (wide ? 4 : 2);
  if (row >= g.rows || column + 1 >= g.columns || reinterpret_cast<uintptr_t>(c) % (wide ? 8 : 4) != 0) {
    store_product(g, row, column, first);
    store_product(g, row, column + 1, second);
    return;
  }
  if (g.bias != nullptr) {
    first += g.bias[column];
    second += g.bias[column + 1];
  }
  if (wide) {
    auto* pair = reinterpret_cast<FloatPair*>(c);
    const FloatPair before = g.accumulate ? *pair : FloatPair{};
    *pair = g.accumulate ? FloatPair{before.first + first, before.second + second} : FloatPair{first, second};
  } else {
    *reinterpret_cast<uint32_t*>(c) = pack_bf16(first, second);
  }
}

}  // namespace ssrl::cuda
