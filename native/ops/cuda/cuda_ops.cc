// The CUDA backend as one object, on the emulated device: memory is the CPU backend's, and a launch has ended
// when it returns.
#include <memory>
#include <string>
#include <utility>

#include "ops/cuda/attention.h"
#include "ops/cuda/attention_backward.h"
#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/head.h"
#include "ops/cuda/kernels.h"
#include "ops/cuda/matmul.h"

namespace ssrl::cuda {
namespace {

// [outputs, inputs] in the compute type; both products read it as it lies.
class Weight final : public ops::PackedWeight {
 public:
  Weight(ops::Ops& ops, int64_t outputs, int64_t inputs, DType compute)
      : ops_(ops), outputs_(outputs), inputs_(inputs), compute_(compute) {}
  ~Weight() override { ops_.release(data); }
  int64_t outputs() const override { return outputs_; }
  int64_t inputs() const override { return inputs_; }
  DType compute() const override { return compute_; }
  size_t bytes() const override { return static_cast<size_t>(outputs_ * inputs_) * size_of(compute_); }

  void* data = nullptr;

 private:
  ops::Ops& ops_;
  int64_t outputs_, inputs_;
  DType compute_;
};

class CudaOps final : public ops::Ops {
 public:
  ~CudaOps() override { release(parts_); }

  Status allocate(size_t bytes, void** out) override { return ops::cpu().allocate(bytes, out); }
  void release(void* pointer) override { ops::cpu().release(pointer); }
  Status fill_zero(void* pointer, size_t bytes) override { return ops::cpu().fill_zero(pointer, bytes); }
  Status copy(void* to, const void* from, size_t bytes) override { return ops::cpu().copy(to, from, bytes); }
  Status copy_from_host(void* to, const void* from, size_t bytes) override { return copy(to, from, bytes); }
  Status copy_to_host(void* to, const void* from, size_t bytes) override { return copy(to, from, bytes); }

  // A device has no threads to choose; what scratch is sized by is the number of parts of a sum.
  void set_multiprocessors(int count) { multiprocessors_ = count; }
  void set_threads(int) override {}
  int max_threads() const override { return kNormParts; }
  Status supports(DType) const override { return {}; }

  Status pack(const float* weight, int64_t outputs, int64_t inputs, DType compute,
              std::unique_ptr<ops::PackedWeight>* out) override {
    auto packed = std::make_unique<Weight>(*this, outputs, inputs, compute);
    SSRL_RETURN_IF_ERROR(allocate(packed->bytes(), &packed->data));
    SSRL_RETURN_IF_ERROR(repack(weight, packed.get()));
    *out = std::move(packed);
    return {};
  }
  Status repack(const float* weight, ops::PackedWeight* packed) override {
    auto& mine = static_cast<Weight&>(*packed);
    return convert(weight, DType::kF32, mine.data, mine.compute(), mine.outputs() * mine.inputs());
  }
  Status linear(ops::PackedWeight& weight, const void* x, int64_t rows, const float* bias, void* y,
                DType y_type, bool accumulate) override {
    const auto& w = static_cast<Weight&>(weight);
    return multiply(
        {x, w.data, w.compute(), y, y_type, bias, rows, w.outputs(), w.inputs(), false, false, accumulate},
        stream_);
  }
  Status linear_backward_input(ops::PackedWeight& weight, const void* dy, int64_t rows, void* dx,
                               DType dx_type) override {
    const auto& w = static_cast<Weight&>(weight);
    return multiply(
        {dy, w.data, w.compute(), dx, dx_type, nullptr, rows, w.inputs(), w.outputs(), false, true, false},
        stream_);
  }
  Status linear_backward_weight(const void* dy, const void* x, DType type, int64_t rows, int64_t outputs,
                                int64_t inputs, float* dweight, float* dbias) override {
    SSRL_RETURN_IF_ERROR(multiply(
        {dy, x, type, dweight, DType::kF32, nullptr, outputs, inputs, rows, true, true, true}, stream_));
    return dbias == nullptr ? Status() : add_column_sums(dy, type, rows, outputs, dbias, stream_);
  }
  // Neighbouring rows in one go.
  Status unpack_rows(const ops::PackedWeight& weight, const int32_t* rows, int64_t count,
                     float* out) override {
    const auto& w = static_cast<const Weight&>(weight);
    for (int64_t first = 0, end = 0; first < count; first = end) {
      for (end = first + 1; end < count && rows[end] == rows[end - 1] + 1;) ++end;
      const char* from = static_cast<const char*>(w.data) +
                         rows[first] * w.inputs() * static_cast<int64_t>(size_of(w.compute()));
      SSRL_RETURN_IF_ERROR(
          convert(from, w.compute(), out + first * w.inputs(), DType::kF32, (end - first) * w.inputs()));
    }
    return {};
  }

  Status rms_norm(const ops::RmsNorm& a) override { return cuda::rms_norm(a, stream_); }
  Status rms_norm_backward(const ops::RmsNormBackward& a) override {
    return cuda::rms_norm_backward(a, stream_);
  }
  Status rope(const ops::Rope& a) override { return cuda::rope(a, stream_); }
  Status swiglu(const ops::Swiglu& a) override { return cuda::swiglu(a, stream_); }
  Status swiglu_backward(const ops::SwigluBackward& a) override { return cuda::swiglu_backward(a, stream_); }
  Status embedding(const int32_t* ids, int64_t tokens, const float* table, int64_t width, DType compute,
                   float* x) override {
    return cuda::embedding({ids, tokens, table, width, x}, compute, stream_);
  }
  Status embedding_backward(const int32_t* ids, int64_t tokens, const float* dx, int64_t width,
                            float* dtable) override {
    return cuda::embedding_backward({ids, tokens, dx, width, dtable}, stream_);
  }
  Status scatter_rows(const void* from, DType type, int64_t stride, int64_t rows, int64_t width,
                      void* const* to) override {
    const auto size = static_cast<int64_t>(size_of(type));
    return cuda::copy_rows({from, stride * size, nullptr, nullptr, to, rows, width * size}, stream_);
  }
  Status gather_rows(const void* from, DType type, const int64_t* indices, int64_t rows, int64_t width,
                     void* out) override {
    const int64_t bytes = width * static_cast<int64_t>(size_of(type));
    return cuda::copy_rows({from, bytes, indices, out, nullptr, rows, bytes}, stream_);
  }
  Status convert(const void* from, DType from_type, void* to, DType to_type, int64_t count) override {
    return cuda::convert({from, to, count}, from_type, to_type, stream_);
  }

  Status attention(const ops::Attention& a) override {
    return cuda::attention({*this, attention_scratch_, multiprocessors_, stream_}, a);
  }
  size_t attention_backward_scratch(const ops::AttentionBackward& a) const override {
    return attention_backward_floats(a);
  }
  Status attention_backward(const ops::AttentionBackward& a) override {
    return cuda::attention_backward({*this, attention_scratch_, multiprocessors_, stream_}, a);
  }

  size_t log_probs_scratch(const ops::PackedWeight& weight) const override { return log_probs_bytes(weight); }
  Status log_probs(const ops::LogProbs& a) override { return cuda::log_probs(*this, a, stream_); }
  size_t policy_loss_scratch(const ops::PackedWeight& weight) const override {
    return policy_loss_bytes(weight);
  }
  Status policy_loss(const ops::PolicyLoss& a, ops::PolicyLossStatistics* statistics) override {
    return cuda::policy_loss(*this, a, statistics, stream_);
  }
  size_t sample_scratch(int64_t) const override { return 0; }
  Status sample(const ops::Sample& a) override { return cuda::sample(a, stream_); }

  Status adamw(const ops::AdamW& a) override {
    SSRL_RETURN_IF_ERROR(cuda::adamw(a, stream_));
    return a.packed == nullptr ? Status() : repack(a.weight, a.packed);
  }
  Status sum_of_squares(const float* x, int64_t count, double* out) override {
    if (parts_ == nullptr) SSRL_RETURN_IF_ERROR(allocate((kSquareParts + 1) * sizeof(double), &parts_));
    double* parts = static_cast<double*>(parts_);
    SSRL_RETURN_IF_ERROR(cuda::sum_of_squares(x, count, parts, stream_));
    return copy_to_host(out, parts + kSquareParts, sizeof(double));
  }

 private:
  Stream stream_{};
  void* parts_ = nullptr;
  Scratch attention_scratch_;
  int multiprocessors_ = 132;
};

CudaOps& instance() {
  static CudaOps* const ops = new CudaOps;
  return *ops;
}

}  // namespace

// Never destroyed, like the CPU backend.
ops::Ops& emulated_ops() {
  return instance();
}

void set_multiprocessors(int count) {
  instance().set_multiprocessors(count);
}

}  // namespace ssrl::cuda
