// The addon that tests load: the CPU, and the CUDA kernels on the emulated device.
#include <algorithm>
#include <string>
#include <vector>

#include "addon/bindings.h"
#include "addon/devices.h"
#include "engine/buffer.h"
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/emulation/block.h"
#include "ops/cuda/emulation/launches.h"
#include "ops/cuda/emulation/provoke.h"
#include "ops/cuda/emulation/runtime.h"

namespace ssrl {
namespace {

std::vector<float> read_floats(Napi::Value value) {
  const auto array = value.As<Napi::Float32Array>();
  return {array.Data(), array.Data() + array.ElementLength()};
}

Napi::Value to_array(Napi::Env env, const Status& status, const std::vector<float>& values) {
  throw_if_error(env, status);
  Napi::Float32Array array = Napi::Float32Array::New(env, values.size());
  std::copy(values.begin(), values.end(), array.Data());
  return array;
}

Napi::Value set_seed(const Napi::CallbackInfo& info) {
  cuda::emulation::set_seed(info[0].As<Napi::Number>().Uint32Value());
  return info.Env().Undefined();
}

Napi::Value set_multiprocessors(const Napi::CallbackInfo& info) {
  cuda::set_multiprocessors(info[0].As<Napi::Number>().Int32Value());
  return info.Env().Undefined();
}

int device_of(const Napi::CallbackInfo& info) {
  return std::clamp(info[0].As<Napi::Number>().Int32Value(), 0, cuda::emulation::kDevices - 1);
}

Napi::Value set_device_memory(const Napi::CallbackInfo& info) {
  cuda::emulation::set_device_memory(device_of(info), info[1].As<Napi::Number>().Int64Value());
  return info.Env().Undefined();
}

Napi::Value lose_device(const Napi::CallbackInfo& info) {
  cuda::emulation::lose_device(device_of(info));
  return info.Env().Undefined();
}

Napi::Value hide_devices(const Napi::CallbackInfo& info) {
  const std::string reason = info[0].As<Napi::String>().Utf8Value();
  cuda::emulation::hide_devices(reason == "driver"   ? cudaErrorInsufficientDriver
                                : reason == "device" ? cudaErrorNoDevice
                                                     : cudaSuccess);
  return info.Env().Undefined();
}

Napi::Value set_capability(const Napi::CallbackInfo& info) {
  cuda::emulation::set_capability(device_of(info), info[1].As<Napi::Number>().Int32Value(),
                                  info[2].As<Napi::Number>().Int32Value());
  return info.Env().Undefined();
}

Napi::Value set_shared_memory(const Napi::CallbackInfo& info) {
  cuda::emulation::set_shared_memory(device_of(info), info[1].As<Napi::Number>().Int64Value());
  return info.Env().Undefined();
}

Napi::Value record_launches(const Napi::CallbackInfo& info) {
  cuda::emulation::record_launches(info[0].As<Napi::Boolean>().Value());
  return info.Env().Undefined();
}

Napi::Value take_launches(const Napi::CallbackInfo& info) {
  const auto launches = cuda::emulation::take_launches();
  Napi::Array result = Napi::Array::New(info.Env(), launches.size());
  for (size_t i = 0; i < launches.size(); ++i) {
    Napi::Object entry = Napi::Object::New(info.Env());
    entry.Set("kernel", launches[i].kernel);
    entry.Set("blocks", Napi::Number::New(info.Env(), double(launches[i].grid.x) * launches[i].grid.y));
    entry.Set("threads", Napi::Number::New(info.Env(), launches[i].threads));
    entry.Set("sharedBytes", Napi::Number::New(info.Env(), static_cast<double>(launches[i].shared_bytes)));
    result.Set(static_cast<uint32_t>(i), entry);
  }
  return result;
}

Napi::Value take_traffic(const Napi::CallbackInfo& info) {
  const cuda::emulation::Traffic traffic = cuda::emulation::take_traffic();
  Napi::Object object = Napi::Object::New(info.Env());
  object.Set("toDevice", Napi::Number::New(info.Env(), static_cast<double>(traffic.to_device)));
  object.Set("toHost", Napi::Number::New(info.Env(), static_cast<double>(traffic.to_host)));
  object.Set("waits", Napi::Number::New(info.Env(), static_cast<double>(traffic.waits)));
  object.Set("launches", Napi::Number::New(info.Env(), static_cast<double>(traffic.launches)));
  return object;
}

// Reads a byte of device memory, as a host that forgot to copy would.
Napi::Value touch_device(const Napi::CallbackInfo& info) {
  const Result<ops::Ops*> device = cuda::open_device(0);
  throw_if_error(info.Env(), device.status());
  void* memory = nullptr;
  throw_if_error(info.Env(), device.value()->allocate(64, &memory));
  return Napi::Number::New(info.Env(), *static_cast<volatile char*>(memory));
}

// Launches a kernel on memory of the host, as a host that forgot to copy would.
Napi::Value launch_on_host(const Napi::CallbackInfo& info) {
  const Result<ops::Ops*> device = cuda::open_device(0);
  throw_if_error(info.Env(), device.status());
  float host[16] = {};
  throw_if_error(info.Env(), device.value()->convert(host, DType::kF32, host, DType::kF32, 16));
  return info.Env().Undefined();
}

Napi::Value count_banks(const Napi::CallbackInfo& info) {
  cuda::emulation::count_banks(info[0].As<Napi::Boolean>().Value());
  return info.Env().Undefined();
}

Napi::Value take_bank_totals(const Napi::CallbackInfo& info) {
  Napi::Object result = Napi::Object::New(info.Env());
  for (const auto& [place, totals] : cuda::emulation::take_bank_totals()) {
    Napi::Object entry = Napi::Object::New(info.Env());
    entry.Set("wavefronts", Napi::Number::New(info.Env(), static_cast<double>(totals.wavefronts)));
    entry.Set("conflicts", Napi::Number::New(info.Env(), static_cast<double>(totals.conflicts)));
    result.Set(place, entry);
  }
  return result;
}

Napi::Value provoke(const Napi::CallbackInfo& info) {
  const std::string kind = info[0].As<Napi::String>().Utf8Value();
  return Napi::String::New(info.Env(), cuda::emulation::provoke(kind).message());
}

Napi::Value mma(const Napi::CallbackInfo& info) {
  std::vector<float> c;
  const Status status = cuda::emulation::run_mma(read_floats(info[0]), read_floats(info[1]), &c);
  return to_array(info.Env(), status, c);
}

Napi::Value ldmatrix(const Napi::CallbackInfo& info) {
  std::vector<float> out;
  const bool transposed = info[1].As<Napi::Boolean>().Value();
  const Status status = cuda::emulation::run_ldmatrix(read_floats(info[0]), transposed, &out);
  return to_array(info.Env(), status, out);
}

// values [rows, width] -> bf16 -> the rows that `indices` name -> pages in reverse order -> f32.
Napi::Value move_rows(const Napi::CallbackInfo& info) {
  const std::vector<float> values = read_floats(info[0]);
  const auto width = info[2].As<Napi::Number>().Int64Value();
  std::vector<int64_t> indices;
  for (const float index : read_floats(info[1])) indices.push_back(static_cast<int64_t>(index));
  const auto rows = static_cast<int64_t>(indices.size());
  const auto total = static_cast<size_t>(rows * width);
  std::vector<float> out(total);
  const auto work = [&]() -> Status {
    const Result<ops::Ops*> device = cuda::open_device(0);
    if (!device.ok()) return device.status();
    ops::Ops& ops = *device.value();
    const auto count = static_cast<int64_t>(values.size());
    Buffer given, rounded, gathered, pages, result;
    for (Buffer* buffer : {&given, &rounded}) SSRL_RETURN_IF_ERROR(buffer->allocate(ops, count * 4));
    for (Buffer* buffer : {&gathered, &pages, &result})
      SSRL_RETURN_IF_ERROR(buffer->allocate(ops, total * 4));
    std::vector<void*> to;
    for (int64_t row = rows - 1; row >= 0; --row)
      to.push_back(static_cast<uint16_t*>(pages.data()) + row * width);
    SSRL_RETURN_IF_ERROR(ops.copy_from_host(given.data(), values.data(), count * sizeof(float)));
    SSRL_RETURN_IF_ERROR(ops.convert(given.data(), DType::kF32, rounded.data(), DType::kBF16, count));
    SSRL_RETURN_IF_ERROR(
        ops.gather_rows(rounded.data(), DType::kBF16, indices.data(), rows, width, gathered.data()));
    SSRL_RETURN_IF_ERROR(ops.scatter_rows(gathered.data(), DType::kBF16, width, rows, width, to.data()));
    SSRL_RETURN_IF_ERROR(ops.convert(pages.data(), DType::kBF16, result.data(), DType::kF32, rows * width));
    return ops.copy_to_host(out.data(), result.data(), total * sizeof(float));
  };
  return to_array(info.Env(), work(), out);
}

}  // namespace

Result<ops::Ops*> find_device(const std::string& name) {
  if (name == "cpu") return &ops::cpu();
  // 'cuda' too, so that the way to a GPU is tested without one.
  const int index = std::max(device_index(name, "cuda"), device_index(name, "cuda-emulated"));
  return index >= 0 ? cuda::open_device(index) : unknown_device(name);
}

cuda::Inventory find_cuda_devices() {
  return cuda::take_inventory();
}

void init_devices(Napi::Env env, Napi::Object exports) {
  Napi::Object emulation = Napi::Object::New(env);
  emulation.Set("setSeed", Napi::Function::New(env, set_seed));
  emulation.Set("setMultiprocessors", Napi::Function::New(env, set_multiprocessors));
  emulation.Set("countBanks", Napi::Function::New(env, count_banks));
  emulation.Set("takeBankTotals", Napi::Function::New(env, take_bank_totals));
  emulation.Set("setDeviceMemory", Napi::Function::New(env, set_device_memory));
  emulation.Set("setCapability", Napi::Function::New(env, set_capability));
  emulation.Set("setSharedMemory", Napi::Function::New(env, set_shared_memory));
  emulation.Set("recordLaunches", Napi::Function::New(env, record_launches));
  emulation.Set("takeLaunches", Napi::Function::New(env, take_launches));
  emulation.Set("loseDevice", Napi::Function::New(env, lose_device));
  emulation.Set("hideDevices", Napi::Function::New(env, hide_devices));
  emulation.Set("takeTraffic", Napi::Function::New(env, take_traffic));
  emulation.Set("touchDevice", Napi::Function::New(env, touch_device));
  emulation.Set("launchOnHost", Napi::Function::New(env, launch_on_host));
  emulation.Set("provoke", Napi::Function::New(env, provoke));
  emulation.Set("mma", Napi::Function::New(env, mma));
  emulation.Set("ldmatrix", Napi::Function::New(env, ldmatrix));
  emulation.Set("moveRows", Napi::Function::New(env, move_rows));
  exports.Set("emulation", emulation);
}

}  // namespace ssrl
