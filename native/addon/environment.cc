// environment(): what this machine offers, as the engine sees it.
#include <hwy/targets.h>
#include <oneapi/dnnl/dnnl.h>
#include <unistd.h>

#ifdef __linux__
#include <sched.h>
#endif

#include <algorithm>
#include <cmath>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "addon/bindings.h"
#include "addon/devices.h"
#include "ops/ops.h"

namespace ssrl {
namespace {

struct Cpu {
  std::string model = "unknown";
  std::set<std::string> flags;
  int cores = 0;  // physical ones that the process may run on; 0: unknown
};

bool may_run_on(int cpu) {
#ifdef __linux__
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_ISSET(cpu, &set);
#endif
  return true;
}

// Two threads of one core share its arithmetic units: they are one core to us.
Cpu read_cpu() {
  Cpu cpu;
  std::set<std::pair<std::string, std::string>> cores;
  std::string processor, package;
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const std::string key = line.substr(0, line.find_last_not_of(" \t", colon - 1) + 1);
    const std::string value = colon + 2 <= line.size() ? line.substr(colon + 2) : "";
    if (key == "processor") processor = value;
    if (key == "physical id") package = value;
    if (key == "core id" && may_run_on(std::atoi(processor.c_str()))) cores.emplace(package, value);
    if (key == "model name") cpu.model = value;
    if (key == "flags" || key == "Features") {
      std::istringstream words(value);
      for (std::string word; words >> word;) cpu.flags.insert(word);
    }
  }
  cpu.cores = int(cores.size());
  return cpu;
}

// Whole cores that the container's quota allows; 0: no limit.
int quota_cores() {
  std::ifstream unified("/sys/fs/cgroup/cpu.max");
  double quota = 0, period = 0;
  if (!(unified >> quota >> period)) {
    std::ifstream old_quota("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"),
        old_period("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
    if (!(old_quota >> quota) || !(old_period >> period)) return 0;
  }
  return quota > 0 && period > 0 ? std::max(1, int(std::ceil(quota / period))) : 0;
}

int usable_cores(const Cpu& cpu) {
  const int cores = cpu.cores > 0 ? cpu.cores : int(std::max(1u, std::thread::hardware_concurrency()));
  const int quota = quota_cores();
  return quota > 0 ? std::min(cores, quota) : cores;
}

std::string highway_target() {
  // The lower the bit, the better the target.
  const int64_t targets = hwy::SupportedTargets();
  return hwy::TargetName(targets & -targets);
}

Napi::Value environment(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const Cpu cpu = read_cpu();
  uint64_t free = 0;
  throw_if_error(env, ops::memory_free(&free));
  const char* const known[] = {"avx2",        "fma",      "avx512f",  "avx512bw",
                               "avx512_bf16", "amx_tile", "amx_bf16", "asimd"};
  Napi::Array features = Napi::Array::New(env);
  for (const char* name : known) {
    if (cpu.flags.count(name) > 0) features.Set(features.Length(), Napi::String::New(env, name));
  }
  const dnnl_version_t* dnnl = dnnl_version();
  const double total = double(sysconf(_SC_PHYS_PAGES)) * double(sysconf(_SC_PAGE_SIZE));
  const double held = double(ops::memory_held());
  Napi::Object object = Napi::Object::New(env);
  object.Set("cpu", cpu.model);
  object.Set("features", features);
  object.Set("cores", Napi::Number::New(env, usable_cores(cpu)));
  object.Set("dnnl", std::to_string(dnnl->major) + "." + std::to_string(dnnl->minor) + "." +
                         std::to_string(dnnl->patch));
  object.Set("highwayTarget", highway_target());
  object.Set("memoryTotal", Napi::Number::New(env, total));
  object.Set("memoryAvailable", Napi::Number::New(env, double(free)));
  object.Set("memoryLimit", Napi::Number::New(env, std::min(total, held + double(free))));
  object.Set("memoryHeld", Napi::Number::New(env, held));
  object.Set("bf16", Napi::Boolean::New(env, ops::cpu().supports(DType::kBF16).ok()));
#ifdef SSRL_TEST_BUILD
  object.Set("build", "C++ " __VERSION__ ", with test hooks");
#else
  object.Set("build", "C++ " __VERSION__);
#endif
  return object;
}

// What was asked of CUDA, and what it answered.
Napi::Value cuda_inventory(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const cuda::Inventory inventory = find_cuda_devices();
  const auto missing = [env](const Status& usable) -> Napi::Value {
    if (usable.ok()) return env.Null();
    return Napi::String::New(env, usable.message());
  };
  Napi::Array devices = Napi::Array::New(env);
  for (const cuda::DeviceInfo& device : inventory.devices) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("name", device.name);
    object.Set("memory", Napi::Number::New(env, double(device.memory)));
    object.Set("capability", std::to_string(device.major) + "." + std::to_string(device.minor));
    object.Set("multiprocessors", Napi::Number::New(env, device.multiprocessors));
    object.Set("missing", missing(device.usable));
    devices.Set(devices.Length(), object);
  }
  Napi::Object object = Napi::Object::New(env);
  object.Set("driver", Napi::Number::New(env, inventory.driver));
  object.Set("runtime", Napi::Number::New(env, inventory.runtime));
  object.Set("missing", missing(inventory.usable));
  object.Set("devices", devices);
  return object;
}

}  // namespace

void init_environment(Napi::Env env, Napi::Object exports) {
  exports.Set("cuda", Napi::Function::New(env, cuda_inventory, "cuda"));
  exports.Set("environment", Napi::Function::New(env, environment, "environment"));
}

}  // namespace ssrl
