// What attention's files know before an instruction set is chosen: the sets they are compiled for, and what
// one task is. Included before Highway.
#pragma once

#include "ops/ops.h"

// The steps between SSE2, AVX2 and AVX-512 would only lengthen the build; vectors of unknown length cannot be
// put together from blocks of 128 bits.
#define HWY_DISABLED_TARGETS \
  (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)

namespace ssrl::ops::host {

// Some query rows of one sequence, with the heads that share a kv head.
struct AttentionTile {
  const AttentionSequence* sequence;
  int kv_head;
  int query;  // first row, counted within the sequence
  int queries;
};

// A kv head of one training sequence: rows begin .. end.
struct AttentionBackwardTask {
  int64_t begin, end;
  int kv_head;
};

// Rows of the gradient's scratch are padded for the widest vectors.
constexpr int kScratchLanes = 16;

}  // namespace ssrl::ops::host
