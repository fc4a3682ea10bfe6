// The one header of the CUDA kernels. Under nvcc it is the GPU; in the emulated build it is C++ on an
// emulation of the execution model, and the kernels can't tell which. Blocks are one-dimensional, of whole
// warps.
#pragma once

#if defined(__CUDACC__)
#include "ops/cuda/gpu/device.h"
#else
#include "ops/cuda/emulation/device.h"
#endif

namespace ssrl::cuda {

__device__ __forceinline__ int lane_index() {
  return thread_index() & 31;
}
__device__ __forceinline__ int warp_index() {
  return thread_index() >> 5;
}

// The sum over the lanes of the warp, the same bits in every lane: at each step both lanes of a pair add the
// same two values.
template <typename T>
__device__ __forceinline__ T warp_sum(T value) {
  for (int flip = 16; flip > 0; flip /= 2) value += shuffle_xor(value, flip);
  return value;
}
template <typename T>
__device__ __forceinline__ T warp_maximum(T value) {
  for (int flip = 16; flip > 0; flip /= 2) {
    const T other = shuffle_xor(value, flip);
    value = other > value ? other : value;
  }
  return value;
}

// Eight neighbouring elements of a row, as floats: what a thread of a row-wise kernel works on. Which thread
// has which elements does not depend on whether they can be moved in pieces of 16 bytes.
struct Eight {
  float value[8];
};

template <typename T>
__device__ __forceinline__ bool aligned16(const T* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
}

// Elements begin .. begin + 8 of a row of `width`; 0 past its end.
template <typename T>
__device__ __forceinline__ Eight load_eight(const T* row, int64_t begin, int64_t width) {
  Eight out;
  const T* from = row + begin;
  if (begin + 8 <= width && aligned16(from)) {
    if constexpr (sizeof(T) == 4) {
      for (int half = 0; half < 2; ++half) {
        const Words words = load_words(from + 4 * half);
        memcpy(out.value + 4 * half, words.word, sizeof words);
      }
    } else {
      const Words words = load_words(from);
      for (int i = 0; i < 8; ++i) {
        out.value[i] = to_float(Bf16{static_cast<uint16_t>(words.word[i / 2] >> (16 * (i % 2)))});
      }
    }
    return out;
  }
  for (int i = 0; i < 8; ++i) out.value[i] = begin + i < width ? to_float(from[i]) : 0.0f;
  return out;
}

template <typename T>
__device__ __forceinline__ void store_eight(T* row, int64_t begin, int64_t width, const Eight& values) {
  T* to = row + begin;
  if (begin + 8 <= width && aligned16(to)) {
    constexpr int kPerPiece = 16 / sizeof(T);
    for (int piece = 0; piece < 8 / kPerPiece; ++piece) {
      alignas(16) T rounded[kPerPiece];
      for (int i = 0; i < kPerPiece; ++i) rounded[i] = from_float<T>(values.value[piece * kPerPiece + i]);
      Words words;
      memcpy(words.word, rounded, sizeof words);
      store_words(to + piece * kPerPiece, words);
    }
    return;
  }
  for (int i = 0; i < 8; ++i) {
    if (begin + i < width) to[i] = from_float<T>(values.value[i]);
  }
}

constexpr int64_t pieces_of(int64_t count, int64_t piece) {
  return (count + piece - 1) / piece;
}

// Threads of a grid of one dimension; each takes items index(), index() + stride(), ...
__device__ __forceinline__ int64_t grid_index() {
  return static_cast<int64_t>(block_x()) * block_threads() + thread_index();
}
__device__ __forceinline__ int64_t grid_stride() {
  return static_cast<int64_t>(grid_x()) * block_threads();
}

// A grid for `items` threads: enough blocks for every multiprocessor several times over, and no more.
inline LaunchShape grid_for(int64_t items, int threads = 128) {
  constexpr int64_t kMostBlocks = 4096;
  const int64_t blocks = pieces_of(items, threads);
  return {{static_cast<unsigned>(blocks < kMostBlocks ? blocks : kMostBlocks)}, threads};
}

}  // namespace ssrl::cuda
