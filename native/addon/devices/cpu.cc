// The addon as it is installed: the CPU.
#include "addon/devices.h"

namespace ssrl {

ops::Ops* find_device(const std::string& name) {
  return name == "cpu" ? &ops::cpu() : nullptr;
}

void init_devices(Napi::Env, Napi::Object) {}

}  // namespace ssrl
