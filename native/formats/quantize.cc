#include "formats/quantize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "formats/dequantize.h"
#include "formats/half.h"

namespace ssrl {

void quantize_f16(const float* values, uint8_t* out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const uint16_t bits = f16_from_f32(values[i]);
    std::memcpy(out + 2 * i, &bits, sizeof(bits));
  }
}

void quantize_bf16(const float* values, uint8_t* out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const uint16_t bits = bf16_from_f32(values[i]);
    std::memcpy(out + 2 * i, &bits, sizeof(bits));
  }
}

void quantize_q8_0(const float* values, uint8_t* out, int64_t blocks) {
  for (int64_t b = 0; b < blocks; ++b, values += 32, out += kQ8_0Bytes) {
    float largest = 0;
    for (int j = 0; j < 32; ++j) largest = std::max(largest, std::fabs(values[j]));
    const float d = largest / 127.0f;
    // A subnormal d has no finite inverse; as f16 it is 0, so the block is 0 either way.
    const float inverse = d >= std::numeric_limits<float>::min() ? 1.0f / d : 0.0f;
    const uint16_t bits = f16_from_f32(d);
    std::memcpy(out, &bits, sizeof(bits));
    for (int j = 0; j < 32; ++j) {
      out[2 + j] = static_cast<uint8_t>(static_cast<int8_t>(std::round(values[j] * inverse)));
    }
  }
}

}  // namespace ssrl
