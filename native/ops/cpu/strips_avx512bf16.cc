// bf16 products by the dot product of pairs (vdpbf16ps): two multiply-adds in the order of k, f32 sums.
#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "ops/cpu/strips.h"
#include "ops/cpu/turn_avx512-inl.h"

namespace ssrl::ops::host::strips {
namespace {

// 8 x 3 sums, three columns and a broadcast of the 32 registers.
constexpr int kRows = 8, kVectors = 3, kLanes = 16;
constexpr int64_t kWidth = kVectors * kLanes;

inline __m512bh as_pairs(__m512i words) {
  return reinterpret_cast<__m512bh>(words);
}

inline __mmask16 lanes(int64_t count) {
  return static_cast<__mmask16>((1u << std::clamp<int64_t>(count, 0, kLanes)) - 1);
}

inline __m512i broadcast_unit(const char* from) {
  int32_t unit;
  std::memcpy(&unit, from, sizeof unit);
  return _mm512_set1_epi32(unit);
}

inline __m512i broadcast_half(const char* from) {
  uint16_t half;
  std::memcpy(&half, from, sizeof half);
  return _mm512_set1_epi32(half);
}

inline void store(const Call& call, int64_t row, int v, __m512 sum) {
  const __mmask16 mask = lanes(call.columns - v * kLanes);
  const int64_t offset = row * call.c_row + v * kLanes;
  if (call.bias != nullptr) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, call.bias + v * kLanes));
  if (call.c_type == DType::kBF16) {
    uint16_t* c = static_cast<uint16_t*>(call.c) + offset;
    _mm256_mask_storeu_epi16(c, mask, reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(sum)));
    return;
  }
  float* c = static_cast<float*>(call.c) + offset;
  if (call.accumulate) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, c));
  _mm512_mask_storeu_ps(c, mask, sum);
}

// What the sums are added to: memory is slower than a tile is long.
template <int R>
inline void fetch_sums(const Call& call, int64_t row) {
  const float* c = static_cast<const float*>(call.c) + row * call.c_row;
  for (int r = 0; r < R; ++r, c += call.c_row) {
    for (int v = 0; v < kVectors; ++v)
      _mm_prefetch(reinterpret_cast<const char*>(c + v * kLanes), _MM_HINT_T0);
  }
}

template <int R>
void multiply_tile(const Call& call, int64_t row, const char* ahead) {
  if (call.accumulate) fetch_sums<R>(call, row);
  __m512 sums[R][kVectors];
  for (auto& line : sums) {
    for (__m512& sum : line) sum = _mm512_setzero_ps();
  }
  const int64_t a_row = call.a_row, a_step = call.a_step;
  const char* a = static_cast<const char*>(call.a) + row * a_row;
  const char* b = static_cast<const char*>(call.strip);
  for (int64_t step = 0; step < call.whole_steps; ++step) {
    __m512bh columns[kVectors];
    for (int v = 0; v < kVectors; ++v) columns[v] = as_pairs(_mm512_loadu_si512(b + v * kLanes * kUnit));
    _mm_prefetch(ahead + step * 64, _MM_HINT_T1);
    for (int r = 0; r < R; ++r) {
      const __m512bh pair = as_pairs(broadcast_unit(a + r * a_row));
      for (int v = 0; v < kVectors; ++v) sums[r][v] = _mm512_dpbf16_ps(sums[r][v], pair, columns[v]);
    }
    a += a_step;
    b += kWidth * kUnit;
  }
  if (call.tail != nullptr) {
    for (int r = 0; r < R; ++r) {
      const __m512bh pair = as_pairs(broadcast_half(static_cast<const char*>(call.tail) + (row + r) * a_row));
      for (int v = 0; v < kVectors; ++v) {
        const __m512bh column = as_pairs(_mm512_loadu_si512(b + v * kLanes * kUnit));
        sums[r][v] = _mm512_dpbf16_ps(sums[r][v], pair, column);
      }
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < kVectors; ++v) store(call, row + r, v, sums[r][v]);
  }
}

constexpr void (*kTiles[])(const Call&, int64_t, const char*) = {
    multiply_tile<1>, multiply_tile<2>, multiply_tile<3>, multiply_tile<4>,
    multiply_tile<5>, multiply_tile<6>, multiply_tile<7>, multiply_tile<8>};

void multiply(const Call& call) {
  const int64_t fetched = call.whole_steps * 64;  // bytes that one tile fetches ahead
  const char* ahead = static_cast<const char*>(call.next);
  const char* const end = ahead + call.whole_steps * kWidth * kUnit;
  for (int64_t row = 0; row < call.rows;) {
    const int64_t rows = tile_rows(call.rows - row, kRows);
    // What is in the cache already costs next to nothing.
    const bool wanted = ahead != nullptr && ahead < end;
    kTiles[rows - 1](call, row, wanted ? ahead : static_cast<const char*>(call.strip));
    if (wanted) ahead += fetched;
    row += rows;
  }
}

// 16 f32 as bf16, each in the low half of a word.
inline __m512i to_halves(__m512 value) {
  return _mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(value)));
}

inline __m512i load_halves(const float* from, __mmask16 mask) {
  return to_halves(_mm512_maskz_loadu_ps(mask, from));
}
inline __m512i load_halves(const uint16_t* from, __mmask16 mask) {
  return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from));
}

// Rows of k that lie contiguous in memory: two of them make a step.
template <typename T>
void pack_rows(const Source& source, int64_t width, uint32_t* strip) {
  const T* plain = static_cast<const T*>(source.plain);
  for (int64_t k = 0; k < source.k; k += 2, strip += width) {
    const T* low = plain + k * source.k_stride;
    // With an odd k the last step is half empty.
    const T* high = k + 1 < source.k ? low + source.k_stride : low;
    const __mmask16 has_high = k + 1 < source.k ? 0xffff : 0;
    for (int64_t n = 0; n < width; n += kLanes) {
      const __mmask16 mask = lanes(source.n - n);
      const __m512i upper = _mm512_slli_epi32(load_halves(high + n, mask & has_high), 16);
      _mm512_mask_storeu_epi32(strip + n, lanes(width - n),
                               _mm512_or_si512(load_halves(low + n, mask), upper));
    }
  }
}

// Rows that are fetched ahead: each lies on another page, where hardware does not look ahead.
constexpr int64_t kFetched = 32;

// pack_rows for four neighbouring strips of 8 columns at once: together they are a cache line of a row.
void pack_narrow(const Source& source, uint32_t* strips) {
  const uint16_t* plain = static_cast<const uint16_t*>(source.plain);
  const int64_t stride = steps_of(source.k, DType::kBF16) * kRows;
  const __mmask32 mask = static_cast<__mmask32>((uint64_t{1} << source.n) - 1);
  for (int64_t k = 0; k < source.k; k += 2, strips += kRows) {
    const uint16_t* from = plain + k * source.k_stride;
    _mm_prefetch(reinterpret_cast<const char*>(from + kFetched * source.k_stride), _MM_HINT_T0);
    _mm_prefetch(reinterpret_cast<const char*>(from + (kFetched + 1) * source.k_stride), _MM_HINT_T0);
    const __m512i low = _mm512_maskz_loadu_epi16(mask, from);
    const __m512i high =
        k + 1 < source.k ? _mm512_maskz_loadu_epi16(mask, from + source.k_stride) : _mm512_setzero_si512();
    // Within each of four parts of 8 elements: the pairs of the first 4, and of the last.
    const __m512i first = _mm512_unpacklo_epi16(low, high), last = _mm512_unpackhi_epi16(low, high);
    const auto store = [&](int64_t part, __m128i front, __m128i back) {
      if (part * kRows >= source.n) return;
      _mm_storeu_si128(reinterpret_cast<__m128i*>(strips + part * stride), front);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(strips + part * stride + kRows / 2), back);
    };
    store(0, _mm512_castsi512_si128(first), _mm512_castsi512_si128(last));
    store(1, _mm512_extracti32x4_epi32(first, 1), _mm512_extracti32x4_epi32(last, 1));
    store(2, _mm512_extracti32x4_epi32(first, 2), _mm512_extracti32x4_epi32(last, 2));
    store(3, _mm512_extracti32x4_epi32(first, 3), _mm512_extracti32x4_epi32(last, 3));
  }
}

// Columns that lie contiguous in memory (k_stride 1), from f32: 16 steps of 16 columns at a time.
void pack_columns(const Source& source, int64_t width, uint32_t* strip) {
  const int64_t steps = steps_of(source.k, DType::kBF16);
  const float* plain = static_cast<const float*>(source.plain);
  for (int64_t step = 0; step < steps; step += kLanes) {
    const int64_t k = 2 * step, rows = std::min<int64_t>(kLanes, steps - step);
    for (int64_t n = 0; n < width; n += kLanes) {
      __m512i block[kLanes];
      for (int64_t i = 0; i < kLanes; ++i) {
        const int64_t left = n + i < source.n ? source.k - k : 0;
        const float* from = left > 0 ? plain + (n + i) * source.n_stride + k : plain;
        const __m512 first = _mm512_maskz_loadu_ps(lanes(left), from);
        const __m512 second = _mm512_maskz_loadu_ps(lanes(left - kLanes), from + kLanes);
        block[i] = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(second, first));
      }
      turn_over(block);
      for (int64_t row = 0; row < rows; ++row) {
        _mm512_mask_storeu_epi32(strip + (step + row) * width + n, lanes(width - n), block[row]);
      }
    }
  }
}

void pack(const Source& source, int64_t width, void* strips) {
  uint32_t* const out = static_cast<uint32_t*>(strips);
  const bool narrow = width == kRows && source.type == DType::kBF16 && source.n_stride == 1;
  const int64_t together = narrow ? 4 * width : width;
  for (int64_t n = 0; n < source.n; n += together) {
    const Source part = source.columns(n, together);
    uint32_t* const strip = out + n * steps_of(source.k, DType::kBF16);
    if (narrow) {
      pack_narrow(part, strip);
    } else if (source.n_stride != 1) {
      pack_columns(part, width, strip);
    } else if (source.type == DType::kBF16) {
      pack_rows<uint16_t>(part, width, strip);
    } else {
      pack_rows<float>(part, width, strip);
    }
  }
}

// 8 steps of 16 columns: 64-bit lane p of step t, the pairs (2t, 2t + 1) of columns 2p and 2p + 1, becomes
// lane t of step p, where the pairs are of columns.
inline void transpose_pairs(__m512i (&v)[kRows]) {
  __m512i t[kRows];
  for (int i = 0; i < kRows; i += 2) {
    t[i] = _mm512_unpacklo_epi64(v[i], v[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi64(v[i], v[i + 1]);
  }
  const __m512i middle_swapped = _mm512_set4_epi32(0x0f0e0b0a, 0x0d0c0908, 0x07060302, 0x05040100);
  for (int odd = 0; odd < 2; ++odd) {
    // Part q of 128 bits of a[i] holds lane 2q + odd of steps i and i + 1.
    const __m512i* a = t + odd;
    const __m512i low01 = _mm512_shuffle_i64x2(a[0], a[2], 0x88),
                  high01 = _mm512_shuffle_i64x2(a[0], a[2], 0xdd);
    const __m512i low23 = _mm512_shuffle_i64x2(a[4], a[6], 0x88),
                  high23 = _mm512_shuffle_i64x2(a[4], a[6], 0xdd);
    v[odd] = _mm512_shuffle_i64x2(low01, low23, 0x88);
    v[2 + odd] = _mm512_shuffle_i64x2(high01, high23, 0x88);
    v[4 + odd] = _mm512_shuffle_i64x2(low01, low23, 0xdd);
    v[6 + odd] = _mm512_shuffle_i64x2(high01, high23, 0xdd);
  }
  for (__m512i& line : v) line = _mm512_shuffle_epi8(line, middle_swapped);
}

void transpose(const void* from, int64_t from_steps, void* to, int64_t to_steps) {
  const uint32_t* source = static_cast<const uint32_t*>(from);
  uint32_t* target = static_cast<uint32_t*>(to);
  for (int64_t step = 0; step < kWidth / 2; step += kRows) {
    for (int64_t column = 0; column < kWidth && column / 2 < to_steps; column += kLanes) {
      __m512i block[kRows];
      for (int64_t i = 0; i < kRows; ++i) {
        block[i] = step + i < from_steps ? _mm512_loadu_si512(source + (step + i) * kWidth + column)
                                         : _mm512_setzero_si512();
      }
      transpose_pairs(block);
      const int64_t steps = std::min<int64_t>(kRows, to_steps - column / 2);
      for (int64_t i = 0; i < steps; ++i)
        _mm512_storeu_si512(target + (column / 2 + i) * kWidth + 2 * step, block[i]);
    }
  }
}

}  // namespace

const Routine& avx512bf16_routine() {
  static const Routine routine{kWidth, kRows, multiply, pack, transpose};
  return routine;
}

}  // namespace ssrl::ops::host::strips
