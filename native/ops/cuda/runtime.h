// The CUDA runtime: NVIDIA's under nvcc, an emulation of the few functions that the backend calls elsewhere.
#pragma once

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#else
#include "ops/cuda/emulation/runtime.h"
#endif
