#include <algorithm>
#include <string>

#include "ops/cuda/attention.h"

namespace ssrl::cuda {
namespace {

// Blocks of one warp that fill a multiprocessor while they wait for memory.
constexpr int64_t kBlocksPerMultiprocessor = 4;
constexpr int64_t kMostPartBytes = int64_t{64} << 20;

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

void add_blocks(const ops::AttentionSequence& sequence, std::vector<const void*>* blocks) {
  const int pages = (sequence.position + sequence.query_count + kPage - 1) / kPage;
  for (int page = 0; page < pages; ++page) {
    blocks->push_back(sequence.key_blocks[page]);
    blocks->push_back(sequence.value_blocks[page]);
  }
}

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

// The longest first, so that none is left at the end.
void sort_tiles(std::vector<AttentionTile>* tiles) {
  std::stable_sort(tiles->begin(), tiles->end(), [](const AttentionTile& a, const AttentionTile& b) {
    return a.end - a.begin > b.end - b.begin;
  });
}

size_t round_up(size_t bytes) {
  return (bytes + 127) / 128 * 128;
}

}  // namespace

AttentionPlan plan_attention(const ops::Attention& a, int wide_pairs, int multiprocessors) {
  AttentionPlan plan;
  const int group = a.shape.heads / a.shape.kv_heads;
  for (int64_t s = 0; s < a.sequence_count; ++s) {
    const ops::AttentionSequence& sequence = a.sequences[s];
    const bool wide = wide_pairs > kWarpPairs && sequence.query_count * group > kWarpPairs;
    const auto first_block = static_cast<int32_t>(plan.blocks.size() / 2);
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

Status attention(const AttentionDevice& device, const ops::Attention& a) {
  const AttentionPlan plan = plan_attention(a, wide_tile_pairs(a.shape), device.multiprocessors);
  const auto records = static_cast<size_t>(plan.records * a.shape.kv_heads);
  const size_t tile_bytes = sizeof(AttentionTile);
  const size_t sizes[] = {round_up(plan.wide.size() * tile_bytes),
                          round_up(plan.narrow.size() * tile_bytes),
                          round_up(plan.split.size() * tile_bytes),
                          round_up(plan.blocks.size() * sizeof(void*)),
                          round_up(records * 2 * sizeof(float)),
                          round_up(records * static_cast<size_t>(part_width(a.shape)) * sizeof(float))};
  size_t total = 0;
  for (const size_t size : sizes) total += size;
  SSRL_RETURN_IF_ERROR(device.scratch.reserve(device.ops, total));
  // One copy for all lists.
  std::vector<char> lists(sizes[0] + sizes[1] + sizes[2] + sizes[3]);
  char* const wide = lists.data();
  char* const narrow = wide + sizes[0];
  char* const split = narrow + sizes[1];
  char* const blocks = split + sizes[2];
  std::copy_n(reinterpret_cast<const char*>(plan.wide.data()), plan.wide.size() * tile_bytes, wide);
  std::copy_n(reinterpret_cast<const char*>(plan.narrow.data()), plan.narrow.size() * tile_bytes, narrow);
  std::copy_n(reinterpret_cast<const char*>(plan.split.data()), plan.split.size() * tile_bytes, split);
  std::copy_n(reinterpret_cast<const char*>(plan.blocks.data()), plan.blocks.size() * sizeof(void*), blocks);
  char* const base = device.scratch.data();
  SSRL_RETURN_IF_ERROR(device.ops.copy_from_host(base, lists.data(), lists.size()));
  const auto on_device = [&](const char* place) { return base + (place - lists.data()); };
  AttentionLaunch launch{};
  launch.shape = a.shape;
  launch.q = a.q;
  launch.out = a.out;
  launch.log_sum_exp = a.log_sum_exp;
  launch.blocks = reinterpret_cast<const void* const*>(on_device(blocks));
  launch.records = plan.records;
  launch.statistics = reinterpret_cast<float*>(base + lists.size());
  launch.parts = reinterpret_cast<float*>(base + lists.size() + sizes[4]);
  const auto run = [&](const char* tiles) {
    AttentionLaunch with_tiles = launch;
    with_tiles.tiles = reinterpret_cast<const AttentionTile*>(on_device(tiles));
    return with_tiles;
  };
  SSRL_RETURN_IF_ERROR(attend_tiles(run(wide), static_cast<int64_t>(plan.wide.size()), 4, device.stream));
  SSRL_RETURN_IF_ERROR(attend_tiles(run(narrow), static_cast<int64_t>(plan.narrow.size()), 1, device.stream));
  return merge_tiles(run(split), static_cast<int64_t>(plan.split.size()), device.stream);
}

}  // namespace ssrl::cuda
