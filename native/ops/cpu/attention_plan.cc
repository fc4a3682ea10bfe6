// How the gradient of attention is cut into tasks, whatever the number of threads.
#include <algorithm>
#include <numeric>

#include "ops/cpu/attention_tile.h"
#include "ops/cpu/kernels.h"

namespace ssrl::ops::host {
namespace {

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
