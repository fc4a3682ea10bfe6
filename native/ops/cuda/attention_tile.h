// What the attention kernels are made of: rows of queries, keys and values in shared memory, and the two
// products of a warp, with the same fragments for both element types. bf16 runs on the tensor cores; f32, the
// oracle's precision, on fused multiply-adds in the order of the depth.
#pragma once

#include "ops/cuda/attention.h"

namespace ssrl::cuda {

constexpr float kLog2E = 1.44269504f;
constexpr float kLn2 = 0.693147181f;

// Elements in 16 bytes.
template <typename T>
constexpr int kPiece = 16 / sizeof(T);

// Where the piece of a row lies. The pieces of eight neighbouring rows are exchanged, so that reading one
// piece of each of them meets every bank once.
template <typename T, int Width>
__device__ __forceinline__ int place_of(int row, int piece) {
  return row * Width + kPiece<T> * (piece ^ (row & 7));
}

// Columns of a head, in memory as wide as Width: all of them, or as many steps of 16 as head_dim needs.
template <int Width, bool Exact>
struct Depth {
  int head_dim;
  __device__ __forceinline__ int columns() const { return Exact ? Width : head_dim; }
  __device__ __forceinline__ int steps() const { return Exact ? Width / 16 : (head_dim + 15) / 16; }
};

template <typename T>
__device__ Words gather_elements(const T* from, int left) {
  Words words{};
#pragma unroll
  for (int i = 0; i < kPiece<T>; ++i) {
    if (i >= left) continue;
    if constexpr (sizeof(T) == 4) {
      memcpy(words.word + i, from + i, 4);
    } else {
      words.word[i / 2] |= static_cast<uint32_t>(from[i].bits) << (16 * (i % 2));
    }
  }
  return words;
}

// Rows `first` .. of the tile from source(row), which is null for a row of zeros; zeros past head_dim.
template <int Threads, int Width, bool Exact, typename T, int N, typename Source>
__device__ __forceinline__ void fill_rows(Shared<T, N>& tile, int first, int rows, Depth<Width, Exact> depth,
                                          const Source& source) {
  const int pieces = depth.steps() * 16 / kPiece<T>, columns = depth.columns();
  for (int item = thread_index(); item < rows * pieces; item += Threads) {
    const int row = item / pieces, piece = item % pieces, column = piece * kPiece<T>;
    const int to = place_of<T, Width>(first + row, piece);
    const T* from = source(row);
    if (from == nullptr || column >= columns) {
      tile.store_words(to, Words{});
    } else if (column + kPiece<T> <= columns && aligned16(from + column)) {
      cp_async(tile, to, from + column, true);
    } else {
      tile.store_words(to, gather_elements(from + column, columns - column));
    }
  }
}

// ---- bf16: [16, 16] of rows, and [16, 16] for the right-hand side of two products

template <int Width, int N>
__device__ __forceinline__ Matrices load_left(const Shared<Bf16, N>& tile, int row, int step) {
  const int lane = lane_index(), matrix = lane / 8;
  return ldmatrix<false>(tile,
                         place_of<Bf16, Width>(row + (matrix & 1) * 8 + lane % 8, 2 * step + (matrix >> 1)));
}

// c[16, 8 Tiles] += left · (rows of b from b_row on)ᵀ, depth step by step.
template <int Width, int Tiles, int N, typename Left>
__device__ __forceinline__ void multiply_rows(Accumulator (&c)[Tiles], const Left& left,
                                              const Shared<Bf16, N>& b, int b_row, int steps) {
  const int lane = lane_index(), matrix = lane / 8;
#pragma unroll
  for (int step = 0; step < Width / 16; ++step) {
    if (step >= steps) continue;
    const Matrices a = left(step);
#pragma unroll
    for (int pair = 0; pair < Tiles / 2; ++pair) {
      const int row = b_row + 16 * pair + (matrix >> 1) * 8 + lane % 8;
      const Matrices right = ldmatrix<false>(b, place_of<Bf16, Width>(row, 2 * step + (matrix & 1)));
      mma(&c[2 * pair], a.part, {right.part[0], right.part[1]});
      mma(&c[2 * pair + 1], a.part, {right.part[2], right.part[3]});
    }
  }
}

// Weights [16, Keys] of a warp, ready to be multiplied with rows.
template <typename T, int Keys>
struct Weights;

template <int Keys>
struct Weights<Bf16, Keys> {
  struct Memory {};
  uint32_t part[Keys / 16][4];

  // The fragments of a sum are those of a left-hand side, two neighbours together.
  __device__ __forceinline__ Weights(Memory&, const Accumulator (&w)[Keys / 8]) {
#pragma unroll
    for (int step = 0; step < Keys / 16; ++step) {
      const Accumulator &low = w[2 * step], &high = w[2 * step + 1];
      part[step][0] = pack_bf16(low.value[0], low.value[1]);
      part[step][1] = pack_bf16(low.value[2], low.value[3]);
      part[step][2] = pack_bf16(high.value[0], high.value[1]);
      part[step][3] = pack_bf16(high.value[2], high.value[3]);
    }
  }

  // c[16, 16] += the weights · columns 16 n .. of the rows of b from b_row on.
  template <int Width, int N>
  __device__ __forceinline__ void multiply(Accumulator& c0, Accumulator& c1, const Shared<Bf16, N>& b,
                                           int b_row, int n) const {
    const int lane = lane_index(), matrix = lane / 8;
#pragma unroll
    for (int step = 0; step < Keys / 16; ++step) {
      const int row = b_row + 16 * step + (matrix & 1) * 8 + lane % 8;
      const Matrices right = ldmatrix<true>(b, place_of<Bf16, Width>(row, 2 * n + (matrix >> 1)));
      mma(&c0, part[step], {right.part[0], right.part[1]});
      mma(&c1, part[step], {right.part[2], right.part[3]});
    }
  }
};

// ---- f32: a lane has rows lane / 4 and 8 below it, and columns 2 (lane % 4) and the next of each eight

struct FloatRow {
  Words upper, lower;
};

template <int Width, int N>
__device__ __forceinline__ float element_of(const Shared<float, N>& tile, int row, int column) {
  return tile.load(place_of<float, Width>(row, column / 4) + column % 4);
}

__device__ __forceinline__ float float_of(const Words& words, int i) {
  float value;
  memcpy(&value, words.word + i, 4);
  return value;
}

// `left(piece)` gives four elements of the lane's two rows.
template <int Width, int Tiles, int N, typename Left>
__device__ __forceinline__ void multiply_rows(Accumulator (&c)[Tiles], const Left& left,
                                              const Shared<float, N>& b, int b_row, int steps) {
  for (int piece = 0; piece < 4 * steps; ++piece) {
    const FloatRow a = left(piece);
#pragma unroll
    for (int tile = 0; tile < Tiles; ++tile) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int row = b_row + 8 * tile + lane_index() % 4 * 2 + e;
        const Words right = b.load_words(place_of<float, Width>(row, piece));
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float value = float_of(right, i);
          c[tile].value[e] = fmaf(float_of(a.upper, i), value, c[tile].value[e]);
          c[tile].value[2 + e] = fmaf(float_of(a.lower, i), value, c[tile].value[2 + e]);
        }
      }
    }
  }
}

template <int Keys>
struct Weights<float, Keys> {
  static constexpr int kStride = Keys + 4;  // rows in other banks
  struct Memory {
    Shared<float, 4 * 16 * kStride> values;  // of each warp
  };
  const Memory& memory;
  int base;

  __device__ __forceinline__ Weights(Memory& to, const Accumulator (&w)[Keys / 8])
      : memory(to), base(warp_index() * 16 * kStride + lane_index() / 4 * kStride) {
    sync_warp();
#pragma unroll
    for (int tile = 0; tile < Keys / 8; ++tile) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        to.values.store(base + i / 2 * 8 * kStride + 8 * tile + lane_index() % 4 * 2 + i % 2,
                        w[tile].value[i]);
      }
    }
    sync_warp();
  }

  template <int Width, int N>
  __device__ __forceinline__ void multiply(Accumulator& c0, Accumulator& c1, const Shared<float, N>& b,
                                           int b_row, int n) const {
    // Summed up apart from what was there: long sums of f32 lose less in parts.
    Accumulator parts[2] = {};
    for (int key = 0; key < Keys; ++key) {
      const float upper = memory.values.load(base + key),
                  lower = memory.values.load(base + 8 * kStride + key);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int column = 16 * n + i / 2 * 8 + lane_index() % 4 * 2 + i % 2;
        const float value = element_of<Width>(b, b_row + key, column);
        Accumulator& c = parts[i / 2];
        c.value[i % 2] = fmaf(upper, value, c.value[i % 2]);
        c.value[2 + i % 2] = fmaf(lower, value, c.value[2 + i % 2]);
      }
    }
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      c0.value[e] += parts[0].value[e];
      c1.value[e] += parts[1].value[e];
    }
  }
};

// ---- for both: the 16 rows of a tile from `row` on, as the left-hand side of multiply_rows

template <int Width, int N>
struct LeftRows {
  const Shared<Bf16, N>& tile;
  int row;
  __device__ __forceinline__ Matrices operator()(int step) const { return load_left<Width>(tile, row, step); }
};

template <int Width, int N>
struct LeftFloats {
  const Shared<float, N>& tile;
  int row;
  __device__ __forceinline__ FloatRow operator()(int piece) const {
    const int upper = row + lane_index() / 4;
    return {tile.load_words(place_of<float, Width>(upper, piece)),
            tile.load_words(place_of<float, Width>(upper + 8, piece))};
  }
};

template <int Width, int N>
__device__ __forceinline__ LeftRows<Width, N> rows_of(const Shared<Bf16, N>& tile, int row) {
  return {tile, row};
}
template <int Width, int N>
__device__ __forceinline__ LeftFloats<Width, N> rows_of(const Shared<float, N>& tile, int row) {
  return {tile, row};
}

// Two neighbouring elements of a row, whose number of columns is even.
__device__ __forceinline__ void store_two(float* to, float first, float second) {
  to[0] = first;
  to[1] = second;
}
__device__ __forceinline__ void store_two(Bf16* to, float first, float second) {
  const uint32_t both = pack_bf16(first, second);
  if (reinterpret_cast<uintptr_t>(to) % 4 == 0) {
    *reinterpret_cast<uint32_t*>(to) = both;
  } else {
    to[0] = {static_cast<uint16_t>(both)};
    to[1] = {static_cast<uint16_t>(both >> 16)};
  }
}

// The sum, and the largest, of the four lanes that share a row of fragments.
__device__ __forceinline__ float quad_sum(float value) {
  value += shuffle_xor(value, 1);
  return value + shuffle_xor(value, 2);
}
__device__ __forceinline__ float quad_maximum(float value) {
  const float other = shuffle_xor(value, 1);
  value = other > value ? other : value;
  const float third = shuffle_xor(value, 2);
  return third > value ? third : value;
}

}  // namespace ssrl::cuda
