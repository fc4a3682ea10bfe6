// What attention and its gradient are made of, once per instruction set: every product is one routine that
// adds up in the order of its depth, one fused multiply-add a step. A result therefore has the same bits
// whichever rows and columns are computed beside it, and the callers may tile as they like.
//
// Included by Highway's foreach_target, so the guard toggles.
#if defined(SSRL_OPS_CPU_ATTENTION_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SSRL_OPS_CPU_ATTENTION_TILE_INL_H_
#undef SSRL_OPS_CPU_ATTENTION_TILE_INL_H_
#else
#define SSRL_OPS_CPU_ATTENTION_TILE_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "ops/bf16.h"
#include "ops/ops.h"

HWY_BEFORE_NAMESPACE();
namespace ssrl::ops::host::HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::CappedTag<float, 16>;
using Words = hn::RebindToUnsigned<Floats>;
using Halves = hn::Rebind<uint16_t, Floats>;
using Vector = hn::Vec<Floats>;
constexpr int kLanes = static_cast<int>(hn::MaxLanes(Floats()));
// 6 x 4 sums, 4 columns and a broadcast fill the 32 registers of AVX-512; half of the columns the 16 of AVX2.
constexpr int kTileRows = 6;
constexpr int kTileVectors = kLanes == 16 ? 4 : 2;

inline int round_up(int count, int multiple) {
  return (count + multiple - 1) / multiple * multiple;
}

HWY_INLINE Vector load_floats(const float* from) {
  return hn::LoadU(Floats(), from);
}

HWY_INLINE Vector load_floats(const uint16_t* from) {
  const auto wide = hn::PromoteTo(Words(), hn::LoadU(Halves(), from));
  return hn::BitCast(Floats(), hn::ShiftLeft<16>(wide));
}

HWY_INLINE void store_floats(Vector value, float* to) {
  hn::StoreU(value, Floats(), to);
}

// To nearest even, as to_bf16.
HWY_INLINE void store_floats(Vector value, uint16_t* to) {
  const Words words;
  const auto bits = hn::BitCast(words, value);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(words, 1));
  const auto rounded = hn::Add(hn::Add(bits, hn::Set(words, 0x7fff)), odd);
  const auto quiet = hn::Or(bits, hn::Set(words, 0x400000));
  const auto nan = hn::RebindMask(words, hn::IsNaN(value));
  hn::StoreU(hn::TruncateTo(Halves(), hn::ShiftRight<16>(hn::IfThenElse(nan, quiet, rounded))), Halves(), to);
}

inline float load_float(const float* from) {
  return *from;
}
inline float load_float(const uint16_t* from) {
  return from_bf16(*from);
}
inline void store_float(float value, float* to) {
  *to = value;
}
inline void store_float(float value, uint16_t* to) {
  *to = to_bf16(value);
}

// to[j] = from[j] for j < width, then zeros up to a whole vector.
template <typename T>
HWY_INLINE void load_row(const T* from, int width, float* to) {
  int j = 0;
  for (; j + kLanes <= width; j += kLanes) store_floats(load_floats(from + j), to + j);
  for (; j < width; ++j) to[j] = load_float(from + j);
  for (; j % kLanes != 0; ++j) to[j] = 0;
}

template <typename T>
HWY_INLINE void store_row(const float* from, float factor, int width, T* to) {
  const Vector factors = hn::Set(Floats(), factor);
  int j = 0;
  for (; j + kLanes <= width; j += kLanes) store_floats(hn::Mul(load_floats(from + j), factors), to + j);
  for (; j < width; ++j) store_float(from[j] * factor, to + j);
}

// 2^x for x <= 0 or so, 0 below 2^-126; 2^0 is exactly 1, and NaN stays NaN. The polynomial is the Taylor
// series of 2^r, |r| <= 1/2, cut where a term is below the rounding.
HWY_INLINE Vector exp2(Vector x) {
  const Floats d;
  const hn::RebindToSigned<Floats> integers;
  const Vector k = hn::Round(x);
  const Vector r = hn::Sub(x, k);
  Vector p = hn::Set(d, 1.5252734e-5f);
  p = hn::MulAdd(p, r, hn::Set(d, 1.5403530e-4f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.3333558e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 9.6181291e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 5.5504109e-2f));
  p = hn::MulAdd(p, r, hn::Set(d, 2.4022651e-1f));
  p = hn::MulAdd(p, r, hn::Set(d, 6.9314718e-1f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f));
  const auto exponent = hn::ShiftLeft<23>(hn::Add(hn::ConvertTo(integers, k), hn::Set(integers, 127)));
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, -126.0f)), hn::Mul(p, hn::BitCast(d, exponent)));
}

// c[rows, columns] = factor * c + a·b, where factor is one number a row, or 1, or 0.
enum class Start { kZero, kAdd, kScale };

template <typename B>
struct Product {
  const float* a;  // [rows, depth], element (r, k) at a + r * a_row + k * a_depth
  int64_t a_row, a_depth;
  const B* b;  // [depth, columns]
  int64_t b_stride;
  float* c;  // [rows, columns]
  int64_t c_stride;
  int columns;  // whole vectors
  int depth;
  Start start;
  const float* factors;  // [rows], for kScale
};

template <int R, int V, typename B>
HWY_INLINE void multiply_tile(const Product<B>& p, int column) {
  const Floats d;
  Vector sum[R][V];
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) sum[r][v] = hn::Zero(d);
  }
  const float* a = p.a;
  const B* b = p.b + column;
  for (int k = 0; k < p.depth; ++k, a += p.a_depth, b += p.b_stride) {
    Vector columns[V];
    for (int v = 0; v < V; ++v) columns[v] = load_floats(b + v * kLanes);
    for (int r = 0; r < R; ++r) {
      const Vector row = hn::Set(d, a[r * p.a_row]);
      for (int v = 0; v < V; ++v) sum[r][v] = hn::MulAdd(row, columns[v], sum[r][v]);
    }
  }
  for (int r = 0; r < R; ++r) {
    float* c = p.c + r * p.c_stride + column;
    const Vector factor = hn::Set(d, p.start == Start::kScale ? p.factors[r] : 1.0f);
    for (int v = 0; v < V; ++v) {
      if (p.start != Start::kZero) sum[r][v] = hn::MulAdd(load_floats(c + v * kLanes), factor, sum[r][v]);
      store_floats(sum[r][v], c + v * kLanes);
    }
  }
}

template <int R, typename B>
HWY_NOINLINE void multiply_rows(const Product<B>& p) {
  int column = 0;
  for (; column + kTileVectors * kLanes <= p.columns; column += kTileVectors * kLanes)
    multiply_tile<R, kTileVectors>(p, column);
  if constexpr (kTileVectors > 2) {
    for (; column + 2 * kLanes <= p.columns; column += 2 * kLanes) multiply_tile<R, 2>(p, column);
  }
  for (; column < p.columns; column += kLanes) multiply_tile<R, 1>(p, column);
}

// At most kTileRows rows.
template <typename B>
HWY_INLINE void multiply(const Product<B>& p, int rows) {
  switch (rows) {
    case 1:
      return multiply_rows<1>(p);
    case 2:
      return multiply_rows<2>(p);
    case 3:
      return multiply_rows<3>(p);
    case 4:
      return multiply_rows<4>(p);
    case 5:
      return multiply_rows<5>(p);
    default:
      return multiply_rows<6>(p);
  }
}

#if HWY_TARGET != HWY_SCALAR
// One 128-bit part of each row, part b from rows[4 * b].
template <class D, typename T>
HWY_INLINE hn::Vec<D> load_parts(D d, const T* const* rows, int64_t offset) {
  if constexpr (hn::MaxLanes(d) <= 4) {
    return hn::LoadU(d, reinterpret_cast<const uint32_t*>(rows[0] + offset));
  } else {
    const hn::Half<D> half;
    return hn::Combine(d, load_parts(half, rows + hn::MaxLanes(d) / 2, offset),
                       load_parts(half, rows, offset));
  }
}

HWY_INLINE void store_words(hn::Vec<Words> words, const float*, float* to) {
  store_floats(hn::BitCast(Floats(), words), to);
}

// A word holds two neighbouring bf16 elements of a row.
HWY_INLINE void store_words(hn::Vec<Words> words, const uint16_t*, float* to) {
  store_floats(hn::BitCast(Floats(), hn::ShiftLeft<16>(words)), to);
  store_floats(hn::BitCast(Floats(), hn::And(words, hn::Set(Words(), 0xffff0000u))), to + kKeyBlock);
}

// Row j of `to` = element j of each of kLanes rows. Returns how many elements went in whole steps.
template <typename T>
HWY_INLINE int transpose_rows(const T* const* rows, int width, float* to) {
  constexpr int kStep = 16 / sizeof(T);
  const Words words;
  const hn::RepartitionToWide<Words> pairs;
  int j = 0;
  for (; j + kStep <= width; j += kStep) {
    const auto r0 = load_parts(words, rows, j), r1 = load_parts(words, rows + 1, j),
               r2 = load_parts(words, rows + 2, j), r3 = load_parts(words, rows + 3, j);
    const auto low01 = hn::BitCast(pairs, hn::InterleaveLower(words, r0, r1)),
               low23 = hn::BitCast(pairs, hn::InterleaveLower(words, r2, r3)),
               high01 = hn::BitCast(pairs, hn::InterleaveUpper(words, r0, r1)),
               high23 = hn::BitCast(pairs, hn::InterleaveUpper(words, r2, r3));
    float* out = to + j * kKeyBlock;
    constexpr int kNext = kStep / 4 * kKeyBlock;
    store_words(hn::BitCast(words, hn::InterleaveLower(pairs, low01, low23)), rows[0], out);
    store_words(hn::BitCast(words, hn::InterleaveUpper(pairs, low01, low23)), rows[0], out + kNext);
    store_words(hn::BitCast(words, hn::InterleaveLower(pairs, high01, high23)), rows[0], out + 2 * kNext);
    store_words(hn::BitCast(words, hn::InterleaveUpper(pairs, high01, high23)), rows[0], out + 3 * kNext);
  }
  return j;
}
#else
template <typename T>
int transpose_rows(const T* const*, int, float*) {
  return 0;
}
#endif

// to[width, kKeyBlock] = the transposed rows, whole vectors of them; past the last row, copies of it, since
// what lies behind may not be memory.
template <typename T>
HWY_NOINLINE void transpose(const T* from, int64_t stride, int count, int width, float* to) {
  for (int i = 0; i < count; i += kLanes) {
    const T* rows[kLanes];
    for (int r = 0; r < kLanes; ++r) rows[r] = from + std::min(i + r, count - 1) * stride;
    for (int j = transpose_rows(rows, width, to + i); j < width; ++j) {
      for (int r = 0; r < kLanes; ++r) to[j * kKeyBlock + i + r] = load_float(rows[r] + j);
    }
  }
}

}  // namespace
}  // namespace ssrl::ops::host::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
