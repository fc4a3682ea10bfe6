#include "formats/dequantize.h"

#include <cstring>

#include "formats/half.h"

namespace ssrl {
namespace {

float half_at(const uint8_t* bytes) {
  uint16_t bits;
  std::memcpy(&bits, bytes, sizeof(bits));
  return f32_from_f16(bits);
}

uint32_t u32_at(const uint8_t* bytes) {
  uint32_t value;
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

struct ScaleAndMinimum {
  uint8_t scale, minimum;
};

// Sub-block j of 8 in the 12 bytes of Q4_K and Q5_K: the first four pairs lie in the low 6 bits, the others
// are put together from 4 low bits and the 2 top bits of the first eight bytes.
ScaleAndMinimum k_scale(const uint8_t* s, int j) {
  if (j < 4) return {static_cast<uint8_t>(s[j] & 63), static_cast<uint8_t>(s[j + 4] & 63)};
  return {static_cast<uint8_t>((s[j + 4] & 0xf) | ((s[j - 4] >> 6) << 4)),
          static_cast<uint8_t>((s[j + 4] >> 4) | ((s[j] >> 6) << 4))};
}

// The two halves of a block of 32: low nibbles are elements 0..15, high nibbles 16..31.
int fifth_bit_low(uint32_t high, int j) {
  return static_cast<int>((high >> j) & 1u) << 4;
}
int fifth_bit_high(uint32_t high, int j) {
  return static_cast<int>((high >> (j + 16)) & 1u) << 4;
}

}  // namespace

void dequantize_q4_0(const uint8_t* source, float* out, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, source += kQ4_0Bytes, out += 32) {
    const float d = half_at(source);
    const uint8_t* q = source + 2;
    for (int j = 0; j < 16; ++j) {
      out[j] = static_cast<float>((q[j] & 0xf) - 8) * d;
      out[j + 16] = static_cast<float>((q[j] >> 4) - 8) * d;
    }
  }
}

void dequantize_q4_1(const uint8_t* source, float* out, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, source += kQ4_1Bytes, out += 32) {
    const float d = half_at(source), m = half_at(source + 2);
    const uint8_t* q = source + 4;
    for (int j = 0; j < 16; ++j) {
      out[j] = static_cast<float>(q[j] & 0xf) * d + m;
      out[j + 16] = static_cast<float>(q[j] >> 4) * d + m;
    }
  }
}

void dequantize_q5_0(const uint8_t* source, float* out, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, source += kQ5_0Bytes, out += 32) {
    const float d = half_at(source);
    const uint32_t high = u32_at(source + 2);
    const uint8_t* q = source + 6;
    for (int j = 0; j < 16; ++j) {
      out[j] = static_cast<float>(((q[j] & 0xf) | fifth_bit_low(high, j)) - 16) * d;
      out[j + 16] = static_cast<float>(((q[j] >> 4) | fifth_bit_high(high, j)) - 16) * d;
    }
  }
}

void dequantize_q5_1(const uint8_t* source, float* out, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, source += kQ5_1Bytes, out += 32) {
    const float d = half_at(source), m = half_at(source + 2);
    const uint32_t high = u32_at(source + 4);
    const uint8_t* q = source + 8;
    for (int j = 0; j < 16; ++j) {
      out[j] = static_cast<float>((q[j] & 0xf) | fifth_bit_low(high, j)) * d + m;
      out[j + 16] = static_cast<float>((q[j] >> 4) | fifth_bit_high(high, j)) * d + m;
    }
  }
}

void dequantize_q8_0(const uint8_t* source, float* out, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, source += kQ8_0Bytes, out += 32) {
    const float d = half_at(source);
    for (int j = 0; j < 32; ++j) out[j] = static_cast<float>(static_cast<int8_t>(source[2 + j])) * d;
  }
}

void dequantize_q4_k(const uint8_t* source, float* out, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, source += kQ4_KBytes) {
    const float d = half_at(source), dmin = half_at(source + 2);
    const uint8_t* scales = source + 4;
    const uint8_t* q = source + 16;
    for (int pair = 0; pair < 4; ++pair, q += 32, out += 64) {
      const auto [scale1, minimum1] = k_scale(scales, 2 * pair);
      const auto [scale2, minimum2] = k_scale(scales, 2 * pair + 1);
      const float d1 = d * scale1, m1 = dmin * minimum1, d2 = d * scale2, m2 = dmin * minimum2;
      for (int l = 0; l < 32; ++l) out[l] = d1 * static_cast<float>(q[l] & 0xf) - m1;
      for (int l = 0; l < 32; ++l) out[32 + l] = d2 * static_cast<float>(q[l] >> 4) - m2;
    }
  }
}

void dequantize_q5_k(const uint8_t* source, float* out, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, source += kQ5_KBytes) {
    const float d = half_at(source), dmin = half_at(source + 2);
    const uint8_t* scales = source + 4;
    const uint8_t* high = source + 16;
    const uint8_t* q = source + 48;
    for (int pair = 0; pair < 4; ++pair, q += 32, out += 64) {
      const auto [scale1, minimum1] = k_scale(scales, 2 * pair);
      const auto [scale2, minimum2] = k_scale(scales, 2 * pair + 1);
      const float d1 = d * scale1, m1 = dmin * minimum1, d2 = d * scale2, m2 = dmin * minimum2;
      for (int l = 0; l < 32; ++l) {
        out[l] = d1 * static_cast<float>((q[l] & 0xf) + (((high[l] >> (2 * pair)) & 1) << 4)) - m1;
        out[32 + l] = d2 * static_cast<float>((q[l] >> 4) + (((high[l] >> (2 * pair + 1)) & 1) << 4)) - m2;
      }
    }
  }
}

void dequantize_q6_k(const uint8_t* source, float* out, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, source += kQ6_KBytes) {
    const float d = half_at(source + 208);
    for (int half = 0; half < 2; ++half, out += 128) {
      const uint8_t* low = source + 64 * half;
      const uint8_t* high = source + 128 + 32 * half;
      const auto* scales = reinterpret_cast<const int8_t*>(source + 192 + 8 * half);
      for (int l = 0; l < 32; ++l) {
        const int q[4] = {((low[l] & 0xf) | ((high[l] & 3) << 4)) - 32,
                          ((low[l + 32] & 0xf) | (((high[l] >> 2) & 3) << 4)) - 32,
                          ((low[l] >> 4) | (((high[l] >> 4) & 3) << 4)) - 32,
                          ((low[l + 32] >> 4) | (((high[l] >> 6) & 3) << 4)) - 32};
        for (int k = 0; k < 4; ++k) out[32 * k + l] = d * scales[2 * k + l / 16] * static_cast<float>(q[k]);
      }
    }
  }
}

}  // namespace ssrl
