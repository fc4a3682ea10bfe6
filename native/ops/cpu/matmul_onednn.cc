// Matrix products over oneDNN, where it has the faster instructions (AMX), and the rule that keeps them
// row-invariant: oneDNN may sum a row in another order when the number of rows or of threads changes. So it
// is only ever called on one thread, for exactly kRowTile rows (the tail padded with zeros) and for panels of
// fixed width, and this file shares tiles and panels out among the threads. What a row becomes then depends
// on nothing but itself.
#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "ops/cpu/kernels.h"
#include "ops/cpu/matmul.h"
#include "ops/cpu/onednn.h"

namespace ssrl::ops::host {
namespace {

// Wide enough to make a call worth its overhead, narrow enough for several threads to share one tile of rows,
// and a multiple of oneDNN's own blocks of 64, so that packed weights have no padding.
int64_t panel_width(int64_t columns) {
  return columns <= 1024 ? 128 : 256;
}

// B cut into panels of columns, each in oneDNN's own layout.
class PanelMatrix final : public Matrix {
 public:
  using Matrix::Matrix;
  ~PanelMatrix() override {
    for (const Panel& panel : panels_) release(panel.data);
  }

  Status fill(const float* source, int64_t k_stride, int64_t n_stride,
              const PrepareColumns& prepare) override {
    if (panels_.empty()) SSRL_RETURN_IF_ERROR(allocate_panels());
    SSRL_RETURN_IF_ERROR(for_panels([&](const Panel& panel) {
      if (prepare) prepare(panel.begin, panel.width);
      return onednn::pack({k(), panel.width, k_stride, n_stride, DType::kF32, type()},
                          source + panel.begin * n_stride, panel.data);
    }));
    if (transposed_ == nullptr) return {};
    return transposed_->fill(source, n_stride, k_stride, nullptr);
  }

  Status multiply(const MatrixProduct& product) const override {
    const int64_t tiles = (product.rows + kRowTile - 1) / kRowTile;
    onednn::FirstError error;
    // Tiles of one panel follow each other: its weights stay in the cache.
    parallel_for(tiles * static_cast<int64_t>(panels_.size()), 1, [&](int64_t i) {
      error.keep(multiply_tile(product, i % tiles, panels_[static_cast<size_t>(i / tiles)]));
    });
    return error.status();
  }

  // Over a copy of Bᵀ that is made on first use, so that policies that only generate don't pay for it.
  Status multiply_transposed(const MatrixProduct& product) override {
    if (transposed_ == nullptr) SSRL_RETURN_IF_ERROR(transpose());
    return transposed_->multiply(product);
  }

  void trim() override {
    if (transposed_ != nullptr) bytes_ -= transposed_->bytes();
    transposed_.reset();
  }

  // A panel with columns that are wanted is unpacked whole.
  Status unpack_columns(const int32_t* columns, int64_t count, float* out) const override {
    return for_panels([&](const Panel& panel) -> Status {
      const float* plain = nullptr;
      for (int64_t i = 0; i < count; ++i) {
        const int64_t column = columns[i] - panel.begin;
        if (column < 0 || column >= panel.width) continue;
        if (plain == nullptr) SSRL_RETURN_IF_ERROR(unpack(panel, &plain));
        std::memcpy(out + i * k(), plain + column * k(), static_cast<size_t>(k()) * sizeof(float));
      }
      return {};
    });
  }

 private:
  struct Panel {
    int64_t begin, width;
    void* data;
  };

  // [width, k], valid until this thread unpacks the next one.
  Status unpack(const Panel& panel, const float** plain) const {
    float* out =
        thread_scratch(Scratch::kMatmulOutput, static_cast<size_t>(panel.width * k()) * sizeof(float));
    if (out == nullptr) return {Code::kOutOfMemory, "No memory for a panel of weights"};
    *plain = out;
    return onednn::unpack({k(), panel.width, 1, k(), DType::kF32, type()}, panel.data, out);
  }

  template <typename Body>
  Status for_panels(const Body& body) const {
    onednn::FirstError error;
    parallel_for(static_cast<int64_t>(panels_.size()), 1,
                 [&](int64_t i) { error.keep(body(panels_[static_cast<size_t>(i)])); });
    return error.status();
  }

  Status allocate_panels();
  Status transpose();
  Status multiply_tile(const MatrixProduct& p, int64_t tile, const Panel& panel) const;

  std::vector<Panel> panels_;
  std::unique_ptr<PanelMatrix> transposed_;
};

Status PanelMatrix::allocate_panels() {
  const int64_t width = panel_width(n());
  for (int64_t begin = 0; begin < n(); begin += width) {
    Panel panel{begin, std::min(width, n() - begin), nullptr};
    size_t bytes = 0;
    SSRL_RETURN_IF_ERROR(onednn::packed_bytes(k(), panel.width, type(), &bytes));
    SSRL_RETURN_IF_ERROR(allocate(bytes, &panel.data));
    bytes_ += bytes;
    panels_.push_back(panel);
  }
  return {};
}

Status PanelMatrix::transpose() {
  void* memory = nullptr;
  SSRL_RETURN_IF_ERROR(allocate(static_cast<size_t>(n() * k()) * sizeof(float), &memory));
  float* const plain = static_cast<float*>(memory);  // [n, k]
  auto made = std::make_unique<PanelMatrix>(n(), k(), type());
  Status status = for_panels([&](const Panel& panel) {
    return onednn::unpack({k(), panel.width, 1, k(), DType::kF32, type()}, panel.data,
                          plain + panel.begin * k());
  });
  if (status.ok()) status = made->fill(plain, k(), 1, nullptr);
  release(memory);
  SSRL_RETURN_IF_ERROR(status);
  bytes_ += made->bytes();
  transposed_ = std::move(made);
  return {};
}

// One tile of 32 rows times one panel. oneDNN takes its reference code for strided results, so a panel that
// is not the whole width goes through a dense copy, and so does a tile that is not full.
Status PanelMatrix::multiply_tile(const MatrixProduct& p, int64_t tile, const Panel& panel) const {
  const int64_t begin = tile * kRowTile, count = std::min<int64_t>(kRowTile, p.rows - begin);
  onednn::Call call{kRowTile, panel.width, k(), k(), 1, panel.width, type(), p.c_type, p.accumulate};
  call.a = at(p.a, type(), begin * p.a_width);
  call.b = panel.data;
  call.bias = p.bias == nullptr ? nullptr : p.bias + panel.begin;
  call.c = at(p.c, p.c_type, begin * n() + panel.begin);
  const bool is_dense = count == kRowTile && p.a_width == k();
  if (is_dense && panel.width == n()) return onednn::matmul(call);

  const size_t a_row = k() * size_of(type()), c_row = panel.width * size_of(p.c_type);
  if (!is_dense) {
    char* a = reinterpret_cast<char*>(thread_scratch(Scratch::kMatmulInput, kRowTile * a_row));
    if (a == nullptr) return {Code::kOutOfMemory, "No memory for a tile of 32 rows"};
    for (int64_t row = 0; row < count; ++row)
      std::memcpy(a + row * a_row, at(call.a, type(), row * p.a_width), a_row);
    std::memset(a + count * a_row, 0, (kRowTile - count) * a_row);
    call.a = a;
  }
  char* c = reinterpret_cast<char*>(thread_scratch(Scratch::kMatmulOutput, kRowTile * c_row));
  if (c == nullptr) return {Code::kOutOfMemory, "No memory for a tile of 32 rows"};
  void* const target = call.c;
  if (p.accumulate) {
    for (int64_t row = 0; row < count; ++row)
      std::memcpy(c + row * c_row, at(target, p.c_type, row * n()), c_row);
    std::memset(c + count * c_row, 0, (kRowTile - count) * c_row);
  }
  call.c = c;
  SSRL_RETURN_IF_ERROR(onednn::matmul(call));
  for (int64_t row = 0; row < count; ++row)
    std::memcpy(at(target, p.c_type, row * n()), c + row * c_row, c_row);
  return {};
}

}  // namespace

std::unique_ptr<Matrix> make_onednn_matrix(int64_t k, int64_t n, DType type) {
  return std::make_unique<PanelMatrix>(k, n, type);
}

// dweight is cut into bands of outputs; each is one thread's for all chunks of rows, which follow in order.
Status onednn_weight_gradient(const WeightGradient& g) {
  constexpr int64_t kChunk = 512, kBand = 192;
  onednn::FirstError error;
  parallel_for((g.outputs + kBand - 1) / kBand, 1, [&](int64_t band) {
    const int64_t begin = band * kBand, width = std::min(kBand, g.outputs - begin);
    for (int64_t row = 0; row < g.rows; row += kChunk) {
      const int64_t count = std::min(kChunk, g.rows - row);
      onednn::Call call{width, g.inputs, count, 1, width, g.inputs, g.type, DType::kF32, true};
      call.plain_b_row = g.inputs;
      // A dense copy of the band, for oneDNN's sake once more.
      const size_t bytes = width * size_of(g.type);
      char* copy = reinterpret_cast<char*>(thread_scratch(Scratch::kMatmulInput, kChunk * bytes));
      if (copy == nullptr) return error.keep({Code::kOutOfMemory, "No memory for a band of gradients"});
      for (int64_t r = 0; r < count; ++r) {
        std::memcpy(copy + r * bytes, at(g.dy, g.type, (row + r) * g.dy_width + begin), bytes);
      }
      call.a = copy;
      call.b = at(g.x, g.type, row * g.inputs);
      call.c = g.dweight + begin * g.inputs;
      error.keep(onednn::matmul(call));
    }
  });
  return error.status();
}

}  // namespace ssrl::ops::host
