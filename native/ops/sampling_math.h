// The arithmetic that decides which token is drawn, the same on every device: plain float operations in a
// fixed order, each rounded once (compile with -ffp-contract=off, or --fmad=false), so that equal logits and
// settings give equal tokens on CPU and GPU.
//
// token = argmax over i of logit[i] / T + g[i], g[i] = -log(E[i]), E[i] = -log(1 - u[i]) (the Gumbel-max
// trick). Philox: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011), 4x32 with 10
// rounds.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define SSRL_DEVICE __host__ __device__ inline
#else
#define SSRL_DEVICE inline
#endif

namespace ssrl::ops {

struct PhiloxBlock {
  uint32_t word[4];
};

// Four random words. Words 0..3 of block b belong to the vocabulary indices 4b .. 4b + 3.
SSRL_DEVICE PhiloxBlock philox(uint64_t seed, uint32_t sample, uint32_t position, uint32_t block) {
  uint32_t c0 = block, c1 = position, c2 = sample, c3 = 0;
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = static_cast<uint64_t>(0xD2511F53u) * c0;
    const uint64_t p1 = static_cast<uint64_t>(0xCD9E8D57u) * c2;
    const uint32_t n0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    const uint32_t n2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<uint32_t>(p1);
    c3 = static_cast<uint32_t>(p0);
    c0 = n0;
    c2 = n2;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

SSRL_DEVICE float bits_to_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

SSRL_DEVICE uint32_t float_to_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

// log(x) of a positive normal float, error about 1e-7 relative. With x = m * 2^e and m in [sqrt(1/2),
// sqrt(2)), and s = (m - 1) / (m + 1): log m = 2 (s + s^3/3 + s^5/5 + ...).
SSRL_DEVICE float sampling_log(float x) {
  const uint32_t bits = float_to_bits(x) - 0x3f3504f3u;
  const int32_t exponent = static_cast<int32_t>(bits) >> 23;
  const float m = bits_to_float((bits & 0x007fffffu) + 0x3f3504f3u);
  const float s = (m - 1.0f) / (m + 1.0f);
  const float z = s * s;
  float p = 2.0f / 9.0f;
  p = p * z + 2.0f / 7.0f;
  p = p * z + 2.0f / 5.0f;
  p = p * z + 2.0f / 3.0f;
  p = p * z;
  const float e = static_cast<float>(exponent);
  // ln 2 in two parts: the first has so few bits that e times it is exact.
  return e * 0.693359375f + ((p * s + 2.0f * s) + e * -2.12194440e-4f);
}

// exp(x) for x <= 0; below -87 the result is 0.
SSRL_DEVICE float sampling_exp(float x) {
  if (!(x >= -87.0f)) return 0.0f;
  const float shifted = x * 1.44269504f + 12582912.0f;  // rounds to the nearest integer: 1.5 * 2^23
  const int32_t n = static_cast<int32_t>(float_to_bits(shifted)) - 0x4b400000;
  const float k = shifted - 12582912.0f;
  const float r = (x - k * 0.693359375f) - k * -2.12194440e-4f;
  float p = 1.0f / 5040.0f;
  p = p * r + 1.0f / 720.0f;
  p = p * r + 1.0f / 120.0f;
  p = p * r + 1.0f / 24.0f;
  p = p * r + 1.0f / 6.0f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  return p * bits_to_float(static_cast<uint32_t>(n + 127) << 23);
}

// (0, 1) from the upper 31 bits: signed conversions exist on every device.
SSRL_DEVICE float uniform(uint32_t word) {
  const float u =
      (static_cast<float>(static_cast<int32_t>(word >> 1)) + 0.5f) * 4.656612873077393e-10f;  // 2^-31
  return u < 0.99999994f ? u : 0.99999994f;
}

// A draw from the standard Gumbel distribution. Fine steps of u near 0 are what the largest draws come from,
// so the tail reaches to 22.9 and ties hardly occur.
SSRL_DEVICE float gumbel(uint32_t word) {
  const float u = uniform(word);
  const float w = 1.0f - u;
  const float exponential = -(sampling_log(w) + (-u - (w - 1.0f)) / w);  // -log1p(-u)
  return -sampling_log(exponential);
}

// Probability mass in units of 2^-32 of the largest: integers add up to the same sum in any order.
SSRL_DEVICE uint64_t sampling_mass(float scaled, float maximum) {
  return static_cast<uint64_t>(sampling_exp(scaled - maximum) * 4294967296.0f);
}

}  // namespace ssrl::ops
