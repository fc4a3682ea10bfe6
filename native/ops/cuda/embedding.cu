// Token embedding, its gradient, and the copies of rows between buffers.
#include "ops/cuda/kernels.h"

namespace ssrl::cuda {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / 32;
constexpr int64_t kColumns = 32 * 8;  // of a warp

template <typename From, typename Rounded>
__global__ void __launch_bounds__(kThreads) take_rows(Embedding a, int64_t items) {
  const int64_t pieces = pieces_of(a.width, 8);
  for (int64_t item = grid_index(); item < items; item += grid_stride()) {
    const int64_t token = item / pieces, j = item % pieces * 8;
    Eight values = load_eight(static_cast<const From*>(a.table) + a.ids[token] * a.width, j, a.width);
    for (int i = 0; i < 8; ++i) values.value[i] = to_float(from_float<Rounded>(values.value[i]));
    store_eight(a.x + token * a.width, j, a.width, values);
  }
}

// Whether token `end` is the first with this id.
__device__ __forceinline__ bool is_first(const int32_t* ids, int64_t end, int32_t id) {
  for (int64_t begin = 0; begin < end; begin += 32) {
    const int64_t token = begin + lane_index();
    if (ballot(token < end && ids[token] == id) != 0) return false;
  }
  return true;
}

// A warp owns the id whose first token it is, for kColumns columns, and adds the rows of all tokens with that
// id in their order: the sum of a sorted segment, without the sort, the scratch for it, or atomics. Reading
// the ids again for every token costs tokens^2 / 2 words from the cache, little beside dx up to 16k tokens.
__global__ void __launch_bounds__(kThreads) add_rows(EmbeddingBackward a) {
  const int64_t first = static_cast<int64_t>(block_x()) * kWarps + warp_index();
  if (first >= a.tokens) return;
  const int32_t id = a.ids[first];
  if (!is_first(a.ids, first, id)) return;
  const int64_t j = static_cast<int64_t>(block_y()) * kColumns + lane_index() * 8;
  float* to = a.dtable + id * a.width;
  Eight sum{};
  if (j < a.width) sum = load_eight(to, j, a.width);
  for (int64_t begin = first; begin < a.tokens; begin += 32) {
    const int64_t token = begin + lane_index();
    uint32_t same = ballot(token < a.tokens && a.ids[token] == id);
    for (; same != 0; same &= same - 1) {
      if (j >= a.width) continue;
      const Eight dx = load_eight(a.dx + (begin + lowest_lane(same)) * a.width, j, a.width);
      for (int i = 0; i < 8; ++i) sum.value[i] += dx.value[i];
    }
  }
  if (j < a.width) store_eight(to, j, a.width, sum);
}

__global__ void __launch_bounds__(kThreads) copy_pieces(CopyRows a, int64_t items) {
  const int64_t pieces = pieces_of(a.bytes, 16);
  for (int64_t item = grid_index(); item < items; item += grid_stride()) {
    const int64_t row = item / pieces, at = item % pieces * 16;
    const int64_t source = a.indices == nullptr ? row : a.indices[row];
    const char* from = static_cast<const char*>(a.from) + source * a.from_stride + at;
    char* to = static_cast<char*>(a.to) + (a.offsets == nullptr ? row * a.bytes : a.offsets[row]) + at;
    if (at + 16 <= a.bytes && aligned16(from) && aligned16(to)) {
      store_words(to, load_words(from));
      continue;
    }
    for (int64_t i = 0; i < 16 && at + i < a.bytes; i += 2) {
      *reinterpret_cast<uint16_t*>(to + i) = *reinterpret_cast<const uint16_t*>(from + i);
    }
  }
}

template <typename From, typename To>
__global__ void __launch_bounds__(kThreads) convert_pieces(Convert a, int64_t items) {
  for (int64_t item = grid_index(); item < items; item += grid_stride()) {
    const Eight values = load_eight(static_cast<const From*>(a.from), item * 8, a.count);
    store_eight(static_cast<To*>(a.to), item * 8, a.count, values);
  }
}

}  // namespace

Status embedding(const Embedding& a, DType from, DType compute, Stream stream) {
  const int64_t items = a.tokens * pieces_of(a.width, 8);
  if (items == 0) return {};
  return with_type(from, [&](auto source) {
    return with_type(compute, [&](auto type) {
      return launch<take_rows<decltype(source), decltype(type)>>(grid_for(items, kThreads), stream, a, items);
    });
  });
}

Status embedding_backward(const EmbeddingBackward& a, Stream stream) {
  if (a.tokens == 0) return {};
  const LaunchShape shape{{static_cast<unsigned>(pieces_of(a.tokens, kWarps)),
                           static_cast<unsigned>(pieces_of(a.width, kColumns))},
                          kThreads};
  return launch<add_rows>(shape, stream, a);
}

Status copy_rows(const CopyRows& a, Stream stream) {
  const int64_t items = a.rows * pieces_of(a.bytes, 16);
  if (items == 0) return {};
  return launch<copy_pieces>(grid_for(items, kThreads), stream, a, items);
}

Status convert(const Convert& a, DType from, DType to, Stream stream) {
  const int64_t items = pieces_of(a.count, 8);
  if (items == 0) return {};
  return with_type(from, [&](auto source) {
    return with_type(to, [&](auto target) {
      return launch<convert_pieces<decltype(source), decltype(target)>>(grid_for(items, kThreads), stream, a,
                                                                        items);
    });
  });
}

}  // namespace ssrl::cuda
