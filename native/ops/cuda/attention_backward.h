// The gradient of attention on the device: what its three launches are told.
#pragma once

#include "ops/cuda/attention.h"

namespace ssrl::cuda {

// Some neighbouring keys of one page that are rows of one sequence, with all who see them.
struct KeyTile {
  int64_t row;      // of the first key in dk and dv
  int32_t first;    // its position
  int32_t keys;     // up to key_tile_size()
  int32_t block;    // of the page, in the list of blocks
  int32_t segment;  // the sequence's own, in the list of segments; those behind it follow
  int32_t segments;
  int32_t unused = 0;  // no padding: lists are compared byte by byte
};

// The queries of a sequence that see keys of one before, or their own.
struct Segment {
  int64_t query_row;  // of the first query
  int32_t position;   // of it
  int32_t queries;
  int32_t limit;       // they see keys of the owner at positions below it
  int32_t unused = 0;  // no padding: lists are compared byte by byte
};

struct BackwardPlan {
  std::vector<AttentionTile> tiles;  // of queries
  std::vector<KeyTile> key_tiles;
  std::vector<Segment> segments;
  BlockList blocks;
};
BackwardPlan plan_attention_backward(const ops::AttentionBackward& a);

struct BackwardLaunch {
  ops::AttentionShape shape;
  const void* q;
  const void* out;
  const void* dout;
  const float* log_sum_exp;
  float* delta;  // [rows, heads] dout · out
  void* dq;
  void* dk;
  void* dv;
  const AttentionTile* tiles;
  const KeyTile* key_tiles;
  const Segment* segments;
  const char* first_block;  // of keys
  const int64_t* blocks;    // bytes from there to each
  int64_t rows;
};

// Pairs of a tile of queries, and keys of a tile of keys, that the kernels for this shape take.
int query_tile_size(const ops::AttentionShape& shape);
int key_tile_size(const ops::AttentionShape& shape);

Status sum_deltas(const BackwardLaunch& a, Stream stream);
Status differentiate_queries(const BackwardLaunch& a, int64_t tiles, Stream stream);
Status differentiate_keys(const BackwardLaunch& a, int64_t tiles, Stream stream);

size_t attention_backward_floats(const ops::AttentionBackward& a);
Status attention_backward(const AttentionDevice& device, const ops::AttentionBackward& a);

}  // namespace ssrl::cuda
