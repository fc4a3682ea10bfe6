// The CUDA backend: the kernels of this folder on GPUs, or on emulated ones in the test build. Installed, it
// is a library of its own beside the addon (library.cc), which loads it when a device is asked for.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ops/ops.h"
#include "status.h"

namespace ssrl::cuda {

// A device, and what stands in its way.
struct DeviceInfo {
  std::string name;
  uint64_t memory = 0;  // bytes
  int major = 0, minor = 0, multiprocessors = 0;
  Status usable;  // kNoDevice: too old
};

struct Inventory {
  int driver = 0, runtime = 0;  // as CUDA counts: 12040 is 12.4; driver 0: none
  Status usable;                // kNoDevice: no library, no driver, or one that finds no device
  std::vector<DeviceInfo> devices;
};
Inventory take_inventory();

// Device `index`, opened once a process. kNoDevice says what is missing.
Result<ops::Ops*> open_device(int index);

// How many the emulated device has, which decides how attention shares its pages out; 0: as it says itself.
void set_multiprocessors(int count);

}  // namespace ssrl::cuda
