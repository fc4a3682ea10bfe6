// What the files of the CPU backend share. Each kernel family implements its functions in a file of its own;
// cpu_ops.cc forwards the virtual methods of Ops here.
#pragma once

#include <omp.h>

#include <cstddef>
#include <cstdint>
#include <memory>

#include "ops/bf16.h"
#include "ops/ops.h"

namespace ssrl::ops::host {

// ---- threads (cpu_ops.cc)

int threads();
int max_threads();
void set_threads(int count);

// Runs body(begin, end) over [0, count) on up to threads() threads; ranges of `grain` go to whoever is free.
// Work of one grain stays on the calling thread: waking the team costs some microseconds.
template <typename Body>
void parallel_ranges(int64_t count, int64_t grain, const Body& body) {
  const int64_t pieces = (count + grain - 1) / grain;
  const int team = static_cast<int>(pieces < threads() ? pieces : threads());
  if (team <= 1) {
    if (count > 0) body(int64_t{0}, count);
    return;
  }
#pragma omp parallel for num_threads(team) schedule(dynamic, 1)
  for (int64_t piece = 0; piece < pieces; ++piece) {
    body(piece * grain, (piece + 1) * grain < count ? (piece + 1) * grain : count);
  }
}

template <typename Body>
void parallel_for(int64_t count, int64_t grain, const Body& body) {
  parallel_ranges(count, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i);
  });
}

// Items of `elements` each that make about 5 us of row-wise work.
inline int64_t grain_of(int64_t elements) {
  const int64_t items = 16384 / (elements > 0 ? elements : 1);
  return items > 0 ? items : 1;
}

// ---- elements of either type

inline float load(const void* base, DType type, int64_t index) {
  return type == DType::kF32 ? static_cast<const float*>(base)[index]
                             : from_bf16(static_cast<const uint16_t*>(base)[index]);
}

inline void store(void* base, DType type, int64_t index, float value) {
  if (type == DType::kF32) {
    static_cast<float*>(base)[index] = value;
  } else {
    static_cast<uint16_t*>(base)[index] = to_bf16(value);
  }
}

inline void* at(void* base, DType type, int64_t index) {
  return static_cast<char*>(base) + index * static_cast<int64_t>(size_of(type));
}

inline const void* at(const void* base, DType type, int64_t index) {
  return static_cast<const char*>(base) + index * static_cast<int64_t>(size_of(type));
}

// Memory of the calling thread for one kernel call; valid until the next call with the same slot.
enum class Scratch { kMatmulInput, kMatmulOutput, kMatmul, kRow, kAttention, kAttentionTiles, kCount };
float* thread_scratch(Scratch slot, size_t bytes);

// ---- memory.cc

Status allocate(size_t bytes, void** out);
// The same for what lives long and is read often.
Status allocate_weights(size_t bytes, void** out);
void release(void* pointer);

// ---- matmul.cc

Status supports(DType compute);
Status pack(const float* weight, int64_t outputs, int64_t inputs, DType compute,
            std::unique_ptr<PackedWeight>* out);
Status repack(const float* weight, PackedWeight* packed);
Status linear(PackedWeight& weight, const void* x, int64_t rows, const float* bias, void* y, DType y_type,
              bool accumulate);
Status linear_backward_input(PackedWeight& weight, const void* dy, int64_t rows, void* dx, DType dx_type);
Status linear_backward_weight(const void* dy, const void* x, DType type, int64_t rows, int64_t outputs,
                              int64_t inputs, float* dweight, float* dbias);
Status unpack_rows(const PackedWeight& weight, const int32_t* rows, int64_t count, float* out);

// ---- row-wise families

Status rms_norm(const RmsNorm& a);
Status rms_norm_backward(const RmsNormBackward& a);
Status rope(const Rope& a);
Status swiglu(const Swiglu& a);
Status swiglu_backward(const SwigluBackward& a);
Status embedding(const int32_t* ids, int64_t tokens, const float* table, int64_t width, DType compute,
                 float* x);
Status embedding_backward(const int32_t* ids, int64_t tokens, const float* dx, int64_t width, float* dtable);
Status scatter_rows(const void* from, DType type, int64_t stride, int64_t rows, int64_t width,
                    void* const* to);
Status gather_rows(const void* from, DType type, const int64_t* indices, int64_t rows, int64_t width,
                   void* out);
Status convert(const void* from, DType from_type, void* to, DType to_type, int64_t count);

// ---- attention

Status attention(const Attention& a);
size_t attention_backward_scratch(const AttentionBackward& a);
Status attention_backward(const AttentionBackward& a);

// ---- vocabulary rows: everything that names a log-prob goes through log_softmax_row, so that equal logits
// give equal log-probs in scoring, sampling and training

struct RowSoftmax {
  float maximum;      // of the scaled logits
  float log_sum_exp;  // log of the sum of exp(scaled - maximum)
  float entropy;
};
// Scaled logits are logits[i] * inverse_temperature.
RowSoftmax log_softmax_row(const float* logits, int64_t vocabulary, float inverse_temperature);
inline float row_logprob(const RowSoftmax& row, float logit, float inverse_temperature) {
  return (logit * inverse_temperature - row.maximum) - row.log_sum_exp;
}

size_t log_probs_scratch(const PackedWeight& weight);
Status log_probs(const LogProbs& a);
size_t policy_loss_scratch(const PackedWeight& weight);
Status policy_loss(const PolicyLoss& a, PolicyLossStatistics* statistics);
size_t sample_scratch(int64_t vocabulary);
Status sample(const Sample& a);

// ---- optimizer.cc

Status adamw(const AdamW& a);
Status sum_of_squares(const float* x, int64_t count, double* out);

}  // namespace ssrl::ops::host
