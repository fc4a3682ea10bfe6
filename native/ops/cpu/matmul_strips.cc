// Shares strips and rows out among the threads.
#include <algorithm>
#include <atomic>

#include "ops/cpu/kernels.h"
#include "ops/cpu/matmul.h"
#include "ops/cpu/strips.h"

#if defined(__x86_64__)
#include "oneapi/dnnl/dnnl.h"
#endif

namespace ssrl::ops::host {
namespace strips {
namespace {

const Routine* find_bf16_routine() {
#if defined(__x86_64__)
  // oneDNN's view of the CPU, since SSRL_CPU limits it.
  const auto isa = dnnl_get_effective_cpu_isa();
  const auto has = [isa](int level) { return (isa & level) == level; };
  if (has(dnnl_cpu_isa_avx512_core_amx) || is_amx_asked_for()) return nullptr;
  if (has(dnnl_cpu_isa_avx512_core_bf16)) return &avx512bf16_routine();
#endif
  return nullptr;
}

}  // namespace

const Routine* routine(DType type) {
  if (type == DType::kF32) return &f32_routine();
  static const Routine* const bf16 = find_bf16_routine();
  return bf16;
}

}  // namespace strips

namespace {

// Rows of A that one task takes, and the bytes of them that it multiplies at a time where C is f32 and can
// keep the sums so far: that much of A, and a strip, stay in the second cache.
constexpr int64_t kGroupBytes = 256 << 10, kDepthBytes = 8 << 10;
constexpr int64_t kFewestRows = 32, kMostRows = 128;

// B[k, n] in strips, one after the other.
struct Strips {
  const strips::Routine& routine;
  DType type;
  int64_t k, n;
  char* data;

  int64_t count() const { return (n + routine.width - 1) / routine.width; }
  int64_t steps() const { return strips::steps_of(k, type); }
  int64_t strip_bytes() const { return steps() * routine.width * strips::kUnit; }
  char* strip(int64_t i) const { return data + i * strip_bytes(); }
  // Block `i` of a strip, as wide as high.
  int64_t block_steps() const { return routine.width / strips::depth_of(type); }
  int64_t block_bytes() const { return block_steps() * routine.width * strips::kUnit; }
  int64_t block_steps_at(int64_t i) const { return std::min(block_steps(), steps() - i * block_steps()); }
};

// Steps that are multiplied at a time. The borders depend on k alone, so a row keeps its bits.
int64_t steps_at_a_time(const Strips& b, DType c_type) {
  return c_type == DType::kF32 ? std::min(b.steps(), kDepthBytes / strips::kUnit) : b.steps();
}

int64_t group_rows(const Strips& b, DType c_type) {
  const int64_t height = b.routine.rows;
  const int64_t rows = kGroupBytes / (steps_at_a_time(b, c_type) * strips::kUnit) / height * height;
  return std::clamp(rows, kFewestRows, kMostRows);
}

void multiply_group(const Strips& b, const MatrixProduct& product, int64_t row, int64_t begin, int64_t end) {
  const int64_t depth = strips::depth_of(b.type), whole = b.k / depth;
  const int64_t together = steps_at_a_time(b, product.c_type), width = b.routine.width;
  const int64_t rows = std::min(group_rows(b, product.c_type), product.rows - row);
  for (int64_t first = 0; first * depth < b.k; first += together) {
    const void* const a = at(product.a, b.type, row * product.a_width + first * depth);
    const int64_t steps = std::min(together, whole - first);
    const bool is_odd = b.k % depth != 0 && first + together > whole;
    const int64_t skipped = first * width * strips::kUnit;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t column = i * width;
      const bool is_biased = product.bias != nullptr && first == 0;
      b.routine.multiply({.a = a,
                          .a_row = product.a_width * static_cast<int64_t>(size_of(b.type)),
                          .a_step = strips::kUnit,
                          .whole_steps = steps,
                          .tail = is_odd ? at(a, b.type, steps * depth) : nullptr,
                          .strip = b.strip(i) + skipped,
                          .rows = rows,
                          .columns = std::min(width, b.n - column),
                          .bias = is_biased ? product.bias + column : nullptr,
                          .c = at(product.c, product.c_type, row * b.n + column),
                          .c_type = product.c_type,
                          .c_row = b.n,
                          .accumulate = product.accumulate || first > 0,
                          .next = i + 1 < end ? b.strip(i + 1) + skipped : nullptr});
    }
  }
}

void multiply_strips(const Strips& b, const MatrixProduct& product) {
  const int64_t height = group_rows(b, product.c_type), groups = (product.rows + height - 1) / height;
  // Two tasks or more for each thread, so that they end at about the same time; no more than that, since a
  // task's first strip is not fetched ahead.
  const int64_t wanted = std::max<int64_t>(1, 2 * threads() / std::max<int64_t>(groups, 1));
  const int64_t share = (b.count() + wanted - 1) / wanted, shares = (b.count() + share - 1) / share;
  parallel_for(groups * shares, 1, [&](int64_t i) {
    const int64_t begin = i % shares * share;
    multiply_group(b, product, i / shares * height, begin, std::min(begin + share, b.count()));
  });
}

class StripMatrix final : public Matrix {
 public:
  StripMatrix(int64_t k, int64_t n, DType type)
      : Matrix(k, n, type), strips_{*strips::routine(type), type, k, n, nullptr} {}
  ~StripMatrix() override { release(strips_.data); }

  Status fill(const float* source, int64_t k_stride, int64_t n_stride,
              const PrepareColumns& prepare) override {
    if (strips_.data == nullptr) SSRL_RETURN_IF_ERROR(allocate_strips());
    const strips::Source whole{source, DType::kF32, k_stride, n_stride, k(), n()};
    const int64_t width = strips_.routine.width;
    parallel_for(strips_.count(), 1, [&](int64_t i) {
      if (prepare) prepare(i * width, std::min(width, n() - i * width));
      strips_.routine.pack(whole.columns(i * width, width), width, strips_.strip(i));
    });
    return {};
  }

  Status multiply(const MatrixProduct& product) const override {
    multiply_strips(strips_, product);
    return {};
  }

  // The strips of Bᵀ are made anew each time, in a scratch that stays in the cache: that costs less than to
  // keep them up to date. A band of them is what multiply_group takes at a time, in whole blocks.
  Status multiply_transposed(const MatrixProduct& product) override {
    const Strips all{strips_.routine, type(), n(), k(), nullptr};
    const int64_t width = all.routine.width;
    const int64_t most = steps_at_a_time(all, product.c_type) * strips::depth_of(type());
    const int64_t band = most < n() ? most / width * width : n();
    for (int64_t first = 0; first < n(); first += band) {
      Strips part = all;
      part.k = std::min(band, n() - first);
      const int64_t bytes = part.count() * part.strip_bytes();
      part.data = reinterpret_cast<char*>(thread_scratch(Scratch::kMatmulInput, static_cast<size_t>(bytes)));
      if (part.data == nullptr) return {Code::kOutOfMemory, "No memory for a transposed weight"};
      transpose(first, part);
      MatrixProduct sum = product;
      sum.a = at(product.a, type(), first);
      sum.bias = first == 0 ? product.bias : nullptr;
      sum.accumulate = product.accumulate || first > 0;
      multiply_strips(part, sum);
    }
    return {};
  }

  Status unpack_columns(const int32_t* columns, int64_t count, float* out) const override {
    const int64_t width = strips_.routine.width, depth = strips::depth_of(type());
    parallel_for(count, grain_of(k()), [&](int64_t i) {
      const char* const strip = strips_.strip(columns[i] / width);
      for (int64_t j = 0; j < k(); ++j) {
        const int64_t unit = j / depth * width + columns[i] % width;
        out[i * k() + j] = load(strip, type(), unit * depth + j % depth);
      }
    });
    return {};
  }

 private:
  Status allocate_strips() {
    bytes_ = static_cast<size_t>(strips_.count() * strips_.strip_bytes());
    void* data = nullptr;
    SSRL_RETURN_IF_ERROR(allocate_weights(bytes_, &data));
    strips_.data = static_cast<char*>(data);
    return {};
  }

  // Columns `first` .. `first + to.k` of B.
  void transpose(int64_t first, const Strips& to) const {
    const int64_t from = first / to.routine.width, blocks = (to.k + to.routine.width - 1) / to.routine.width;
    parallel_for(to.count(), 1, [&](int64_t i) {
      for (int64_t block = 0; block < blocks; ++block) {
        to.routine.transpose(strips_.strip(from + block) + i * strips_.block_bytes(),
                             strips_.block_steps_at(i), to.strip(i) + block * to.block_bytes(),
                             to.block_steps_at(block));
      }
    });
  }

  Strips strips_;
};

// One chunk of rows, x in strips.
struct Chunk {
  const WeightGradient& gradient;
  const strips::Routine& routine;
  int64_t row, rows, steps;
  char* x;

  int64_t strip_bytes() const { return steps * routine.width * strips::kUnit; }
  int64_t block_bytes() const { return steps * routine.rows * strips::kUnit; }
};

// Rows `first` .. `first + rows` of the chunk's x, of all strips: neighbouring strips share cache lines.
constexpr int64_t kPackedRows = 64;

void pack_inputs(const Chunk& chunk, int64_t first, int64_t rows, int64_t strip_count) {
  const WeightGradient& g = chunk.gradient;
  const int64_t width = chunk.routine.width, from = (chunk.row + first) * g.inputs;
  const strips::Source source{at(g.x, g.type, from), g.type, g.inputs, 1, rows, g.inputs};
  char* const to = chunk.x + strips::steps_of(first, g.type) * width * strips::kUnit;
  for (int64_t i = 0; i < strip_count; ++i)
    chunk.routine.pack(source.columns(i * width, width), width, to + i * chunk.strip_bytes());
}

// The rows of dweight from `output`, as many as a tile has: dy are their columns of dy in steps.
void multiply_block(const Chunk& chunk, int64_t output, const char* dy, int64_t strip) {
  const WeightGradient& g = chunk.gradient;
  const int64_t input = strip * chunk.routine.width;
  chunk.routine.multiply({.a = dy,
                          .a_row = strips::kUnit,
                          .a_step = chunk.routine.rows * strips::kUnit,
                          .whole_steps = chunk.steps,
                          .tail = nullptr,
                          .strip = chunk.x + strip * chunk.strip_bytes(),
                          .rows = std::min(chunk.routine.rows, g.outputs - output),
                          .columns = std::min(chunk.routine.width, g.inputs - input),
                          .bias = nullptr,
                          .c = g.dweight + output * g.inputs + input,
                          .c_type = DType::kF32,
                          .c_row = g.inputs,
                          .accumulate = true,
                          .next = nullptr});
}

// Tiles that share a strip of x while it is in the cache.
constexpr int64_t kBlocks = 8;

bool multiply_blocks(const Chunk& chunk, int64_t begin, int64_t end, int64_t strip_count) {
  const WeightGradient& g = chunk.gradient;
  const int64_t height = chunk.routine.rows;
  char* dy = reinterpret_cast<char*>(
      thread_scratch(Scratch::kMatmulOutput, static_cast<size_t>(kBlocks * chunk.block_bytes())));
  if (dy == nullptr) return false;
  const strips::Source columns{
      at(g.dy, g.type, chunk.row * g.dy_width), g.type, g.dy_width, 1, chunk.rows, g.outputs};
  chunk.routine.pack(columns.columns(begin * height, (end - begin) * height), height, dy);
  for (int64_t strip = 0; strip < strip_count; ++strip) {
    for (int64_t block = begin; block < end; ++block) {
      multiply_block(chunk, block * height, dy + (block - begin) * chunk.block_bytes(), strip);
    }
  }
  return true;
}

}  // namespace

std::unique_ptr<Matrix> make_strip_matrix(int64_t k, int64_t n, DType type) {
  return std::make_unique<StripMatrix>(k, n, type);
}

// Every element of dweight adds its rows in their order, so the threads do not show in the result.
Status strip_weight_gradient(const WeightGradient& g) {
  constexpr int64_t kChunkRows = 2048;
  const strips::Routine& routine = *strips::routine(g.type);
  const int64_t strip_count = (g.inputs + routine.width - 1) / routine.width;
  const int64_t block_count = (g.outputs + routine.rows - 1) / routine.rows;
  const int64_t steps = strips::steps_of(std::min(kChunkRows, g.rows), g.type);
  char* x = reinterpret_cast<char*>(thread_scratch(
      Scratch::kMatmulInput, static_cast<size_t>(steps * strip_count * routine.width * strips::kUnit)));
  std::atomic<bool> failed{x == nullptr};
  for (int64_t row = 0; row < g.rows && !failed; row += kChunkRows) {
    const int64_t rows = std::min(kChunkRows, g.rows - row);
    const Chunk chunk{g, routine, row, rows, strips::steps_of(rows, g.type), x};
    parallel_for((rows + kPackedRows - 1) / kPackedRows, 1, [&](int64_t i) {
      pack_inputs(chunk, i * kPackedRows, std::min(kPackedRows, rows - i * kPackedRows), strip_count);
    });
    parallel_for((block_count + kBlocks - 1) / kBlocks, 1, [&](int64_t task) {
      const int64_t begin = task * kBlocks, end = std::min(begin + kBlocks, block_count);
      if (!multiply_blocks(chunk, begin, end, strip_count)) failed = true;
    });
  }
  return failed ? Status(Code::kOutOfMemory, "No memory for a chunk of gradients") : Status();
}

}  // namespace ssrl::ops::host
