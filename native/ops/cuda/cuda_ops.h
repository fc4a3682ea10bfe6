// The CUDA backend's kernels on the emulated device: what test builds offer as 'cuda-emulated'.
#pragma once

#include "ops/ops.h"

namespace ssrl::cuda {

ops::Ops& emulated_ops();

}  // namespace ssrl::cuda
