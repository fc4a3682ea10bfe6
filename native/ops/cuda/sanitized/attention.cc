// Attention and its gradient over packed sequences that share keys, against loops.
#include <cmath>
#include <limits>

#include "ops/cuda/cuda_ops.h"
#include "ops/cuda/sanitized/host.h"

namespace ssrl::cuda::sanitized {
namespace {

struct Case {
  int heads, kv_heads, head_dim;
  std::vector<int32_t> lengths, positions;
};

// For each sequence the rows of its keys: those that it shares with the one before, then its own.
std::vector<std::vector<int64_t>> key_rows(const Case& c) {
  std::vector<std::vector<int64_t>> paths;
  int64_t next = 0;
  for (size_t s = 0; s < c.lengths.size(); ++s) {
    std::vector<int64_t> path;
    if (c.positions[s] > 0) path.assign(paths.back().begin(), paths.back().begin() + c.positions[s]);
    for (int32_t i = 0; i < c.lengths[s]; ++i) path.push_back(next++);
    paths.push_back(std::move(path));
  }
  return paths;
}

// Rows of keys or values in pages, one sequence after another; what no token has is NaN.
std::vector<float> in_pages(const std::vector<float>& rows, const std::vector<std::vector<int64_t>>& paths,
                            int64_t width) {
  std::vector<float> pages;
  for (const auto& path : paths) {
    for (size_t i = 0; i < (path.size() + ops::kKeyBlock - 1) / ops::kKeyBlock * ops::kKeyBlock; ++i) {
      for (int64_t j = 0; j < width; ++j) {
        pages.push_back(i < path.size() ? rows[path[i] * width + j]
                                        : std::numeric_limits<float>::quiet_NaN());
      }
    }
  }
  return pages;
}

struct Inputs {
  const Case& shape;
  std::vector<std::vector<int64_t>> paths;
  std::vector<float> q, k, v, dout;
  float scale;
};
struct Results {
  Doubles out, log_sum_exp, dq, dk, dv;
};

// One query of one head, which sees `keys`.
void attend(const Inputs& in, const std::vector<int64_t>& keys, int64_t row, int head, Results* r) {
  const Case& c = in.shape;
  const int width = c.head_dim, kv_width = c.kv_heads * width;
  const int64_t at = (row * c.heads + head) * width, kv = head / (c.heads / c.kv_heads) * width;
  const auto dot = [&](const std::vector<float>& a, int64_t i, const std::vector<float>& b, int64_t j) {
    double sum = 0;
    for (int e = 0; e < width; ++e) sum += static_cast<double>(a[i + e]) * b[j + e];
    return sum;
  };
  Doubles weights;
  double total = 0, mean = 0;
  for (const int64_t key : keys) {
    weights.push_back(std::exp(in.scale * dot(in.q, at, in.k, key * kv_width + kv)));
    total += weights.back();
  }
  r->log_sum_exp[row * c.heads + head] = std::log(total);
  for (size_t i = 0; i < keys.size(); ++i) {
    weights[i] /= total;
    mean += weights[i] * dot(in.dout, at, in.v, keys[i] * kv_width + kv);
  }
  for (size_t i = 0; i < keys.size(); ++i) {
    const int64_t key = keys[i] * kv_width + kv;
    const double slope = weights[i] * (dot(in.dout, at, in.v, key) - mean) * in.scale;
    for (int e = 0; e < width; ++e) {
      r->out[at + e] += weights[i] * in.v[key + e];
      r->dq[at + e] += slope * in.k[key + e];
      r->dk[key + e] += slope * in.q[at + e];
      r->dv[key + e] += weights[i] * in.dout[at + e];
    }
  }
}

Results expected_of(const Inputs& in) {
  const Case& c = in.shape;
  Results r;
  for (Doubles* of : {&r.out, &r.dq}) of->resize(in.q.size());
  for (Doubles* of : {&r.dk, &r.dv}) of->resize(in.k.size());
  r.log_sum_exp.resize(in.q.size() / static_cast<size_t>(c.head_dim));
  for (size_t s = 0; s < in.paths.size(); ++s) {
    const auto& path = in.paths[s];
    for (auto i = static_cast<size_t>(c.positions[s]); i < path.size(); ++i) {
      const std::vector<int64_t> keys(path.begin(), path.begin() + static_cast<int64_t>(i) + 1);
      for (int head = 0; head < c.heads; ++head) attend(in, keys, path[i], head, &r);
    }
  }
  return r;
}

struct Sequences {
  std::vector<std::vector<const void*>> keys, values;
  std::vector<ops::AttentionSequence> list;
};

Sequences sequences_of(const Inputs& in, const Array& keys, const Array& values) {
  const Case& c = in.shape;
  const int64_t page = int64_t{ops::kKeyBlock} * c.kv_heads * c.head_dim;
  Sequences sequences;
  int64_t next = 0, row = 0;
  for (const auto& path : in.paths) {
    sequences.keys.emplace_back();
    sequences.values.emplace_back();
    for (size_t i = 0; i < path.size(); i += ops::kKeyBlock, ++next) {
      sequences.keys.back().push_back(keys.at(next * page));
      sequences.values.back().push_back(values.at(next * page));
    }
  }
  for (size_t s = 0; s < in.paths.size(); ++s) {
    sequences.list.push_back(
        {row, c.lengths[s], c.positions[s], sequences.keys[s].data(), sequences.values[s].data()});
    row += c.lengths[s];
  }
  return sequences;
}

void check_case(ops::Ops& ops, DType type, const Case& c) {
  int64_t rows = 0;
  for (const int32_t length : c.lengths) rows += length;
  const int64_t width = int64_t{c.heads} * c.head_dim, kv_width = int64_t{c.kv_heads} * c.head_dim;
  const Inputs in{c,
                  key_rows(c),
                  some_values(1, rows * width, type),
                  some_values(2, rows * kv_width, type),
                  some_values(3, rows * kv_width, type),
                  some_values(4, rows * width, type),
                  1 / std::sqrt(static_cast<float>(c.head_dim))};
  const Array q(ops, in.q, type), dout(ops, in.dout, type), out(ops, rows * width, type);
  const Array keys(ops, in_pages(in.k, in.paths, kv_width), type);
  const Array values(ops, in_pages(in.v, in.paths, kv_width), type);
  const Array sums(ops, rows * c.heads), dq(ops, rows * width, type);
  const Array dk(ops, rows * kv_width, type), dv(ops, rows * kv_width, type);
  const Sequences sequences = sequences_of(in, keys, values);
  const auto count = static_cast<int64_t>(sequences.list.size());
  const ops::AttentionShape shape{type, c.heads, c.kv_heads, c.head_dim, in.scale, width, kv_width, width};
  must(ops.attention({shape, q.data(), out.data(), sums.floats(), sequences.list.data(), count}));
  ops::AttentionBackward backward{shape,     q.data(),  out.data(), dout.data(), sums.floats(),
                                  dq.data(), dk.data(), dv.data(),  nullptr,     sequences.list.data(),
                                  count};
  const Array scratch(ops, static_cast<int64_t>(ops.attention_backward_scratch(backward)));
  backward.scratch = scratch.floats();
  must(ops.attention_backward(backward));
  const Results expected = expected_of(in);
  // Weights and dS are rounded for the tensor cores, and then summed over up to all queries.
  const Bound bound = type == DType::kF32 ? Bound{3e-5, 3e-5} : Bound{2e-2, 1.0 / 64};
  compare(name_of("attention", type), out.values(), expected.out, bound);
  compare(name_of("attention log_sum_exp", type), sums.values(), expected.log_sum_exp, {1e-5, 1e-5});
  compare(name_of("attention_backward dq", type), dq.values(), expected.dq, bound);
  compare(name_of("attention_backward dk", type), dk.values(), expected.dk, bound);
  compare(name_of("attention_backward dv", type), dv.values(), expected.dv, bound);
}

}  // namespace

void check_attention(ops::Ops& ops, DType type) {
  // Pages are shared out among blocks, and then not.
  for (const int multiprocessors : {132, 1}) {
    set_multiprocessors(multiprocessors);
    check_case(ops, type, {3, 1, 6, {3, 0, 1}, {0, 0, 0}});
    check_case(ops, type, {4, 2, 30, {67, 5, 1}, {0, 65, 3}});
  }
  check_case(ops, type, {2, 1, 64, {66, 1}, {0, 64}});
  if (type == DType::kBF16) check_case(ops, type, {1, 1, 128, {65}, {0}});
  check_case(ops, type, {1, 1, 256, {33}, {0}});
}

}  // namespace ssrl::cuda::sanitized
