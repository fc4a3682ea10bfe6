// Matrix products of our own. B[k, n] is packed into strips of columns; every element of C is one chain of
// multiply-adds in the order of k, whichever tile it falls into. A row's bits therefore depend on nothing but
// the row. There is one file per instruction set: strips_f32.cc (Highway's targets), strips_avx512bf16.cc.
#pragma once

#include <cstdint>

#include "ops/ops.h"

namespace ssrl::ops::host::strips {

// The number of k that one 32-bit unit of A or B holds: a bf16 dot product takes two at a time.
inline int64_t depth_of(DType type) {
  return type == DType::kBF16 ? 2 : 1;
}
inline int64_t steps_of(int64_t k, DType type) {
  return (k + depth_of(type) - 1) / depth_of(type);
}
constexpr int64_t kUnit = 4;  // bytes

// c[rows, columns] (+)= a[rows, k]·strip[k, columns] + bias
struct Call {
  const void* a;          // the units of row r and step t at a + r * a_row + t * a_step
  int64_t a_row, a_step;  // bytes
  int64_t whole_steps;    // steps whose units lie whole in a
  const void* tail;       // BF16 with an odd k: the last element of row 0 of a; else null
  const void* strip;      // [steps, strip width] units
  int64_t rows;
  int64_t columns;    // at most the strip's width
  const float* bias;  // [columns] or null
  void* c;
  DType c_type;
  int64_t c_row;     // elements
  bool accumulate;   // F32 c only
  const void* next;  // the strip that is wanted after this one, or null
};

// A plain matrix [k, n] of which strips are made.
struct Source {
  const void* plain;  // element (k, n) at plain[k * k_stride + n * n_stride]; one of the strides is 1
  DType type;         // F32, or with n_stride 1 also BF16
  int64_t k_stride, n_stride;
  int64_t k, n;

  // At most `count` columns from `first` on.
  Source columns(int64_t first, int64_t count) const {
    const char* from =
        static_cast<const char*>(plain) + first * n_stride * static_cast<int64_t>(size_of(type));
    return {from, type, k_stride, n_stride, k, n - first < count ? n - first : count};
  }
};

struct Routine {
  int64_t width;  // columns of a strip
  int64_t rows;   // of a tile
  void (*multiply)(const Call& call);
  // Packs into strips [steps, width] of units, one after the other; `width` is that of the routine's strips
  // or the rows of its tiles. What lies outside of the matrix becomes zero.
  void (*pack)(const Source& source, int64_t width, void* strips);
  // A block of B, `width` of k by `width` columns, is one run of units in its strip; in a strip of Bᵀ it is
  // the transposed run. from [from_steps, width] units, the rest of the block zeros; to [to_steps, width].
  void (*transpose)(const void* from, int64_t from_steps, void* to, int64_t to_steps);
};

// Null where the CPU has no fast instructions for the type, or oneDNN has faster ones (AMX).
const Routine* routine(DType type);

const Routine& f32_routine();
#if defined(__x86_64__)
const Routine& avx512bf16_routine();
#endif

// Rows of the next tile when `left` are to be done: whole tiles, and no tile so small that its sums wait for
// one another.
inline int64_t tile_rows(int64_t left, int64_t most) {
  return left <= most ? left : left < 2 * most && left < most + most / 2 ? (left + 1) / 2 : most;
}

}  // namespace ssrl::ops::host::strips
