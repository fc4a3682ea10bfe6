// Whether a block's shared memory fits the device: 163 KB on sm_80, 227 on sm_90, but 99 on sm_86 and sm_89.
#pragma once

#include <cstddef>
#include <string>

#include "status.h"

namespace ssrl::cuda {

inline Status enough_shared_memory(size_t wanted, size_t most) {
  if (wanted <= most) return {};
  return {Code::kNoDevice, "Expected a CUDA device with " + std::to_string(wanted) +
                               " bytes of shared memory for a block but it has " + std::to_string(most) +
                               ": take dtype 'bf16', which needs less, or device 'cpu'"};
}

}  // namespace ssrl::cuda
