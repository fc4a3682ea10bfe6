#include "ops/cuda/head.h"

#include <algorithm>
#include <vector>

#include "ops/cuda/loss.h"

namespace ssrl::cuda {
namespace {

struct Chunk {
  RowResult* results;  // [chunk]
  void* hidden;        // [chunk, D] compute type
  float* dhidden;      // [chunk, D]
  float* logits;       // [chunk, V]
  void* dlogits;       // [chunk, V] of the compute type; the logits' own place for F32
};

template <typename T>
T* carve(char** cursor, int64_t count) {
  T* result = reinterpret_cast<T*>(*cursor);
  *cursor += (static_cast<size_t>(count) * sizeof(T) + 127) / 128 * 128;
  return result;
}

Chunk carve_chunk(void* scratch, const ops::PackedWeight& weight, size_t* bytes) {
  const int64_t rows = vocabulary_chunk(weight);
  char* cursor = static_cast<char*>(scratch);
  Chunk chunk;
  chunk.results = carve<RowResult>(&cursor, rows);
  chunk.hidden = carve<float>(&cursor, rows * weight.inputs());
  chunk.dhidden = carve<float>(&cursor, rows * weight.inputs());
  chunk.logits = carve<float>(&cursor, rows * weight.outputs());
  chunk.dlogits = chunk.logits;
  if (weight.compute() == DType::kBF16) chunk.dlogits = carve<uint16_t>(&cursor, rows * weight.outputs());
  if (bytes != nullptr) *bytes = static_cast<size_t>(cursor - static_cast<char*>(scratch));
  return chunk;
}

// Rows of a batch that have a weight, and what the loss is told of them.
struct ActiveRows {
  std::vector<int64_t> rows;
  std::vector<int32_t> targets;
  std::vector<float> weights, advantages, old_logprobs, ref_logprobs, log_ratios, drift_weights;
};

ActiveRows select_rows(const ops::PolicyLoss& a) {
  ActiveRows active;
  for (int64_t row = 0; row < a.rows; ++row) {
    if (a.weights[row] == 0) continue;
    active.rows.push_back(row);
    active.targets.push_back(a.targets[row]);
    active.weights.push_back(a.weights[row]);
    if (a.advantages != nullptr) active.advantages.push_back(a.advantages[row]);
    if (a.old_logprobs != nullptr) active.old_logprobs.push_back(a.old_logprobs[row]);
    if (a.ref_logprobs != nullptr) active.ref_logprobs.push_back(a.ref_logprobs[row]);
    if (a.log_ratios != nullptr) active.log_ratios.push_back(a.log_ratios[row]);
    if (a.drift_weights != nullptr) active.drift_weights.push_back(a.drift_weights[row]);
  }
  return active;
}

// Sends `count` values from `begin` on; null where there are none.
template <typename T>
Status stage_part(Context& context, const std::vector<T>& values, int64_t begin, int64_t count,
                  const T** out) {
  *out = nullptr;
  return values.empty() ? Status() : context.stage(values.data() + begin, count, out);
}

class Loss {
 public:
  Loss(ops::Ops& ops, Context& context, const ops::PolicyLoss& a)
      : ops_(ops), context_(context), a_(a), active_(select_rows(a)) {}

  Status run(ops::PolicyLossStatistics* statistics) {
    const auto count = static_cast<int64_t>(active_.rows.size());
    if (count < a_.rows) SSRL_RETURN_IF_ERROR(clear());
    const int64_t limit = vocabulary_chunk(*a_.weight);
    const Chunk chunk = carve_chunk(a_.scratch, *a_.weight, nullptr);
    std::vector<const RowResult*> results;  // of each row, in pinned memory
    for (int64_t begin = 0; begin < count; begin += limit) {
      const int64_t part = std::min(limit, count - begin);
      SSRL_RETURN_IF_ERROR(run_chunk(chunk, begin, part));
      const void* pinned = nullptr;
      SSRL_RETURN_IF_ERROR(
          context_.fetch(chunk.results, static_cast<size_t>(part) * sizeof(RowResult), &pinned));
      for (int64_t i = 0; i < part; ++i) results.push_back(static_cast<const RowResult*>(pinned) + i);
    }
    SSRL_RETURN_IF_ERROR(context_.synchronize());
    for (const RowResult* row : results) ops::add_row(a_, row->weight, row->loss, row->entropy, statistics);
    return {};
  }

 private:
  // What rows without a weight have.
  Status clear() {
    const auto rows = static_cast<size_t>(a_.rows);
    SSRL_RETURN_IF_ERROR(ops_.fill_zero(a_.logprobs, rows * sizeof(float)));
    if (a_.entropies != nullptr) SSRL_RETURN_IF_ERROR(ops_.fill_zero(a_.entropies, rows * sizeof(float)));
    if (a_.dhidden == nullptr) return {};
    return ops_.fill_zero(a_.dhidden, rows * static_cast<size_t>(a_.weight->inputs()) * sizeof(float));
  }

  Status run_chunk(const Chunk& chunk, int64_t begin, int64_t count) {
    const int64_t vocabulary = a_.weight->outputs(), inputs = a_.weight->inputs();
    const DType type = a_.weight->compute();
    const bool backward = a_.dhidden != nullptr || a_.dweight != nullptr;
    const int64_t* const rows = active_.rows.data() + begin;
    SSRL_RETURN_IF_ERROR(ops_.gather_rows(a_.hidden, type, rows, count, inputs, chunk.hidden));
    SSRL_RETURN_IF_ERROR(
        ops_.linear(*a_.weight, chunk.hidden, count, nullptr, chunk.logits, DType::kF32, false));
    LossRows arguments{
        a_, nullptr, count, vocabulary, chunk.logits, backward ? chunk.dlogits : nullptr, chunk.results};
    SSRL_RETURN_IF_ERROR(stage(begin, count, &arguments));
    SSRL_RETURN_IF_ERROR(context_.flush());
    SSRL_RETURN_IF_ERROR(loss_rows(arguments, type, context_.stream()));
    if (a_.dhidden != nullptr) {
      SSRL_RETURN_IF_ERROR(
          ops_.linear_backward_input(*a_.weight, chunk.dlogits, count, chunk.dhidden, DType::kF32));
      SSRL_RETURN_IF_ERROR(
          put_rows(chunk.dhidden, arguments.rows, count, inputs, a_.dhidden, context_.stream()));
    }
    if (a_.dweight == nullptr) return {};
    return ops_.linear_backward_weight(chunk.dlogits, chunk.hidden, type, count, vocabulary, inputs,
                                       a_.dweight, nullptr);
  }

  Status stage(int64_t begin, int64_t count, LossRows* out) {
    ops::PolicyLoss& loss = out->loss;
    loss.weight = nullptr;
    SSRL_RETURN_IF_ERROR(stage_part(context_, active_.rows, begin, count, &out->rows));
    SSRL_RETURN_IF_ERROR(stage_part(context_, active_.targets, begin, count, &loss.targets));
    SSRL_RETURN_IF_ERROR(stage_part(context_, active_.weights, begin, count, &loss.weights));
    SSRL_RETURN_IF_ERROR(stage_part(context_, active_.advantages, begin, count, &loss.advantages));
    SSRL_RETURN_IF_ERROR(stage_part(context_, active_.old_logprobs, begin, count, &loss.old_logprobs));
    SSRL_RETURN_IF_ERROR(stage_part(context_, active_.ref_logprobs, begin, count, &loss.ref_logprobs));
    SSRL_RETURN_IF_ERROR(stage_part(context_, active_.log_ratios, begin, count, &loss.log_ratios));
    return stage_part(context_, active_.drift_weights, begin, count, &loss.drift_weights);
  }

  ops::Ops& ops_;
  Context& context_;
  const ops::PolicyLoss& a_;
  ActiveRows active_;
};

}  // namespace

size_t log_probs_bytes(const ops::PackedWeight& weight) {
  return static_cast<size_t>(vocabulary_chunk(weight) * weight.outputs()) * sizeof(float);
}

Status log_probs(ops::Ops& ops, Context& context, const ops::LogProbs& a) {
  const int64_t chunk = vocabulary_chunk(*a.weight), inputs = a.weight->inputs();
  const auto element = static_cast<int64_t>(size_of(a.weight->compute()));
  float* logits = static_cast<float*>(a.scratch);
  const int32_t* targets = nullptr;
  SSRL_RETURN_IF_ERROR(context.stage(a.targets, a.rows, &targets));
  for (int64_t begin = 0; begin < a.rows; begin += chunk) {
    const int64_t count = std::min(chunk, a.rows - begin);
    const void* hidden = static_cast<const char*>(a.hidden) + begin * inputs * element;
    SSRL_RETURN_IF_ERROR(ops.linear(*a.weight, hidden, count, nullptr, logits, DType::kF32, false));
    SSRL_RETURN_IF_ERROR(log_prob_rows({logits, count, a.weight->outputs(), targets + begin, a.temperature,
                                        a.logprobs + begin, a.entropies + begin},
                                       context.stream()));
  }
  return {};
}

size_t policy_loss_bytes(const ops::PackedWeight& weight) {
  size_t bytes = 0;
  carve_chunk(nullptr, weight, &bytes);
  return bytes;
}

Status policy_loss(ops::Ops& ops, Context& context, const ops::PolicyLoss& a,
                   ops::PolicyLossStatistics* statistics) {
  return Loss(ops, context, a).run(statistics);
}

}  // namespace ssrl::cuda
