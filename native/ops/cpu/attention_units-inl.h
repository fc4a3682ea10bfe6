// The products of attention's gradient by dot products of bf16: what the f32 tile holds, as units. P and dS
// are rounded to bf16 for them; q, k, v and dO are bf16 as they come.
//
// Included by Highway's foreach_target, so the guard toggles.
#if defined(SSRL_OPS_CPU_ATTENTION_UNITS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SSRL_OPS_CPU_ATTENTION_UNITS_INL_H_
#undef SSRL_OPS_CPU_ATTENTION_UNITS_INL_H_
#else
#define SSRL_OPS_CPU_ATTENTION_UNITS_INL_H_
#endif

#include <cstring>

#include "ops/cpu/attention_dots.h"
#include "ops/cpu/attention_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ssrl::ops::host::HWY_NAMESPACE {
namespace {

struct Units {
  const DotRoutines* dots;  // null: the f32 products are used
  int width, padded;
  uint16_t *query, *dout;                // [pairs, width]
  uint32_t *query_pairs, *dout_pairs;    // [pairs / 2, padded]
  uint32_t *keys, *values;               // [width / 2, kKeyBlock]
  uint32_t* key_pairs;                   // [kKeyBlock / 2, padded]
  uint32_t *weight_pairs, *score_pairs;  // [pairs / 2, kKeyBlock] of P and dS
  uint16_t* scores;                      // [pairs, kKeyBlock] dS
};

static_assert(kTileRows == kDotRows);

// The routines for a type, where the vectors are as wide as theirs.
inline const DotRoutines* dots_for(DType type) {
  return kLanes == 16 && type == DType::kBF16 ? dot_routines() : nullptr;
}

// Takes the memory for `pairs` pairs from take(floats), or none.
template <typename Take>
void place_units(int64_t pairs, const Take& take, Units* u) {
  if (u->dots == nullptr) return;
  const int64_t half = (pairs + 1) / 2, width = u->width, padded = u->padded;
  for (uint16_t** rows : {&u->query, &u->dout}) *rows = reinterpret_cast<uint16_t*>(take(pairs * width / 2));
  u->scores = reinterpret_cast<uint16_t*>(take(pairs * kKeyBlock / 2));
  const auto units = [&take](int64_t count) { return reinterpret_cast<uint32_t*>(take(count)); };
  for (uint32_t** rows : {&u->query_pairs, &u->dout_pairs}) *rows = units(half * padded);
  for (uint32_t** rows : {&u->keys, &u->values}) *rows = units(width / 2 * kKeyBlock);
  u->key_pairs = units(kKeyBlock / 2 * padded);
  for (uint32_t** rows : {&u->weight_pairs, &u->score_pairs}) *rows = units(half * kKeyBlock);
}

inline void load_pair(const Units& u, int pair, const uint16_t* query, const uint16_t* dout) {
  const size_t bytes = static_cast<size_t>(u.width) * sizeof(uint16_t);
  std::memcpy(u.query + int64_t{pair} * u.width, query, bytes);
  std::memcpy(u.dout + int64_t{pair} * u.width, dout, bytes);
}
inline void load_pair(const Units&, int, const float*, const float*) {}

inline void pair_queries(const Units& u, int pairs) {
  u.dots->pair_bf16(u.query, u.width, pairs, u.width, u.padded, u.query_pairs);
  u.dots->pair_bf16(u.dout, u.width, pairs, u.width, u.padded, u.dout_pairs);
}

inline void load_block(const Units& u, const uint16_t* keys, const uint16_t* values, int64_t stride,
                       int count) {
  u.dots->turn(keys, stride, count, u.width, u.keys);
  u.dots->turn(values, stride, count, u.width, u.values);
  u.dots->pair_bf16(keys, stride, count, u.width, u.padded, u.key_pairs);
}
inline void load_block(const Units&, const float*, const float*, int64_t, int) {}

// Scores and dP of at most kDotRows pairs.
inline void multiply_scores(const Units& u, int pair, int rows, int columns, float* weights, float* dscores) {
  const int64_t row = pair;
  DotProduct product{.a = u.query + row * u.width,
                     .a_row = u.width * int64_t{sizeof(uint16_t)},
                     .a_step = sizeof(uint32_t),
                     .b = u.keys,
                     .b_row = kKeyBlock,
                     .c = weights + row * kKeyBlock,
                     .c_row = kKeyBlock,
                     .rows = rows,
                     .columns = columns,
                     .steps = u.width / 2,
                     .accumulate = false};
  u.dots->multiply(product);
  product.a = u.dout + row * u.width;
  product.b = u.values;
  product.c = dscores + row * kKeyBlock;
  u.dots->multiply(product);
}

// P and dS of the pairs from `from` on, which is even.
inline void round_weights(const Units& u, int from, int pairs, const float* weights, const float* dscores) {
  const int64_t first = int64_t{from} * kKeyBlock, end = int64_t{pairs} * kKeyBlock;
  u.dots->pair_f32(weights + first, kKeyBlock, pairs - from, kKeyBlock, u.weight_pairs + first / 2);
  u.dots->pair_f32(dscores + first, kKeyBlock, pairs - from, kKeyBlock, u.score_pairs + first / 2);
  for (int64_t i = first; i < end; i += kLanes) store_floats(load_floats(dscores + i), u.scores + i);
}

// dQ += dS K for at most kDotRows pairs that see the first `visible` keys.
inline void add_dquery(const Units& u, int pair, int rows, int visible, float* dquery) {
  const int64_t row = pair;
  u.dots->multiply({.a = u.scores + row * kKeyBlock,
                    .a_row = kKeyBlock * int64_t{sizeof(uint16_t)},
                    .a_step = sizeof(uint32_t),
                    .b = u.key_pairs,
                    .b_row = u.padded,
                    .c = dquery + row * u.padded,
                    .c_row = u.padded,
                    .rows = rows,
                    .columns = u.padded,
                    .steps = (visible + 1) / 2,
                    .accumulate = true});
}

// dV += Pᵀ dO and dK += dSᵀ Q for at most kDotRows keys: sums over the pairs from `from` on, which is even.
inline void add_dkeys(const Units& u, int key, int rows, int from, int pairs, float* dk, float* dv) {
  const int64_t first = from / 2;
  DotProduct product{.a = u.weight_pairs + first * kKeyBlock + key,
                     .a_row = sizeof(uint32_t),
                     .a_step = kKeyBlock * int64_t{sizeof(uint32_t)},
                     .b = u.dout_pairs + first * u.padded,
                     .b_row = u.padded,
                     .c = dv,
                     .c_row = u.padded,
                     .rows = rows,
                     .columns = u.padded,
                     .steps = (pairs - from + 1) / 2,
                     .accumulate = true};
  u.dots->multiply(product);
  product.a = u.score_pairs + first * kKeyBlock + key;
  product.b = u.query_pairs + first * u.padded;
  product.c = dk;
  u.dots->multiply(product);
}

}  // namespace
}  // namespace ssrl::ops::host::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
