// Matrix products over oneDNN, and the one place that keeps them row-invariant.
//
// oneDNN may sum a row in another order when the number of rows or of threads changes. So it is only ever
// called on one thread, for exactly kRowTile rows (the tail padded with zeros) and for panels of fixed width,
// and this file shares tiles and panels out among the threads. What a row becomes then depends on nothing but
// itself.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <vector>

#include "ops/cpu/kernels.h"
#include "ops/cpu/onednn.h"

namespace ssrl::ops::host {
namespace {

int64_t tiles_of(int64_t rows) {
  return (rows + kRowTile - 1) / kRowTile;
}

// Wide enough to make a call worth its overhead, narrow enough for several threads to share one tile of rows,
// and a multiple of oneDNN's own blocks of 64, so that packed weights have no padding.
int64_t panel_width(int64_t columns) {
  return columns <= 1024 ? 128 : 256;
}

// A matrix B[k, n] cut into panels of columns, each in oneDNN's own layout.
class Panels {
 public:
  struct Panel {
    int64_t begin, width;
    void* data;
  };

  Panels(int64_t k, int64_t n, DType type) : k_(k), n_(n), type_(type) {}
  ~Panels() {
    for (const Panel& panel : panels_) release(panel.data);
  }
  Panels(const Panels&) = delete;
  Panels& operator=(const Panels&) = delete;

  // B[k, n] = source[k * row_stride + n * column_stride].
  Status fill(const void* source, DType source_type, int64_t row_stride, int64_t column_stride);
  // The inverse, into the panels' own type.
  Status unpack(void* target, int64_t row_stride, int64_t column_stride) const;
  const std::vector<Panel>& panels() const { return panels_; }
  size_t bytes() const { return bytes_; }
  int64_t k() const { return k_; }
  int64_t n() const { return n_; }
  DType type() const { return type_; }

 private:
  Status allocate_panels();

  int64_t k_, n_;
  DType type_;
  size_t bytes_ = 0;
  std::vector<Panel> panels_;
};

Status Panels::allocate_panels() {
  const int64_t width = panel_width(n_);
  for (int64_t begin = 0; begin < n_; begin += width) {
    Panel panel{begin, std::min(width, n_ - begin), nullptr};
    size_t bytes = 0;
    SSRL_RETURN_IF_ERROR(onednn::packed_bytes(k_, panel.width, type_, &bytes));
    SSRL_RETURN_IF_ERROR(allocate(bytes, &panel.data));
    bytes_ += bytes;
    panels_.push_back(panel);
  }
  return {};
}

Status Panels::fill(const void* source, DType source_type, int64_t row_stride, int64_t column_stride) {
  if (panels_.empty()) SSRL_RETURN_IF_ERROR(allocate_panels());
  onednn::FirstError error;
  parallel_for(static_cast<int64_t>(panels_.size()), 1, [&](int64_t i) {
    const Panel& panel = panels_[static_cast<size_t>(i)];
    error.keep(onednn::pack({k_, panel.width, row_stride, column_stride, source_type, type_},
                            at(source, source_type, panel.begin * column_stride), panel.data));
  });
  return error.status();
}

Status Panels::unpack(void* target, int64_t row_stride, int64_t column_stride) const {
  onednn::FirstError error;
  parallel_for(static_cast<int64_t>(panels_.size()), 1, [&](int64_t i) {
    const Panel& panel = panels_[static_cast<size_t>(i)];
    error.keep(onednn::unpack({k_, panel.width, row_stride, column_stride, type_, type_}, panel.data,
                              at(target, type_, panel.begin * column_stride)));
  });
  return error.status();
}

class CpuPackedWeight final : public PackedWeight {
 public:
  CpuPackedWeight(int64_t outputs, int64_t inputs, DType compute)
      : forward_(inputs, outputs, compute), backward_(outputs, inputs, compute) {}

  int64_t outputs() const override { return forward_.n(); }
  int64_t inputs() const override { return forward_.k(); }
  DType compute() const override { return forward_.type(); }
  size_t bytes() const override { return forward_.bytes() + backward_.bytes(); }

  Status fill(const float* weight) {
    SSRL_RETURN_IF_ERROR(forward_.fill(weight, DType::kF32, 1, inputs()));
    if (!has_backward_) return {};
    return backward_.fill(weight, DType::kF32, inputs(), 1);
  }

  // Made on first use, so that policies that only generate don't pay for it.
  Status backward(const Panels** out) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!has_backward_) {
      void* plain = nullptr;
      SSRL_RETURN_IF_ERROR(allocate(static_cast<size_t>(outputs() * inputs()) * size_of(compute()), &plain));
      Status status = forward_.unpack(plain, 1, inputs());
      if (status.ok()) status = backward_.fill(plain, compute(), inputs(), 1);
      release(plain);
      SSRL_RETURN_IF_ERROR(status);
      has_backward_ = true;
    }
    *out = &backward_;
    return {};
  }

  const Panels& forward() const { return forward_; }

 private:
  Panels forward_;   // [inputs, outputs]
  Panels backward_;  // [outputs, inputs]
  std::mutex mutex_;
  bool has_backward_ = false;
};

struct Product {
  const Panels& b;
  const void* a;  // [rows, k]
  int64_t rows;
  const float* bias;  // [n] or null
  void* c;            // [rows, n]
  DType c_type;
  bool accumulate;
};

// One tile of 32 rows times one panel. oneDNN takes its reference code for strided results, so a panel that
// is not the whole width goes through a dense copy, and so does a tile that is not full.
Status run_tile(const Product& p, int64_t tile, const Panels::Panel& panel) {
  const int64_t begin = tile * kRowTile, count = std::min<int64_t>(kRowTile, p.rows - begin);
  const int64_t k = p.b.k(), n = p.b.n();
  onednn::Call call{kRowTile, panel.width, k, k, 1, panel.width, p.b.type(), p.c_type, p.accumulate};
  call.a = at(p.a, p.b.type(), begin * k);
  call.b = panel.data;
  call.bias = p.bias == nullptr ? nullptr : p.bias + panel.begin;
  call.c = at(p.c, p.c_type, begin * n + panel.begin);
  if (count == kRowTile && panel.width == n) return onednn::matmul(call);

  const size_t a_row = k * size_of(p.b.type()), c_row = panel.width * size_of(p.c_type);
  if (count < kRowTile) {
    char* a = reinterpret_cast<char*>(thread_scratch(Scratch::kMatmulInput, kRowTile * a_row));
    if (a == nullptr) return {Code::kOutOfMemory, "No memory for a tile of 32 rows"};
    std::memcpy(a, call.a, count * a_row);
    std::memset(a + count * a_row, 0, (kRowTile - count) * a_row);
    call.a = a;
  }
  char* c = reinterpret_cast<char*>(thread_scratch(Scratch::kMatmulOutput, kRowTile * c_row));
  if (c == nullptr) return {Code::kOutOfMemory, "No memory for a tile of 32 rows"};
  void* const target = call.c;
  if (p.accumulate) {
    for (int64_t row = 0; row < count; ++row)
      std::memcpy(c + row * c_row, at(target, p.c_type, row * n), c_row);
    std::memset(c + count * c_row, 0, (kRowTile - count) * c_row);
  }
  call.c = c;
  SSRL_RETURN_IF_ERROR(onednn::matmul(call));
  for (int64_t row = 0; row < count; ++row)
    std::memcpy(at(target, p.c_type, row * n), c + row * c_row, c_row);
  return {};
}

Status run(const Product& p) {
  const int64_t tiles = tiles_of(p.rows), panels = static_cast<int64_t>(p.b.panels().size());
  onednn::FirstError error;
  // Tiles of one panel follow each other: its weights stay in the cache.
  parallel_for(tiles * panels, 1, [&](int64_t i) {
    error.keep(run_tile(p, i % tiles, p.b.panels()[static_cast<size_t>(i / tiles)]));
  });
  return error.status();
}

}  // namespace

Status supports(DType compute) {
  if (compute == DType::kF32 || onednn::has_bf16()) return {};
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

Status linear(PackedWeight& weight, const void* x, int64_t rows, const float* bias, void* y, DType y_type,
              bool accumulate) {
  const Panels& panels = static_cast<CpuPackedWeight&>(weight).forward();
  return run({panels, x, rows, bias, y, y_type, accumulate});
}

Status linear_backward_input(PackedWeight& weight, const void* dy, int64_t rows, void* dx, DType dx_type) {
  const Panels* panels = nullptr;
  SSRL_RETURN_IF_ERROR(static_cast<CpuPackedWeight&>(weight).backward(&panels));
  return run({*panels, dy, rows, nullptr, dx, dx_type, false});
}

// dweight is cut into bands of outputs; each is one thread's for all chunks of rows, which follow in order.
Status linear_backward_weight(const void* dy, const void* x, DType type, int64_t rows, int64_t outputs,
                              int64_t inputs, float* dweight, float* dbias) {
  constexpr int64_t kChunk = 512, kBand = 192;
  onednn::FirstError error;
  parallel_for((outputs + kBand - 1) / kBand, 1, [&](int64_t band) {
    const int64_t begin = band * kBand, width = std::min(kBand, outputs - begin);
    for (int64_t row = 0; row < rows; row += kChunk) {
      const int64_t count = std::min(kChunk, rows - row);
      onednn::Call call{width, inputs, count, 1, width, inputs, type, DType::kF32, true};
      call.plain_b_row = inputs;
      // A dense copy of the band, for oneDNN's sake once more.
      const size_t bytes = width * size_of(type);
      char* copy = reinterpret_cast<char*>(thread_scratch(Scratch::kMatmulInput, kChunk * bytes));
      if (copy == nullptr) return error.keep({Code::kOutOfMemory, "No memory for a band of gradients"});
      for (int64_t r = 0; r < count; ++r) {
        std::memcpy(copy + r * bytes, at(dy, type, (row + r) * outputs + begin), bytes);
      }
      call.a = copy;
      call.b = at(x, type, row * inputs);
      call.c = dweight + begin * inputs;
      error.keep(onednn::matmul(call));
    }
    if (dbias == nullptr) return;
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t j = begin; j < begin + width; ++j) dbias[j] += load(dy, type, row * outputs + j);
    }
  });
  return error.status();
}

}  // namespace ssrl::ops::host
