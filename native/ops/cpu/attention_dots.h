// Products of attention by the dot product of bf16 pairs: a 32-bit unit holds the elements 2i and 2i + 1 of
// the sum. Where both factors are bf16 by nature nothing is rounded that would not be rounded without them;
// only the order of the sum is another. An element's order depends on the depth alone.
#pragma once

#include <cstdint>

#include "ops/ops.h"

namespace ssrl::ops::host {

// c[rows, columns] (+)= a[rows, steps]·b[steps, columns]
struct DotProduct {
  const void* a;          // the unit of row r and step t at a + r * a_row + t * a_step
  int64_t a_row, a_step;  // bytes
  const uint32_t* b;      // [steps, b_row] units
  int64_t b_row;
  float* c;
  int64_t c_row;
  int rows;     // at most kDotRows
  int columns;  // a multiple of 16
  int steps;
  bool accumulate;
};

constexpr int kDotRows = 6;

struct DotRoutines {
  void (*multiply)(const DotProduct&);
  // to[ceil(width / 2), kKeyBlock] = the rows turned over: unit (j, i) is elements 2j and 2j + 1 of row i. Up
  // to kKeyBlock rows; those past `count` become zeros.
  void (*turn)(const uint16_t* rows, int64_t stride, int count, int width, uint32_t* to);
  // to[ceil(count / 2), padded]: unit (i, j) is element j of rows 2i and 2i + 1; zeros past `width` and
  // `count`.
  void (*pair_bf16)(const uint16_t* rows, int64_t stride, int count, int width, int padded, uint32_t* to);
  // The same of f32 rows, rounded; `width` is a multiple of 16, and the units of a row lie `width` apart.
  void (*pair_f32)(const float* rows, int64_t stride, int count, int width, uint32_t* to);
};

// Null where the CPU has no dot products of bf16.
const DotRoutines* dot_routines();

#if defined(__x86_64__)
const DotRoutines& avx512bf16_dot_routines();
#endif

}  // namespace ssrl::ops::host
