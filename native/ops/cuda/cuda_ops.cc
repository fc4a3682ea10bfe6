// The CUDA backend as one object a device.
#include "ops/cuda/cuda_ops.h"

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "ops/cuda/attention.h"
#include "ops/cuda/attention_backward.h"
#include "ops/cuda/context.h"
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

// 0: as many as the device has.
std::atomic<int> set_multiprocessors_count{0};

class CudaOps final : public ops::Ops {
 public:
  explicit CudaOps(std::unique_ptr<Context> context) : context_(std::move(context)) {}
  ~CudaOps() override { release(parts_); }

  Status allocate(size_t bytes, void** out) override { return context_->allocate(bytes, out); }
  void release(void* pointer) override { context_->release(pointer); }
  Status fill_zero(void* pointer, size_t bytes) override { return context_->fill_zero(pointer, bytes); }
  Status copy(void* to, const void* from, size_t bytes) override { return context_->copy(to, from, bytes); }
  Status copy_from_host(void* to, const void* from, size_t bytes) override {
    return context_->copy_from_host(to, from, bytes);
  }
  Status copy_to_host(void* to, const void* from, size_t bytes) override {
    return context_->copy_to_host(to, from, bytes);
  }
  Status synchronize() override { return context_->synchronize(); }
  Status free_memory(uint64_t* out) override { return context_->free_memory(out); }

  // A device has no threads to choose; what scratch is sized by is the number of parts of a sum.
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
    return run([&](Stream stream) {
      return multiply(
          {x, w.data, w.compute(), y, y_type, bias, rows, w.outputs(), w.inputs(), false, false, accumulate},
          multiprocessors(), stream);
    });
  }
  Status linear_backward_input(ops::PackedWeight& weight, const void* dy, int64_t rows, void* dx,
                               DType dx_type) override {
    const auto& w = static_cast<Weight&>(weight);
    return run([&](Stream stream) {
      return multiply(
          {dy, w.data, w.compute(), dx, dx_type, nullptr, rows, w.inputs(), w.outputs(), false, true, false},
          multiprocessors(), stream);
    });
  }
  Status linear_backward_weight(const void* dy, const void* x, DType type, int64_t rows, int64_t outputs,
                                int64_t inputs, float* dweight, float* dbias) override {
    SSRL_RETURN_IF_ERROR(run([&](Stream stream) {
      return multiply({dy, x, type, dweight, DType::kF32, nullptr, outputs, inputs, rows, true, true, true},
                      multiprocessors(), stream);
    }));
    return dbias == nullptr
               ? Status()
               : run([&](Stream stream) { return add_column_sums(dy, type, rows, outputs, dbias, stream); });
  }
  Status unpack_rows(const ops::PackedWeight& weight, const int32_t* rows, int64_t count,
                     float* out) override {
    const auto& w = static_cast<const Weight&>(weight);
    const int32_t* staged = nullptr;
    SSRL_RETURN_IF_ERROR(context_->stage(rows, count, &staged));
    return run([&](Stream stream) {
      return cuda::embedding({staged, count, w.data, w.inputs(), out}, w.compute(), DType::kF32, stream);
    });
  }

  Status rms_norm(const ops::RmsNorm& a) override {
    return run([&](Stream stream) { return cuda::rms_norm(a, stream); });
  }
  Status rms_norm_backward(const ops::RmsNormBackward& a) override {
    return run([&](Stream stream) { return cuda::rms_norm_backward(a, stream); });
  }
  Status rope(const ops::Rope& a) override {
    ops::Rope staged = a;
    SSRL_RETURN_IF_ERROR(context_->stage(a.positions, a.tokens, &staged.positions));
    return run([&](Stream stream) { return cuda::rope(staged, stream); });
  }
  Status swiglu(const ops::Swiglu& a) override {
    return run([&](Stream stream) { return cuda::swiglu(a, stream); });
  }
  Status swiglu_backward(const ops::SwigluBackward& a) override {
    return run([&](Stream stream) { return cuda::swiglu_backward(a, stream); });
  }
  Status embedding(const int32_t* ids, int64_t tokens, const float* table, int64_t width, DType compute,
                   float* x) override {
    const int32_t* staged = nullptr;
    SSRL_RETURN_IF_ERROR(context_->stage(ids, tokens, &staged));
    return run([&](Stream stream) {
      return cuda::embedding({staged, tokens, table, width, x}, DType::kF32, compute, stream);
    });
  }
  Status embedding_backward(const int32_t* ids, int64_t tokens, const float* dx, int64_t width,
                            float* dtable) override {
    const int32_t* staged = nullptr;
    SSRL_RETURN_IF_ERROR(context_->stage(ids, tokens, &staged));
    return run([&](Stream stream) {
      return cuda::embedding_backward({staged, tokens, dx, width, dtable}, stream);
    });
  }
  Status scatter_rows(const void* from, DType type, int64_t stride, int64_t rows, int64_t width,
                      void* const* to) override {
    if (rows == 0) return {};
    const auto size = static_cast<int64_t>(size_of(type));
    const int64_t* offsets = nullptr;
    SSRL_RETURN_IF_ERROR(stage_offsets(to, to, rows, &offsets));
    return run([&](Stream stream) {
      return cuda::copy_rows({from, stride * size, nullptr, to[0], offsets, rows, width * size}, stream);
    });
  }
  Status gather_rows(const void* from, DType type, const int64_t* indices, int64_t rows, int64_t width,
                     void* out) override {
    const int64_t bytes = width * static_cast<int64_t>(size_of(type));
    const int64_t* staged = nullptr;
    SSRL_RETURN_IF_ERROR(context_->stage(indices, rows, &staged));
    return run([&](Stream stream) {
      return cuda::copy_rows({from, bytes, staged, out, nullptr, rows, bytes}, stream);
    });
  }
  Status convert(const void* from, DType from_type, void* to, DType to_type, int64_t count) override {
    return run([&](Stream stream) { return cuda::convert({from, to, count}, from_type, to_type, stream); });
  }

  Status attention(const ops::Attention& a) override {
    SSRL_RETURN_IF_ERROR(context_->enter());
    return context_->explain(cuda::attention(attention_device(), a));
  }
  size_t attention_backward_scratch(const ops::AttentionBackward& a) const override {
    return attention_backward_floats(a);
  }
  Status attention_backward(const ops::AttentionBackward& a) override {
    SSRL_RETURN_IF_ERROR(context_->enter());
    return context_->explain(cuda::attention_backward(attention_device(), a));
  }

  size_t log_probs_scratch(const ops::PackedWeight& weight) const override { return log_probs_bytes(weight); }
  Status log_probs(const ops::LogProbs& a) override {
    return context_->explain(cuda::log_probs(*this, *context_, a));
  }
  size_t policy_loss_scratch(const ops::PackedWeight& weight) const override {
    return policy_loss_bytes(weight);
  }
  Status policy_loss(const ops::PolicyLoss& a, ops::PolicyLossStatistics* statistics) override {
    return context_->explain(cuda::policy_loss(*this, *context_, a, statistics));
  }
  size_t sample_scratch(int64_t) const override { return 0; }
  Status sample(const ops::Sample& a) override {
    ops::Sample staged = a;
    SSRL_RETURN_IF_ERROR(context_->stage(a.settings, a.rows, &staged.settings));
    return run([&](Stream stream) { return cuda::sample(staged, stream); });
  }

  Status adamw(const ops::AdamW& a) override {
    ops::AdamW step = a;
    step.packed = nullptr;  // the host's, and no business of the kernel
    SSRL_RETURN_IF_ERROR(run([&](Stream stream) { return cuda::adamw(step, stream); }));
    return a.packed == nullptr ? Status() : repack(a.weight, a.packed);
  }
  Status sum_of_squares(const float* x, int64_t count, double* out) override {
    if (parts_ == nullptr) SSRL_RETURN_IF_ERROR(allocate((kSquareParts + 1) * sizeof(double), &parts_));
    double* parts = static_cast<double*>(parts_);
    SSRL_RETURN_IF_ERROR(run([&](Stream stream) { return cuda::sum_of_squares(x, count, parts, stream); }));
    return copy_to_host(out, parts + kSquareParts, sizeof(double));
  }

 private:
  int multiprocessors() const {
    const int set = set_multiprocessors_count;
    return set > 0 ? set : context_->multiprocessors();
  }
  AttentionDevice attention_device() { return {*this, *context_, attention_scratch_, multiprocessors()}; }
  // Launches, after what was staged for it.
  template <typename Family>
  Status run(const Family& family) {
    SSRL_RETURN_IF_ERROR(context_->enter());
    SSRL_RETURN_IF_ERROR(context_->flush());
    return context_->explain(family(context_->stream()));
  }
  // How far each pointer lies from the first. Every layer's rows and blocks lie at the same distances, so
  // that they are sent once a step.
  template <typename Pointer>
  Status stage_offsets(const void* place, const Pointer* pointers, int64_t count, const int64_t** on_device) {
    offsets_.resize(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) {
      offsets_[i] = static_cast<const char*>(pointers[i]) - static_cast<const char*>(pointers[0]);
    }
    const void* staged = nullptr;
    SSRL_RETURN_IF_ERROR(
        context_->stage(place, offsets_.data(), static_cast<size_t>(count) * sizeof(int64_t), &staged));
    *on_device = static_cast<const int64_t*>(staged);
    return {};
  }

  std::unique_ptr<Context> context_;
  void* parts_ = nullptr;
  Scratch attention_scratch_;
  std::vector<int64_t> offsets_;
};

}  // namespace

// Never destroyed, like the CPU backend.
Result<ops::Ops*> open_device(int index) {
  static std::mutex mutex;
  static auto* const known = new std::map<int, CudaOps*>;
  const std::lock_guard lock(mutex);
  const auto found = known->find(index);
  if (found != known->end()) return static_cast<ops::Ops*>(found->second);
  auto context = Context::open(index);
  if (!context.ok()) return context.status();
  auto* const opened = new CudaOps(std::move(context.value()));
  known->emplace(index, opened);
  return static_cast<ops::Ops*>(opened);
}

void set_multiprocessors(int count) {
  set_multiprocessors_count = count;
}

}  // namespace ssrl::cuda
