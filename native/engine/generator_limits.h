// Sizes of a generator's step, and buffers that grow to them.
#pragma once

#include <algorithm>
#include <cstdint>

#include "engine/buffer.h"
#include "ops/ops.h"

namespace ssrl {

// Token rows of one pass through the model: decoding rows and pieces of prompts together.
constexpr int32_t kStepRows = 512;
// Rows that decode at once. Less than kStepRows, so that prompts always get on.
constexpr size_t kActiveRows = 256;

// Of the memory that is free at first use, for keys and values, unless a budget is set.
constexpr double kCacheShare = 0.4;

// Rows whose logits exist at once: about 8 MB of them, in whole tiles.
inline int64_t logit_rows(int64_t vocabulary) {
  const int64_t rows = (int64_t(8) << 20) / (vocabulary * int64_t(sizeof(float)));
  return std::clamp<int64_t>(rows / ops::kRowTile * ops::kRowTile, ops::kRowTile, kStepRows);
}

inline Status grow(Buffer& buffer, ops::Ops& ops, size_t bytes) {
  return buffer.bytes() >= bytes ? Status() : buffer.allocate(ops, bytes);
}

}  // namespace ssrl
