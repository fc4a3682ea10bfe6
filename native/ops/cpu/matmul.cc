// Matrix products. Each type has one way to multiply on this machine, and every product of a row, in
// whichever pass, goes that way.
#include "ops/cpu/matmul.h"

#include "ops/cpu/kernels.h"
#include "ops/cpu/onednn.h"
#include "ops/cpu/strips.h"

namespace ssrl::ops::host {
namespace {

std::unique_ptr<Matrix> make_matrix(int64_t k, int64_t n, DType type) {
  return strips::routine(type) != nullptr ? make_strip_matrix(k, n, type) : make_onednn_matrix(k, n, type);
}

class CpuPackedWeight final : public PackedWeight {
 public:
  CpuPackedWeight(int64_t outputs, int64_t inputs, DType compute)
      : matrix_(make_matrix(inputs, outputs, compute)) {}

  int64_t outputs() const override { return matrix_->n(); }
  int64_t inputs() const override { return matrix_->k(); }
  DType compute() const override { return matrix_->type(); }
  size_t bytes() const override { return matrix_->bytes(); }
  void trim() override { matrix_->trim(); }

  Status fill(const float* weight, const PrepareColumns& prepare = nullptr) {
    return matrix_->fill(weight, 1, inputs(), prepare);
  }
  Matrix& matrix() const { return *matrix_; }

 private:
  std::unique_ptr<Matrix> matrix_;  // [inputs, outputs]
};

Matrix& matrix_of(PackedWeight& weight) {
  return static_cast<CpuPackedWeight&>(weight).matrix();
}

void add_columns(const void* dy, DType type, int64_t rows, int64_t outputs, float* sums) {
  parallel_ranges(outputs, grain_of(rows), [&](int64_t begin, int64_t end) {
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t j = begin; j < end; ++j) sums[j] += load(dy, type, row * outputs + j);
    }
  });
}

}  // namespace

Status supports(DType compute) {
  if (strips::routine(compute) != nullptr || onednn::has_bf16()) return {};
  return {Code::kNoDevice,
          "bf16 was asked for, but oneDNN computes it only on CPUs with AVX-512; use the dtype f32 on this "
          "machine"};
}

Status pack(const float* weight, int64_t outputs, int64_t inputs, DType compute,
            std::unique_ptr<PackedWeight>* out) {
  SSRL_RETURN_IF_ERROR(supports(compute));
  auto packed = std::make_unique<CpuPackedWeight>(outputs, inputs, compute);
  SSRL_RETURN_IF_ERROR(packed->fill(weight));
  *out = std::move(packed);
  return {};
}

Status repack(const float* weight, PackedWeight* packed) {
  return static_cast<CpuPackedWeight*>(packed)->fill(weight);
}

Status repack_prepared(const float* weight, PackedWeight* packed, const PrepareColumns& prepare) {
  return static_cast<CpuPackedWeight*>(packed)->fill(weight, prepare);
}

Status linear(PackedWeight& weight, const void* x, int64_t rows, const float* bias, void* y, DType y_type,
              bool accumulate) {
  return matrix_of(weight).multiply({x, weight.inputs(), rows, bias, y, y_type, accumulate});
}

Status linear_backward_input(PackedWeight& weight, const void* dy, int64_t rows, void* dx, DType dx_type) {
  return backward_input(weight, {dy, weight.outputs(), rows, nullptr, dx, dx_type, false});
}

Status backward_input(PackedWeight& weight, const MatrixProduct& product) {
  return matrix_of(weight).multiply_transposed(product);
}

Status unpack_rows(const PackedWeight& weight, const int32_t* rows, int64_t count, float* out) {
  return static_cast<const CpuPackedWeight&>(weight).matrix().unpack_columns(rows, count, out);
}

Status linear_backward_weight(const void* dy, const void* x, DType type, int64_t rows, int64_t outputs,
                              int64_t inputs, float* dweight, float* dbias) {
  if (dbias != nullptr) add_columns(dy, type, rows, outputs, dbias);
  return backward_weight({dy, outputs, x, type, rows, outputs, inputs, dweight});
}

Status backward_weight(const WeightGradient& gradient) {
  return strips::routine(gradient.type) != nullptr ? strip_weight_gradient(gradient)
                                                   : onednn_weight_gradient(gradient);
}

}  // namespace ssrl::ops::host
