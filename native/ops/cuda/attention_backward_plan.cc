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

// Steps of a tile's walk over a segment: pairs before the tile's first key see none of it.
int64_t steps_of(const KeyTile& tile, const Segment& segment, int group) {
  if (segment.limit <= tile.first) return 0;
  const int skipped = std::max(tile.first - segment.position, 0);
  const int64_t pairs = int64_t{std::max(segment.queries - skipped, 0)} * group;
  return (pairs + kStepPairs - 1) / kStepPairs;
}

// What fills cards of 108 to 132 multiprocessors with two blocks each. The cuts depend on the batch alone, so
// that gradients have the same bits on every card.
constexpr int64_t kWantedBlocks = 256;

// Cuts the walks that are longer than their share of all.
class RunCutter {
 public:
  RunCutter(int group, int kv_heads, BackwardPlan* plan) : group_(group), plan_(*plan) {
    int64_t steps = 0;
    for (KeyTile& tile : plan_.key_tiles) {
      const Segment* segment = plan_.segments.data() + tile.segment;
      int64_t walk = 0;
      for (int i = 0; i < tile.segments; ++i) walk += steps_of(tile, segment[i], group_);
      tile.steps = static_cast<int32_t>(walk);
      steps += walk;
    }
    longest_ = std::max(steps * kv_heads / kWantedBlocks, int64_t{kShortest});
  }

  void cut() {
    std::vector<KeyTile> tiles;
    for (const KeyTile& tile : plan_.key_tiles) {
      if (tile.steps <= longest_) {
        tiles.push_back(tile);
      } else {
        cut(tile, &tiles);
      }
    }
    plan_.key_tiles = std::move(tiles);
  }

 private:
  // Runs shorter than this cost more to add up than they save.
  static constexpr int kShortest = 32;

  void cut(const KeyTile& tile, std::vector<KeyTile>* tiles) {
    const auto runs = static_cast<int32_t>((tile.steps + longest_ - 1) / longest_);
    plan_.merges.push_back({.row = tile.row, .keys = tile.keys, .record = plan_.records, .runs = runs});
    int32_t segment = 0;
    int64_t before = 0;  // steps of the segments before
    for (int32_t i = 0; i < runs; ++i) {
      const int64_t begin = tile.steps * int64_t{i} / runs, end = tile.steps * int64_t{i + 1} / runs;
      const auto here = [&] {
        return steps_of(tile, plan_.segments[static_cast<size_t>(tile.segment + segment)], group_);
      };
      for (; before + here() <= begin; ++segment) before += here();
      KeyTile run = tile;
      run.segment += segment;
      run.segments -= segment;
      run.first_pair = static_cast<int32_t>((begin - before) * kStepPairs);
      run.steps = static_cast<int32_t>(end - begin);
      run.record = plan_.records++;
      tiles->push_back(run);
    }
  }

  int group_;
  BackwardPlan& plan_;
  int64_t longest_;
};

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
                                .segments = static_cast<int32_t>(plan.segments.size()) - segment,
                                .first_pair = 0,
                                .steps = 0,
                                .record = -1});
      first += keys;
    }
  }
  sort_tiles(&plan.tiles);
  RunCutter(group, a.shape.kv_heads, &plan).cut();
  std::stable_sort(plan.key_tiles.begin(), plan.key_tiles.end(),
                   [](const KeyTile& left, const KeyTile& right) { return left.steps > right.steps; });
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
  const size_t merges = lists.add(plan.merges);
  const int64_t part = int64_t{2} * kPage * a.shape.head_dim;
  const size_t parts =
      lists.add_room(static_cast<size_t>(plan.records * a.shape.kv_heads * part) * sizeof(float));
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
      .merges = lists.at<KeyMerge>(merges),
      .segments = lists.at<Segment>(segments),
      .first_block = plan.blocks.first,
      .blocks = lists.at<int64_t>(blocks),
      .rows = static_cast<int64_t>(attention_backward_floats(a)) / a.shape.heads,
      .parts = lists.at<float>(parts),
      .records = plan.records,
  };
  SSRL_RETURN_IF_ERROR(sum_deltas(launch, device.context.stream()));
  SSRL_RETURN_IF_ERROR(
      differentiate_queries(launch, static_cast<int64_t>(plan.tiles.size()), device.context.stream()));
  SSRL_RETURN_IF_ERROR(
      differentiate_keys(launch, static_cast<int64_t>(plan.key_tiles.size()), device.context.stream()));
  return merge_runs(launch, static_cast<int64_t>(plan.merges.size()), device.context.stream());
}

}  // namespace ssrl::cuda
