// f32 to the types that are written: F16 and BF16 (to nearest, ties to even) and Q8_0.
#pragma once

#include <cstdint>

namespace ssrl {

void quantize_f16(const float* values, uint8_t* out, int64_t count);
void quantize_bf16(const float* values, uint8_t* out, int64_t count);
// Blocks of 32: d = max|x| / 127 as f16, then round(x / d) with ties away from zero, as ggml's reference does
// it.
void quantize_q8_0(const float* values, uint8_t* out, int64_t blocks);

}  // namespace ssrl
