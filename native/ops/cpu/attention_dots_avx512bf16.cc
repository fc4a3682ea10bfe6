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
inline void multiply_tile(const DotProduct& p, int column) {
  float* const c = p.c + column;
  __m512 sums[R][V];
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) {
      sums[r][v] = p.accumulate ? _mm512_loadu_ps(c + r * p.c_row + v * kLanes) : _mm512_setzero_ps();
    }
  }
  const char* a = static_cast<const char*>(p.a);
  const uint32_t* b = p.b + column;
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
    for (int v = 0; v < V; ++v) _mm512_storeu_ps(c + r * p.c_row + v * kLanes, sums[r][v]);
  }
}

template <int R>
void multiply_rows(const DotProduct& p) {
  int column = 0;
  for (; column + 4 * kLanes <= p.columns; column += 4 * kLanes) multiply_tile<R, 4>(p, column);
  switch ((p.columns - column) / kLanes) {
    case 1:
      return multiply_tile<R, 1>(p, column);
    case 2:
      return multiply_tile<R, 2>(p, column);
    case 3:
      return multiply_tile<R, 3>(p, column);
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

// 16 elements of two rows as units.
inline __m512i join(__m256i low, __m256i high) {
  return _mm512_or_si512(_mm512_cvtepu16_epi32(low), _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16));
}

inline __m256i narrow(const float* from) {
  return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(_mm512_loadu_ps(from)));
}

void pair_bf16(const uint16_t* rows, int64_t stride, int count, int width, int padded, uint32_t* to) {
  for (int i = 0; i < count; i += 2, to += padded) {
    const uint16_t *low = rows + i * stride, *high = i + 1 < count ? low + stride : low;
    for (int j = 0; j < padded; j += kLanes) {
      const auto mask = static_cast<__mmask16>((1u << std::min(kLanes, width - j)) - 1);
      const auto second = static_cast<__mmask16>(i + 1 < count ? mask : 0);
      _mm512_storeu_si512(
          to + j, join(_mm256_maskz_loadu_epi16(mask, low + j), _mm256_maskz_loadu_epi16(second, high + j)));
    }
  }
}

void pair_f32(const float* rows, int64_t stride, int count, int width, uint32_t* to) {
  for (int i = 0; i < count; i += 2, to += width) {
    const float* low = rows + i * stride;
    for (int j = 0; j < width; j += kLanes) {
      const __m256i high = i + 1 < count ? narrow(low + stride + j) : _mm256_setzero_si256();
      _mm512_storeu_si512(to + j, join(narrow(low + j), high));
    }
  }
}

}  // namespace

const DotRoutines& avx512bf16_dot_routines() {
  static const DotRoutines routines{multiply, turn, pair_bf16, pair_f32};
  return routines;
}

}  // namespace ssrl::ops::host
