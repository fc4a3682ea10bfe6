// Attention on the device: how a call is cut into tiles, and what the kernels are told.
//
// A "pair" is a query row and one of the heads that share a kv head, the heads of a row side by side. A tile
// is some neighbouring pairs of one sequence, up to 16 for each warp of its block. Every pair takes its keys
// page by page: the weights of a page are relative to the page's own largest score, and what comes of it is
// merged into the pages before, in order. So it does not matter to the bits which block had which pages.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "ops/cuda/context.h"
#include "ops/cuda/kernels.h"

namespace ssrl::cuda {

constexpr int kPage = ops::kKeyBlock;
constexpr int kWarpPairs = 16;

struct AttentionTile {
  int64_t query_row;   // of the sequence's first query
  int64_t record;      // of its first pair and page 0 among the parts, or -1: the block has all pages
  int32_t position;    // of the sequence's first query
  int32_t first_pair;  // within the sequence: pair p is query p / group and head p % group
  int32_t pairs;
  int32_t first_block;  // of the sequence, in the list of blocks
  int32_t begin, end;   // pages to take
  int32_t pages;        // that the tile's last pair sees
  int32_t unused = 0;   // in place of padding, whose bytes would differ from layer to layer

  // Keys that the tile's pair i sees.
  __device__ __forceinline__ int seen(int i, int group) const {
    return position + (first_pair + i) / group + 1;
  }
};

// Keys and values of each page in turns, as distances from the first: they are the same for every layer, so
// that the list goes to the device once a step.
struct BlockList {
  const char* first = nullptr;
  std::vector<int64_t> distances;  // bytes
};

struct AttentionPlan {
  std::vector<AttentionTile> wide;    // for blocks of four warps
  std::vector<AttentionTile> narrow;  // for blocks of one
  std::vector<AttentionTile> split;   // tiles whose pages were shared out, to be merged
  BlockList blocks;
  int64_t records = 0;  // of parts, for each kv head
};

// With fewer tiles than the device takes at once, their pages are shared out among more blocks.
AttentionPlan plan_attention(const ops::Attention& a, int wide_pairs, int multiprocessors);

struct AttentionLaunch {
  ops::AttentionShape shape;
  const void* q;
  void* out;
  float* log_sum_exp;
  const AttentionTile* tiles;
  const char* first_block;  // of keys
  const int64_t* blocks;    // bytes from there to each
  int64_t records;          // for each kv head
  float* parts;             // [kv_heads, records, part_width()] weighted values of one page
  float* statistics;        // [kv_heads, records, 2] the page's largest score and its sum of weights

  int group() const { return shape.heads / shape.kv_heads; }
};

// Pairs in a tile of four warps, where there is such a kernel for the shape; else 16.
int wide_tile_pairs(const ops::AttentionShape& shape);
// Floats of a part: head_dim in whole steps of the tensor cores.
inline int part_width(const ops::AttentionShape& shape) {
  return (shape.head_dim + 15) / 16 * 16;
}
Status attend_tiles(const AttentionLaunch& a, int64_t tiles, int warps, Stream stream);
Status merge_tiles(const AttentionLaunch& a, int64_t tiles, Stream stream);

// Device memory that grows with the largest call.
class Scratch {
 public:
  ~Scratch() { reset(); }
  Status reserve(ops::Ops& ops, size_t bytes);
  void reset();
  char* data() const { return static_cast<char*>(data_); }

 private:
  ops::Ops* ops_ = nullptr;
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

struct AttentionDevice {
  ops::Ops& ops;
  Context& context;
  Scratch& scratch;
  int multiprocessors;
};

// Lists that a call takes to the device in one copy, and room for what it works out there.
class DeviceLists {
 public:
  // Where the list will be, for at().
  template <typename T>
  size_t add(const std::vector<T>& list) {
    static_assert(std::has_unique_object_representations_v<T>, "lists are compared byte by byte");
    const size_t place = bytes_.size(), size = list.size() * sizeof(T);
    bytes_.resize(place + round_up(size));
    if (size > 0) memcpy(bytes_.data() + place, list.data(), size);
    return place;
  }
  // After the last list.
  size_t add_room(size_t size) {
    const size_t place = bytes_.size() + room_;
    room_ += round_up(size);
    return place;
  }
  // `place` is one for each kind of plan: the next layer's is the same, and not sent again.
  Status copy(const AttentionDevice& device, const void* place);
  template <typename T>
  T* at(size_t place) const {
    return reinterpret_cast<T*>(place < bytes_.size() ? data_ + place : room_data_ + (place - bytes_.size()));
  }

 private:
  static size_t round_up(size_t size) { return (size + 127) / 128 * 128; }
  std::vector<char> bytes_;
  size_t room_ = 0;
  char *data_ = nullptr, *room_data_ = nullptr;
};

// What plans are made of.
void add_tiles(const ops::AttentionSequence& sequence, int group, int most, int32_t first_block,
               std::vector<AttentionTile>* tiles);
void add_blocks(const ops::AttentionSequence& sequence, BlockList* blocks);
// The longest first, so that none is left at the end.
void sort_tiles(std::vector<AttentionTile>* tiles);

Status attention(const AttentionDevice& device, const ops::Attention& a);

}  // namespace ssrl::cuda
