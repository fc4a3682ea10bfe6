// Gradient of causal attention over packed sequences, tile by tile as the forward pass: a tile of query rows
// walks the blocks of keys that it sees, rebuilds the weights P of a block from the saved log-sum-exp, and
// adds to dK and dV. One task is a kv head of one sequence, so no two threads add to the same rows, and every
// sum has one order whatever the number of threads (Dao et al., FlashAttention, 2022, algorithm 4):
//   dV += Pᵀ dO,  dP = dO Vᵀ,  dS = scale P (dP - rowsum(dO O)),  dQ += dS K,  dK += dSᵀ Q.
#include <algorithm>
#include <atomic>
#include <cstdint>

#include "ops/cpu/attention_tile.h"
#include "ops/cpu/kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/attention_backward.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "ops/cpu/attention_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ssrl::ops::host::HWY_NAMESPACE {
namespace {

// Rows of query and head in a tile; the heads of a row lie side by side.
constexpr int kTilePairs = 96;

struct Gradient {
  int group, queries;  // heads of this kv head; query rows in a tile
  int width, padded;   // head_dim, and in whole vectors
  int first, pairs;    // of the tile at hand: its first row within the sequence
  int64_t rows;        // of the sequence
  float* query;        // [pairs, padded]
  float* dout;         // [pairs, padded]
  float* dquery;       // [pairs, padded]
  float* weights;      // [pairs, kKeyBlock]
  float* dscores;      // [pairs, kKeyBlock]
  float* keys;         // [head_dim, kKeyBlock]
  float* values;       // [head_dim, kKeyBlock]
  float* key_rows;     // [kKeyBlock, padded]
  float* bias;         // [pairs] what to add to a scaled score for the power of two that is its weight
  float* delta;        // [pairs] dout · out
  float* dk;           // [rows, padded]
  float* dv;           // [rows, padded]

  // Keys that a pair sees of the block that begins at `begin`; may be negative.
  int visible(int pair, int begin) const { return std::min(kKeyBlock, first + pair / group + 1 - begin); }
};

bool lay_out(const AttentionShape& shape, Gradient* g) {
  g->group = shape.heads / shape.kv_heads;
  g->queries = std::max(1, kTilePairs / g->group);
  g->width = shape.head_dim;
  g->padded = round_up(shape.head_dim, kLanes);
  const int64_t pairs = int64_t{g->queries} * g->group;
  const size_t floats = static_cast<size_t>(pairs * (3 * g->padded + 2 * kKeyBlock + 2) +
                                            int64_t{kKeyBlock} * (2 * g->width + g->padded));
  float* memory = thread_scratch(Scratch::kAttention, floats * sizeof(float));
  if (memory == nullptr) return false;
  const auto take = [&memory](int64_t count) {
    float* start = memory;
    memory += count;
    return start;
  };
  for (float** matrix : {&g->query, &g->dout, &g->dquery}) *matrix = take(pairs * g->padded);
  for (float** matrix : {&g->weights, &g->dscores}) *matrix = take(pairs * kKeyBlock);
  for (float** matrix : {&g->keys, &g->values}) *matrix = take(int64_t{g->width} * kKeyBlock);
  g->key_rows = take(int64_t{g->padded} * kKeyBlock);
  g->bias = take(pairs);
  g->delta = take(pairs);
  return true;
}

template <typename T>
void load_tile(const AttentionBackward& a, const AttentionBackwardTask& task, const Gradient& g) {
  const AttentionShape& shape = a.shape;
  for (int p = 0; p < g.pairs; ++p) {
    const int64_t row = task.begin + g.first + p / g.group;
    const int head = task.kv_head * g.group + p % g.group;
    const int64_t out = row * shape.out_stride + int64_t{head} * g.width, to = int64_t{p} * g.padded;
    load_row(static_cast<const T*>(a.q) + row * shape.q_stride + int64_t{head} * g.width, g.width,
             g.query + to);
    load_row(static_cast<const T*>(a.out) + out, g.width, g.dquery + to);
    load_row(static_cast<const T*>(a.dout) + out, g.width, g.dout + to);
    Vector delta = hn::Zero(Floats());
    for (int j = 0; j < g.padded; j += kLanes)
      delta = hn::MulAdd(load_floats(g.dout + to + j), load_floats(g.dquery + to + j), delta);
    g.delta[p] = hn::GetLane(hn::SumOfLanes(Floats(), delta));
    g.bias[p] = a.log_sum_exp[row * shape.heads + head] * -1.44269504f;
  }
  std::fill_n(g.dquery, int64_t{g.pairs} * g.padded, 0.0f);
}

// From scores and dP to P and dS, in place; zeros past the row's last key.
HWY_INLINE void weigh(const Gradient& g, float scale, int pair, int visible, int columns) {
  const Floats d;
  float* weights = g.weights + int64_t{pair} * kKeyBlock;
  float* dscores = g.dscores + int64_t{pair} * kKeyBlock;
  const Vector power = hn::Set(d, scale * 1.44269504f), bias = hn::Set(d, g.bias[pair]);
  const Vector scales = hn::Set(d, scale), delta = hn::Set(d, g.delta[pair]);
  int j = 0;
  for (; j < columns; j += kLanes) {
    Vector weight = exp2(hn::MulAdd(load_floats(weights + j), power, bias));
    if (j + kLanes > visible)
      weight = hn::IfThenElseZero(hn::FirstN(d, static_cast<size_t>(std::max(0, visible - j))), weight);
    store_floats(weight, weights + j);
    const Vector dweight = hn::Sub(load_floats(dscores + j), delta);
    store_floats(hn::Mul(hn::Mul(weight, dweight), scales), dscores + j);
  }
  for (; j < kKeyBlock; j += kLanes) {
    store_floats(hn::Zero(d), weights + j);
    store_floats(hn::Zero(d), dscores + j);
  }
}

// P and dS of all pairs from `from` on.
void rebuild(const Gradient& g, float scale, int from, int begin) {
  for (int p = from; p < g.pairs; p += kTileRows) {
    const int rows = std::min(kTileRows, g.pairs - p);
    const int64_t row = p;
    Product<float> product{.a = g.query + row * g.padded,
                           .a_row = g.padded,
                           .a_depth = 1,
                           .b = g.keys,
                           .b_stride = kKeyBlock,
                           .c = g.weights + row * kKeyBlock,
                           .c_stride = kKeyBlock,
                           .columns = round_up(g.visible(p + rows - 1, begin), kLanes),
                           .depth = g.width,
                           .start = Start::kZero,
                           .factors = nullptr};
    multiply(product, rows);
    product.a = g.dout + row * g.padded;
    product.b = g.values;
    product.c = g.dscores + row * kKeyBlock;
    multiply(product, rows);
    for (int i = p; i < p + rows; ++i) weigh(g, scale, i, g.visible(i, begin), product.columns);
  }
}

void add_dquery(const Gradient& g, int from, int begin) {
  for (int p = from; p < g.pairs; p += kTileRows) {
    const int rows = std::min(kTileRows, g.pairs - p);
    const int64_t row = p;
    multiply<float>({.a = g.dscores + row * kKeyBlock,
                     .a_row = kKeyBlock,
                     .a_depth = 1,
                     .b = g.key_rows,
                     .b_stride = g.padded,
                     .c = g.dquery + row * g.padded,
                     .c_stride = g.padded,
                     .columns = g.padded,
                     .depth = g.visible(p + rows - 1, begin),
                     .start = Start::kAdd,
                     .factors = nullptr},
                    rows);
  }
}

// dK and dV of the block's keys: sums over the pairs that see them.
void add_dkeys(const Gradient& g, int begin, int count) {
  for (int key = 0; key < count; key += kTileRows) {
    const int rows = std::min(kTileRows, count - key);
    const int64_t from = std::max(0, begin + key - g.first) * g.group;  // earlier pairs see none of them
    Product<float> product{.a = g.weights + from * kKeyBlock + key,
                           .a_row = 1,
                           .a_depth = kKeyBlock,
                           .b = g.dout + from * g.padded,
                           .b_stride = g.padded,
                           .c = g.dv + (begin + key) * int64_t{g.padded},
                           .c_stride = g.padded,
                           .columns = g.padded,
                           .depth = g.pairs - static_cast<int>(from),
                           .start = Start::kAdd,
                           .factors = nullptr};
    multiply(product, rows);
    product.a = g.dscores + from * kKeyBlock + key;
    product.b = g.query + from * g.padded;
    product.c = g.dk + (begin + key) * int64_t{g.padded};
    multiply(product, rows);
  }
}

template <typename T>
void backward_sequence(const AttentionBackward& a, const AttentionBackwardTask& task, Gradient g) {
  const AttentionShape& shape = a.shape;
  const int64_t head = int64_t{task.kv_head} * g.width;
  const T* keys = static_cast<const T*>(a.k) + task.begin * shape.kv_stride + head;
  const T* values = static_cast<const T*>(a.v) + task.begin * shape.kv_stride + head;
  const int length = static_cast<int>(task.end - task.begin);
  std::fill_n(g.dk, int64_t{length} * g.padded, 0.0f);
  std::fill_n(g.dv, int64_t{length} * g.padded, 0.0f);
  for (g.first = 0; g.first < length; g.first += g.queries) {
    const int queries = std::min(g.queries, length - g.first), visible = g.first + queries;
    g.pairs = queries * g.group;
    load_tile<T>(a, task, g);
    for (int begin = 0; begin < visible; begin += kKeyBlock) {
      const int count = std::min(kKeyBlock, visible - begin);
      transpose(keys + begin * shape.kv_stride, shape.kv_stride, count, g.width, g.keys);
      transpose(values + begin * shape.kv_stride, shape.kv_stride, count, g.width, g.values);
      for (int i = 0; i < count; ++i)
        load_row(keys + (begin + i) * shape.kv_stride, g.width, g.key_rows + i * g.padded);
      // Rows of the tile before `from` end in an earlier block.
      const int from = std::max(0, begin - g.first) * g.group / kTileRows * kTileRows;
      rebuild(g, shape.scale, from, begin);
      add_dquery(g, from, begin);
      add_dkeys(g, begin, count);
    }
    for (int p = 0; p < g.pairs; ++p) {
      T* dq = static_cast<T*>(a.dq) + (task.begin + g.first + p / g.group) * shape.q_stride +
              (head * g.group + int64_t{p % g.group} * g.width);
      store_row(g.dquery + int64_t{p} * g.padded, 1, g.width, dq);
    }
  }
  for (int64_t row = 0; row < length; ++row) {
    const int64_t to = (task.begin + row) * shape.kv_stride + head;
    store_row(g.dk + row * g.padded, 1, g.width, static_cast<T*>(a.dk) + to);
    store_row(g.dv + row * g.padded, 1, g.width, static_cast<T*>(a.dv) + to);
  }
}

bool backward_task(const AttentionBackward& a, const AttentionBackwardTask& task) {
  Gradient g{};
  if (!lay_out(a.shape, &g)) return false;
  // Tasks have the same order in the scratch as their rows in the batch; a row is never wider than this.
  const int64_t width = round_up(a.shape.head_dim, kScratchLanes), rows = a.starts[a.sequence_count];
  g.dk = a.scratch + (task.begin * a.shape.kv_heads + (task.end - task.begin) * task.kv_head) * width;
  g.dv = g.dk + rows * a.shape.kv_heads * width;
  a.shape.type == DType::kF32 ? backward_sequence<float>(a, task, g)
                              : backward_sequence<uint16_t>(a, task, g);
  return true;
}

}  // namespace
}  // namespace ssrl::ops::host::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ssrl::ops::host {
HWY_EXPORT(backward_task);

size_t attention_backward_scratch(const AttentionBackward& a) {
  const int64_t rows = a.sequence_count > 0 ? a.starts[a.sequence_count] : 0;
  const int64_t width = (a.shape.head_dim + kScratchLanes - 1) / kScratchLanes * kScratchLanes;
  return static_cast<size_t>(rows * 2 * a.shape.kv_heads * width);
}

Status attention_backward(const AttentionBackward& a) {
  std::atomic<bool> failed{false};
  parallel_for(a.sequence_count * a.shape.kv_heads, 1, [&](int64_t i) {
    const int64_t s = i / a.shape.kv_heads;
    const AttentionBackwardTask task{a.starts[s], a.starts[s + 1], static_cast<int>(i % a.shape.kv_heads)};
    if (!HWY_DYNAMIC_DISPATCH(backward_task)(a, task)) failed = true;
  });
  return failed ? Status(Code::kOutOfMemory, "No memory for a tile of the attention gradient") : Status();
}

}  // namespace ssrl::ops::host
#endif  // HWY_ONCE
