// Blocks of the GGUF quantisations as f32, value by value as ggml's reference code computes them: the same
// products and differences in f32, in the same order.
#pragma once

#include <cstdint>

namespace ssrl {

// `source` holds `blocks` blocks: of 32 elements for the first five, of 256 for the K types.
void dequantize_q4_0(const uint8_t* source, float* out, int64_t blocks);
void dequantize_q4_1(const uint8_t* source, float* out, int64_t blocks);
void dequantize_q5_0(const uint8_t* source, float* out, int64_t blocks);
void dequantize_q5_1(const uint8_t* source, float* out, int64_t blocks);
void dequantize_q8_0(const uint8_t* source, float* out, int64_t blocks);
void dequantize_q4_k(const uint8_t* source, float* out, int64_t blocks);
void dequantize_q5_k(const uint8_t* source, float* out, int64_t blocks);
void dequantize_q6_k(const uint8_t* source, float* out, int64_t blocks);

// Block sizes in bytes.
constexpr int kQ4_0Bytes = 18;   // d f16, 16 bytes of two 4-bit values
constexpr int kQ4_1Bytes = 20;   // d f16, m f16, 16 bytes
constexpr int kQ5_0Bytes = 22;   // d f16, 32 fifth bits, 16 bytes
constexpr int kQ5_1Bytes = 24;   // d f16, m f16, 32 fifth bits, 16 bytes
constexpr int kQ8_0Bytes = 34;   // d f16, 32 signed bytes
constexpr int kQ4_KBytes = 144;  // d f16, dmin f16, 8 six-bit scales and minima in 12 bytes, 128 bytes
constexpr int kQ5_KBytes = 176;  // as Q4_K with 32 bytes of fifth bits before the 128
constexpr int kQ6_KBytes = 210;  // 128 bytes of low bits, 64 of high bits, 16 signed scales, d f16

}  // namespace ssrl
