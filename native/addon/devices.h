// The devices that this build has beside the CPU: one file of addon/devices is linked into each addon.
#pragma once

#include <napi.h>

#include <string>

#include "ops/cuda/cuda_ops.h"
#include "ops/ops.h"
#include "status.h"

namespace ssrl {

// 'cpu', 'cuda' or 'cuda:n', and what else this build has. kNoDevice says what is missing.
Result<ops::Ops*> find_device(const std::string& name);

// The CUDA devices of this machine.
cuda::Inventory find_cuda_devices();

// The n of KIND or KIND:n; -1 for another name.
int device_index(const std::string& name, const std::string& kind);
Status unknown_device(const std::string& name);

// What only tests of that build ask for.
void init_devices(Napi::Env env, Napi::Object exports);

}  // namespace ssrl
