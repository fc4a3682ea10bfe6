// What attention's files know before an instruction set is chosen: the sets they are compiled for, and what
// one task is. Included before Highway.
#pragma once

#include "ops/ops.h"

// The steps between SSE2, AVX2 and AVX-512 would only lengthen the build; vectors of unknown length cannot be
// put together from blocks of 128 bits.
#define HWY_DISABLED_TARGETS \
  (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)

namespace ssrl::ops::host {

// Some query rows of one sequence with the query heads of one kv head; or all of few rows with all heads, of
// one sequence or of neighbours that share their first block of keys.
struct AttentionTile {
  const AttentionSequence* sequences;
  int query;    // first row, counted within the first sequence
  int queries;  // of all sequences
  int kv_head, kv_heads;
};

// Query rows that walk a block of keys together.
struct AttentionRun {
  int begin;     // of the block, in keys
  int from, to;  // query rows
  int count;     // keys that one of them sees

  int block() const { return begin / kKeyBlock; }
};

struct AttentionRows {
  const AttentionSequence* const* sequence;  // [count]
  const int32_t* ends;                       // [count] keys that a row sees
  int count;

  // The first run from row `from` of a block on, or of a later block; its count is 0 behind the last.
  AttentionRun run(int begin, int from) const;
};

// The query rows of a tile, in the memory that is given for them.
AttentionRows find_rows(const AttentionTile& tile, const AttentionSequence** sequence, int32_t* ends);

struct AttentionPlan {
  AttentionTile* tiles;
  int64_t tile_count;
  int64_t grain;  // tiles that are worth the trip to another thread
};

// In memory of the calling thread; false where there is none.
bool plan_attention(const Attention&, AttentionPlan*);

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
