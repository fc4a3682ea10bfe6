// The CPU backend as one object: the table that forwards each operation to its family's file.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "ops/cpu/kernels.h"

namespace ssrl::ops {
namespace host {
namespace {

std::atomic<int> team{0};

int hardware_threads() {
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace

// Room for the tests that run more threads than a small machine has cores.
int max_threads() {
  static const int limit = std::max(8, hardware_threads());
  return limit;
}

int threads() {
  const int count = team.load(std::memory_order_relaxed);
  return count > 0 ? count : hardware_threads();
}

void set_threads(int count) {
  team.store(std::clamp(count, 1, max_threads()), std::memory_order_relaxed);
}

float* thread_scratch(Scratch slot, size_t bytes) {
  struct Buffer {
    void* data = nullptr;
    size_t size = 0;
    ~Buffer() { std::free(data); }
  };
  thread_local Buffer buffers[static_cast<int>(Scratch::kCount)];
  Buffer& buffer = buffers[static_cast<int>(slot)];
  if (buffer.size < bytes) {
    std::free(buffer.data);
    const size_t rounded = (bytes + 4095) / 4096 * 4096;
    buffer.data = std::aligned_alloc(64, rounded);
    buffer.size = buffer.data == nullptr ? 0 : rounded;
  }
  return static_cast<float*>(buffer.data);
}

}  // namespace host

namespace {

class CpuOps final : public Ops {
 public:
  Status allocate(size_t bytes, void** out) override { return host::allocate(bytes, out); }
  void release(void* pointer) override { host::release(pointer); }
  Status fill_zero(void* pointer, size_t bytes) override {
    if (bytes > 0) std::memset(pointer, 0, bytes);
    return {};
  }
  Status copy(void* to, const void* from, size_t bytes) override {
    if (bytes > 0) std::memmove(to, from, bytes);
    return {};
  }
  Status copy_from_host(void* to, const void* from, size_t bytes) override { return copy(to, from, bytes); }
  Status copy_to_host(void* to, const void* from, size_t bytes) override { return copy(to, from, bytes); }

  Status synchronize() override { return {}; }
  Status free_memory(uint64_t* out) override { return memory_free(out); }

  void set_threads(int threads) override { host::set_threads(threads); }
  int max_threads() const override { return host::max_threads(); }
  Status supports(DType compute) const override { return host::supports(compute); }

  Status pack(const float* weight, int64_t outputs, int64_t inputs, DType compute,
              std::unique_ptr<PackedWeight>* out) override {
    return host::pack(weight, outputs, inputs, compute, out);
  }
  Status repack(const float* weight, PackedWeight* packed) override { return host::repack(weight, packed); }
  Status linear(PackedWeight& weight, const void* x, int64_t rows, const float* bias, void* y, DType y_type,
                bool accumulate) override {
    return host::linear(weight, x, rows, bias, y, y_type, accumulate);
  }
  Status linear_backward_input(PackedWeight& weight, const void* dy, int64_t rows, void* dx,
                               DType dx_type) override {
    return host::linear_backward_input(weight, dy, rows, dx, dx_type);
  }
  Status linear_backward_weight(const void* dy, const void* x, DType type, int64_t rows, int64_t outputs,
                                int64_t inputs, float* dweight, float* dbias) override {
    return host::linear_backward_weight(dy, x, type, rows, outputs, inputs, dweight, dbias);
  }
  Status unpack_rows(const PackedWeight& weight, const int32_t* rows, int64_t count, float* out) override {
    return host::unpack_rows(weight, rows, count, out);
  }

  Status rms_norm(const RmsNorm& a) override { return host::rms_norm(a); }
  Status rms_norm_backward(const RmsNormBackward& a) override { return host::rms_norm_backward(a); }
  Status rope(const Rope& a) override { return host::rope(a); }
  Status swiglu(const Swiglu& a) override { return host::swiglu(a); }
  Status swiglu_backward(const SwigluBackward& a) override { return host::swiglu_backward(a); }
  Status embedding(const int32_t* ids, int64_t tokens, const float* table, int64_t width, DType compute,
                   float* x) override {
    return host::embedding(ids, tokens, table, width, compute, x);
  }
  Status embedding_backward(const int32_t* ids, int64_t tokens, const float* dx, int64_t width,
                            float* dtable) override {
    return host::embedding_backward(ids, tokens, dx, width, dtable);
  }
  Status scatter_rows(const void* from, DType type, int64_t stride, int64_t rows, int64_t width,
                      void* const* to) override {
    return host::scatter_rows(from, type, stride, rows, width, to);
  }
  Status gather_rows(const void* from, DType type, const int64_t* indices, int64_t rows, int64_t width,
                     void* out) override {
    return host::gather_rows(from, type, indices, rows, width, out);
  }
  Status convert(const void* from, DType from_type, void* to, DType to_type, int64_t count) override {
    return host::convert(from, from_type, to, to_type, count);
  }

  Status attention(const Attention& a) override { return host::attention(a); }
  size_t attention_backward_scratch(const AttentionBackward& a) const override {
    return host::attention_backward_scratch(a);
  }
  Status attention_backward(const AttentionBackward& a) override { return host::attention_backward(a); }

  size_t log_probs_scratch(const PackedWeight& weight) const override {
    return host::log_probs_scratch(weight);
  }
  Status log_probs(const LogProbs& a) override { return host::log_probs(a); }
  size_t policy_loss_scratch(const PackedWeight& weight) const override {
    return host::policy_loss_scratch(weight);
  }
  Status policy_loss(const PolicyLoss& a, PolicyLossStatistics* statistics) override {
    return host::policy_loss(a, statistics);
  }
  size_t sample_scratch(int64_t vocabulary) const override { return host::sample_scratch(vocabulary); }
  Status sample(const Sample& a) override { return host::sample(a); }

  Status adamw(const AdamW& a) override { return host::adamw(a); }
  Status sum_of_squares(const float* x, int64_t count, double* out) override {
    return host::sum_of_squares(x, count, out);
  }
};

}  // namespace

// Never destroyed: kernels may still run on the compute thread while the process exits.
Ops& cpu() {
  static CpuOps* const instance = new CpuOps;
  return *instance;
}

}  // namespace ssrl::ops
