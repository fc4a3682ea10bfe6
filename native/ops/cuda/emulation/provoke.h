// What tests use to examine the emulation itself.
#pragma once

#include <string>
#include <vector>

#include "status.h"

namespace ssrl::cuda::emulation {

// Runs a small kernel with the fault of that name; kInvalidArg for an unknown one.
Status provoke(const std::string& kind);

// One mma on the fragments of a warp: a [32, 8], b [32, 4] -> c [32, 4], values in the order of the
// registers.
Status run_mma(const std::vector<float>& a, const std::vector<float>& b, std::vector<float>* c);

// ldmatrix of four 8x8 matrices [4, 8, 8] -> [32, 8].
Status run_ldmatrix(const std::vector<float>& matrices, bool transposed, std::vector<float>* out);

}  // namespace ssrl::cuda::emulation
