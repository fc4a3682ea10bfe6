// Gradient of causal attention over packed sequences, tile by tile as the forward pass: a tile of query rows
// walks the blocks of keys that it sees, rebuilds the weights P of a block from the saved log-sum-exp, and
// adds to dK and dV. One task is a kv head of one sequence, or of some that share keys; what a task adds to
// keys that a task before it shares is kept apart and added afterwards, in the order of the tasks. So no two
// threads add to the same rows, and every sum has one order whatever the number of threads (Dao et al.,
// FlashAttention, 2022, algorithm 4):
//   dV += Pᵀ dO,  dP = dO Vᵀ,  dS = scale P (dP - rowsum(dO O)),  dQ += dS K,  dK += dSᵀ Q.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <numeric>

#include "ops/cpu/attention_tile.h"
#include "ops/cpu/kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/attention_backward.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "ops/cpu/attention_gradient-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ssrl::ops::host::HWY_NAMESPACE {
namespace {

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

// Scores and dP of at most kTileRows pairs.
void multiply_scores(const Gradient& g, int pair, int rows, int columns) {
  if (g.units.dots != nullptr) return multiply_scores(g.units, pair, rows, columns, g.weights, g.dscores);
  const int64_t row = pair;
  Product<float> product{.a = g.query + row * g.padded,
                         .a_row = g.padded,
                         .a_depth = 1,
                         .b = g.keys,
                         .b_stride = kKeyBlock,
                         .c = g.weights + row * kKeyBlock,
                         .c_stride = kKeyBlock,
                         .columns = columns,
                         .depth = g.width,
                         .start = Start::kZero,
                         .factors = nullptr};
  multiply(product, rows);
  product.a = g.dout + row * g.padded;
  product.b = g.values;
  product.c = g.dscores + row * kKeyBlock;
  multiply(product, rows);
}

// P and dS of all pairs from `from` on.
void rebuild(const Gradient& g, float scale, int from, int begin) {
  for (int p = from; p < g.pairs; p += kTileRows) {
    const int rows = std::min(kTileRows, g.pairs - p);
    const int columns = round_up(g.visible(p + rows - 1, begin), kLanes);
    multiply_scores(g, p, rows, columns);
    for (int i = p; i < p + rows; ++i) weigh(g, scale, i, g.visible(i, begin), columns);
  }
  if (g.units.dots != nullptr) round_weights(g.units, from, g.pairs, g.weights, g.dscores);
}

void add_dquery(const Gradient& g, int from, int begin) {
  for (int p = from; p < g.pairs; p += kTileRows) {
    const int rows = std::min(kTileRows, g.pairs - p), visible = g.visible(p + rows - 1, begin);
    if (g.units.dots != nullptr) {
      add_dquery(g.units, p, rows, visible, g.dquery);
      continue;
    }
    const int64_t row = p;
    multiply<float>({.a = g.dscores + row * kKeyBlock,
                     .a_row = kKeyBlock,
                     .a_depth = 1,
                     .b = g.key_rows,
                     .b_stride = g.padded,
                     .c = g.dquery + row * g.padded,
                     .c_stride = g.padded,
                     .columns = g.padded,
                     .depth = visible,
                     .start = Start::kAdd,
                     .factors = nullptr},
                    rows);
  }
}

// dK and dV of the block's keys: sums over the pairs that see them.
void add_dkeys(const Gradient& g, int begin, int count) {
  const int32_t* slots = g.slots + begin;
  for (int key = 0, rows = 1; key < count; key += rows, rows = 1) {
    while (rows < kTileRows && key + rows < count && slots[key + rows] == slots[key] + rows) ++rows;
    const int64_t from = std::max(0, begin + key - g.first) * g.group;  // earlier pairs see none of them
    float* const dk = g.dk + slots[key] * int64_t{g.padded};
    float* const dv = g.dv + slots[key] * int64_t{g.padded};
    if (g.units.dots != nullptr) {
      add_dkeys(g.units, key, rows, static_cast<int>(from / 2 * 2), g.pairs, dk, dv);
      continue;
    }
    Product<float> product{.a = g.weights + from * kKeyBlock + key,
                           .a_row = 1,
                           .a_depth = kKeyBlock,
                           .b = g.dout + from * g.padded,
                           .b_stride = g.padded,
                           .c = dv,
                           .c_stride = g.padded,
                           .columns = g.padded,
                           .depth = g.pairs - static_cast<int>(from),
                           .start = Start::kAdd,
                           .factors = nullptr};
    multiply(product, rows);
    product.a = g.dscores + from * kKeyBlock + key;
    product.b = g.query + from * g.padded;
    product.c = dk;
    multiply(product, rows);
  }
}

template <typename T>
void backward_tile(const AttentionBackward& a, const AttentionSequence& sequence, int kv_head,
                   const Gradient& g) {
  const AttentionShape& shape = a.shape;
  const int64_t head = int64_t{kv_head} * g.width, stride = shape.kv_stride;
  const int64_t row0 = sequence.query_row + g.first - sequence.position;
  load_tile<T>(a, row0, kv_head, g);
  const int visible = g.first + g.pairs / g.group;
  for (int begin = 0; begin < visible; begin += kKeyBlock) {
    const T* keys = static_cast<const T*>(sequence.key_blocks[begin / kKeyBlock]) + head;
    const T* values = static_cast<const T*>(sequence.value_blocks[begin / kKeyBlock]) + head;
    const int count = std::min(kKeyBlock, visible - begin);
    if (g.units.dots != nullptr) {
      load_block(g.units, keys, values, stride, count);
    } else {
      transpose(keys, stride, count, g.width, g.keys);
      transpose(values, stride, count, g.width, g.values);
      for (int i = 0; i < count; ++i) load_row(keys + i * stride, g.width, g.key_rows + i * g.padded);
    }
    // Rows of the tile before `from` end in an earlier block.
    const int from = std::max(0, begin - g.first) * g.group / kTileRows * kTileRows;
    rebuild(g, shape.scale, from, begin);
    add_dquery(g, from, begin);
    add_dkeys(g, begin, count);
  }
  for (int p = 0; p < g.pairs; ++p) {
    T* dq = static_cast<T*>(a.dq) + (row0 + p / g.group) * shape.q_stride +
            (head * g.group + int64_t{p % g.group} * g.width);
    store_row(g.dquery + int64_t{p} * g.padded, 1, g.width, dq);
  }
}

// What is summed up for a row's key, to dk and dv.
template <typename T>
void store_key(const AttentionBackward& a, const Gradient& g, int64_t row, int kv_head) {
  const int64_t to = row * a.shape.kv_stride + int64_t{kv_head} * g.width;
  store_row(g.dk + row * g.padded, 1, g.width, static_cast<T*>(a.dk) + to);
  store_row(g.dv + row * g.padded, 1, g.width, static_cast<T*>(a.dv) + to);
}

template <typename T>
void backward_sequences(const AttentionBackward& a, const AttentionBackwardTask& task, Gradient g) {
  const AttentionSequence &first = task.sequences[0], &last = task.sequences[task.count - 1];
  const int64_t end = last.query_row + last.query_count;
  for (float* sums : {g.dk, g.dv}) {
    std::fill_n(sums + first.query_row * g.padded, (end - first.query_row) * g.padded, 0.0f);
    std::fill_n(sums + task.shared * g.padded, int64_t{first.position} * g.padded, 0.0f);
  }
  std::iota(g.slots, g.slots + first.position, static_cast<int32_t>(task.shared));
  for (const AttentionSequence* s = task.sequences; s < task.sequences + task.count; ++s) {
    const int length = s->position + s->query_count;
    std::iota(g.slots + s->position, g.slots + length, static_cast<int32_t>(s->query_row));
    for (g.first = s->position; g.first < length; g.first += g.queries) {
      g.pairs = std::min(g.queries, length - g.first) * g.group;
      backward_tile<T>(a, *s, task.kv_head, g);
    }
  }
  for (int64_t row = first.query_row; row < end; ++row) store_key<T>(a, g, row, task.kv_head);
}

// Where the sums of a kv head are.
void place_sums(const AttentionBackward& a, const AttentionBackwardPlan& plan, int kv_head, Gradient* g) {
  g->width = a.shape.head_dim;
  g->padded = round_up(g->width, kLanes);
  const int64_t head = plan.slots * round_up(g->width, kScratchLanes);
  g->dk = a.scratch + kv_head * head;
  g->dv = g->dk + a.shape.kv_heads * head;
}

bool backward_task(const AttentionBackward& a, const AttentionBackwardPlan& plan,
                   const AttentionBackwardTask& task) {
  int keys = 0;
  for (int64_t i = 0; i < task.count; ++i)
    keys = std::max(keys, task.sequences[i].position + task.sequences[i].query_count);
  Gradient g{};
  if (!lay_out(a.shape, keys, &g)) return false;
  place_sums(a, plan, task.kv_head, &g);
  a.shape.type == DType::kF32 ? backward_sequences<float>(a, task, g)
                              : backward_sequences<uint16_t>(a, task, g);
  return true;
}

HWY_INLINE void add_row(const float* from, int count, float* to) {
  for (int j = 0; j < count; j += kLanes)
    store_floats(hn::Add(load_floats(to + j), load_floats(from + j)), to + j);
}

// What later tasks found for shared keys at the positions begin .. begin + kKeyBlock goes to those keys'
// rows.
void add_shared(const AttentionBackward& a, const AttentionBackwardPlan& plan, int kv_head, int begin) {
  Gradient g{};
  place_sums(a, plan, kv_head, &g);
  for (int64_t i = 0; i < plan.task_count; ++i) {
    const AttentionBackwardTask& task = plan.tasks[i];
    const int end = std::min(begin + kKeyBlock, task.sequences->position);
    for (int position = begin; position < end; ++position) {
      const int64_t slot = task.shared + position, row = plan.owners[slot - plan.rows];
      add_row(g.dk + slot * g.padded, g.padded, g.dk + row * g.padded);
      add_row(g.dv + slot * g.padded, g.padded, g.dv + row * g.padded);
      a.shape.type == DType::kF32 ? store_key<float>(a, g, row, kv_head)
                                  : store_key<uint16_t>(a, g, row, kv_head);
    }
  }
}

}  // namespace
}  // namespace ssrl::ops::host::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ssrl::ops::host {
HWY_EXPORT(backward_task);
HWY_EXPORT(add_shared);

Status attention_backward(const AttentionBackward& a) {
  const Status no_memory(Code::kOutOfMemory, "No memory for a tile of the attention gradient");
  AttentionBackwardPlan plan{};
  if (!plan_attention_backward(a, &plan)) return no_memory;
  const int64_t kv_heads = a.shape.kv_heads;
  std::atomic<bool> failed{false};
  parallel_for(plan.task_count * kv_heads, 1, [&](int64_t i) {
    AttentionBackwardTask task = plan.tasks[i / kv_heads];
    task.kv_head = static_cast<int>(i % kv_heads);
    if (!HWY_DYNAMIC_DISPATCH(backward_task)(a, plan, task)) failed = true;
  });
  if (failed) return no_memory;
  parallel_for((plan.shared_keys + kKeyBlock - 1) / kKeyBlock * kv_heads, 1, [&](int64_t i) {
    HWY_DYNAMIC_DISPATCH(add_shared)
    (a, plan, static_cast<int>(i % kv_heads), static_cast<int>(i / kv_heads) * kKeyBlock);
  });
  return {};
}

}  // namespace ssrl::ops::host
#endif  // HWY_ONCE
