// The transformer's forward pass, written once over packed rows: prompts, decoded tokens and training sequences run
// through the same layer code with the same kernels, so that a row has the same bits in all of them.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/model.h"
#include "ops/ops.h"

namespace ssrl {

// Rows of one sequence in a paged batch. A page holds kKeyBlock tokens of every layer:
// [layers, 2 (keys, values), kKeyBlock, kv_heads, head_dim] of the compute type.
struct PagedSequence {
  int64_t first_row;       // its first row in the batch
  int32_t rows;
  int32_t position;        // position of that row; the pages hold all keys before it
  void* const* pages;      // [ceil((position + rows) / kKeyBlock)]
};

struct PagedBatch {
  const int32_t* tokens;     // [rows]
  const int32_t* positions;  // [rows]
  int64_t rows;
  const PagedSequence* sequences;
  int64_t sequence_count;
};

inline size_t page_bytes(const ModelConfig& config, DType compute) {
  return size_t(config.layers) * 2 * ops::kKeyBlock * config.kv_width() * size_of(compute);
}

}  // namespace ssrl
