// What the kernels over rows of the vocabulary share.
#pragma once

#include <cstdint>

#include "ops/cpu/kernels.h"
#include "ops/ops.h"

namespace ssrl::ops::host {

// How many rows of f32 logits `budget` bytes hold: a multiple of kRowTile, at most 512.
int64_t vocabulary_chunk(const PackedWeight& weight, int64_t budget);

// gradient[V] = derivative / T * (onehot(target) - softmax(logits / T)), in `type`; it may be logits
// itself: of BF16 then the first half.
void logits_to_gradient(const float* logits, int64_t vocabulary, int32_t target, const RowSoftmax& row,
                        float inverse_temperature, float derivative, DType type, void* gradient);

// argmax of logits[i] * inverse_temperature + gumbel(word i), the lowest index on a tie, over all of the
// vocabulary.
int32_t draw_token(const float* logits, int64_t vocabulary, const SampleRow& row, float inverse_temperature);

}  // namespace ssrl::ops::host
