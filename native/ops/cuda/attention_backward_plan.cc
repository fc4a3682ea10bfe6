#include <algorithm>
#include <limits>

#include "ops/cuda/attention_backward.h"

namespace ssrl::cuda {
namespace {

// Who sees keys of sequence `s`: itself, and those after it as long as each shares with the one before. How
// much of the keys they share can only shrink.
void add_segments(const ops::AttentionBackward& a, int64_t s, std::vector<Segment>* segments) {
  const ops::AttentionSequence& owner = a.sequences[s];
  int32_t limit = std::numeric_limits<int32_t>::max();
  for (; s < a.sequence_count; ++s) {
    const ops::AttentionSequence& sequence = a.sequences[s];
    if (&sequence != &owner) limit = std::min(limit, sequence.position);
    if (limit <= owner.position) return;
    segments->push_back({sequence.query_row, sequence.position, sequence.query_count, limit});
  }
}

int64_t work_of(const KeyTile& tile, const std::vector<Segment>& segments) {
  int64_t queries = 0;
  for (int i = 0; i < tile.segments; ++i) queries += segments[static_cast<size_t>(tile.segment + i)].queries;
  return queries;
}

}  // namespace

BackwardPlan plan_attention_backward(const ops::AttentionBackward& a) {
  BackwardPlan plan;
  const int group = a.shape.heads / a.shape.kv_heads, most = key_tile_size(a.shape);
  for (int64_t s = 0; s < a.sequence_count; ++s) {
    const ops::AttentionSequence& sequence = a.sequences[s];
    if (sequence.query_count == 0) continue;
    const auto first_block = static_cast<int32_t>(plan.blocks.distances.size() / 2);
    const auto segment = static_cast<int32_t>(plan.segments.size());
    add_blocks(sequence, &plan.blocks);
    add_tiles(sequence, group, query_tile_size(a.shape), first_block, &plan.tiles);
    add_segments(a, s, &plan.segments);
    const int end = sequence.position + sequence.query_count;
    for (int first = sequence.position; first < end;) {
      const int keys = std::min({most, end - first, kPage - first % kPage});
      plan.key_tiles.push_back({.row = sequence.query_row + first - sequence.position,
                                .first = first,
                                .keys = keys,
                                .block = first_block + first / kPage,
                                .segment = segment,
                                .segments = static_cast<int32_t>(plan.segments.size()) - segment});
      first += keys;
    }
  }
  sort_tiles(&plan.tiles);
  // Shared keys have the most queries.
  std::stable_sort(plan.key_tiles.begin(), plan.key_tiles.end(),
                   [&](const KeyTile& left, const KeyTile& right) {
                     return work_of(left, plan.segments) > work_of(right, plan.segments);
                   });
  return plan;
}

size_t attention_backward_floats(const ops::AttentionBackward& a) {
  int64_t rows = 0;
  for (int64_t s = 0; s < a.sequence_count; ++s) rows += a.sequences[s].query_count;
  return static_cast<size_t>(rows * a.shape.heads);
}

Status attention_backward(const AttentionDevice& device, const ops::AttentionBackward& a) {
  static const char kPlace = 0;
  const BackwardPlan plan = plan_attention_backward(a);
  if (plan.tiles.empty()) return {};
  DeviceLists lists;
  const size_t tiles = lists.add(plan.tiles), key_tiles = lists.add(plan.key_tiles);
  const size_t segments = lists.add(plan.segments), blocks = lists.add(plan.blocks.distances);
  SSRL_RETURN_IF_ERROR(lists.copy(device, &kPlace));
  const BackwardLaunch launch{
      .shape = a.shape,
      .q = a.q,
      .out = a.out,
      .dout = a.dout,
      .log_sum_exp = a.log_sum_exp,
      .delta = a.scratch,
      .dq = a.dq,
      .dk = a.dk,
      .dv = a.dv,
      .tiles = lists.at<AttentionTile>(tiles),
      .key_tiles = lists.at<KeyTile>(key_tiles),
      .segments = lists.at<Segment>(segments),
      .first_block = plan.blocks.first,
      .blocks = lists.at<int64_t>(blocks),
      .rows = static_cast<int64_t>(attention_backward_floats(a)) / a.shape.heads,
  };
  SSRL_RETURN_IF_ERROR(sum_deltas(launch, device.context.stream()));
  SSRL_RETURN_IF_ERROR(
      differentiate_queries(launch, static_cast<int64_t>(plan.tiles.size()), device.context.stream()));
  return differentiate_keys(launch, static_cast<int64_t>(plan.key_tiles.size()), device.context.stream());
}

}  // namespace ssrl::cuda
