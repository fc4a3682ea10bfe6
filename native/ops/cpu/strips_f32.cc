// f32 products, once per instruction set that Highway knows.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/strips_f32.cc"
#include <hwy/foreach_target.h>

#include <algorithm>
#include <cstring>

#include "ops/cpu/simd-inl.h"
#include "ops/cpu/strips.h"

HWY_BEFORE_NAMESPACE();
namespace ssrl::ops::host::HWY_NAMESPACE {
namespace {

// 8 x 3 sums, three columns and a broadcast of AVX-512's 32 registers; 6 x 2 of the 16 of AVX2.
constexpr int kRows = kWidth == 16 ? 8 : 6, kVectors = kWidth == 16 ? 3 : 2;
constexpr int64_t kStrip = kVectors * kWidth;

HWY_INLINE void store(const strips::Call& call, int64_t row, int v, V sum) {
  const int64_t left = call.columns - v * kWidth, index = row * call.c_row + v * kWidth;
  if (left <= 0) return;
  if (call.bias != nullptr) sum = hn::Add(sum, get(call.bias, DType::kF32, v * kWidth, left));
  if (call.accumulate) sum = hn::Add(sum, get(call.c, DType::kF32, index, left));
  put(sum, call.c, call.c_type, index, left);
}

// What the sums are added to: memory is slower than a tile is long.
template <int R>
HWY_INLINE void fetch_sums(const strips::Call& call, int64_t row) {
  const float* c = static_cast<const float*>(call.c) + row * call.c_row;
  for (int r = 0; r < R; ++r, c += call.c_row) {
    for (int v = 0; v < kVectors; ++v) __builtin_prefetch(c + v * kWidth);
  }
}

template <int R>
void multiply_tile(const strips::Call& call, int64_t row, const char* ahead) {
  if (call.accumulate) fetch_sums<R>(call, row);
  const F f;
  V sums[R][kVectors];
  for (auto& line : sums) {
    for (V& sum : line) sum = hn::Zero(f);
  }
  const int64_t a_row = call.a_row, a_step = call.a_step;
  const char* a = static_cast<const char*>(call.a) + row * a_row;
  const float* b = static_cast<const float*>(call.strip);
  for (int64_t step = 0; step < call.whole_steps; ++step) {
    V columns[kVectors];
    for (int v = 0; v < kVectors; ++v) columns[v] = get(b + v * kWidth);
    __builtin_prefetch(ahead + step * 64, 0, 2);
    for (int r = 0; r < R; ++r) {
      const V value = hn::Set(f, *reinterpret_cast<const float*>(a + r * a_row));
      for (int v = 0; v < kVectors; ++v) sums[r][v] = hn::MulAdd(value, columns[v], sums[r][v]);
    }
    a += a_step;
    b += kStrip;
  }
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < kVectors; ++v) store(call, row + r, v, sums[r][v]);
  }
}

void multiply_rows(const strips::Call& call, int64_t row, int64_t rows, const char* ahead) {
  switch (rows) {
    case 1:
      return multiply_tile<1>(call, row, ahead);
    case 2:
      return multiply_tile<2>(call, row, ahead);
    case 3:
      return multiply_tile<3>(call, row, ahead);
    case 4:
      return multiply_tile<4>(call, row, ahead);
    case 5:
      return multiply_tile<5>(call, row, ahead);
    case 6:
      return multiply_tile<6>(call, row, ahead);
    case 7:
      return multiply_tile<std::min(7, kRows)>(call, row, ahead);
    default:
      return multiply_tile<kRows>(call, row, ahead);
  }
}

void multiply(const strips::Call& call) {
  const int64_t fetched = call.whole_steps * 64;  // bytes that one tile fetches ahead
  const char* ahead = static_cast<const char*>(call.next);
  const char* const end = ahead + call.whole_steps * kStrip * strips::kUnit;
  for (int64_t row = 0; row < call.rows;) {
    const int64_t rows = strips::tile_rows(call.rows - row, kRows);
    const bool wanted = ahead != nullptr && ahead < end;
    multiply_rows(call, row, rows, wanted ? ahead : static_cast<const char*>(call.strip));
    if (wanted) ahead += fetched;
    row += rows;
  }
}

// A row of known width: no call, a few moves.
template <int64_t kColumns>
void pack_rows(const strips::Source& source, float* strip) {
  const float* from = static_cast<const float*>(source.plain);
  for (int64_t k = 0; k < source.k; ++k, strip += kColumns, from += source.k_stride)
    std::memcpy(strip, from, kColumns * sizeof(float));
}

void pack_strip(const strips::Source& source, int64_t width, float* strip) {
  if (source.n_stride == 1 && source.n == width && width == kStrip) return pack_rows<kStrip>(source, strip);
  if (source.n_stride == 1 && source.n == width && width == kRows) return pack_rows<kRows>(source, strip);
  const float* plain = static_cast<const float*>(source.plain);
  for (int64_t k = 0; k < source.k; ++k, strip += width) {
    for (int64_t n = 0; n < source.n; ++n) strip[n] = plain[k * source.k_stride + n * source.n_stride];
    std::fill(strip + source.n, strip + width, 0.0f);
  }
}

void pack(const strips::Source& source, int64_t width, void* strips) {
  for (int64_t n = 0; n < source.n; n += width)
    pack_strip(source.columns(n, width), width, static_cast<float*>(strips) + n * source.k);
}

void transpose(const void* from, int64_t from_steps, void* to, int64_t to_steps) {
  const float* source = static_cast<const float*>(from);
  float* target = static_cast<float*>(to);
  for (int64_t step = 0; step < to_steps; ++step, target += kStrip) {
    for (int64_t i = 0; i < from_steps; ++i) target[i] = source[i * kStrip + step];
    std::fill(target + from_steps, target + kStrip, 0.0f);
  }
}

}  // namespace

strips::Routine strips_f32_routine() {
  return {kStrip, kRows, multiply, pack, transpose};
}

}  // namespace ssrl::ops::host::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ssrl::ops::host {
HWY_EXPORT(strips_f32_routine);

namespace strips {

const Routine& f32_routine() {
  static const Routine routine = HWY_DYNAMIC_DISPATCH(strips_f32_routine)();
  return routine;
}

}  // namespace strips
}  // namespace ssrl::ops::host
#endif
