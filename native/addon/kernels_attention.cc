// `kernels.attention`, `kernels.attentionBackward` and `kernels.pagedAttention`.
#include <cmath>

#include "addon/kernel_call.h"
#include "engine/packing.h"

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

struct Blocks {
  std::vector<const void*> keys, values;
  std::vector<ops::AttentionSequence> sequences;
};

const void* advance(const Array& array, int64_t elements) {
  return static_cast<const char*>(array.data) + elements * static_cast<int64_t>(size_of(array.type));
}

// Packed sequences as a call gives them, and their keys and values as blocks.
struct Packed {
  ops::AttentionShape shape;
  Array q, k, v;
  int64_t rows;
  KeyBlocks map;
  Blocks blocks;
  void *gathered_keys, *gathered_values;

  // Copies of the blocks that are no runs of rows.
  Status gather(ops::Ops& ops) const {
    const int64_t count = int64_t(map.gathered.size());
    SSRL_RETURN_IF_ERROR(
        ops.gather_rows(k.data, k.type, map.gathered.data(), count, shape.kv_stride, gathered_keys));
    return ops.gather_rows(v.data, v.type, map.gathered.data(), count, shape.kv_stride, gathered_values);
  }
};

// Reads the sequences' rows and positions; a sequence may go on from at most all keys of the one before.
void read_sequences(KernelCall& call, Packed* packed) {
  const Array offsets = call.ints("offsets"), positions = call.ints("positions");
  const int64_t sequences = call.require_offsets("offsets", offsets, packed->rows);
  call.require_count("positions", positions, sequences, "[sequences]");
  int64_t keys = 0;  // of the sequence before
  for (int64_t s = 0; s < sequences; ++s) {
    const int64_t row = offsets.ints()[s], count = offsets.ints()[s + 1] - row,
                  position = positions.ints()[s];
    call.require(position >= 0 && position <= keys, "a position from 0 to " + std::to_string(keys) +
                                                        ", the keys of the sequence before, in sequence " +
                                                        std::to_string(s) + " but received " +
                                                        std::to_string(position));
    keys = position + count;
    packed->map.add(row, count, position);
    packed->blocks.sequences.push_back({.query_row = row,
                                        .query_count = int32_t(count),
                                        .position = int32_t(position),
                                        .key_blocks = nullptr,
                                        .value_blocks = nullptr});
  }
}

std::shared_ptr<Packed> read_packed(KernelCall& call) {
  auto packed = std::make_shared<Packed>();
  packed->q = call.elements("q");
  packed->k = call.elements("k");
  packed->v = call.elements("v");
  const Array &q = packed->q, &k = packed->k, &v = packed->v;
  packed->shape = read_shape(call, q.type);
  const ops::AttentionShape& shape = packed->shape;
  call.require_type("k", k, q.type);
  call.require_type("v", v, q.type);
  packed->rows = call.rows_of("q", q, shape.q_stride);
  call.require_count("k", k, packed->rows * shape.kv_stride, "[rows, kvHeads, headDim]");
  call.require_count("v", v, packed->rows * shape.kv_stride, "[rows, kvHeads, headDim]");
  read_sequences(call, packed.get());
  const size_t bytes = packed->map.gathered.size() * shape.kv_stride * size_of(k.type);
  packed->gathered_keys = call.scratch(bytes);
  packed->gathered_values = call.scratch(bytes);
  const Array gathered_keys{packed->gathered_keys, 0, k.type},
      gathered_values{packed->gathered_values, 0, v.type};
  Blocks& blocks = packed->blocks;
  for (const int64_t row : packed->map.rows) {
    const int64_t from = (row >= 0 ? row : -1 - row) * shape.kv_stride;
    blocks.keys.push_back(advance(row >= 0 ? k : gathered_keys, from));
    blocks.values.push_back(advance(row >= 0 ? v : gathered_values, from));
  }
  for (size_t s = 0; s < blocks.sequences.size(); ++s) {
    blocks.sequences[s].key_blocks = blocks.keys.data() + packed->map.first[s];
    blocks.sequences[s].value_blocks = blocks.values.data() + packed->map.first[s];
  }
  return packed;
}

Napi::Value attention(KernelCall& call) {
  const auto packed = read_packed(call);
  const Array& q = packed->q;
  const Array out = call.output("out", q.count, q.type),
              sums = call.output("logSumExp", packed->rows * packed->shape.heads);
  ops::Ops& ops = call.ops();
  return call.run([=, &ops] {
    SSRL_RETURN_IF_ERROR(packed->gather(ops));
    const auto& sequences = packed->blocks.sequences;
    return ops.attention({packed->shape, packed->q.data, out.data, sums.floats(), sequences.data(),
                          static_cast<int64_t>(sequences.size())});
  });
}

Napi::Value attention_backward(KernelCall& call) {
  const auto packed = read_packed(call);
  const Array &q = packed->q, &k = packed->k;
  const Array out = call.elements("out"), dout = call.elements("dout"), sums = call.floats("logSumExp");
  call.require_count("out", out, q.count, "[rows, heads, headDim]");
  call.require_count("dout", dout, q.count, "[rows, heads, headDim]");
  call.require_count("logSumExp", sums, packed->rows * packed->shape.heads, "[rows, heads]");
  call.require_type("out", out, q.type);
  call.require_type("dout", dout, q.type);
  ops::AttentionBackward arguments{.shape = packed->shape,
                                   .q = q.data,
                                   .out = out.data,
                                   .dout = dout.data,
                                   .log_sum_exp = sums.floats(),
                                   .dq = call.output("dq", q.count, q.type).data,
                                   .dk = call.output("dk", k.count, q.type).data,
                                   .dv = call.output("dv", k.count, q.type).data,
                                   .scratch = nullptr,
                                   .sequences = packed->blocks.sequences.data(),
                                   .sequence_count = static_cast<int64_t>(packed->blocks.sequences.size())};
  ops::Ops& ops = call.ops();
  arguments.scratch =
      static_cast<float*>(call.scratch(ops.attention_backward_scratch(arguments) * sizeof(float)));
  return call.run([arguments, packed, &ops] {
    SSRL_RETURN_IF_ERROR(packed->gather(ops));
    return ops.attention_backward(arguments);
  });
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
