// An f32 matrix product of our own, with the interface of onednn.h, for CPUs without AVX-512: there oneDNN's
// sums depend on where in the tile a row stands. Here each element is one chain of fused multiply-adds in the
// order of k.
#pragma once

#include "ops/cpu/onednn.h"

namespace ssrl::ops::host::f32_product {

size_t packed_bytes(int64_t k, int64_t n);
void pack(const onednn::Layout& layout, const float* plain, float* packed);
void unpack(const onednn::Layout& layout, const float* packed, float* plain);
// For a.a_column of 1 and a packed b.
void matmul(const onednn::Call& call);

}  // namespace ssrl::ops::host::f32_product
