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

// Some neighbouring training sequences with one kv head. Sums over their queries go to slots of the scratch:
// a slot for each query row, and beyond those one for each key that the first of them shares with the
// sequence before.
struct AttentionBackwardTask {
  const AttentionSequence* sequences;
  int64_t count;
  int64_t shared;  // slot of the first shared key; sequences->position of them follow
  int kv_head;
};

// How a gradient is cut into tasks.
struct AttentionBackwardPlan {
  AttentionBackwardTask* tasks;  // of kv head 0
  int64_t task_count;
  int64_t rows, slots;
  int64_t shared_keys;    // the most of a task
  const int32_t* owners;  // [slots - rows] the query row of each shared key
};

// In memory of the calling thread; false where there is none.
bool plan_attention_backward(const AttentionBackward&, AttentionBackwardPlan*);

// Rows of the gradient's scratch are padded for the widest vectors.
constexpr int kScratchLanes = 16;

}  // namespace ssrl::ops::host
