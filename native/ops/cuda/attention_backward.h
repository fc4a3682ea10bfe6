// The gradient of attention on the device: what its three launches are told.
#pragma once

#include "ops/cuda/attention.h"

namespace ssrl::cuda {

// Some neighbouring keys of one page that are rows of one sequence, with a run of those who see them: the
// walk over them is cut into runs where it is much longer than others.
struct KeyTile {
  int64_t row;         // of the first key in dk and dv
  int32_t first;       // its position
  int32_t keys;        // up to key_tile_size()
  int32_t block;       // of the page, in the list of blocks
  int32_t segment;     // where the run begins, in the list of segments; those behind it follow
  int32_t segments;    // of the walk from there on
  int32_t first_pair;  // of that segment, where the run begins
  int32_t steps;       // of the run
  int32_t record;      // where its sums go among the parts, or -1: it is all of the walk
};

// A tile whose walk was cut, to be added up.
struct KeyMerge {
  int64_t row;
  int32_t keys;
  int32_t record, runs;  // of the first run, and how many follow each other
  int32_t unused = 0;    // no padding: lists are compared byte by byte
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
  std::vector<KeyMerge> merges;
  std::vector<Segment> segments;
  BlockList blocks;
  int32_t records = 0;  // of runs, for each kv head
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
  const KeyMerge* merges;
  const Segment* segments;
  const char* first_block;  // of keys
  const int64_t* blocks;    // bytes from there to each
  int64_t rows;
  float* parts;     // [kv_heads, records, 2, kPage, head_dim] sums of runs: dk, then dv
  int64_t records;  // for each kv head
};

// Pairs that a tile of keys takes at a time.
constexpr int kStepPairs = 32;
// Pairs of a tile of queries, and keys of a tile of keys, that the kernels for this shape take.
int query_tile_size(const ops::AttentionShape& shape);
int key_tile_size(const ops::AttentionShape& shape);

Status sum_deltas(const BackwardLaunch& a, Stream stream);
Status differentiate_queries(const BackwardLaunch& a, int64_t tiles, Stream stream);
Status differentiate_keys(const BackwardLaunch& a, int64_t tiles, Stream stream);
Status merge_runs(const BackwardLaunch& a, int64_t merges, Stream stream);

size_t attention_backward_floats(const ops::AttentionBackward& a);
Status attention_backward(const AttentionDevice& device, const ops::AttentionBackward& a);

}  // namespace ssrl::cuda
