// The row-wise kernels, against loops.
#include <cmath>

#include "ops/cuda/sanitized/host.h"

namespace ssrl::cuda::sanitized {
namespace {

void check_norm(ops::Ops& ops, DType type, int64_t tokens, int groups, int width) {
  const int64_t rows = tokens * groups, count = rows * width;
  const auto x = some_values(1, count, type), dy = some_values(2, count, type), w = some_values(3, width);
  const Array x_at(ops, x, type), dy_at(ops, dy, type), w_at(ops, w);
  const Array y(ops, count, type), dx(ops, count, type), inverse(ops, rows), dw(ops, width);
  const Array scratch(ops, int64_t{ops.max_threads()} * width);
  const int64_t stride = int64_t{groups} * width;
  must(ops.rms_norm({x_at.data(), type, stride, y.data(), type, stride, w_at.floats(), inverse.floats(),
                     tokens, groups, width, 1e-5f}));
  must(ops.rms_norm_backward({dy_at.data(), type, stride, x_at.data(), type, stride, w_at.floats(),
                              inverse.floats(), dx.data(), type, stride, false, dw.floats(), scratch.floats(),
                              tokens, groups, width}));
  Doubles normed, by_x, by_weight(static_cast<size_t>(width));
  for (int64_t row = 0; row < rows; ++row) {
    const float *here = x.data() + row * width, *gradient = dy.data() + row * width;
    double squares = 0, dot = 0;
    for (int j = 0; j < width; ++j) squares += static_cast<double>(here[j]) * here[j];
    const double scale = 1 / std::sqrt(squares / width + 1e-5);
    for (int j = 0; j < width; ++j) dot += static_cast<double>(gradient[j]) * w[j] * here[j] * scale;
    for (int j = 0; j < width; ++j) {
      normed.push_back(here[j] * scale * w[j]);
      by_x.push_back((gradient[j] * w[j] - here[j] * scale * dot / width) * scale);
      by_weight[static_cast<size_t>(j)] += gradient[j] * here[j] * scale;
    }
  }
  compare(name_of("rms_norm", type), y.values(), normed, bound_of(type));
  compare(name_of("rms_norm_backward", type), dx.values(), by_x, bound_of(type));
  compare(name_of("rms_norm_backward by weight", type), dw.values(), by_weight, {1e-4, 1e-4});
}

void check_rope(ops::Ops& ops, DType type) {
  constexpr int kHeads = 3, kWidth = 22, kHalf = kWidth / 2;
  const std::vector<int32_t> positions{4, 0, 6, 1, 1};
  const auto tokens = static_cast<int64_t>(positions.size());
  const auto x = some_values(1, tokens * kHeads * kWidth, type), angles = some_values(2, 7 * kHalf);
  std::vector<float> cosines, sines;
  for (const float angle : angles) cosines.push_back(std::cos(angle)), sines.push_back(std::sin(angle));
  const Array at(ops, x, type), cosines_at(ops, cosines), sines_at(ops, sines);
  ops::Rope rope{at.data(),         type,   kHeads * kWidth, positions.data(), cosines_at.floats(),
                 sines_at.floats(), tokens, kHeads,          kWidth,           false};
  must(ops.rope(rope));
  Doubles turned;
  for (int64_t i = 0; i < tokens * kHeads * kWidth; ++i) {
    const int64_t token = i / (kHeads * kWidth), column = i % kWidth, j = column % kHalf;
    const int64_t table = positions[static_cast<size_t>(token)] * kHalf + j;
    const double other = column < kHalf ? -x[i + kHalf] : x[i - kHalf];
    turned.push_back(x[i] * cosines[table] + other * sines[table]);
  }
  compare(name_of("rope", type), at.values(), turned, bound_of(type));
  rope.backward = true;
  must(ops.rope(rope));
  compare(name_of("rope backward", type), at.values(), Doubles(x.begin(), x.end()), {2e-2, 0});
}

void check_swiglu(ops::Ops& ops, DType type, int64_t tokens, int64_t width) {
  const auto x = some_values(1, 2 * tokens * width, type), dy = some_values(2, tokens * width, type);
  const Array x_at(ops, x, type), dy_at(ops, dy, type), y(ops, tokens * width, type);
  const Array dx(ops, 2 * tokens * width, type), y_again(ops, tokens * width, type);
  must(ops.swiglu({x_at.data(), y.data(), type, tokens, width}));
  must(ops.swiglu_backward({x_at.data(), dy_at.data(), dx.data(), y_again.data(), type, tokens, width}));
  Doubles product, gradient(x.size());
  for (int64_t i = 0; i < tokens * width; ++i) {
    const int64_t at = i / width * 2 * width + i % width;
    const double gate = x[at], up = x[at + width], s = 1 / (1 + std::exp(-gate));
    product.push_back(gate * s * up);
    gradient[at] = dy[i] * up * s * (1 + gate * (1 - s));
    gradient[at + width] = dy[i] * gate * s;
  }
  compare(name_of("swiglu", type), y.values(), product, bound_of(type));
  compare(name_of("swiglu, taken again", type), y_again.values(), product, bound_of(type));
  compare(name_of("swiglu_backward", type), dx.values(), gradient, bound_of(type));
}

void check_embedding(ops::Ops& ops, DType type, int64_t width) {
  constexpr int64_t kVocabulary = 7;
  const std::vector<int32_t> ids{3, 0, 6, 3, 3, 6};
  const auto tokens = static_cast<int64_t>(ids.size());
  const auto table = some_values(1, kVocabulary * width, type), dx = some_values(2, tokens * width);
  const Array table_at(ops, table), dx_at(ops, dx), x(ops, tokens * width), dtable(ops, kVocabulary * width);
  must(ops.embedding(ids.data(), tokens, table_at.floats(), width, type, x.floats()));
  must(ops.embedding_backward(ids.data(), tokens, dx_at.floats(), width, dtable.floats()));
  Doubles rows, sums(table.size());
  for (int64_t i = 0; i < tokens * width; ++i) {
    const int64_t at = ids[static_cast<size_t>(i / width)] * width + i % width;
    rows.push_back(table[at]);
    sums[at] += dx[i];
  }
  compare(name_of("embedding", type), x.values(), rows, {0, 0});
  compare(name_of("embedding_backward", type), dtable.values(), sums, {1e-6, 1e-6});
}

}  // namespace

void check_rows(ops::Ops& ops, DType type) {
  check_norm(ops, type, 1, 1, 1);
  check_norm(ops, type, 7, 3, 29);
  check_norm(ops, type, 3, 1, 300);
  check_rope(ops, type);
  check_swiglu(ops, type, 5, 43);
  check_embedding(ops, type, 19);
  check_embedding(ops, type, 264);
}

}  // namespace ssrl::cuda::sanitized
