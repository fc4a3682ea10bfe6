// 16-bit floats to and from f32. Written without branches that depend on the data, so that loops over them
// vectorise on every CPU. Rounding is to nearest, ties to even.
#pragma once

#include <bit>
#include <cstdint>

namespace ssrl {

inline float f32_from_bf16(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

inline uint16_t bf16_from_f32(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  // A NaN must not round up into infinity: keep its top bits and make it quiet.
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x0040u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline float f32_from_f16(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t magnitude = static_cast<uint32_t>(bits & 0x7fffu) << 13;
  // Infinity and NaN keep their mantissa; the product below would make them large finite numbers.
  const uint32_t special = (bits & 0x7c00u) == 0x7c00u ? 0x70000000u : 0u;
  // As f32 bits the exponent is 112 too small; the product with 2^112 corrects it, for subnormals as well.
  const float scaled = std::bit_cast<float>(magnitude) * std::bit_cast<float>(0x77800000u);
  return std::bit_cast<float>((special ? magnitude + special : std::bit_cast<uint32_t>(scaled)) | sign);
}

inline uint16_t f16_from_f32(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
  if (magnitude >= 0x477ff000u)
    return static_cast<uint16_t>(sign | 0x7c00u);  // 65,520 and above round to infinity
  if (magnitude < 0x38800000u) {
    // Below the smallest normal f16: adding 0.5 leaves the multiple of 2^-24 in the low mantissa bits,
    // rounded by the adder itself.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000u));
  }
  const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

}  // namespace ssrl
