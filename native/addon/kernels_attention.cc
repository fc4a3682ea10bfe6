// `kernels.attention`, `kernels.attentionBackward` and `kernels.pagedAttention`.
#include <cmath>

#include "addon/kernel_call.h"

namespace ssrl {
namespace {

// Heads, head size and scale, with the strides of dense arrays.
ops::AttentionShape read_shape(KernelCall& call, DType type) {
  ops::AttentionShape shape{};
  shape.type = type;
  shape.heads = static_cast<int>(call.integer("heads", 1, 1 << 16));
  shape.kv_heads = static_cast<int>(call.integer("kvHeads", 1, 1 << 16));
  shape.head_dim = static_cast<int>(call.integer("headDim", 2, 256));
  call.require(shape.heads % shape.kv_heads == 0, "heads to be a multiple of kvHeads");
  call.require(shape.head_dim % 2 == 0, "an even headDim but received " + std::to_string(shape.head_dim));
  shape.scale = static_cast<float>(call.number("scale", -1e30, 1e30));
  shape.q_stride = shape.out_stride = static_cast<int64_t>(shape.heads) * shape.head_dim;
  shape.kv_stride = static_cast<int64_t>(shape.kv_heads) * shape.head_dim;
  return shape;
}

// The rows of each packed sequence as blocks of keys and values.
struct Blocks {
  std::vector<const void*> keys, values;
  std::vector<ops::AttentionSequence> sequences;
};

const void* advance(const Array& array, int64_t elements) {
  return static_cast<const char*>(array.data) + elements * static_cast<int64_t>(size_of(array.type));
}

std::shared_ptr<Blocks> packed_blocks(const ops::AttentionShape& shape, const Array& k, const Array& v,
                                      const Array& offsets) {
  auto blocks = std::make_shared<Blocks>();
  for (int64_t s = 0; s + 1 < offsets.count; ++s) {
    for (int64_t row = offsets.ints()[s]; row < offsets.ints()[s + 1]; row += ops::kKeyBlock) {
      blocks->keys.push_back(advance(k, row * shape.kv_stride));
      blocks->values.push_back(advance(v, row * shape.kv_stride));
    }
  }
  size_t first = 0;
  for (int64_t s = 0; s + 1 < offsets.count; ++s) {
    const int64_t begin = offsets.ints()[s], count = offsets.ints()[s + 1] - begin;
    blocks->sequences.push_back(
        {begin, static_cast<int32_t>(count), 0, blocks->keys.data() + first, blocks->values.data() + first});
    first += static_cast<size_t>((count + ops::kKeyBlock - 1) / ops::kKeyBlock);
  }
  return blocks;
}

Napi::Value attention(KernelCall& call) {
  const Array q = call.elements("q"), k = call.elements("k"), v = call.elements("v"),
              offsets = call.ints("offsets");
  const ops::AttentionShape shape = read_shape(call, q.type);
  call.require_type("k", k, q.type);
  call.require_type("v", v, q.type);
  const int64_t rows = call.rows_of("q", q, shape.q_stride);
  call.require_count("k", k, rows * shape.kv_stride, "[rows, kvHeads, headDim]");
  call.require_count("v", v, rows * shape.kv_stride, "[rows, kvHeads, headDim]");
  call.require_offsets("offsets", offsets, rows);
  const Array out = call.output("out", q.count, q.type), sums = call.output("logSumExp", rows * shape.heads);
  auto blocks = packed_blocks(shape, k, v, offsets);
  ops::Ops& ops = call.ops();
  return call.run([=, &ops] {
    return ops.attention({shape, q.data, out.data, sums.floats(), blocks->sequences.data(),
                          static_cast<int64_t>(blocks->sequences.size())});
  });
}

Napi::Value attention_backward(KernelCall& call) {
  const Array q = call.elements("q"), k = call.elements("k"), v = call.elements("v"),
              offsets = call.ints("offsets");
  const Array out = call.elements("out"), dout = call.elements("dout"), sums = call.floats("logSumExp");
  ops::AttentionBackward arguments{};
  arguments.shape = read_shape(call, q.type);
  const ops::AttentionShape& shape = arguments.shape;
  const int64_t rows = call.rows_of("q", q, shape.q_stride);
  call.require_count("k", k, rows * shape.kv_stride, "[rows, kvHeads, headDim]");
  call.require_count("v", v, rows * shape.kv_stride, "[rows, kvHeads, headDim]");
  call.require_count("out", out, q.count, "[rows, heads, headDim]");
  call.require_count("dout", dout, q.count, "[rows, heads, headDim]");
  call.require_count("logSumExp", sums, rows * shape.heads, "[rows, heads]");
  for (const auto& [name, array] : {std::pair{"k", k}, {"v", v}, {"out", out}, {"dout", dout}}) {
    call.require_type(name, array, q.type);
  }
  auto starts = std::make_shared<std::vector<int64_t>>();
  arguments.sequence_count = call.require_offsets("offsets", offsets, rows);
  starts->assign(offsets.ints(), offsets.ints() + offsets.count);
  arguments.q = q.data;
  arguments.k = k.data;
  arguments.v = v.data;
  arguments.out = out.data;
  arguments.dout = dout.data;
  arguments.log_sum_exp = sums.floats();
  arguments.dq = call.output("dq", q.count, q.type).data;
  arguments.dk = call.output("dk", k.count, q.type).data;
  arguments.dv = call.output("dv", v.count, q.type).data;
  arguments.starts = starts->data();
  ops::Ops& ops = call.ops();
  arguments.scratch =
      static_cast<float*>(call.scratch(ops.attention_backward_scratch(arguments) * sizeof(float)));
  return call.run([arguments, starts, &ops] { return ops.attention_backward(arguments); });
}

Napi::Value paged_attention(KernelCall& call) {
  const Array q = call.elements("q"), keys = call.elements("keys"), values = call.elements("values");
  const Array pages = call.ints("pages"), page_offsets = call.ints("pageOffsets");
  const Array query_offsets = call.ints("queryOffsets"), positions = call.ints("positions");
  const ops::AttentionShape shape = read_shape(call, q.type);
  call.require_type("keys", keys, q.type);
  call.require_type("values", values, q.type);
  const int64_t rows = call.rows_of("q", q, shape.q_stride), page = ops::kKeyBlock * shape.kv_stride;
  const int64_t page_count = call.rows_of("keys", keys, page);
  call.require_count("values", values, keys.count, "[pages, 64, kvHeads, headDim]");
  call.require_below("pages", pages, page_count);
  const int64_t sequences = call.require_offsets("queryOffsets", query_offsets, rows);
  call.require_offsets("pageOffsets", page_offsets, pages.count);
  call.require_count("pageOffsets", page_offsets, sequences + 1, "[sequences + 1]");
  call.require_count("positions", positions, sequences, "[sequences]");
  auto blocks = std::make_shared<Blocks>();
  for (int64_t i = 0; i < pages.count; ++i) {
    blocks->keys.push_back(advance(keys, pages.ints()[i] * page));
    blocks->values.push_back(advance(values, pages.ints()[i] * page));
  }
  for (int64_t s = 0; s < sequences; ++s) {
    const int64_t begin = query_offsets.ints()[s], count = query_offsets.ints()[s + 1] - begin;
    const int64_t first = page_offsets.ints()[s], held = page_offsets.ints()[s + 1] - first;
    const int64_t position = positions.ints()[s];
    call.require(position >= 0 && position + count <= held * ops::kKeyBlock,
                 "sequence " + std::to_string(s) + " to have pages for its position and queries");
    blocks->sequences.push_back({begin, static_cast<int32_t>(count), static_cast<int32_t>(position),
                                 blocks->keys.data() + first, blocks->values.data() + first});
  }
  const Array out = call.output("out", q.count, q.type), sums = call.output("logSumExp", rows * shape.heads);
  ops::Ops& ops = call.ops();
  return call.run([=, &ops] {
    return ops.attention({shape, q.data, out.data, sums.floats(), blocks->sequences.data(),
                          static_cast<int64_t>(blocks->sequences.size())});
  });
}

}  // namespace

void init_attention_kernels(Napi::Env env, Napi::Object kernels) {
  kernels.Set("attention", kernel_function(env, "attention", attention));
  kernels.Set("attentionBackward", kernel_function(env, "attentionBackward", attention_backward));
  kernels.Set("pagedAttention", kernel_function(env, "pagedAttention", paged_attention));
}

}  // namespace ssrl
