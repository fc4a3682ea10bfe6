// The addon that tests load: the CPU, and the CUDA kernels on the emulated device.
#include <algorithm>
#include <string>
#include <vector>

#include "addon/bindings.h"
#include "addon/devices.h"
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/emulation/block.h"
#include "ops/cuda/emulation/provoke.h"

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
  std::vector<uint16_t> rounded(values.size()), gathered(total), pages(total);
  std::vector<float> out(total);
  std::vector<void*> to;
  for (int64_t row = rows - 1; row >= 0; --row) to.push_back(pages.data() + row * width);
  const auto work = [&]() -> Status {
    ops::Ops& ops = cuda::emulated_ops();
    const auto count = static_cast<int64_t>(values.size());
    SSRL_RETURN_IF_ERROR(ops.convert(values.data(), DType::kF32, rounded.data(), DType::kBF16, count));
    SSRL_RETURN_IF_ERROR(
        ops.gather_rows(rounded.data(), DType::kBF16, indices.data(), rows, width, gathered.data()));
    SSRL_RETURN_IF_ERROR(ops.scatter_rows(gathered.data(), DType::kBF16, width, rows, width, to.data()));
    return ops.convert(pages.data(), DType::kBF16, out.data(), DType::kF32, rows * width);
  };
  return to_array(info.Env(), work(), out);
}

}  // namespace

ops::Ops* find_device(const std::string& name) {
  if (name == "cpu") return &ops::cpu();
  return name == "cuda-emulated" ? &cuda::emulated_ops() : nullptr;
}

void init_devices(Napi::Env env, Napi::Object exports) {
  Napi::Object emulation = Napi::Object::New(env);
  emulation.Set("setSeed", Napi::Function::New(env, set_seed));
  emulation.Set("setMultiprocessors", Napi::Function::New(env, set_multiprocessors));
  emulation.Set("countBanks", Napi::Function::New(env, count_banks));
  emulation.Set("takeBankTotals", Napi::Function::New(env, take_bank_totals));
  emulation.Set("provoke", Napi::Function::New(env, provoke));
  emulation.Set("mma", Napi::Function::New(env, mma));
  emulation.Set("ldmatrix", Napi::Function::New(env, ldmatrix));
  emulation.Set("moveRows", Napi::Function::New(env, move_rows));
  exports.Set("emulation", emulation);
}

}  // namespace ssrl
