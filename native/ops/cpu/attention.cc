// Causal attention over keys and values that lie in blocks of kKeyBlock tokens. A tile is some query rows of
// one sequence with all heads that share a kv head, so a block of keys is widened and turned over once for
// all of them; or some decoded rows, where those that share a block are taken together. Each row walks the
// same blocks in the same order with the same arithmetic, however its sequence was split into calls and
// whatever else is in the tile (online softmax: Milakov and Gimelshein, 2018; by blocks of keys: Dao et al.,
// FlashAttention, 2022).
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>

#include "ops/cpu/attention_tile.h"
#include "ops/cpu/kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/attention.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "ops/cpu/attention_units-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ssrl::ops::host::HWY_NAMESPACE {
namespace {

// Where a tile keeps its numbers. A "pair" is a query row and one of the heads of a kv head: pairs of a row
// lie side by side, then come the tile's other rows, then its other kv heads.
struct Tile {
  AttentionRows rows;
  int group, pairs;
  int width;                // head_dim
  int padded;               // head_dim in whole vectors
  int stored;               // floats that a query takes up
  float scale;              // of a score, times log2(e): weights are powers of two
  const DotRoutines* dots;  // for bf16, if the CPU has them
  float* query;             // [pairs, stored], bf16 for dots
  float* sum;               // [pairs, padded] values weighted so far, not yet divided by total
  float* weights;           // [pairs, kKeyBlock]
  float* keys;              // [head_dim, kKeyBlock], or units of dots
  float* values;            // [kKeyBlock, padded]
  float* maximum;           // [pairs] of the scores of the blocks before
  float* raised;            // [pairs] with this block
  float* block_sum;         // [pairs] of this block's weights
  float* total;             // [pairs] of all weights
  float* correction;

  // Keys that a pair sees of the block that begins at `begin`; may be negative.
  int visible(int pair, int begin) const {
    return std::min(kKeyBlock, rows.ends[pair / group % rows.count] - begin);
  }
  int most_visible(int pair, int count, int begin) const {
    int most = 0;
    for (int p = pair; p < pair + count; ++p) most = std::max(most, visible(p, begin));
    return most;
  }
};

bool lay_out(const AttentionShape& shape, const AttentionTile& task, Tile* tile) {
  tile->group = shape.heads / shape.kv_heads;
  tile->pairs = task.queries * tile->group * task.kv_heads;
  tile->width = shape.head_dim;
  tile->padded = round_up(shape.head_dim, kLanes);
  tile->scale = shape.scale * 1.44269504f;
  tile->dots = dots_for(shape.type);
  tile->stored = tile->dots != nullptr ? shape.head_dim / 2 : tile->padded;
  const int64_t pairs = tile->pairs, states = round_up(tile->pairs, kLanes) + kLanes;
  const int64_t floats = pairs * (tile->stored + tile->padded + kKeyBlock) +
                         int64_t{kKeyBlock} * (tile->width + tile->padded) + 5 * states +
                         int64_t{task.queries} * 3;
  float* memory = thread_scratch(Scratch::kAttention, static_cast<size_t>(floats) * sizeof(float));
  if (memory == nullptr) return false;
  const auto take = [&memory](int64_t count) {
    float* start = memory;
    memory += count;
    return start;
  };
  auto** const sequence = reinterpret_cast<const AttentionSequence**>(take(2 * int64_t{task.queries}));
  tile->sum = take(pairs * tile->padded);
  tile->weights = take(pairs * kKeyBlock);
  tile->keys = take(int64_t{tile->width} * kKeyBlock);
  tile->values = take(int64_t{tile->padded} * kKeyBlock);
  for (float** state : {&tile->maximum, &tile->raised, &tile->block_sum, &tile->total, &tile->correction})
    *state = take(states);
  // What no block has reached yet is corrected like the rest of its vector, without a change.
  std::fill_n(tile->maximum, 2 * states, std::numeric_limits<float>::lowest());
  std::fill_n(tile->block_sum, 2 * states, 0.0f);
  std::fill_n(tile->sum, pairs * tile->padded, 0.0f);
  auto* const ends = reinterpret_cast<int32_t*>(take(task.queries));
  tile->rows = find_rows(task, sequence, ends);
  tile->query = take(pairs * tile->stored);
  return true;
}

// From scores to weights relative to the largest score so far, in place. Weights past the row's last key are
// zeros: they add exactly nothing.
HWY_INLINE void weigh(const Tile& tile, int pair, int visible, int columns) {
  const Floats d;
  float* row = tile.weights + static_cast<int64_t>(pair) * kKeyBlock;
  const Vector scale = hn::Set(d, tile.scale);
  const Vector low = hn::Set(d, -std::numeric_limits<float>::infinity());
  Vector maximum = hn::Set(d, tile.maximum[pair]);
  for (int j = 0; j < columns; j += kLanes) {
    Vector scores = hn::Mul(load_floats(row + j), scale);
    if (j + kLanes > visible)
      scores = hn::IfThenElse(hn::FirstN(d, static_cast<size_t>(std::max(0, visible - j))), scores, low);
    store_floats(scores, row + j);
    maximum = hn::Max(maximum, scores);
  }
  maximum = hn::MaxOfLanes(d, maximum);
  Vector sum = hn::Zero(d);
  for (int j = 0; j < columns; j += kLanes) {
    const Vector weights = exp2(hn::Sub(load_floats(row + j), maximum));
    store_floats(weights, row + j);
    sum = hn::Add(sum, weights);
  }
  tile.raised[pair] = hn::GetLane(maximum);
  tile.block_sum[pair] = hn::GetLane(hn::SumOfLanes(d, sum));
}

// Of the pairs from `from` to `to`. Others of the same vectors have raised = maximum and no sum: nothing
// happens to them.
HWY_INLINE void correct(const Tile& tile, int from, int to) {
  for (int p = from; p < to; p += kLanes) {
    const Vector raised = load_floats(tile.raised + p);
    const Vector correction = exp2(hn::Sub(load_floats(tile.maximum + p), raised));
    store_floats(correction, tile.correction + p);
    store_floats(hn::MulAdd(load_floats(tile.total + p), correction, load_floats(tile.block_sum + p)),
                 tile.total + p);
    store_floats(raised, tile.maximum + p);
    store_floats(hn::Zero(Floats()), tile.block_sum + p);
  }
}

// Scores of at most kTileRows pairs against the first `columns` keys of the block.
HWY_INLINE void score(const Tile& tile, int pair, int rows, int columns) {
  const int64_t row = pair;
  if (tile.dots != nullptr) {
    tile.dots->multiply({.a = tile.query + row * tile.stored,
                         .a_row = tile.stored * int64_t{sizeof(float)},
                         .a_step = sizeof(uint32_t),
                         .b = reinterpret_cast<const uint32_t*>(tile.keys),
                         .b_row = kKeyBlock,
                         .c = tile.weights + row * kKeyBlock,
                         .c_row = kKeyBlock,
                         .rows = rows,
                         .columns = columns,
                         .steps = tile.width / 2,
                         .accumulate = false});
    return;
  }
  multiply<float>({.a = tile.query + row * tile.stored,
                   .a_row = tile.stored,
                   .a_depth = 1,
                   .b = tile.keys,
                   .b_stride = kKeyBlock,
                   .c = tile.weights + row * kKeyBlock,
                   .c_stride = kKeyBlock,
                   .columns = columns,
                   .depth = tile.width,
                   .start = Start::kZero,
                   .factors = nullptr},
                  rows);
}

template <typename B>
void add_values(const Tile& tile, int from, int to, int begin, const B* values, int64_t stride) {
  for (int p = from; p < to; p += kTileRows) {
    const int rows = std::min(kTileRows, to - p);
    const int64_t row = p;
    multiply<B>({.a = tile.weights + row * kKeyBlock,
                 .a_row = kKeyBlock,
                 .a_depth = 1,
                 .b = values,
                 .b_stride = stride,
                 .c = tile.sum + row * tile.padded,
                 .c_stride = tile.padded,
                 .columns = tile.padded,
                 .depth = tile.most_visible(p, rows, begin),
                 .start = Start::kScale,
                 .factors = tile.correction + p},
                rows);
  }
}

void turn_keys(const Tile& tile, const float* keys, int64_t stride, int count) {
  transpose(keys, stride, count, tile.width, tile.keys);
}
void turn_keys(const Tile& tile, const uint16_t* keys, int64_t stride, int count) {
  if (tile.dots == nullptr) return transpose(keys, stride, count, tile.width, tile.keys);
  tile.dots->turn(keys, stride, count, tile.width, reinterpret_cast<uint32_t*>(tile.keys));
}

// One kv head of a run, whose pairs begin at `offset` more than those of the tile's first.
template <typename T>
void attend_block(const Tile& tile, const AttentionRun& run, int offset, const T* keys, const T* values,
                  int64_t stride) {
  const int from = offset + run.from * tile.group, to = offset + run.to * tile.group;
  turn_keys(tile, keys, stride, run.count);
  for (int p = from; p < to; p += kTileRows) {
    const int rows = std::min(kTileRows, to - p);
    const int columns = round_up(tile.most_visible(p, rows, run.begin), kLanes);
    score(tile, p, rows, columns);
    for (int i = p; i < p + rows; ++i) weigh(tile, i, tile.visible(i, run.begin), columns);
  }
  correct(tile, from, to);
  // Few rows: widening the values where they are used is cheaper than a copy, and gives the same numbers.
  if (to - from <= kTileRows && tile.padded == tile.width) {
    add_values(tile, from, to, run.begin, values, stride);
    return;
  }
  for (int i = 0; i < run.count; ++i)
    load_row(values + i * stride, tile.width, tile.values + i * tile.padded);
  add_values<float>(tile, from, to, run.begin, tile.values, tile.padded);
}

// Reads a word of each cache line of a run's keys or values, all kv heads, in the order of their addresses.
// That is an order which hardware prefetchers follow; one head's share of each row, line by line, is not, and
// a decoding step would wait for memory twice as long. Prefetch instructions were slower still.
template <typename T>
HWY_INLINE void touch(const T* rows, int count, int64_t stride, int width) {
  for (int i = 0; i < count; ++i) {
    for (int j = 0; j < width; j += 64 / static_cast<int>(sizeof(T)))
      static_cast<void>(*static_cast<const volatile T*>(rows + i * stride + j));
  }
}

template <typename T>
void load_queries(const Attention& a, const AttentionTile& task, const Tile& tile) {
  const AttentionShape& shape = a.shape;
  const int64_t row0 = task.sequences->query_row + task.query;
  const int per_head = tile.rows.count * tile.group;
  for (int p = 0; p < tile.pairs; ++p) {
    const int head = (task.kv_head + p / per_head) * tile.group + p % tile.group;
    const T* from = static_cast<const T*>(a.q) + (row0 + p % per_head / tile.group) * shape.q_stride +
                    int64_t{head} * tile.width;
    float* to = tile.query + int64_t{p} * tile.stored;
    if (tile.dots != nullptr) {
      std::memcpy(to, from, static_cast<size_t>(tile.width) * sizeof(T));
    } else {
      load_row(from, tile.width, to);
    }
  }
}

template <typename T>
void store_results(const Attention& a, const AttentionTile& task, const Tile& tile) {
  const AttentionShape& shape = a.shape;
  const int64_t row0 = task.sequences->query_row + task.query;
  const int per_head = tile.rows.count * tile.group;
  for (int p = 0; p < tile.pairs; ++p) {
    const int head = (task.kv_head + p / per_head) * tile.group + p % tile.group;
    const int64_t row = row0 + p % per_head / tile.group;
    T* out = static_cast<T*>(a.out) + row * shape.out_stride + int64_t{head} * tile.width;
    store_row(tile.sum + int64_t{p} * tile.padded, 1 / tile.total[p], tile.width, out);
    if (a.log_sum_exp != nullptr)
      a.log_sum_exp[row * shape.heads + head] = tile.maximum[p] * 0.693147181f + std::log(tile.total[p]);
  }
}

template <typename T>
void attend(const Attention& a, const AttentionTile& task, const Tile& tile) {
  const int64_t stride = a.shape.kv_stride, first = int64_t{task.kv_head} * tile.width;
  load_queries<T>(a, task, tile);
  for (AttentionRun run = tile.rows.run(0, 0); run.count > 0; run = tile.rows.run(run.begin, run.to)) {
    const AttentionSequence& sequence = *tile.rows.sequence[run.from];
    const T* keys = static_cast<const T*>(sequence.key_blocks[run.block()]) + first;
    const T* values = static_cast<const T*>(sequence.value_blocks[run.block()]) + first;
    if (task.kv_heads > 1) {
      touch(keys, run.count, stride, task.kv_heads * tile.width);
      touch(values, run.count, stride, task.kv_heads * tile.width);
    }
    for (int head = 0; head < task.kv_heads; ++head) {
      attend_block(tile, run, head * tile.rows.count * tile.group, keys + head * tile.width,
                   values + head * tile.width, stride);
    }
  }
  store_results<T>(a, task, tile);
}

bool attend_tile(const Attention& a, const AttentionTile& task) {
  Tile tile;
  if (!lay_out(a.shape, task, &tile)) return false;
  a.shape.type == DType::kF32 ? attend<float>(a, task, tile) : attend<uint16_t>(a, task, tile);
  return true;
}

}  // namespace
}  // namespace ssrl::ops::host::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ssrl::ops::host {
HWY_EXPORT(attend_tile);

Status attention(const Attention& a) {
  AttentionPlan plan{};
  if (!plan_attention(a, &plan)) return {Code::kOutOfMemory, "No memory for the list of attention tiles"};
  std::atomic<bool> failed{false};
  parallel_for(plan.tile_count, plan.grain, [&](int64_t i) {
    // Late rows see most keys: they go first, so that no thread is left with one at the end.
    if (!HWY_DYNAMIC_DISPATCH(attend_tile)(a, plan.tiles[plan.tile_count - 1 - i])) failed = true;
  });
  return failed ? Status(Code::kOutOfMemory, "No memory for a tile of attention") : Status();
}

}  // namespace ssrl::ops::host
#endif  // HWY_ONCE
