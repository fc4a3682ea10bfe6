// Causal attention over pages of keys, with grouped queries: prefill, append, decode and training are one
// kernel, whose blocks have one warp or four. A warp takes the pages for 16 pairs, with its queries and its
// sums in registers; the next page arrives while it works on this one. See attention.h for why the bits of a
// row do not depend on the split (online softmax: Milakov and Gimelshein, 2018; by blocks of keys: Dao et
// al., FlashAttention, 2022).
#include <cmath>

#include "ops/cuda/attention_tile.h"

namespace ssrl::cuda {
namespace {

template <typename T, int Width, int Warps>
struct Memory {
  static constexpr int kStages = sizeof(T) == 2 && Width <= 128 ? 2 : 1;
  Shared<T, kWarpPairs * Warps * Width> query;
  Shared<T, kStages * kPage * Width> keys, values;
  [[no_unique_address]] typename Weights<T, kPage>::Memory weights;
};

// What a row has of the pages so far.
struct RowState {
  float maximum = -INFINITY;  // of the scaled scores, for powers of two
  float total = 0;            // of the weights
  float keep = 1, add = 0;    // factors of the last merge
};

// Makes room for a page with this largest score and sum of weights. Sums go on as fmaf(part, add, sum *
// keep).
__device__ __forceinline__ void merge(RowState& state, float maximum, float total) {
  const float raised = maximum > state.maximum ? maximum : state.maximum;
  state.keep = exponential2(state.maximum - raised);
  state.add = exponential2(maximum - raised);
  state.total = fmaf(total, state.add, state.total * state.keep);
  state.maximum = raised;
}

__device__ __forceinline__ float log_sum_exp_of(const RowState& state) {
  return fmaf(state.maximum, kLn2, logarithm(state.total));
}

struct PageStatistics {
  float maximum, total;
};

// From scores to weights relative to the largest of them, in place, for the half of the fragments that
// belongs to one row; 0 past the row's last key.
__device__ __forceinline__ PageStatistics weigh(Accumulator (&scores)[kPage / 8], int half, int visible,
                                                float scale) {
  float maximum = -INFINITY;
#pragma unroll
  for (int tile = 0; tile < kPage / 8; ++tile) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      float& score = scores[tile].value[2 * half + e];
      score = 8 * tile + lane_index() % 4 * 2 + e < visible ? score * scale : -INFINITY;
      maximum = score > maximum ? score : maximum;
    }
  }
  maximum = quad_maximum(maximum);
  float total = 0;
#pragma unroll
  for (int tile = 0; tile < kPage / 8; ++tile) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      float& score = scores[tile].value[2 * half + e];
      score = exponential2(score - maximum);
      total += score;
    }
  }
  return {maximum, quad_sum(total)};
}

// The left-hand side of the scores: held in registers where they suffice.
template <typename T, int Width, int N>
struct Queries {
  const Shared<T, N>& tile;
  int row;
  __device__ __forceinline__ void load(int) {}
  __device__ __forceinline__ auto operator()(int step) const { return rows_of<Width>(tile, row)(step); }
};
template <int Width, int N>
requires(Width <= 128) struct Queries<Bf16, Width, N> {
  const Shared<Bf16, N>& tile;
  int row;
  Matrices held[Width / 16];
  __device__ __forceinline__ void load(int steps) {
#pragma unroll
    for (int step = 0; step < Width / 16; ++step) {
      if (step < steps) held[step] = load_left<Width>(tile, row, step);
    }
  }
  __device__ __forceinline__ const Matrices& operator()(int step) const {
    return held[step];
  }
};

// One block's work, with what its threads share in their registers.
template <typename T, int Width, bool Exact, int Warps>
struct Attend {
  static constexpr int kThreads = 32 * Warps;
  using Mem = Memory<T, Width, Warps>;
  static constexpr int kStages = Mem::kStages;

  Mem& memory;
  const AttentionLaunch& a;
  const AttentionTile& tile;
  int kv_head, group;
  Depth<Width, Exact> depth;
  RowState state[2];
  Accumulator sums[Width / 8];

  __device__ __forceinline__ int pair_of(int half) const {
    return warp_index() * kWarpPairs + lane_index() / 4 + 8 * half;
  }
  __device__ __forceinline__ int64_t row_of(int pair) const {
    return tile.query_row + (tile.first_pair + pair) / group;
  }
  __device__ __forceinline__ int head_of(int pair) const {
    return kv_head * group + (tile.first_pair + pair) % group;
  }

  __device__ __forceinline__ void fetch_queries() {
    const T* q = static_cast<const T*>(a.q);
    fill_rows<kThreads>(memory.query, 0, kWarpPairs * Warps, depth, [&](int pair) -> const T* {
      if (pair >= tile.pairs) return nullptr;
      return q + row_of(pair) * a.shape.q_stride + static_cast<int64_t>(head_of(pair)) * depth.columns();
    });
  }

  __device__ __forceinline__ int stage_of(int page) const { return (page - tile.begin) % kStages * kPage; }

  // Rows past the last key that anyone sees are not read.
  __device__ __forceinline__ void fetch_page(int page) {
    const int count = tile.seen(tile.pairs - 1, group) - page * kPage;
    const int64_t* blocks = a.blocks + 2 * (static_cast<int64_t>(tile.first_block) + page);
    const int64_t offset = static_cast<int64_t>(kv_head) * depth.columns();
    const T *keys = reinterpret_cast<const T*>(a.first_block + blocks[0]) + offset,
            *values = reinterpret_cast<const T*>(a.first_block + blocks[1]) + offset;
    const int stage = stage_of(page);
    fill_rows<kThreads>(memory.keys, stage, kPage, depth, [&](int row) -> const T* {
      return row < count ? keys + row * a.shape.kv_stride : nullptr;
    });
    fill_rows<kThreads>(memory.values, stage, kPage, depth, [&](int row) -> const T* {
      return row < count ? values + row * a.shape.kv_stride : nullptr;
    });
    commit();
  }

  // The record of a pair's page.
  __device__ __forceinline__ int64_t record_of(int pair, int page) const {
    return kv_head * a.records + tile.record + static_cast<int64_t>(pair) * tile.pages + page;
  }

  __device__ __forceinline__ void store_part(int page, int column, int half, const Accumulator& part) {
    float* to = a.parts + record_of(pair_of(half), page) * (depth.steps() * 16) + column;
    store_two(to, part.value[2 * half], part.value[2 * half + 1]);
  }

  template <typename Left>
  __device__ __forceinline__ void take_page(int page, const Left& queries) {
    Accumulator scores[kPage / 8] = {};
    multiply_rows<Width>(scores, queries, memory.keys, stage_of(page), depth.steps());
    bool counts[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int pair = pair_of(half), visible = tile.seen(pair, group) - page * kPage;
      const PageStatistics page_of = weigh(scores, half, visible, a.shape.scale * kLog2E);
      // A row without a key in this page stays as it is, to the bit.
      counts[half] = visible > 0 && pair < tile.pairs;
      if (!counts[half]) continue;
      if (tile.record < 0) {
        merge(state[half], page_of.maximum, page_of.total);
      } else if (lane_index() % 4 == 0) {
        store_two(a.statistics + 2 * record_of(pair, page), page_of.maximum, page_of.total);
      }
    }
    const Weights<T, kPage> weights(memory.weights, scores);
#pragma unroll
    for (int n = 0; n < Width / 16; ++n) {
      if (n >= depth.steps()) continue;
      Accumulator part[2] = {};
      weights.template multiply<Width>(part[0], part[1], memory.values, stage_of(page), n);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if (!counts[half]) continue;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          if (tile.record >= 0) {
            store_part(page, 16 * n + 8 * i + lane_index() % 4 * 2, half, part[i]);
            continue;
          }
#pragma unroll
          for (int e = 2 * half; e < 2 * half + 2; ++e) {
            float& sum = sums[2 * n + i].value[e];
            sum = fmaf(part[i].value[e], state[half].add, sum * state[half].keep);
          }
        }
      }
    }
  }

  __device__ __forceinline__ void store_rows() {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int pair = pair_of(half);
      if (pair >= tile.pairs) continue;
      const float inverse = 1.0f / state[half].total;
      T* out = static_cast<T*>(a.out) + row_of(pair) * a.shape.out_stride +
               static_cast<int64_t>(head_of(pair)) * depth.columns();
#pragma unroll
      for (int n = 0; n < Width / 8; ++n) {
        const int column = 8 * n + lane_index() % 4 * 2;
        if (column >= depth.columns()) continue;
        store_two(out + column, sums[n].value[2 * half] * inverse, sums[n].value[2 * half + 1] * inverse);
      }
      if (a.log_sum_exp != nullptr && lane_index() % 4 == 0) {
        a.log_sum_exp[row_of(pair) * a.shape.heads + head_of(pair)] = log_sum_exp_of(state[half]);
      }
    }
  }
};

template <typename T, int Width, bool Exact, int Warps>
__global__ void __launch_bounds__(32 * Warps) attend(AttentionLaunch a) {
  using Mem = Memory<T, Width, Warps>;
  Mem& memory = shared_memory<Mem>();
  const AttentionTile tile = a.tiles[block_x()];
  Attend<T, Width, Exact, Warps> work{memory, a, tile, static_cast<int>(block_y()), 0, {a.shape.head_dim}};
  work.group = a.shape.heads / a.shape.kv_heads;
#pragma unroll
  for (int n = 0; n < Width / 8; ++n) work.sums[n] = {};
  work.fetch_queries();
  work.fetch_page(tile.begin);
  wait<0>();
  sync_threads();
  Queries<T, Width, kWarpPairs * Warps * Width> queries{memory.query, warp_index() * kWarpPairs};
  queries.load(work.depth.steps());
  // The last key of the warp's pairs; whole warps skip pages that they do not see, but not the barriers.
  const int first = warp_index() * kWarpPairs;
  const int last = first + kWarpPairs < tile.pairs ? first + kWarpPairs : tile.pairs;
  const int seen = first < tile.pairs ? tile.seen(last - 1, work.group) : 0;
  for (int page = tile.begin; page < tile.end; ++page) {
    const bool more = page + 1 < tile.end;
    if (Mem::kStages == 2 && more) work.fetch_page(page + 1);
    if (page * kPage < seen) work.take_page(page, queries);
    if (!more) break;
    if (Mem::kStages == 1) {
      sync_threads();
      work.fetch_page(page + 1);
    }
    wait<0>();
    sync_threads();
  }
  if (tile.record < 0) work.store_rows();
}

constexpr int kMergeThreads = 128, kMergeWarps = kMergeThreads / 32;

// Pages that were shared out, merged in order by the arithmetic of `attend`: a warp takes a pair.
template <typename T>
__global__ void __launch_bounds__(kMergeThreads) merge_pages(AttentionLaunch a) {
  const AttentionTile tile = a.tiles[block_x()];
  const int kv_head = static_cast<int>(block_y()), group = a.shape.heads / a.shape.kv_heads;
  const int width = (a.shape.head_dim + 15) / 16 * 16;
  for (int pair = warp_index(); pair < tile.pairs; pair += kMergeWarps) {
    const int64_t record = kv_head * a.records + tile.record + static_cast<int64_t>(pair) * tile.pages;
    const int pages = (tile.seen(pair, group) + kPage - 1) / kPage;
    const int64_t row = tile.query_row + (tile.first_pair + pair) / group;
    const int head = kv_head * group + (tile.first_pair + pair) % group;
    RowState state;
    float sums[4][2] = {};
    for (int64_t page = record; page < record + pages; ++page) {
      merge(state, a.statistics[2 * page], a.statistics[2 * page + 1]);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int column = 64 * i + 2 * lane_index();
        if (column >= width) continue;
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          sums[i][e] = fmaf(a.parts[page * width + column + e], state.add, sums[i][e] * state.keep);
        }
      }
    }
    const float inverse = 1.0f / state.total;
    T* out =
        static_cast<T*>(a.out) + row * a.shape.out_stride + static_cast<int64_t>(head) * a.shape.head_dim;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int column = 64 * i + 2 * lane_index();
      if (column < a.shape.head_dim) store_two(out + column, sums[i][0] * inverse, sums[i][1] * inverse);
    }
    if (a.log_sum_exp != nullptr && lane_index() == 0) {
      a.log_sum_exp[row * a.shape.heads + head] = log_sum_exp_of(state);
    }
  }
}

template <typename T, int Width, bool Exact, int Warps>
Status launch_tiles(const AttentionLaunch& a, int64_t tiles, Stream stream) {
  const LaunchShape shape{{static_cast<unsigned>(tiles), static_cast<unsigned>(a.shape.kv_heads)},
                          32 * Warps,
                          sizeof(Memory<T, Width, Warps>)};
  return launch<attend<T, Width, Exact, Warps>>(shape, stream, a);
}

template <int Warps>
Status launch_sized(const AttentionLaunch& a, int64_t tiles, Stream stream) {
  const int width = a.shape.head_dim;
  if (a.shape.type == DType::kF32) {
    if (width <= 64) return launch_tiles<float, 64, false, Warps>(a, tiles, stream);
    return launch_tiles<float, 256, false, 1>(a, tiles, stream);
  }
  if (width == 64) return launch_tiles<Bf16, 64, true, Warps>(a, tiles, stream);
  if (width == 128) return launch_tiles<Bf16, 128, true, Warps>(a, tiles, stream);
  if (width < 64) return launch_tiles<Bf16, 64, false, Warps>(a, tiles, stream);
  return launch_tiles<Bf16, 256, false, Warps>(a, tiles, stream);
}

}  // namespace

int wide_tile_pairs(const ops::AttentionShape& shape) {
  return shape.type == DType::kF32 && shape.head_dim > 64 ? kWarpPairs : 4 * kWarpPairs;
}

Status attend_tiles(const AttentionLaunch& a, int64_t tiles, int warps, Stream stream) {
  if (tiles == 0) return {};
  return warps == 1 ? launch_sized<1>(a, tiles, stream) : launch_sized<4>(a, tiles, stream);
}

Status merge_tiles(const AttentionLaunch& a, int64_t tiles, Stream stream) {
  if (tiles == 0) return {};
  const LaunchShape shape{{static_cast<unsigned>(tiles), static_cast<unsigned>(a.shape.kv_heads)},
                          kMergeThreads};
  return with_type(a.shape.type,
                   [&](auto type) { return launch<merge_pages<decltype(type)>>(shape, stream, a); });
}

}  // namespace ssrl::cuda
