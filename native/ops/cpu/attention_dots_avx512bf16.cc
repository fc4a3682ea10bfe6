// vdpbf16ps: two multiply-adds in the order of the depth, f32 sums.
#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "ops/cpu/attention_dots.h"
#include "ops/cpu/turn_avx512-inl.h"

namespace ssrl::ops::host {
namespace {

constexpr int kLanes = 16;

inline __m512bh as_pairs(__m512i units) {
  return reinterpret_cast<__m512bh>(units);
}

// 6 x 4 sums, 4 columns and a broadcast of the 32 registers.
template <int R, int V>
inline void multiply_tile(const DotProduct& p) {
  __m512 sums[R][V];
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) {
      sums[r][v] = p.accumulate ? _mm512_loadu_ps(p.c + r * p.c_row + v * kLanes) : _mm512_setzero_ps();
    }
  }
  const char* a = static_cast<const char*>(p.a);
  const uint32_t* b = p.b;
  for (int step = 0; step < p.steps; ++step, a += p.a_step, b += p.b_row) {
    __m512bh columns[V];
    for (int v = 0; v < V; ++v) columns[v] = as_pairs(_mm512_loadu_si512(b + v * kLanes));
    for (int r = 0; r < R; ++r) {
      int32_t unit;
      std::memcpy(&unit, a + r * p.a_row, sizeof unit);
      const __m512bh row = as_pairs(_mm512_set1_epi32(unit));
      for (int v = 0; v < V; ++v) sums[r][v] = _mm512_dpbf16_ps(sums[r][v], row, columns[v]);
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) _mm512_storeu_ps(p.c + r * p.c_row + v * kLanes, sums[r][v]);
  }
}

template <int R>
void multiply_rows(const DotProduct& p) {
  switch (p.columns / kLanes) {
    case 1:
      return multiply_tile<R, 1>(p);
    case 2:
      return multiply_tile<R, 2>(p);
    case 3:
      return multiply_tile<R, 3>(p);
    default:
      return multiply_tile<R, 4>(p);
  }
}

constexpr void (*kTiles[kDotRows])(const DotProduct&) = {multiply_rows<1>, multiply_rows<2>,
                                                         multiply_rows<3>, multiply_rows<4>,
                                                         multiply_rows<5>, multiply_rows<6>};

void multiply(const DotProduct& p) {
  kTiles[p.rows - 1](p);
}

void turn(const uint16_t* rows, int64_t stride, int count, int width, uint32_t* to) {
  for (int i = 0; i < count; i += kLanes) {
    for (int j = 0; j < width; j += 2 * kLanes) {
      const int left = width - j, steps = std::min(kLanes, (left + 1) / 2);
      const auto elements = static_cast<__mmask32>(left >= 2 * kLanes ? ~0u : (1u << left) - 1);
      __m512i block[kLanes];
      for (int r = 0; r < kLanes; ++r) {
        const bool exists = i + r < count;
        const uint16_t* row = rows + (exists ? i + r : i) * stride + j;
        block[r] = _mm512_maskz_loadu_epi16(exists ? elements : 0, row);
      }
      turn_over(block);
      for (int step = 0; step < steps; ++step)
        _mm512_storeu_si512(to + (j / 2 + step) * int64_t{kKeyBlock} + i, block[step]);
    }
  }
}

}  // namespace

const DotRoutines& avx512bf16_dot_routines() {
  static const DotRoutines routines{multiply, turn};
  return routines;
}

}  // namespace ssrl::ops::host
