// Gradient of attention without atomics: dout · out for every row; dQ by tiles of queries,
// which walk the pages as the forward pass did; dK and dV by tiles of keys, which walk all queries that see
// them, those of sequences that share the keys included, and whose sums a fourth launch adds up where a walk
// was shared out among blocks. Each rebuilds the weights P from the saved
// log-sum-exp, and each sum has one owner and one order (Dao et al., FlashAttention, 2022, algorithm 4):
//   dV = Pᵀ dO,  dP = dO Vᵀ,  dS = P (dP - rowsum(dO O)),  dQ = scale dS K,  dK = scale dSᵀ Q.
// Tiles of keys compute the transposed products, so that the weights of a warp's keys are fragments in its
// registers, ready for the next product.
#include "ops/cuda/attention_backward.h"

#include "ops/cuda/attention_tile.h"

namespace ssrl::cuda {
namespace {

// What the kernels of an element type and width are cut to, so that registers and shared memory suffice.
template <typename T, int Width>
struct Cut {
  static constexpr bool kSmall = Width <= 128;
  static constexpr int kStages = sizeof(T) == 2 && Width <= 64 ? 2 : 1;
  static constexpr int kQueryWarps = kSmall ? 4 : 2;
  static constexpr int kKeyWarps = sizeof(T) == 2 || kSmall ? 4 : 2;
  static constexpr int kKeys = sizeof(T) == 2 || kSmall ? kPage : kPage / 2;  // at a time, for a query
  static constexpr int kPairs = kStepPairs;
  // Columns of the result that a block sums up.
  static constexpr int kSlice = kSmall ? Width : 128;
  static constexpr int kKeySlice = kSmall ? Width : (sizeof(T) == 2 ? 128 : 64);
  static constexpr int kSlices = Width / kSlice;
};

template <typename T>
__global__ void __launch_bounds__(128) dot_rows(BackwardLaunch a) {
  const int64_t item = static_cast<int64_t>(block_x()) * 4 + warp_index();
  if (item >= a.rows * a.shape.heads) return;
  const int64_t row = item / a.shape.heads, head = item % a.shape.heads;
  const int64_t offset = row * a.shape.out_stride + head * a.shape.head_dim;
  const T *out = static_cast<const T*>(a.out) + offset, *dout = static_cast<const T*>(a.dout) + offset;
  float sum = 0;
  for (int64_t j = lane_index() * 8; j < a.shape.head_dim; j += 32 * 8) {
    const Eight left = load_eight(dout, j, a.shape.head_dim), right = load_eight(out, j, a.shape.head_dim);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum = fmaf(left.value[i], right.value[i], sum);
  }
  sum = warp_sum(sum);
  if (lane_index() == 0) a.delta[item] = sum;
}

// Where the heads of a kv head are in the rows of queries and outputs.
template <int Width, bool Exact>
struct Place {
  const BackwardLaunch& a;
  int kv_head, group;
  Depth<Width, Exact> depth;

  __device__ __forceinline__ int64_t column(int pair) const {
    return static_cast<int64_t>(kv_head * group + pair % group) * depth.columns();
  }
  __device__ __forceinline__ int64_t scalar(int64_t row, int pair) const {
    return row * a.shape.heads + kv_head * group + pair % group;
  }
};

// The block's slice of the result, [16, columns] of a warp; `row(half)` is null for a row that is not there.
template <typename T, int Slice, int Width, bool Exact, typename Row>
__device__ __forceinline__ void store_slice(const Accumulator (&sums)[Slice / 8], int first, float scale,
                                            Depth<Width, Exact> depth, const Row& row) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    T* to = row(half);
    if (to == nullptr) continue;
#pragma unroll
    for (int n = 0; n < Slice / 8; ++n) {
      const int column = first + 8 * n + lane_index() % 4 * 2;
      if (column >= depth.columns()) continue;
      store_two(to + column, sums[n].value[2 * half] * scale, sums[n].value[2 * half + 1] * scale);
    }
  }
}

// sums += weights · the slice's columns of the rows of b.
template <int Width, int Slice, typename W, typename Rows>
__device__ __forceinline__ void add_product(Accumulator (&sums)[Slice / 8], const W& weights, const Rows& b,
                                            int b_row, int slice, int steps) {
#pragma unroll
  for (int n = 0; n < Slice / 16; ++n) {
    const int step = slice * (Slice / 16) + n;
    if (step >= steps) continue;
    weights.template multiply<Width>(sums[2 * n], sums[2 * n + 1], b, b_row, step);
  }
}

template <typename T, int Width>
struct QueryMemory {
  using C = Cut<T, Width>;
  Shared<T, kWarpPairs * C::kQueryWarps * Width> query, dout;
  Shared<T, C::kStages * C::kKeys * Width> keys, values;
  [[no_unique_address]] typename Weights<T, C::kKeys>::Memory weights;
};

template <typename T, int Width, bool Exact>
struct QueryGradient {
  using C = Cut<T, Width>;
  static constexpr int kThreads = 32 * C::kQueryWarps;

  QueryMemory<T, Width>& memory;
  const BackwardLaunch& a;
  const AttentionTile& tile;
  Place<Width, Exact> place;
  int slice;
  float bias[2], delta[2];  // of the lane's rows: minus log-sum-exp for powers of two, and dout · out
  Accumulator sums[C::kSlice / 8];

  __device__ __forceinline__ int pair_of(int half) const {
    return warp_index() * kWarpPairs + lane_index() / 4 + 8 * half;
  }
  __device__ __forceinline__ int64_t row_of(int pair) const {
    return tile.query_row + (tile.first_pair + pair) / place.group;
  }

  __device__ __forceinline__ void fetch_rows() {
    const T *q = static_cast<const T*>(a.q), *dout = static_cast<const T*>(a.dout);
    fill_rows<kThreads>(memory.query, 0, kWarpPairs * C::kQueryWarps, place.depth, [&](int i) -> const T* {
      if (i >= tile.pairs) return nullptr;
      return q + row_of(i) * a.shape.q_stride + place.column(tile.first_pair + i);
    });
    fill_rows<kThreads>(memory.dout, 0, kWarpPairs * C::kQueryWarps, place.depth, [&](int i) -> const T* {
      if (i >= tile.pairs) return nullptr;
      return dout + row_of(i) * a.shape.out_stride + place.column(tile.first_pair + i);
    });
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int pair = pair_of(half);
      const bool inside = pair < tile.pairs;
      const int64_t at = inside ? place.scalar(row_of(pair), tile.first_pair + pair) : 0;
      bias[half] = inside ? a.log_sum_exp[at] * -kLog2E : 0.0f;
      delta[half] = inside ? a.delta[at] : 0.0f;
    }
  }

  __device__ __forceinline__ int stage_of(int part) const {
    return part % C::kStages * C::kKeys;
  }

  __device__ __forceinline__ void fetch_keys(int part) {
    const int begin = part * C::kKeys, count = tile.seen(tile.pairs - 1, place.group) - begin;
    const int64_t* blocks = a.blocks + 2 * (static_cast<int64_t>(tile.first_block) + begin / kPage);
    const int64_t offset =
        static_cast<int64_t>(place.kv_head) * place.depth.columns() + begin % kPage * a.shape.kv_stride;
    const T *keys = reinterpret_cast<const T*>(a.first_block + blocks[0]) + offset,
            *values = reinterpret_cast<const T*>(a.first_block + blocks[1]) + offset;
    fill_rows<kThreads>(memory.keys, stage_of(part), C::kKeys, place.depth, [&](int row) -> const T* {
      return row < count ? keys + row * a.shape.kv_stride : nullptr;
    });
    fill_rows<kThreads>(memory.values, stage_of(part), C::kKeys, place.depth, [&](int row) -> const T* {
      return row < count ? values + row * a.shape.kv_stride : nullptr;
    });
    commit();
  }

  __device__ __forceinline__ void take_keys(int part) {
    const int steps = place.depth.steps(), warp_row = warp_index() * kWarpPairs;
    Accumulator scores[C::kKeys / 8] = {}, gradients[C::kKeys / 8] = {};
    multiply_rows<Width>(scores, rows_of<Width>(memory.query, warp_row), memory.keys, stage_of(part), steps);
    multiply_rows<Width>(gradients, rows_of<Width>(memory.dout, warp_row), memory.values, stage_of(part),
                         steps);
    const float power = a.shape.scale * kLog2E;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int visible = tile.seen(pair_of(half), place.group) - part * C::kKeys;
#pragma unroll
      for (int n = 0; n < C::kKeys / 8; ++n) {
#pragma unroll
        for (int e = 2 * half; e < 2 * half + 2; ++e) {
          const bool sees = 8 * n + lane_index() % 4 * 2 + e % 2 < visible;
          const float weight = exponential2(fmaf(scores[n].value[e], power, bias[half]));
          scores[n].value[e] = sees ? weight * (gradients[n].value[e] - delta[half]) : 0.0f;
        }
      }
    }
    const Weights<T, C::kKeys> weights(memory.weights, scores);
    add_product<Width, C::kSlice>(sums, weights, memory.keys, stage_of(part), slice, steps);
  }
};

template <typename T, int Width, bool Exact>
__global__ void __launch_bounds__(32 * Cut<T, Width>::kQueryWarps) query_gradients(BackwardLaunch a) {
  using C = Cut<T, Width>;
  auto& memory = shared_memory<QueryMemory<T, Width>>();
  const AttentionTile tile = a.tiles[block_x()];
  const int kv_heads = a.shape.kv_heads, y = static_cast<int>(block_y());
  QueryGradient<T, Width, Exact> work{
      memory, a, tile, {a, y % kv_heads, a.shape.heads / kv_heads, {a.shape.head_dim}}, y / kv_heads};
#pragma unroll
  for (int n = 0; n < C::kSlice / 8; ++n) work.sums[n] = {};
  work.fetch_rows();
  work.fetch_keys(0);
  wait<0>();
  sync_threads();
  const int group = work.place.group, first = warp_index() * kWarpPairs;
  const int last = first + kWarpPairs < tile.pairs ? first + kWarpPairs : tile.pairs;
  const int seen = first < tile.pairs ? tile.seen(last - 1, group) : 0;
  const int parts = (tile.seen(tile.pairs - 1, group) + C::kKeys - 1) / C::kKeys;
  for (int part = 0; part < parts; ++part) {
    const bool more = part + 1 < parts;
    if (C::kStages == 2 && more) work.fetch_keys(part + 1);
    if (part * C::kKeys < seen) work.take_keys(part);
    if (!more) break;
    if (C::kStages == 1) {
      sync_threads();
      work.fetch_keys(part + 1);
    }
    wait<0>();
    sync_threads();
  }
  store_slice<T, C::kSlice>(work.sums, work.slice * C::kSlice, a.shape.scale, work.place.depth,
                            [&](int half) -> T* {
                              const int pair = work.pair_of(half);
                              if (pair >= tile.pairs) return nullptr;
                              return static_cast<T*>(a.dq) + work.row_of(pair) * a.shape.q_stride +
                                     work.place.column(tile.first_pair + pair);
                            });
}

template <typename T, int Width>
struct KeyMemory {
  using C = Cut<T, Width>;
  Shared<T, kWarpPairs * C::kKeyWarps * Width> keys, values;
  Shared<T, C::kStages * C::kPairs * Width> query, dout;
  Shared<float, C::kStages * C::kPairs> bias, delta;
  [[no_unique_address]] typename Weights<T, C::kPairs>::Memory weights;
};

// Which pairs come next: `count` of those of a segment from `first` on.
struct Cursor {
  int segment;  // counted from the owner's
  int64_t row;  // of pair 0
  int32_t position, limit;
  int pairs, first, stage;
};

template <typename T, int Width, bool Exact>
struct KeyGradient {
  using C = Cut<T, Width>;
  static constexpr int kThreads = 32 * C::kKeyWarps;

  KeyMemory<T, Width>& memory;
  const BackwardLaunch& a;
  const KeyTile& tile;
  Place<Width, Exact> place;
  int slice;
  Accumulator dk[C::kKeySlice / 8], dv[C::kKeySlice / 8];

  __device__ __forceinline__ void fetch_keys() {
    const int64_t* blocks = a.blocks + 2 * static_cast<int64_t>(tile.block);
    const int64_t offset =
        static_cast<int64_t>(place.kv_head) * place.depth.columns() + tile.first % kPage * a.shape.kv_stride;
    const T *keys = reinterpret_cast<const T*>(a.first_block + blocks[0]) + offset,
            *values = reinterpret_cast<const T*>(a.first_block + blocks[1]) + offset;
    fill_rows<kThreads>(memory.keys, 0, kWarpPairs * C::kKeyWarps, place.depth, [&](int row) -> const T* {
      return row < tile.keys ? keys + row * a.shape.kv_stride : nullptr;
    });
    fill_rows<kThreads>(memory.values, 0, kWarpPairs * C::kKeyWarps, place.depth, [&](int row) -> const T* {
      return row < tile.keys ? values + row * a.shape.kv_stride : nullptr;
    });
  }

  // From the start of segment `cursor.segment`, or the first behind it, which sees a key of the tile; false
  // when there is none.
  __device__ __forceinline__ bool enter(Cursor& cursor) const {
    for (; cursor.segment < tile.segments; ++cursor.segment) {
      const Segment segment = a.segments[tile.segment + cursor.segment];
      if (segment.limit <= tile.first) return false;
      const int skipped = tile.first > segment.position ? tile.first - segment.position : 0;
      if (segment.queries <= skipped) continue;
      cursor.row = segment.query_row + skipped;
      cursor.position = segment.position + skipped;
      cursor.limit = segment.limit;
      cursor.pairs = (segment.queries - skipped) * place.group;
      cursor.first = 0;
      return true;
    }
    return false;
  }
  __device__ __forceinline__ bool advance(Cursor& cursor) const {
    cursor.stage = (cursor.stage + 1) % C::kStages;
    cursor.first += C::kPairs;
    if (cursor.first < cursor.pairs) return true;
    ++cursor.segment;
    return enter(cursor);
  }

  __device__ __forceinline__ void fetch_pairs(const Cursor& cursor) {
    const T *q = static_cast<const T*>(a.q), *dout = static_cast<const T*>(a.dout);
    const int stage = cursor.stage * C::kPairs;
    fill_rows<kThreads>(memory.query, stage, C::kPairs, place.depth, [&](int i) -> const T* {
      const int pair = cursor.first + i;
      if (pair >= cursor.pairs) return nullptr;
      return q + (cursor.row + pair / place.group) * a.shape.q_stride + place.column(pair);
    });
    fill_rows<kThreads>(memory.dout, stage, C::kPairs, place.depth, [&](int i) -> const T* {
      const int pair = cursor.first + i;
      if (pair >= cursor.pairs) return nullptr;
      return dout + (cursor.row + pair / place.group) * a.shape.out_stride + place.column(pair);
    });
    if (thread_index() < C::kPairs) {
      const int pair = cursor.first + thread_index();
      const bool inside = pair < cursor.pairs;
      const int64_t at = inside ? place.scalar(cursor.row + pair / place.group, pair) : 0;
      memory.bias.store(stage + thread_index(), inside ? a.log_sum_exp[at] * -kLog2E : 0.0f);
      memory.delta.store(stage + thread_index(), inside ? a.delta[at] : 0.0f);
    }
    commit();
  }

  // Whether every pair of the step sees every key.
  __device__ __forceinline__ bool all_seen(const Cursor& cursor) const {
    const int last_key = tile.first + tile.keys - 1;
    return cursor.first + C::kPairs <= cursor.pairs && last_key < cursor.limit &&
           last_key <= cursor.position + cursor.first / place.group;
  }

  __device__ __forceinline__ bool sees(const Cursor& cursor, int column, int key) const {
    const int pair = cursor.first + column;
    return pair < cursor.pairs && key < cursor.limit && key <= cursor.position + pair / place.group;
  }

  __device__ __forceinline__ void take_pairs(const Cursor& cursor) {
    const int steps = place.depth.steps(), warp_row = warp_index() * kWarpPairs;
    const int stage = cursor.stage * C::kPairs;
    Accumulator weights[C::kPairs / 8] = {}, gradients[C::kPairs / 8] = {};
    multiply_rows<Width>(weights, rows_of<Width>(memory.keys, warp_row), memory.query, stage, steps);
    multiply_rows<Width>(gradients, rows_of<Width>(memory.values, warp_row), memory.dout, stage, steps);
    const float power = a.shape.scale * kLog2E;
    const bool masked = !all_seen(cursor);
#pragma unroll
    for (int n = 0; n < C::kPairs / 8; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int column = 8 * n + lane_index() % 4 * 2 + e % 2;
        const int key = tile.first + warp_row + lane_index() / 4 + e / 2 * 8;
        float& weight = weights[n].value[e];
        weight = exponential2(fmaf(weight, power, memory.bias.load(stage + column)));
        if (masked && !sees(cursor, column, key)) weight = 0;
        float& gradient = gradients[n].value[e];
        gradient = weight * (gradient - memory.delta.load(stage + column));
      }
    }
    {
      const Weights<T, C::kPairs> p(memory.weights, weights);
      add_product<Width, C::kKeySlice>(dv, p, memory.dout, stage, slice, steps);
    }
    const Weights<T, C::kPairs> ds(memory.weights, gradients);
    add_product<Width, C::kKeySlice>(dk, ds, memory.query, stage, slice, steps);
  }
};

template <typename T, int Width, bool Exact>
__global__ void __launch_bounds__(32 * Cut<T, Width>::kKeyWarps, 2) key_gradients(BackwardLaunch a) {
  using C = Cut<T, Width>;
  auto& memory = shared_memory<KeyMemory<T, Width>>();
  const KeyTile tile = a.key_tiles[block_x()];
  const int kv_heads = a.shape.kv_heads, y = static_cast<int>(block_y());
  KeyGradient<T, Width, Exact> work{
      memory, a, tile, {a, y % kv_heads, a.shape.heads / kv_heads, {a.shape.head_dim}}, y / kv_heads};
#pragma unroll
  for (int n = 0; n < C::kKeySlice / 8; ++n) work.dk[n] = work.dv[n] = {};
  Cursor cursor{};
  work.fetch_keys();
  bool more = work.enter(cursor);
  cursor.first = tile.first_pair;
  if (more) work.fetch_pairs(cursor);
  wait<0>();
  sync_threads();
  for (int step = 1; more; ++step) {
    Cursor next = cursor;
    more = step < tile.steps && work.advance(next);
    if (C::kStages == 2 && more) work.fetch_pairs(next);
    if (warp_index() * kWarpPairs < tile.keys) work.take_pairs(cursor);
    if (!more) break;
    if (C::kStages == 1) {
      sync_threads();
      work.fetch_pairs(next);
    }
    wait<0>();
    sync_threads();
    cursor = next;
  }
  const auto key_of = [&](int half) { return warp_index() * kWarpPairs + lane_index() / 4 + 8 * half; };
  const int first = work.slice * C::kKeySlice;
  if (tile.record >= 0) {
    const auto part_of = [&](int which, int half) -> float* {
      if (key_of(half) >= tile.keys) return nullptr;
      const int64_t record = work.place.kv_head * a.records + tile.record;
      return a.parts + ((2 * record + which) * kPage + key_of(half)) * work.place.depth.columns();
    };
    store_slice<float, C::kKeySlice>(work.dk, first, 1.0f, work.place.depth,
                                     [&](int half) { return part_of(0, half); });
    store_slice<float, C::kKeySlice>(work.dv, first, 1.0f, work.place.depth,
                                     [&](int half) { return part_of(1, half); });
    return;
  }
  const auto row_of = [&](void* to, int half) -> T* {
    const int key = key_of(half);
    if (key >= tile.keys) return nullptr;
    return static_cast<T*>(to) + (tile.row + key) * a.shape.kv_stride +
           static_cast<int64_t>(work.place.kv_head) * work.place.depth.columns();
  };
  store_slice<T, C::kKeySlice>(work.dk, first, a.shape.scale, work.place.depth,
                               [&](int half) { return row_of(a.dk, half); });
  store_slice<T, C::kKeySlice>(work.dv, first, 1.0f, work.place.depth,
                               [&](int half) { return row_of(a.dv, half); });
}

constexpr int kMergeThreads = 128;

// The sums of a tile's runs, in their order: a thread takes an element of dk and of dv.
template <typename T>
__global__ void __launch_bounds__(kMergeThreads) add_runs(BackwardLaunch a) {
  const KeyMerge merge = a.merges[block_x()];
  const int width = a.shape.head_dim, kv_head = static_cast<int>(block_y());
  const int64_t record = kv_head * a.records + merge.record, part = int64_t{2} * kPage * width;
  for (int i = thread_index(); i < merge.keys * width; i += kMergeThreads) {
    const float* from = a.parts + record * part + i;
    float dk = 0, dv = 0;
    for (int run = 0; run < merge.runs; ++run, from += part) {
      dk += from[0];
      dv += from[static_cast<int64_t>(kPage) * width];
    }
    const int64_t to =
        (merge.row + i / width) * a.shape.kv_stride + static_cast<int64_t>(kv_head) * width + i % width;
    static_cast<T*>(a.dk)[to] = from_float<T>(dk * a.shape.scale);
    static_cast<T*>(a.dv)[to] = from_float<T>(dv);
  }
}

template <typename T, int Width, bool Exact>
struct Instance {
  using Type = T;
  using C = Cut<T, Width>;
  static constexpr int kWidth = Width;
  static constexpr bool kExact = Exact;
};

// Calls body(Instance()) with the kernels for the shape.
template <typename Body>
auto with_instance(const ops::AttentionShape& shape, const Body& body) {
  const int width = shape.head_dim;
  if (shape.type == DType::kF32)
    return width <= 64 ? body(Instance<float, 64, false>()) : body(Instance<float, 256, false>());
  if (width == 64) return body(Instance<Bf16, 64, true>());
  if (width == 128) return body(Instance<Bf16, 128, true>());
  return width < 64 ? body(Instance<Bf16, 64, false>()) : body(Instance<Bf16, 256, false>());
}

LaunchShape shape_of(int64_t tiles, int rows, int threads, size_t shared_bytes) {
  return {{static_cast<unsigned>(tiles), static_cast<unsigned>(rows)}, threads, shared_bytes};
}

}  // namespace

int query_tile_size(const ops::AttentionShape& shape) {
  return with_instance(shape, [](auto i) { return kWarpPairs * decltype(i)::C::kQueryWarps; });
}

int key_tile_size(const ops::AttentionShape& shape) {
  return with_instance(shape, [](auto i) { return kWarpPairs * decltype(i)::C::kKeyWarps; });
}

Status sum_deltas(const BackwardLaunch& a, Stream stream) {
  const int64_t items = a.rows * a.shape.heads;
  if (items == 0) return {};
  return with_type(a.shape.type, [&](auto type) {
    return launch<dot_rows<decltype(type)>>({{static_cast<unsigned>(pieces_of(items, 4))}, 128}, stream, a);
  });
}

Status differentiate_queries(const BackwardLaunch& a, int64_t tiles, Stream stream) {
  if (tiles == 0) return {};
  return with_instance(a.shape, [&](auto i) {
    using I = decltype(i);
    using C = typename I::C;
    const LaunchShape shape = shape_of(tiles, a.shape.kv_heads * C::kSlices, 32 * C::kQueryWarps,
                                       sizeof(QueryMemory<typename I::Type, I::kWidth>));
    return launch<query_gradients<typename I::Type, I::kWidth, I::kExact>>(shape, stream, a);
  });
}

Status differentiate_keys(const BackwardLaunch& a, int64_t tiles, Stream stream) {
  if (tiles == 0) return {};
  return with_instance(a.shape, [&](auto i) {
    using I = decltype(i);
    using C = typename I::C;
    const LaunchShape shape = shape_of(tiles, a.shape.kv_heads * (I::kWidth / C::kKeySlice),
                                       32 * C::kKeyWarps, sizeof(KeyMemory<typename I::Type, I::kWidth>));
    return launch<key_gradients<typename I::Type, I::kWidth, I::kExact>>(shape, stream, a);
  });
}

Status merge_runs(const BackwardLaunch& a, int64_t merges, Stream stream) {
  if (merges == 0) return {};
  return with_type(a.shape.type, [&](auto type) {
    return launch<add_runs<decltype(type)>>(shape_of(merges, a.shape.kv_heads, kMergeThreads, 0), stream, a);
  });
}

}  // namespace ssrl::cuda
