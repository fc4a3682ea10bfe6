#include <algorithm>
#include <utility>

#include "ops/cuda/attention.h"

namespace ssrl::cuda {
namespace {

// Blocks of one warp that fill a multiprocessor while they wait for memory.
constexpr int64_t kBlocksPerMultiprocessor = 4;
constexpr int64_t kMostPartBytes = int64_t{64} << 20;

int64_t pages_of_tiles(const std::vector<AttentionTile>& tiles) {
  int64_t pages = 0;
  for (const AttentionTile& tile : tiles) pages += tile.pages;
  return pages;
}

// Cuts tiles into runs of `run` pages.
void split_tiles(std::vector<AttentionTile>* tiles, int run, AttentionPlan* plan) {
  std::vector<AttentionTile> runs;
  for (AttentionTile tile : *tiles) {
    if (tile.pages > run) {
      tile.record = plan->records;
      plan->records += int64_t{tile.pairs} * tile.pages;
      plan->split.push_back(tile);
    }
    for (int begin = 0; begin < tile.pages; begin += run) {
      runs.push_back(tile);
      runs.back().begin = begin;
      runs.back().end = std::min(begin + run, tile.pages);
    }
  }
  *tiles = std::move(runs);
}

}  // namespace

void add_tiles(const ops::AttentionSequence& sequence, int group, int most, int32_t first_block,
               std::vector<AttentionTile>* tiles) {
  const int pairs = sequence.query_count * group;
  for (int first = 0; first < pairs; first += most) {
    const int count = std::min(most, pairs - first);
    const int seen = sequence.position + (first + count - 1) / group + 1, pages = (seen + kPage - 1) / kPage;
    tiles->push_back({.query_row = sequence.query_row,
                      .record = -1,
                      .position = sequence.position,
                      .first_pair = first,
                      .pairs = count,
                      .first_block = first_block,
                      .begin = 0,
                      .end = pages,
                      .pages = pages});
  }
}

void add_blocks(const ops::AttentionSequence& sequence, BlockList* blocks) {
  const int pages = (sequence.position + sequence.query_count + kPage - 1) / kPage;
  for (int page = 0; page < pages; ++page) {
    for (const void* block : {sequence.key_blocks[page], sequence.value_blocks[page]}) {
      const char* const start = static_cast<const char*>(block);
      if (blocks->first == nullptr) blocks->first = start;
      blocks->distances.push_back(start - blocks->first);
    }
  }
}

void sort_tiles(std::vector<AttentionTile>* tiles) {
  std::stable_sort(tiles->begin(), tiles->end(), [](const AttentionTile& a, const AttentionTile& b) {
    return a.end - a.begin > b.end - b.begin;
  });
}

AttentionPlan plan_attention(const ops::Attention& a, int wide_pairs, int multiprocessors) {
  AttentionPlan plan;
  const int group = a.shape.heads / a.shape.kv_heads;
  for (int64_t s = 0; s < a.sequence_count; ++s) {
    const ops::AttentionSequence& sequence = a.sequences[s];
    const bool wide = wide_pairs > kWarpPairs && sequence.query_count * group > kWarpPairs;
    const auto first_block = static_cast<int32_t>(plan.blocks.distances.size() / 2);
    if (sequence.query_count > 0) add_blocks(sequence, &plan.blocks);
    add_tiles(sequence, group, wide ? wide_pairs : kWarpPairs, first_block, wide ? &plan.wide : &plan.narrow);
  }
  const auto tiles = static_cast<int64_t>(plan.wide.size() + plan.narrow.size()) * a.shape.kv_heads;
  const int64_t pages = (pages_of_tiles(plan.wide) + pages_of_tiles(plan.narrow)) * a.shape.kv_heads;
  const int64_t wanted = kBlocksPerMultiprocessor * multiprocessors;
  const int64_t part_bytes = (part_width(a.shape) + 2) * int64_t{sizeof(float)};
  const bool narrow_fits =
      pages_of_tiles(plan.narrow) * kWarpPairs * a.shape.kv_heads * part_bytes <= kMostPartBytes;
  const bool wide_fits =
      pages_of_tiles(plan.wide) * wide_pairs * a.shape.kv_heads * part_bytes <= kMostPartBytes;
  const int run = static_cast<int>(std::max(int64_t{1}, (pages + wanted - 1) / wanted));
  if (tiles < wanted && narrow_fits) split_tiles(&plan.narrow, run, &plan);
  if (tiles < multiprocessors && wide_fits) split_tiles(&plan.wide, run, &plan);
  sort_tiles(&plan.wide);
  sort_tiles(&plan.narrow);
  return plan;
}

Status Scratch::reserve(ops::Ops& ops, size_t bytes) {
  if (bytes <= bytes_) return {};
  reset();
  SSRL_RETURN_IF_ERROR(ops.allocate(bytes, &data_));
  ops_ = &ops;
  bytes_ = bytes;
  return {};
}

void Scratch::reset() {
  if (ops_ != nullptr) ops_->release(data_);
  ops_ = nullptr;
  data_ = nullptr;
  bytes_ = 0;
}

Status DeviceLists::copy(const AttentionDevice& device, const void* place) {
  SSRL_RETURN_IF_ERROR(device.scratch.reserve(device.ops, room_));
  room_data_ = device.scratch.data();
  const void* lists = nullptr;
  SSRL_RETURN_IF_ERROR(device.context.stage(place, bytes_.data(), bytes_.size(), &lists));
  data_ = static_cast<char*>(const_cast<void*>(lists));
  return device.context.flush();
}

Status attention(const AttentionDevice& device, const ops::Attention& a) {
  static const char kPlace = 0;
  const AttentionPlan plan = plan_attention(a, wide_tile_pairs(a.shape), device.multiprocessors);
  if (plan.blocks.distances.empty()) return {};
  DeviceLists lists;
  const size_t wide = lists.add(plan.wide), narrow = lists.add(plan.narrow), split = lists.add(plan.split);
  const size_t blocks = lists.add(plan.blocks.distances);
  const auto records = static_cast<size_t>(plan.records * a.shape.kv_heads);
  const size_t statistics = lists.add_room(records * 2 * sizeof(float));
  const size_t parts = lists.add_room(records * static_cast<size_t>(part_width(a.shape)) * sizeof(float));
  SSRL_RETURN_IF_ERROR(lists.copy(device, &kPlace));
  const auto with_tiles = [&](size_t tiles) {
    return AttentionLaunch{.shape = a.shape,
                           .q = a.q,
                           .out = a.out,
                           .log_sum_exp = a.log_sum_exp,
                           .tiles = lists.at<AttentionTile>(tiles),
                           .first_block = plan.blocks.first,
                           .blocks = lists.at<int64_t>(blocks),
                           .records = plan.records,
                           .parts = lists.at<float>(parts),
                           .statistics = lists.at<float>(statistics)};
  };
  const auto count = [](const std::vector<AttentionTile>& tiles) {
    return static_cast<int64_t>(tiles.size());
  };
  SSRL_RETURN_IF_ERROR(attend_tiles(with_tiles(wide), count(plan.wide), 4, device.context.stream()));
  SSRL_RETURN_IF_ERROR(attend_tiles(with_tiles(narrow), count(plan.narrow), 1, device.context.stream()));
  return merge_tiles(with_tiles(split), count(plan.split), device.context.stream());
}

}  // namespace ssrl::cuda
