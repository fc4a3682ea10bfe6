#include "addon/kernel_call.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "addon/devices.h"

namespace ssrl {
namespace {

std::string describe(Napi::Value value) {
  if (value.IsUndefined()) return "undefined";
  if (value.IsNull()) return "null";
  if (value.IsString()) return std::string("the string ").append(value.As<Napi::String>().Utf8Value());
  if (value.IsSymbol()) return "a symbol";
  if (value.IsTypedArray()) {
    return value.As<Napi::Object>().Get("constructor").As<Napi::Object>().Get("name").ToString().Utf8Value();
  }
  if (value.IsArray()) return "an array";
  if (value.IsFunction()) return "a function";
  if (value.IsObject()) return "an object";
  return value.ToString().Utf8Value();
}

std::string plain(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", value);
  return text;
}

}  // namespace

KernelCall::KernelCall(const Napi::CallbackInfo& info, const char* kernel)
    : env_(info.Env()), kernel_(kernel) {
  if (!info[0].IsObject()) fail("Expected an object of arguments but received " + describe(info[0]));
  arguments_ = info[0].As<Napi::Object>();
  const std::string device = value("device").IsUndefined() ? "cpu" : word("device");
  const Result<ops::Ops*> found = find_device(device);
  if (!found.ok()) {
    throw to_error(env_, {found.status().code(), found.status().message() + " (kernels." + kernel_ + ")"});
  }
  ops_ = found.value();
  if (!value("threads").IsUndefined()) {
    threads_ = static_cast<int>(std::min<int64_t>(integer("threads", 1, 1 << 20), ops().max_threads()));
  }
}

void KernelCall::fail(const std::string& message) {
  throw to_error(env_, invalid_arg(message + " (kernels." + kernel_ + ")"));
}

Napi::Value KernelCall::value(const char* name) {
  return arguments_.Get(name);
}

void KernelCall::require(bool condition, const std::string& expectation) {
  if (!condition) fail("Expected " + expectation);
}

int64_t KernelCall::integer(const char* name, int64_t low, int64_t high) {
  const Napi::Value given = value(name);
  const double number = given.IsNumber() ? given.As<Napi::Number>().DoubleValue() : std::nan("");
  if (!(number >= static_cast<double>(low) && number <= static_cast<double>(high)) ||
      number != std::floor(number)) {
    fail("Expected a whole number from " + std::to_string(low) + " to " + std::to_string(high) + " for " +
         name + " but received " + describe(given));
  }
  return static_cast<int64_t>(number);
}

double KernelCall::number(const char* name, double low, double high) {
  const Napi::Value given = value(name);
  const double number = given.IsNumber() ? given.As<Napi::Number>().DoubleValue() : std::nan("");
  if (!(number >= low && number <= high)) {
    fail("Expected a number from " + plain(low) + " to " + plain(high) + " for " + name + " but received " +
         describe(given));
  }
  return number;
}

bool KernelCall::flag_or(const char* name, bool fallback) {
  const Napi::Value given = value(name);
  if (given.IsUndefined()) return fallback;
  if (!given.IsBoolean())
    fail(std::string("Expected true or false for ") + name + " but received " + describe(given));
  return given.As<Napi::Boolean>().Value();
}

std::string KernelCall::word(const char* name) {
  const Napi::Value given = value(name);
  if (!given.IsString())
    fail(std::string("Expected a string for ") + name + " but received " + describe(given));
  return given.As<Napi::String>().Utf8Value();
}

DType KernelCall::dtype(const char* name) {
  const std::string type = word(name);
  if (type != "f32" && type != "bf16") {
    fail(std::string("Expected 'f32' or 'bf16' for ") + name + " but received \"" + type + "\"");
  }
  return type == "f32" ? DType::kF32 : DType::kBF16;
}

void* KernelCall::memory(ops::Ops& ops, size_t bytes) {
  buffers_.emplace_back();
  throw_if_error(env_, buffers_.back().allocate(ops, std::max<size_t>(bytes, 1)));
  return buffers_.back().data();
}

Array KernelCall::mirrored(size_t bytes, int64_t count, DType type) {
  if (ops_ == &ops::cpu()) return {memory(*ops_, bytes), count, type};
  Mirror mirror;
  throw_if_error(env_, mirror.device.allocate(*ops_, std::max<size_t>(bytes, 1)));
  throw_if_error(env_, mirror.host.allocate(ops::cpu(), mirror.device.bytes()));
  void* const data = mirror.device.data();
  mirrors_.emplace(data, std::move(mirror));
  return {data, count, type};
}

void* KernelCall::host_of(void* data) {
  const auto found = mirrors_.find(data);
  return found == mirrors_.end() ? data : found->second.host.data();
}

Status KernelCall::upload() {
  for (auto& [data, mirror] : mirrors_) {
    SSRL_RETURN_IF_ERROR(ops_->copy_from_host(data, mirror.host.data(), mirror.host.bytes()));
  }
  return {};
}

Status KernelCall::download() {
  for (const Output& output : outputs_) {
    const auto found = mirrors_.find(output.array.data);
    if (found == mirrors_.end()) continue;
    const Buffer& host = found->second.host;
    SSRL_RETURN_IF_ERROR(ops_->copy_to_host(host.data(), output.array.data, host.bytes()));
  }
  return {};
}

Array KernelCall::read(const char* name, Kind kind, Napi::Value given, bool on_host) {
  static const char* const expectations[] = {"a Float32Array, or a Uint16Array of bf16 patterns,",
                                             "a Float32Array", "an Int32Array"};
  const napi_typedarray_type type =
      given.IsTypedArray() ? given.As<Napi::TypedArray>().TypedArrayType() : napi_int8_array;
  const bool fits = kind == Kind::kInts ? type == napi_int32_array
                                        : type == napi_float32_array ||
                                              (kind == Kind::kElements && type == napi_uint16_array);
  if (!fits) {
    fail(std::string("Expected ") + expectations[static_cast<int>(kind)] + " for " + name + " but received " +
         describe(given));
  }
  const auto source = given.As<Napi::TypedArray>();
  const auto count = static_cast<int64_t>(source.ElementLength());
  const DType element = type == napi_uint16_array ? DType::kBF16 : DType::kF32;
  const Array array = on_host || kind == Kind::kInts
                          ? Array{memory(ops::cpu(), source.ByteLength()), count, element}
                          : mirrored(source.ByteLength(), count, element);
  if (array.count > 0) {
    std::memcpy(host_of(array.data),
                static_cast<const char*>(source.ArrayBuffer().Data()) + source.ByteOffset(),
                source.ByteLength());
  }
  return array;
}

Array KernelCall::elements(const char* name) {
  return read(name, Kind::kElements, value(name));
}
Array KernelCall::floats(const char* name) {
  return read(name, Kind::kFloats, value(name));
}
Array KernelCall::ints(const char* name) {
  return read(name, Kind::kInts, value(name));
}

Array KernelCall::floats_or_none(const char* name) {
  const Napi::Value given = value(name);
  return given.IsUndefined() || given.IsNull() ? Array() : read(name, Kind::kFloats, given);
}

Array KernelCall::host_floats(const char* name) {
  return read(name, Kind::kFloats, value(name), true);
}
Array KernelCall::host_floats_or_none(const char* name) {
  const Napi::Value given = value(name);
  return given.IsUndefined() || given.IsNull() ? Array() : read(name, Kind::kFloats, given, true);
}

std::vector<uint64_t> KernelCall::seeds(const char* name) {
  const Napi::Value given = value(name);
  if (!given.IsTypedArray() || given.As<Napi::TypedArray>().TypedArrayType() != napi_biguint64_array) {
    fail(std::string("Expected a BigUint64Array for ") + name + " but received " + describe(given));
  }
  const auto source = given.As<Napi::TypedArray>();
  std::vector<uint64_t> values(source.ElementLength());
  if (!values.empty()) {
    std::memcpy(values.data(), static_cast<const char*>(source.ArrayBuffer().Data()) + source.ByteOffset(),
                source.ByteLength());
  }
  return values;
}

std::vector<Array> KernelCall::float_list(const char* name) {
  const Napi::Value given = value(name);
  if (!given.IsArray()) {
    fail(std::string("Expected an array of Float32Arrays for ") + name + " but received " + describe(given));
  }
  std::vector<Array> list;
  const auto items = given.As<Napi::Array>();
  for (uint32_t i = 0; i < items.Length(); ++i) list.push_back(read(name, Kind::kFloats, items.Get(i)));
  return list;
}

Array KernelCall::output(const char* name, int64_t count, DType type) {
  const size_t bytes = static_cast<size_t>(count) * size_of(type);
  const Array array = mirrored(bytes, count, type);
  std::memset(host_of(array.data), 0, bytes);
  if (name != nullptr) deliver(name, array);
  return array;
}

Array KernelCall::host_output(const char* name, int64_t count) {
  const size_t bytes = static_cast<size_t>(count) * sizeof(float);
  const Array array{memory(ops::cpu(), bytes), count, DType::kF32};
  std::memset(array.data, 0, bytes);
  deliver(name, array);
  return array;
}

Array KernelCall::double_output(const char* name, int64_t count) {
  const Array array{memory(ops::cpu(), static_cast<size_t>(count) * sizeof(double)), count, DType::kF32};
  std::memset(array.data, 0, static_cast<size_t>(count) * sizeof(double));
  outputs_.push_back({name, array, true});
  return array;
}

void* KernelCall::scratch(size_t bytes) {
  return memory(*ops_, bytes);
}

void KernelCall::deliver(const char* name, const Array& array) {
  outputs_.push_back({name, array, false});
}

void KernelCall::require_count(const char* name, const Array& array, int64_t count, const char* shape) {
  if (array.count != count) {
    fail(std::string("Expected ") + std::to_string(count) + " values " + shape + " for " + name +
         " but received " + std::to_string(array.count));
  }
}

void KernelCall::require_type(const char* name, const Array& array, DType type) {
  if (array.type != type) {
    fail(std::string("Expected ") + name + " to have the type of the other arrays (" +
         (type == DType::kF32 ? "Float32Array" : "Uint16Array") + ")");
  }
}

void KernelCall::require_below(const char* name, const Array& indices, int64_t end) {
  for (int64_t i = 0; i < indices.count; ++i) {
    const int32_t index = indices.ints()[i];
    if (index < 0 || index >= end) {
      fail(std::string("Expected values from 0 to ") + std::to_string(end - 1) + " in " + name +
           " but received " + std::to_string(index) + " at index " + std::to_string(i));
    }
  }
}

int64_t KernelCall::rows_of(const char* name, const Array& array, int64_t divisor) {
  if (array.count % divisor != 0) {
    fail(std::string("Expected the length of ") + name + " to be a multiple of " + std::to_string(divisor) +
         " but received " + std::to_string(array.count));
  }
  return array.count / divisor;
}

int64_t KernelCall::require_offsets(const char* name, const Array& offsets, int64_t rows) {
  bool fits = offsets.count > 0 && offsets.ints()[0] == 0 && offsets.ints()[offsets.count - 1] == rows;
  for (int64_t i = 1; fits && i < offsets.count; ++i) fits = offsets.ints()[i] >= offsets.ints()[i - 1];
  require(fits, std::string(name) + " to go from 0 to " + std::to_string(rows) + " without falling");
  return offsets.count - 1;
}

Napi::Value KernelCall::results(Napi::Env env) {
  Napi::Object object = Napi::Object::New(env);
  for (const Output& output : outputs_) {
    const size_t count = static_cast<size_t>(output.array.count);
    const size_t bytes = count * (output.doubles ? sizeof(double) : size_of(output.array.type));
    Napi::ArrayBuffer buffer = Napi::ArrayBuffer::New(env, bytes);
    if (bytes > 0) std::memcpy(buffer.Data(), host_of(output.array.data), bytes);
    if (output.doubles) {
      object.Set(output.name, Napi::Float64Array::New(env, count, buffer, 0));
    } else if (output.array.type == DType::kF32) {
      object.Set(output.name, Napi::Float32Array::New(env, count, buffer, 0));
    } else {
      object.Set(output.name, Napi::Uint16Array::New(env, count, buffer, 0));
    }
  }
  return object;
}

Status KernelCall::packed(const Array& weight, int64_t outputs, int64_t inputs, DType type,
                          ops::PackedWeight** result) {
  if (packed_ == nullptr) SSRL_RETURN_IF_ERROR(ops().pack(weight.floats(), outputs, inputs, type, &packed_));
  *result = packed_.get();
  return {};
}

Napi::Value KernelCall::launch(std::function<Status()> work) {
  auto self = shared_from_this();
  AsyncOptions options;
  options.threads = threads_;
  return run_job(
      env_, options,
      [self, work = std::move(work)](const AbortFlag*) -> Status {
        SSRL_RETURN_IF_ERROR(self->upload());
        SSRL_RETURN_IF_ERROR(work());
        return self->download();
      },
      [self](Napi::Env env) { return self->results(env); });
}

Napi::Value KernelCall::run(std::function<Status()> work) {
  if (value("repeat").IsUndefined()) return launch(std::move(work));
  const int64_t times = integer("repeat", 1, 1 << 20);
  outputs_.clear();
  double* seconds = static_cast<double*>(double_output("seconds", times).data);
  return launch([work = std::move(work), seconds, times, &ops = ops()]() -> Status {
    SSRL_RETURN_IF_ERROR(work());
    SSRL_RETURN_IF_ERROR(ops.synchronize());
    for (int64_t i = 0; i < times; ++i) {
      const auto start = std::chrono::steady_clock::now();
      SSRL_RETURN_IF_ERROR(work());
      SSRL_RETURN_IF_ERROR(ops.synchronize());
      seconds[i] = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    }
    return {};
  });
}

Napi::Function kernel_function(Napi::Env env, const char* name, Napi::Value (*body)(KernelCall&)) {
  return Napi::Function::New(
      env,
      [name, body](const Napi::CallbackInfo& info) -> Napi::Value {
        return body(*std::make_shared<KernelCall>(info, name));
      },
      name);
}

}  // namespace ssrl
