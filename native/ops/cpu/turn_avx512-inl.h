// For files that are compiled for AVX-512 as a whole, and only for them.
#pragma once

#include <immintrin.h>

namespace ssrl::ops::host {
namespace {

// Turns 16 vectors of 16 words over: word j of vector i becomes word i of vector j.
inline void turn_over(__m512i (&v)[16]) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    v[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    v[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    v[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    v[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  // v[4 * g + w] holds words w, 4 + w, 8 + w and 12 + w of the vectors of group g, a part of 128 bits each.
  for (int w = 0; w < 4; ++w) {
    const __m512i even01 = _mm512_shuffle_i32x4(v[w], v[4 + w], 0x88);
    const __m512i odd01 = _mm512_shuffle_i32x4(v[w], v[4 + w], 0xdd);
    const __m512i even23 = _mm512_shuffle_i32x4(v[8 + w], v[12 + w], 0x88);
    const __m512i odd23 = _mm512_shuffle_i32x4(v[8 + w], v[12 + w], 0xdd);
    t[w] = _mm512_shuffle_i32x4(even01, even23, 0x88);
    t[4 + w] = _mm512_shuffle_i32x4(odd01, odd23, 0x88);
    t[8 + w] = _mm512_shuffle_i32x4(even01, even23, 0xdd);
    t[12 + w] = _mm512_shuffle_i32x4(odd01, odd23, 0xdd);
  }
  for (int i = 0; i < 16; ++i) v[i] = t[i];
}

}  // namespace
}  // namespace ssrl::ops::host
