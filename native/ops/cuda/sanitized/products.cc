// The three products, the row-wise kernels, copies and the optimizer, against loops.
#include <cmath>

#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/sanitized/host.h"

namespace ssrl::cuda::sanitized {
namespace {

// c[rows, columns] = a[rows, depth] · b[depth, columns], each read through its own strides.
struct Operand {
  const std::vector<float>& values;
  int64_t along, across;  // from one row to the next, and from one step of the depth
};
Doubles multiplied(const Operand& a, const Operand& b, int64_t rows, int64_t columns, int64_t depth) {
  Doubles c;
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) {
      double sum = 0;
      for (int64_t k = 0; k < depth; ++k) {
        sum +=
            static_cast<double>(a.values[i * a.along + k * a.across]) * b.values[j * b.along + k * b.across];
      }
      c.push_back(sum);
    }
  }
  return c;
}

void check_product(ops::Ops& ops, DType type, int64_t rows, int64_t outputs, int64_t inputs) {
  const auto x = some_values(1, rows * inputs, type), dy = some_values(2, rows * outputs, type);
  const auto w = some_values(3, outputs * inputs, type), bias = some_values(4, outputs);
  const Array x_at(ops, x, type), dy_at(ops, dy, type), w_at(ops, w), bias_at(ops, bias);
  const Array y(ops, rows * outputs), dx(ops, rows * inputs), dw(ops, outputs * inputs), db(ops, outputs);
  std::unique_ptr<ops::PackedWeight> packed;
  must(ops.pack(w_at.floats(), outputs, inputs, type, &packed));
  must(ops.linear(*packed, x_at.data(), rows, bias_at.floats(), y.data(), DType::kF32, false));
  must(ops.linear_backward_input(*packed, dy_at.data(), rows, dx.data(), DType::kF32));
  must(ops.linear_backward_weight(dy_at.data(), x_at.data(), type, rows, outputs, inputs, dw.floats(),
                                  db.floats()));
  Doubles expected = multiplied({x, inputs, 1}, {w, inputs, 1}, rows, outputs, inputs);
  for (size_t i = 0; i < expected.size(); ++i) expected[i] += bias[i % static_cast<size_t>(outputs)];
  const Bound bound{1e-4, 1e-5};
  compare(name_of("linear", type), y.values(), expected, bound);
  compare(name_of("linear_backward_input", type), dx.values(),
          multiplied({dy, outputs, 1}, {w, 1, inputs}, rows, inputs, outputs), bound);
  compare(name_of("linear_backward_weight", type), dw.values(),
          multiplied({dy, 1, outputs}, {x, 1, inputs}, outputs, inputs, rows), bound);
  const std::vector<float> ones(static_cast<size_t>(rows), 1.0f);
  compare(name_of("bias", type), db.values(), multiplied({dy, 1, outputs}, {ones, 0, 1}, outputs, 1, rows),
          bound);
}

void check_moves(ops::Ops& ops, DType type) {
  constexpr int64_t kRows = 5, kWidth = 23;
  const auto values = some_values(5, kRows * kWidth, type);
  const Array from(ops, values, type), gathered(ops, 3 * kWidth, type), pages(ops, 3 * kWidth, type);
  const std::vector<int64_t> indices{4, 0, 4};
  must(ops.gather_rows(from.data(), type, indices.data(), 3, kWidth, gathered.data()));
  const std::vector<void*> to{pages.at(kWidth), pages.at(2 * kWidth), pages.at(0)};
  must(ops.scatter_rows(gathered.data(), type, kWidth, 3, kWidth, to.data()));
  Doubles expected;
  for (const int64_t row : {4, 4, 0}) {
    for (int64_t j = 0; j < kWidth; ++j) expected.push_back(values[row * kWidth + j]);
  }
  compare(name_of("gather_rows, scatter_rows", type), pages.values(), expected, {0, 0});
}

}  // namespace

void check_products(ops::Ops& ops, DType type) {
  // Tiles of 128, 64, 32 and 16.
  for (const int multiprocessors : {1, 6, 15, 132}) {
    set_multiprocessors(multiprocessors);
    check_product(ops, type, 70, 136, 72);
  }
  check_product(ops, type, 1, 1, 1);
  check_product(ops, type, 5, 13, 275);
  check_moves(ops, type);
}

void check_optimizer(ops::Ops& ops) {
  constexpr int64_t kCount = 1003;
  const auto w = some_values(1, kCount), g = some_values(2, kCount), m = some_values(3, kCount);
  auto v = some_values(4, kCount);
  for (float& value : v) value = std::fabs(value) + 0.1f;
  const Array weight(ops, w), gradient(ops, g), first(ops, m), second(ops, v);
  must(ops.adamw({weight.floats(), nullptr, gradient.floats(), first.floats(), second.floats(), kCount, 1e-2,
                  0.9, 0.95, 1e-8, 0.1, 3, 0.5f}));
  Doubles expected;
  double squares = 0;
  for (size_t i = 0; i < kCount; ++i) {
    const double clipped = 0.5 * g[i], moment = 0.9 * m[i] + 0.1 * clipped;
    const double square = 0.95 * v[i] + 0.05 * clipped * clipped;
    const double root = std::sqrt(square / (1 - std::pow(0.95, 3))) + 1e-8;
    expected.push_back(w[i] * (1 - 1e-3) - 1e-2 * moment / (1 - std::pow(0.9, 3)) / root);
    squares += static_cast<double>(g[i]) * g[i];
  }
  compare("adamw", weight.values(), expected, {1e-6, 1e-6});
  double sum = 0;
  must(ops.sum_of_squares(gradient.floats(), kCount, &sum));
  compare("sum_of_squares", {static_cast<float>(sum)}, {squares}, {0, 1e-6});
}

}  // namespace ssrl::cuda::sanitized
