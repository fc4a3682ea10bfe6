// One call of `kernels.*`: reads the arguments into memory of its own on the JS thread (a caller may detach
// or change its arrays while the work runs), and hands the outputs back as fresh typed arrays. Every reader
// throws a coded error that names the kernel, the argument, what was expected and what came.
#pragma once

#include <napi.h>

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "addon/async.h"
#include "engine/buffer.h"
#include "ops/ops.h"

namespace ssrl {

// What a call reads or writes. `data` is where the kernel finds it: memory of the device, or the host's own
// for what the kernels take from there.
struct Array {
  void* data = nullptr;  // null: an optional array that was not given
  int64_t count = 0;
  DType type = DType::kF32;

  float* floats() const { return static_cast<float*>(data); }
  int32_t* ints() const { return static_cast<int32_t*>(data); }
  explicit operator bool() const { return data != nullptr; }
};

class KernelCall : public std::enable_shared_from_this<KernelCall> {
 public:
  KernelCall(const Napi::CallbackInfo& info, const char* kernel);

  int64_t integer(const char* name, int64_t low, int64_t high);
  double number(const char* name, double low, double high);
  bool flag_or(const char* name, bool fallback);
  std::string word(const char* name);
  DType dtype(const char* name);

  // Float32Array, or Uint16Array of bf16 patterns.
  Array elements(const char* name);
  Array floats(const char* name);
  Array floats_or_none(const char* name);
  // In host memory.
  Array host_floats(const char* name);
  Array host_floats_or_none(const char* name);
  Array ints(const char* name);                   // Int32Array
  std::vector<uint64_t> seeds(const char* name);  // BigUint64Array
  std::vector<Array> float_list(const char* name);

  // Zeros that the kernel writes; delivered under `name`, unless it is null.
  Array output(const char* name, int64_t count, DType type = DType::kF32);
  Array host_output(const char* name, int64_t count);    // Float32Array in host memory
  Array double_output(const char* name, int64_t count);  // Float64Array in host memory
  void* scratch(size_t bytes);                           // of the device
  // The array itself is delivered, once the kernel has changed it.
  void deliver(const char* name, const Array& array);

  // Throws unless the condition holds: "Expected <what> for <kernel>".
  void require(bool condition, const std::string& expectation);
  void require_count(const char* name, const Array& array, int64_t count, const char* shape);
  void require_type(const char* name, const Array& array, DType type);
  // Every value in [0, end).
  void require_below(const char* name, const Array& indices, int64_t end);
  // count / divisor, which must be whole.
  int64_t rows_of(const char* name, const Array& array, int64_t divisor);
  // Offsets [sequences + 1] from 0, never falling, to `rows`; returns the number of sequences.
  int64_t require_offsets(const char* name, const Array& offsets, int64_t rows);

  // The weight in the layout of the products, made at the first call and kept for the next ones; for use in
  // `run`.
  Status packed(const Array& weight, int64_t outputs, int64_t inputs, DType type, ops::PackedWeight** result);

  // The device that the argument `device` names; the CPU without one.
  ops::Ops& ops() { return *ops_; }
  // Runs on the compute thread; the promise is for an object of the outputs. With an argument `repeat`, runs
  // once and then so many times again, and delivers nothing but the `seconds` that each of those took: copies
  // are not timed.
  Napi::Value run(std::function<Status()> work);

 private:
  struct Output {
    const char* name;
    Array array;
    bool doubles;
  };
  // Memory of the device, and what stands for it on the host; nothing there where it is the same.
  struct Mirror {
    Buffer device, host;
  };
  enum class Kind { kElements, kFloats, kInts };

  [[noreturn]] void fail(const std::string& message);
  Napi::Value value(const char* name);
  Array read(const char* name, Kind kind, Napi::Value value, bool on_host = false);
  Array mirrored(size_t bytes, int64_t count, DType type);
  void* memory(ops::Ops& ops, size_t bytes);
  // The host's side of memory of the device.
  void* host_of(void* data);
  Status upload();
  Status download();
  Napi::Value results(Napi::Env env);
  Napi::Value launch(std::function<Status()> work);

  Napi::Env env_;
  Napi::Object arguments_;  // valid while the call is on the JS stack only
  std::string kernel_;
  ops::Ops* ops_ = nullptr;
  int threads_ = 0;
  std::deque<Buffer> buffers_;
  std::map<void*, Mirror> mirrors_;  // by the device's address
  std::unique_ptr<ops::PackedWeight> packed_;
  std::vector<Output> outputs_;
};

// A kernel as a JS function: `body` reads, checks and runs.
Napi::Function kernel_function(Napi::Env env, const char* name, Napi::Value (*body)(KernelCall&));

void init_attention_kernels(Napi::Env env, Napi::Object kernels);
void init_head_kernels(Napi::Env env, Napi::Object kernels);

}  // namespace ssrl
