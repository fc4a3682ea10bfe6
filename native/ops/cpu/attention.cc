// Causal attention over keys and values that lie in blocks of kKeyBlock tokens. A tile is some query rows of
// one sequence with all heads that share a kv head, so a block of keys is widened and transposed once for all
// of them. Each row walks the same blocks in the same order with the same arithmetic, however its sequence
// was split into calls and whatever else is in the tile (online softmax: Milakov and Gimelshein, 2018; by
// blocks of keys: Dao et al., FlashAttention, 2022).
#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

#include "ops/cpu/attention_tile.h"
#include "ops/cpu/kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/attention.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "ops/cpu/attention_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ssrl::ops::host::HWY_NAMESPACE {
namespace {

// Where a tile keeps its numbers; "pair" is a query row and one of the heads, the heads of a row side by
// side.
struct Tile {
  int pairs, group;
  int first;         // keys that the first query row sees
  int width;         // head_dim
  int padded;        // head_dim in whole vectors
  float scale;       // of a score, times log2(e): weights are powers of two
  float* query;      // [pairs, padded]
  float* sum;        // [pairs, padded] values weighted so far, not yet divided by total
  float* weights;    // [pairs, kKeyBlock]
  float* keys;       // [head_dim, kKeyBlock]
  float* values;     // [kKeyBlock, padded]
  float* maximum;    // [pairs] of the scores of the blocks before
  float* raised;     // [pairs] with this block
  float* block_sum;  // [pairs] of this block's weights
  float* total;      // [pairs] of all weights
  float* correction;

  // Keys that a pair sees of the block that begins at `begin`; may be negative.
  int visible(int pair, int begin) const { return std::min(kKeyBlock, first + pair / group - begin); }
};

size_t lay_out(const AttentionShape& shape, int queries, Tile* tile) {
  tile->group = shape.heads / shape.kv_heads;
  tile->pairs = queries * tile->group;
  tile->width = shape.head_dim;
  tile->padded = round_up(shape.head_dim, kLanes);
  tile->scale = shape.scale * 1.44269504f;
  return static_cast<size_t>(tile->pairs) * (2 * tile->padded + kKeyBlock) +
         static_cast<size_t>(kKeyBlock) * (tile->width + tile->padded) +
         5 * static_cast<size_t>(round_up(tile->pairs, kLanes));
}

void place(float* memory, Tile* tile) {
  const auto take = [&memory](int64_t count) {
    float* start = memory;
    memory += count;
    return start;
  };
  tile->query = take(static_cast<int64_t>(tile->pairs) * tile->padded);
  tile->sum = take(static_cast<int64_t>(tile->pairs) * tile->padded);
  tile->weights = take(static_cast<int64_t>(tile->pairs) * kKeyBlock);
  tile->keys = take(static_cast<int64_t>(tile->width) * kKeyBlock);
  tile->values = take(static_cast<int64_t>(tile->padded) * kKeyBlock);
  const int states = round_up(tile->pairs, kLanes);
  for (float** state : {&tile->maximum, &tile->raised, &tile->block_sum, &tile->total, &tile->correction})
    *state = take(states);
}

// Wider rows of keys, all kv heads: a block of them and its values would not stay in a cache near the core.
constexpr int kTouchedWidth = 1024;

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

// Every pair that the block does not reach has raised = maximum, so its correction is 1.
HWY_INLINE void correct(const Tile& tile) {
  for (int p = 0; p < tile.pairs; p += kLanes) {
    const Vector raised = load_floats(tile.raised + p);
    const Vector correction = exp2(hn::Sub(load_floats(tile.maximum + p), raised));
    store_floats(correction, tile.correction + p);
    store_floats(hn::MulAdd(load_floats(tile.total + p), correction, load_floats(tile.block_sum + p)),
                 tile.total + p);
    store_floats(raised, tile.maximum + p);
    store_floats(hn::Zero(Floats()), tile.block_sum + p);
  }
}

template <typename B>
void add_values(const Tile& tile, int from, int begin, const B* values, int64_t stride) {
  for (int p = from; p < tile.pairs; p += kTileRows) {
    const int rows = std::min(kTileRows, tile.pairs - p);
    const int64_t row = p;
    multiply<B>({.a = tile.weights + row * kKeyBlock,
                 .a_row = kKeyBlock,
                 .a_depth = 1,
                 .b = values,
                 .b_stride = stride,
                 .c = tile.sum + row * tile.padded,
                 .c_stride = tile.padded,
                 .columns = tile.padded,
                 .depth = tile.visible(p + rows - 1, begin),
                 .start = Start::kScale,
                 .factors = tile.correction + p},
                rows);
  }
}

template <typename T>
void attend_block(const Tile& tile, int begin, int count, const T* keys, const T* values, int64_t stride) {
  transpose(keys, stride, count, tile.width, tile.keys);
  // Rows of a tile before `from` end in an earlier block.
  const int from = std::max(0, begin + 1 - tile.first) * tile.group / kTileRows * kTileRows;
  for (int p = from; p < tile.pairs; p += kTileRows) {
    const int rows = std::min(kTileRows, tile.pairs - p);
    const int columns = round_up(tile.visible(p + rows - 1, begin), kLanes);
    const int64_t row = p;
    multiply<float>({.a = tile.query + row * tile.padded,
                     .a_row = tile.padded,
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
    for (int i = p; i < p + rows; ++i) weigh(tile, i, tile.visible(i, begin), columns);
  }
  correct(tile);
  // Few rows: widening the values where they are used is cheaper than a copy, and gives the same numbers.
  if (tile.pairs <= kTileRows && tile.padded == tile.width) {
    add_values(tile, from, begin, values, stride);
    return;
  }
  for (int i = 0; i < count; ++i) load_row(values + i * stride, tile.width, tile.values + i * tile.padded);
  add_values<float>(tile, from, begin, tile.values, tile.padded);
}

// Reads a word of each cache line of a block's rows, all kv heads, in the order of their addresses. That is
// an order which hardware prefetchers follow; one head's share of each row, line by line, is not, and a
// decoding step would wait for memory twice as long.
template <typename T>
HWY_INLINE void touch(const void* block, int count, int64_t stride, int width) {
  const T* rows = static_cast<const T*>(block);
  for (int i = 0; i < count; ++i) {
    for (int j = 0; j < width; j += 64 / static_cast<int>(sizeof(T)))
      static_cast<void>(*static_cast<const volatile T*>(rows + i * stride + j));
  }
}

template <typename T>
void attend(const Attention& a, const AttentionTile& task, const Tile& tile) {
  const AttentionShape& shape = a.shape;
  const int64_t row0 = task.sequence->query_row + task.query, head0 = int64_t{task.kv_head} * tile.group;
  const T* queries = static_cast<const T*>(a.q) + row0 * shape.q_stride + head0 * tile.width;
  for (int p = 0; p < tile.pairs; ++p) {
    const int64_t offset = p / tile.group * shape.q_stride + int64_t{p % tile.group} * tile.width;
    load_row(queries + offset, tile.width, tile.query + int64_t{p} * tile.padded);
  }
  std::fill_n(tile.sum, int64_t{tile.pairs} * tile.padded, 0.0f);
  std::fill_n(tile.total, tile.pairs, 0.0f);
  std::fill_n(tile.maximum, tile.pairs, -std::numeric_limits<float>::infinity());
  const int keys = tile.first + task.queries - 1, row_width = shape.kv_heads * tile.width;
  for (int begin = 0; begin < keys; begin += kKeyBlock) {
    const void* key_block = task.sequence->key_blocks[begin / kKeyBlock];
    const void* value_block = task.sequence->value_blocks[begin / kKeyBlock];
    const int count = std::min(kKeyBlock, keys - begin);
    if (task.kv_head == 0 && row_width <= kTouchedWidth) {
      touch<T>(key_block, count, shape.kv_stride, row_width);
      touch<T>(value_block, count, shape.kv_stride, row_width);
    }
    const int64_t offset = int64_t{task.kv_head} * tile.width;
    attend_block(tile, begin, count, static_cast<const T*>(key_block) + offset,
                 static_cast<const T*>(value_block) + offset, shape.kv_stride);
  }
  T* out = static_cast<T*>(a.out) + row0 * shape.out_stride + head0 * tile.width;
  for (int p = 0; p < tile.pairs; ++p) {
    const int64_t offset = p / tile.group * shape.out_stride + int64_t{p % tile.group} * tile.width;
    store_row(tile.sum + int64_t{p} * tile.padded, 1 / tile.total[p], tile.width, out + offset);
    if (a.log_sum_exp != nullptr) {
      a.log_sum_exp[(row0 + p / tile.group) * shape.heads + head0 + p % tile.group] =
          tile.maximum[p] * 0.693147181f + std::log(tile.total[p]);
    }
  }
}

bool attend_tile(const Attention& a, const AttentionTile& task) {
  Tile tile;
  const size_t floats = lay_out(a.shape, task.queries, &tile);
  float* memory = thread_scratch(Scratch::kAttention, floats * sizeof(float));
  if (memory == nullptr) return false;
  place(memory, &tile);
  tile.first = task.sequence->position + task.query + 1;
  a.shape.type == DType::kF32 ? attend<float>(a, task, tile) : attend<uint16_t>(a, task, tile);
  return true;
}

}  // namespace
}  // namespace ssrl::ops::host::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ssrl::ops::host {
HWY_EXPORT(attend_tile);

namespace {

// Pairs of query row and head in a tile: enough that preparing a block of keys hardly counts.
constexpr int kTilePairs = 96;
// Multiply-adds that are worth the trip to another thread.
constexpr int64_t kGrain = 1 << 17;

}  // namespace

Status attention(const Attention& a) {
  const int group = a.shape.heads / a.shape.kv_heads;
  const int queries = std::max(1, kTilePairs / group);
  // starts[s]: tiles of one kv head before sequence s.
  auto* starts = reinterpret_cast<int64_t*>(
      thread_scratch(Scratch::kAttentionTiles, static_cast<size_t>(a.sequence_count + 1) * sizeof(int64_t)));
  if (starts == nullptr) return {Code::kOutOfMemory, "No memory for the list of attention tiles"};
  int64_t work = 0;
  starts[0] = 0;
  for (int64_t s = 0; s < a.sequence_count; ++s) {
    const AttentionSequence& sequence = a.sequences[s];
    starts[s + 1] = starts[s] + (sequence.query_count + queries - 1) / queries;
    work += int64_t{sequence.query_count} * (sequence.position + sequence.query_count);
  }
  const int64_t kv_heads = a.shape.kv_heads, places = starts[a.sequence_count], tiles = places * kv_heads;
  if (tiles == 0) return {};
  const int64_t tile_work = std::max(int64_t{1}, work * a.shape.heads * a.shape.head_dim * 2 / tiles);
  int64_t grain = std::max(int64_t{1}, kGrain / tile_work);
  // The kv heads of a tile lie side by side in memory: one thread should take them, if there is enough to
  // share.
  if (places >= 4 * threads()) grain = (grain + kv_heads - 1) / kv_heads * kv_heads;
  std::atomic<bool> failed{false};
  parallel_for(tiles, grain, [&](int64_t i) {
    // Late rows see most keys: they go first, so that no thread is left with one at the end.
    const int64_t place = places - 1 - i / kv_heads;
    const int64_t s = std::upper_bound(starts, starts + a.sequence_count, place) - starts - 1;
    const AttentionSequence& sequence = a.sequences[s];
    const int query = static_cast<int>(place - starts[s]) * queries;
    const AttentionTile tile{.sequence = &sequence,
                             .kv_head = static_cast<int>(i % kv_heads),
                             .query = query,
                             .queries = std::min(queries, sequence.query_count - query)};
    if (!HWY_DYNAMIC_DISPATCH(attend_tile)(a, tile)) failed = true;
  });
  return failed ? Status(Code::kOutOfMemory, "No memory for a tile of attention") : Status();
}

}  // namespace ssrl::ops::host
#endif  // HWY_ONCE
