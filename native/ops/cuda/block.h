// What kernels that give a block to a row of the vocabulary share: sums over the block, and the one way a row
// of logits becomes log-probs and an entropy.
#pragma once

#include <cmath>

#include "ops/cuda/device.h"

namespace ssrl::cuda {

// Of every kernel that gives a block to a row: log-probs have the same bits in all of them. So many, because
// at few rows a multiprocessor has no other block to hide latency with.
constexpr int kRowThreads = 512;

struct Best {
  float score;
  int32_t index;
};

struct BlockMemory {
  Shared<double, 32> doubles;
  Shared<uint64_t, 32> integers;
  Shared<float, 32> scores;
  Shared<int32_t, 32> indices;
};

template <typename T>
__device__ __forceinline__ auto& slots_of(BlockMemory& memory) {
  if constexpr (std::is_same_v<T, double>) {
    return memory.doubles;
  } else if constexpr (std::is_same_v<T, float>) {
    return memory.scores;
  } else {
    return memory.integers;
  }
}

// The sum over the block in every thread: lanes by pairs, then warps in order.
template <int Threads, typename T>
__device__ T block_sum(BlockMemory& memory, T value) {
  auto& slots = slots_of<T>(memory);
  value = warp_sum(value);
  if (lane_index() == 0) slots.store(warp_index(), value);
  sync_threads();
  T sum = 0;
  for (int warp = 0; warp < Threads / 32; ++warp) sum += slots.load(warp);
  sync_threads();
  return sum;
}

template <int Threads>
__device__ float block_maximum(BlockMemory& memory, float value) {
  value = warp_maximum(value);
  if (lane_index() == 0) memory.scores.store(warp_index(), value);
  sync_threads();
  float maximum = memory.scores.load(0);
  for (int warp = 1; warp < Threads / 32; ++warp) {
    const float other = memory.scores.load(warp);
    maximum = other > maximum ? other : maximum;
  }
  sync_threads();
  return maximum;
}

__device__ __forceinline__ bool is_better(const Best& a, const Best& b) {
  return a.score > b.score || (a.score == b.score && a.index < b.index);
}

// The largest score, the lowest index on a tie.
template <int Threads>
__device__ Best block_best(BlockMemory& memory, Best best) {
  for (int flip = 16; flip > 0; flip /= 2) {
    const Best other{shuffle_xor(best.score, flip), shuffle_xor(best.index, flip)};
    if (is_better(other, best)) best = other;
  }
  if (lane_index() == 0) {
    memory.scores.store(warp_index(), best.score);
    memory.indices.store(warp_index(), best.index);
  }
  sync_threads();
  best = {memory.scores.load(0), memory.indices.load(0)};
  for (int warp = 1; warp < Threads / 32; ++warp) {
    const Best other{memory.scores.load(warp), memory.indices.load(warp)};
    if (is_better(other, best)) best = other;
  }
  sync_threads();
  return best;
}

struct RowSoftmax {
  float maximum;      // of the scaled logits
  float log_sum_exp;  // log of the sum of exp(scaled - maximum)
  float entropy;
};

// Every log-prob of the device comes from here, so that equal logits give equal log-probs in scoring,
// sampling and training. Scaled logits are logits[i] * inverse_temperature.
template <int Threads>
__device__ RowSoftmax log_softmax_row(BlockMemory& memory, const float* logits, int64_t vocabulary,
                                      float inverse_temperature) {
  float largest = logits[0];
  for (int64_t i = thread_index(); i < vocabulary; i += Threads) {
    largest = logits[i] > largest ? logits[i] : largest;
  }
  // Rounding is monotone: the largest scaled logit is the scaled largest.
  const float maximum = block_maximum<Threads>(memory, largest) * inverse_temperature;
  double total = 0, weighted = 0;
  for (int64_t i = thread_index(); i < vocabulary; i += Threads) {
    // Far below the maximum everything is 0 alike, and 0 * -infinity must not become NaN.
    const float distance = logits[i] * inverse_temperature - maximum;
    const float shifted = distance < -200.0f ? -200.0f : distance;
    const float weight = exponential(shifted);
    total += weight;
    weighted += weight * shifted;
  }
  total = block_sum<Threads>(memory, total);
  weighted = block_sum<Threads>(memory, weighted);
  const double log_sum = logarithm(total);
  return {maximum, static_cast<float>(log_sum), static_cast<float>(log_sum - weighted / total)};
}

}  // namespace ssrl::cuda
