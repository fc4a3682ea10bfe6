// The addon as it is installed: the CPU, and CUDA where its library was built. The addon itself depends on
// neither CUDA nor its driver.
#include <dlfcn.h>
#include <unistd.h>

#include "addon/devices.h"

namespace ssrl {
namespace {

struct Library {
  Status status;
  void (*inventory)(cuda::Inventory*) = nullptr;
  void (*open)(int, Result<ops::Ops*>*) = nullptr;
};

Status no_library(const std::string& reason) {
  return {Code::kNoDevice, reason +
                               ": install CUDA 12 or 13 so that nvcc is found (where it is, build/cuda.log "
                               "says what failed), build again, "
                               "or take device 'cpu'"};
}

Library load_library() {
  Dl_info self;
  if (dladdr(reinterpret_cast<void*>(&load_library), &self) == 0 || self.dli_fname == nullptr)
    return {no_library("The addon can't find its own folder")};
  const std::string addon = self.dli_fname;
  const std::string path = addon.substr(0, addon.find_last_of('/') + 1) + "ssrl-cuda.so";
  void* const handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* const reason = dlerror();
    const bool exists = access(path.c_str(), F_OK) == 0;
    return {exists ? no_library(std::string("The CUDA library can't be loaded (") + reason + ")")
                   : no_library("This build has no CUDA part")};
  }
  Library library;
  const auto seam = reinterpret_cast<const char* (*)()>(dlsym(handle, "ssrl_cuda_seam"));
  library.inventory = reinterpret_cast<void (*)(cuda::Inventory*)>(dlsym(handle, "ssrl_cuda_inventory"));
  library.open = reinterpret_cast<void (*)(int, Result<ops::Ops*>*)>(dlsym(handle, "ssrl_cuda_open"));
  if (seam == nullptr || library.inventory == nullptr || library.open == nullptr ||
      std::string(seam()) != SSRL_SEAM) {
    return {no_library("The CUDA library was built from other sources than the addon")};
  }
  return library;
}

// Never unloaded.
const Library& library() {
  static const Library loaded = load_library();
  return loaded;
}

}  // namespace

Result<ops::Ops*> find_device(const std::string& name) {
  if (name == "cpu") return &ops::cpu();
  const int index = device_index(name, "cuda");
  if (index < 0) return unknown_device(name);
  if (!library().status.ok()) return library().status;
  Result<ops::Ops*> device = Status();
  library().open(index, &device);
  return device;
}

cuda::Inventory find_cuda_devices() {
  cuda::Inventory inventory;
  if (library().status.ok()) {
    library().inventory(&inventory);
  } else {
    inventory.usable = library().status;
  }
  return inventory;
}

void init_devices(Napi::Env, Napi::Object) {}

}  // namespace ssrl
