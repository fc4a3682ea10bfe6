// The CUDA backend's kernels on the emulated device: what test builds offer as 'cuda-emulated'.
#pragma once

#include "ops/ops.h"

namespace ssrl::cuda {

ops::Ops& emulated_ops();

// How many the emulated device has, which decides how attention shares its pages out.
void set_multiprocessors(int count);

}  // namespace ssrl::cuda
