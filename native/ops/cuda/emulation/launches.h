// Launches that are written down in place of being run, for tests of grids and of shared memory at sizes that
// would take the emulation hours.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "ops/cuda/emulation/block.h"

namespace ssrl::cuda::emulation {

struct LaunchRecord {
  std::string kernel;
  Shape grid;
  int threads;
  size_t shared_bytes;
};

void record_launches(bool enabled);
bool records_launches();
// `name` is __PRETTY_FUNCTION__ of a function whose template argument is the kernel.
void record_launch(const std::string& name, LaunchRecord record);
// Those since the last call.
std::vector<LaunchRecord> take_launches();

}  // namespace ssrl::cuda::emulation
