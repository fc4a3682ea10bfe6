// What a tile of attention's gradient holds, and how its rows come into it.
//
// Included by Highway's foreach_target, so the guard toggles.
#if defined(SSRL_OPS_CPU_ATTENTION_GRADIENT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SSRL_OPS_CPU_ATTENTION_GRADIENT_INL_H_
#undef SSRL_OPS_CPU_ATTENTION_GRADIENT_INL_H_
#else
#define SSRL_OPS_CPU_ATTENTION_GRADIENT_INL_H_
#endif

#include <algorithm>
#include <cstdint>

#include "ops/cpu/attention_units-inl.h"
#include "ops/cpu/kernels.h"

HWY_BEFORE_NAMESPACE();
namespace ssrl::ops::host::HWY_NAMESPACE {
namespace {

// Rows of query and head in a tile; the heads of a row lie side by side.
constexpr int kTilePairs = 96;

struct Gradient {
  int group, queries;  // heads of this kv head; query rows in a tile
  int width, padded;   // head_dim, and in whole vectors
  int first, pairs;    // of the tile at hand: its first row's position
  float* query;        // [pairs, padded]
  float* dout;         // [pairs, padded]
  float* dquery;       // [pairs, padded]
  float* weights;      // [pairs, kKeyBlock]
  float* dscores;      // [pairs, kKeyBlock]
  float* keys;         // [head_dim, kKeyBlock], turned over
  float* values;       // [head_dim, kKeyBlock], turned over
  float* key_rows;     // [kKeyBlock, padded]
  Units units;         // the same for dot products
  float* bias;         // [pairs] what to add to a scaled score for the power of two that is its weight
  float* delta;        // [pairs] dout · out
  int32_t* slots;      // [keys of the sequence] where their sums are
  float* dk;           // [slots, padded]
  float* dv;           // [slots, padded]

  // Keys that a pair sees of the block that begins at `begin`; may be negative.
  int visible(int pair, int begin) const { return std::min(kKeyBlock, first + pair / group + 1 - begin); }
};

bool lay_out(const AttentionShape& shape, int64_t keys, Gradient* g) {
  g->group = shape.heads / shape.kv_heads;
  g->queries = std::max(1, kTilePairs / g->group);
  g->width = shape.head_dim;
  g->padded = round_up(shape.head_dim, kLanes);
  const int64_t pairs = int64_t{g->queries} * g->group;
  g->units = {.dots = dots_for(shape.type), .width = g->width, .padded = g->padded};
  int64_t units = 0;
  place_units(
      pairs,
      [&units](int64_t count) -> float* {
        units += count;
        return nullptr;
      },
      &g->units);
  const size_t floats = static_cast<size_t>(pairs * (3 * g->padded + 2 * kKeyBlock + 2) + units +
                                            int64_t{kKeyBlock} * (2 * g->width + g->padded) + keys);
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
  place_units(pairs, take, &g->units);
  g->slots = reinterpret_cast<int32_t*>(take(keys));
  return true;
}

template <typename T>
void load_tile(const AttentionBackward& a, int64_t row0, int kv_head, const Gradient& g) {
  const AttentionShape& shape = a.shape;
  for (int p = 0; p < g.pairs; ++p) {
    const int64_t row = row0 + p / g.group;
    const int head = kv_head * g.group + p % g.group;
    const int64_t out = row * shape.out_stride + int64_t{head} * g.width, to = int64_t{p} * g.padded;
    const T* query = static_cast<const T*>(a.q) + row * shape.q_stride + int64_t{head} * g.width;
    const T* dout = static_cast<const T*>(a.dout) + out;
    load_row(query, g.width, g.query + to);
    load_row(static_cast<const T*>(a.out) + out, g.width, g.dquery + to);
    load_row(dout, g.width, g.dout + to);
    if (g.units.dots != nullptr) load_pair(g.units, p, query, dout);
    Vector delta = hn::Zero(Floats());
    for (int j = 0; j < g.padded; j += kLanes)
      delta = hn::MulAdd(load_floats(g.dout + to + j), load_floats(g.dquery + to + j), delta);
    g.delta[p] = hn::GetLane(hn::SumOfLanes(Floats(), delta));
    g.bias[p] = a.log_sum_exp[row * shape.heads + head] * -1.44269504f;
  }
  if (g.units.dots != nullptr) pair_queries(g.units, g.pairs);
  std::fill_n(g.dquery, int64_t{g.pairs} * g.padded, 0.0f);
}

}  // namespace
}  // namespace ssrl::ops::host::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
