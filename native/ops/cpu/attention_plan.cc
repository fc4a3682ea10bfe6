// How attention and its gradient are cut into tasks. No result depends on it.
#include <algorithm>
#include <numeric>

#include "ops/cpu/attention_tile.h"
#include "ops/cpu/kernels.h"

namespace ssrl::ops::host {
namespace {

// Pairs of query row and head in a tile: enough that preparing a block of keys hardly counts.
constexpr int kTilePairs = 96;
// Multiply-adds that are worth the trip to another thread.
constexpr int64_t kGrain = 1 << 17;

bool share_block(const AttentionSequence& a, const AttentionSequence& b, int block) {
  return &a == &b ||
         (a.key_blocks[block] == b.key_blocks[block] && a.value_blocks[block] == b.value_blocks[block]);
}

// Rows of a tile: of one that has one kv head, and of one that has them all (0: there are none).
struct TileRows {
  int one_head, all_heads;
};

// A decoded token's keys are read from memory just for it. All kv heads of a key lie side by side, so one
// thread should take them, if there is enough to share.
TileRows tile_rows(const Attention& a) {
  int64_t tokens = 0;
  for (int64_t s = 0; s < a.sequence_count; ++s) tokens += a.sequences[s].query_count == 1 ? 1 : 0;
  const int64_t most = std::max(1, kTilePairs / a.shape.heads);
  return {.one_head = std::max(1, kTilePairs * a.shape.kv_heads / a.shape.heads),
          .all_heads = static_cast<int>(std::min(most, tokens / (4 * threads())))};
}

// Fills in the plan's tiles, unless they are null, and their number.
void cut_tiles(const Attention& a, const TileRows& rows, AttentionPlan* plan) {
  plan->tile_count = 0;
  const auto add = [plan](const AttentionTile& tile) {
    if (plan->tiles != nullptr) plan->tiles[plan->tile_count] = tile;
    ++plan->tile_count;
  };
  int room = 0;  // in the last tile
  const AttentionSequence* last = nullptr;
  for (const AttentionSequence* s = a.sequences; s < a.sequences + a.sequence_count; ++s) {
    if (s->query_count == 0) continue;
    if (room > 0 && s->query_count == 1 && last + 1 == s && share_block(*last, *s, 0)) {
      if (plan->tiles != nullptr) ++plan->tiles[plan->tile_count - 1].queries;
      --room;
    } else if (s->query_count == 1 && rows.all_heads > 0) {
      add({s, 0, 1, 0, a.shape.kv_heads});
      room = rows.all_heads - 1;
    } else {
      for (int query = 0; query < s->query_count; query += rows.one_head) {
        const int count = std::min(rows.one_head, s->query_count - query);
        for (int head = 0; head < a.shape.kv_heads; ++head) add({s, query, count, head, 1});
      }
      room = 0;
    }
    last = s;
  }
}

// Query rows of a task, or the first sequence that passes them. Fewer rows: more sums of shared keys apart.
constexpr int64_t kTaskRows = 256;

// Fills in the plan's tasks, unless they are null, and its counts. A sequence without shared keys begins a
// task.
void cut(const AttentionBackward& a, AttentionBackwardPlan* plan) {
  plan->task_count = plan->rows = plan->slots = plan->shared_keys = 0;
  int64_t room = 0, shared = 0;
  for (int64_t s = 0; s < a.sequence_count; ++s) {
    const AttentionSequence& sequence = a.sequences[s];
    if (sequence.position == 0 || room <= 0) {
      if (plan->tasks != nullptr) plan->tasks[plan->task_count] = {&sequence, 0, shared, 0};
      ++plan->task_count;
      shared += sequence.position;
      plan->shared_keys = std::max(plan->shared_keys, int64_t{sequence.position});
      room = kTaskRows;
    }
    if (plan->tasks != nullptr) ++plan->tasks[plan->task_count - 1].count;
    plan->rows += sequence.query_count;
    room -= sequence.query_count;
  }
  plan->slots = plan->rows + shared;
}

// The rows of shared keys, task by task; `path` has room for the keys of the longest sequence.
void find_owners(const AttentionBackward& a, const AttentionBackwardPlan& plan, int32_t* path,
                 int32_t* owners) {
  int64_t task = 0;
  for (int64_t s = 0; s < a.sequence_count; ++s) {
    const AttentionSequence& sequence = a.sequences[s];
    if (task < plan.task_count && plan.tasks[task].sequences == &sequence) {
      plan.tasks[task].shared += plan.rows;
      owners = std::copy_n(path, sequence.position, owners);
      ++task;
    }
    std::iota(path + sequence.position, path + sequence.position + sequence.query_count,
              static_cast<int32_t>(sequence.query_row));
  }
}

}  // namespace

AttentionRows find_rows(const AttentionTile& tile, const AttentionSequence** sequence, int32_t* ends) {
  const AttentionSequence* s = tile.sequences;
  for (int i = 0, row = tile.query; i < tile.queries; ++i, ++row) {
    while (row == s->query_count) ++s, row = 0;
    sequence[i] = s;
    ends[i] = s->position + row + 1;
  }
  return {sequence, ends, tile.queries};
}

AttentionRun AttentionRows::run(int begin, int from) const {
  const int most = *std::max_element(ends, ends + count);
  for (; begin < most; begin += kKeyBlock, from = 0) {
    while (from < count && ends[from] <= begin) ++from;
    if (from == count) continue;
    AttentionRun run{begin, from, from, 0};
    for (; run.to < count && ends[run.to] > begin; ++run.to) {
      if (!share_block(*sequence[from], *sequence[run.to], run.block())) break;
      run.count = std::max(run.count, std::min(kKeyBlock, ends[run.to] - begin));
    }
    return run;
  }
  return {begin, 0, 0, 0};
}

bool plan_attention(const Attention& a, AttentionPlan* plan) {
  const TileRows rows = tile_rows(a);
  plan->tiles = nullptr;
  cut_tiles(a, rows, plan);
  if (plan->tile_count == 0) return true;
  plan->tiles = reinterpret_cast<AttentionTile*>(thread_scratch(
      Scratch::kAttentionTiles, static_cast<size_t>(plan->tile_count) * sizeof(AttentionTile)));
  if (plan->tiles == nullptr) return false;
  cut_tiles(a, rows, plan);
  int64_t keys = 0;
  for (const AttentionSequence* s = a.sequences; s < a.sequences + a.sequence_count; ++s)
    keys += int64_t{s->query_count} * (s->position + s->query_count);
  const int64_t work = keys * a.shape.heads * a.shape.head_dim * 2 / plan->tile_count;
  plan->grain = std::max(int64_t{1}, kGrain / std::max(int64_t{1}, work));
  return true;
}

bool plan_attention_backward(const AttentionBackward& a, AttentionBackwardPlan* plan) {
  cut(a, plan);
  int longest = 0;
  for (int64_t s = 0; s < a.sequence_count; ++s)
    longest = std::max(longest, a.sequences[s].position + a.sequences[s].query_count);
  const int64_t owners = plan->slots - plan->rows;
  float* memory = thread_scratch(Scratch::kAttentionTiles, plan->task_count * sizeof(AttentionBackwardTask) +
                                                               (owners + longest) * sizeof(int32_t));
  if (memory == nullptr) return false;
  plan->tasks = reinterpret_cast<AttentionBackwardTask*>(memory);
  auto* rows = reinterpret_cast<int32_t*>(plan->tasks + plan->task_count);
  plan->owners = rows;
  cut(a, plan);
  find_owners(a, *plan, rows + owners, rows);
  return true;
}

size_t attention_backward_scratch(const AttentionBackward& a) {
  AttentionBackwardPlan plan{};
  cut(a, &plan);
  const int64_t width = (a.shape.head_dim + kScratchLanes - 1) / kScratchLanes * kScratchLanes;
  return static_cast<size_t>(plan.slots * 2 * a.shape.kv_heads * width);
}

}  // namespace ssrl::ops::host
