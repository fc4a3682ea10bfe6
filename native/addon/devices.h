// The devices that this build has beside the CPU: one file of addon/devices is linked into each addon.
#pragma once

#include <napi.h>

#include <string>

#include "ops/ops.h"

namespace ssrl {

// Null when this build has no such device.
ops::Ops* find_device(const std::string& name);

// What only tests of that build ask for.
void init_devices(Napi::Env env, Napi::Object exports);

}  // namespace ssrl
