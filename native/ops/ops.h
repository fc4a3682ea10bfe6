// The kernel contract. One list of operations over raw pointers and sizes; the CPU backend (ops/cpu) and
// later the CUDA backend implement it, and native/engine is written once against it.
//
// Rules of every operation:
//  - Pointers are memory of this backend (Ops::allocate), which only copy_to_host and copy_from_host may
//  touch
//    from outside. Host memory is what is small and new with every call: ids, positions, indices, row
//    pointers, attention sequences and their lists of blocks, sampling settings, and what PolicyLoss and
//    LogProbs are told of each row. It may go once the call has returned.
//  - Work is done in the order of the calls, but may still be under way when they return; copy_to_host waits.
//  - Kernels do not allocate per call; scratch comes from the caller, or is part of a PackedWeight.
//  - Matrices are row-major; a "stride" counts elements between the starts of neighbouring rows.
//  - Forward kernels are row-invariant: what a row becomes does not depend on which other rows are in the
//  call, on
//    their number, nor on the number of threads. Backward kernels are deterministic for given inputs and
//    threads.
//  - float is f32; the "compute type" is F32 or BF16; sums, norms, softmax and the residual stream are f32.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "status.h"

namespace ssrl {

enum class DType : uint8_t { kF32, kBF16 };

inline size_t size_of(DType type) {
  return type == DType::kF32 ? 4 : 2;
}

namespace ops {

// Keys are walked in blocks of this many tokens, which is the page size of the KV cache too.
constexpr int kKeyBlock = 64;
// Every matrix product over token rows runs in tiles of this many rows (the tail padded with zeros).
constexpr int kRowTile = 32;

// A weight [outputs, inputs] in the backend's own layout, for y = x·Wᵀ and dx = dy·W.
class PackedWeight {
 public:
  virtual ~PackedWeight() = default;
  virtual int64_t outputs() const = 0;
  virtual int64_t inputs() const = 0;
  virtual DType compute() const = 0;
  virtual size_t bytes() const = 0;
  // Gives back what only backward products need; the next one makes it again.
  virtual void trim() {}
};

struct RmsNorm {
  const void* x;  // [tokens, groups, width], token t at x + t * x_stride, groups contiguous
  DType x_type;
  int64_t x_stride;
  void* y;  // the same layout with y_stride; y may be x
  DType y_type;
  int64_t y_stride;
  const float* weight;  // [width]
  float* inverse_rms;   // [tokens, groups], or null when no backward follows
  int64_t tokens;
  int groups;  // 1 for a hidden row; the number of heads for per-head norms
  int width;
  float epsilon;
};

struct RmsNormBackward {
  const void* dy;  // [tokens, groups, width], dy_stride
  DType dy_type;
  int64_t dy_stride;
  const void* x;  // the forward's input, x_stride
  DType x_type;
  int64_t x_stride;
  const float* weight;       // [width]
  const float* inverse_rms;  // [tokens, groups]
  void* dx;                  // [tokens, groups, width], dx_stride; may be dy
  DType dx_type;
  int64_t dx_stride;
  bool accumulate;  // dx += instead of dx = (F32 dx only)
  float* dweight;   // [width], added to
  float* scratch;   // [max_threads(), width]
  int64_t tokens;
  int groups;
  int width;
};

// Rotary embedding in Hugging Face's half-split layout, in place: pairs (i, i + head_dim / 2).
struct Rope {
  void* x;  // [tokens, heads, head_dim], token t at x + t * stride
  DType type;
  int64_t stride;
  const int32_t* positions;  // [tokens], host memory
  const float* cosines;      // [max_position, head_dim / 2]
  const float* sines;        // [max_position, head_dim / 2]
  int64_t tokens;
  int heads;
  int head_dim;
  bool backward;  // rotate by the opposite angle
};

struct Swiglu {
  const void* gate_up;  // [tokens, 2 * width]: gate, then up
  void* y;              // [tokens, width] = silu(gate) * up
  DType type;
  int64_t tokens;
  int64_t width;
};

struct SwigluBackward {
  const void* gate_up;  // [tokens, 2 * width]
  const void* dy;       // [tokens, width]
  void* dgate_up;       // [tokens, 2 * width]; may be gate_up
  void* y;              // [tokens, width] as the forward pass gave it, bit for bit
  DType type;
  int64_t tokens;
  int64_t width;
};

// The query rows of one sequence in a packed batch - a prompt, a chunk of one, a single decoded token, or a
// whole training sequence - and where its keys and values lie, block by block. Host memory, and so are the
// lists of pointers to blocks.
struct AttentionSequence {
  int64_t query_row;  // first row of this sequence in q and out
  int32_t query_count;
  int32_t position;  // position of the first query row; row i sees keys 0 .. position + i
  const void* const*
      key_blocks;  // [ceil((position + query_count) / kKeyBlock)] -> [kKeyBlock, kv_heads, head_dim]
  const void* const* value_blocks;  // likewise; rows past the last key are never read
};

struct AttentionShape {
  DType type;
  int heads;
  int kv_heads;       // divides heads
  int head_dim;       // even, at most 256
  float scale;        // applied to q·k
  int64_t q_stride;   // elements between query rows (a slice of the fused q/k/v buffer is fine)
  int64_t kv_stride;  // elements between neighbouring tokens inside a key or value block
  int64_t out_stride;
};

struct Attention {
  AttentionShape shape;
  const void* q;       // [rows, heads, head_dim]
  void* out;           // [rows, heads, head_dim]
  float* log_sum_exp;  // [rows, heads] of the scaled scores, or null when no backward follows
  const AttentionSequence* sequences;
  int64_t sequence_count;
};

// Packed training sequences, as the forward pass had them, in row order from row 0 on: query_row of one is
// where the one before ends. One at a position above 0 shares its first keys with the one before, whose first
// they are too; such a key's gradient is the sum over all who see it. dk and dv have a row for each query
// row.
struct AttentionBackward {
  AttentionShape shape;      // kv_stride: between the rows of dk and dv, too
  const void* q;             // [rows, heads, head_dim]
  const void* out;           // [rows, heads, head_dim], out_stride
  const void* dout;          // [rows, heads, head_dim], out_stride
  const float* log_sum_exp;  // [rows, heads]
  void* dq;                  // q_stride
  void* dk;                  // [rows, kv_heads, head_dim], kv_stride
  void* dv;                  // [rows, kv_heads, head_dim], kv_stride
  float* scratch;            // attention_backward_scratch() floats
  const AttentionSequence* sequences;
  int64_t sequence_count;
};

enum class LossType : uint8_t { kSft, kPolicyGradient };

// How the KL of policy and reference is estimated from one token, d = ref - lp: -d, d * d / 2, exp(d) - d
// - 1.
enum class KlEstimator : uint8_t { kK1, kK2, kK3 };

// What a token contributes to the loss. kSft: -weight * lp. kPolicyGradient: weight * (p + beta * KL) with
// r = exp(log-ratio), p = max(-A r, -A clip(r, 1 - epsilon, 1 + epsilon_high)), for A < 0 at most -A *
// dual_clip, and to p the token's drift_weight * |lp - old|. The derivative of r by lp is r. Masks,
// normalisers and per-token weights are folded into `weight` by the caller; a row of weight 0 costs nothing
// and counts nowhere.
struct PolicyLossOptions {
  LossType type;
  float temperature;  // > 0; lp is that of softmax(logits / temperature)
  float epsilon;
  float epsilon_high;
  float dual_clip;  // 0: none
  float beta;
  KlEstimator kl = KlEstimator::kK3;
};

struct PolicyLossStatistics {  // over rows of non-zero weight; added in row order
  double loss = 0;             // weight * (policy loss + beta * KL)
  double policy_loss = 0;      // weight * policy loss
  double kl = 0;               // plain sum
  double entropy = 0;          // plain sum
  double ratio = 0;            // plain sum
  double ratio_max = 0;
  double mismatch = 0;    // max |lp - old|
  int64_t clip_low = 0;   // rows where the lower clip acts (A < 0 and r < 1 - epsilon)
  int64_t clip_high = 0;  // rows where the upper clip acts (A > 0 and r > 1 + epsilon_high)
  int64_t rows = 0;
};

// The fused head: logits, log-softmax, loss and its gradient by chunks of rows; at most policy_loss_scratch()
// bytes of the rows x vocabulary matrix exist at any time.
struct PolicyLoss {
  const void* hidden;    // [rows, D] of the weight's compute type: final-normed hidden states
  PackedWeight* weight;  // [V, D]
  // Host memory:
  const int32_t* targets;      // [rows] the next token
  const float* weights;        // [rows]
  const float* advantages;     // [rows]; unused for kSft
  const float* old_logprobs;   // [rows], or null: the row's own lp (ratio 1)
  const float* ref_logprobs;   // [rows], or null when beta is 0
  const float* log_ratios;     // [rows], or null: lp - old. A sequence's ratio, say, for each of its tokens
  const float* drift_weights;  // [rows], or null; needs old_logprobs
  // Backend memory:
  float* logprobs;   // [rows] out; 0 for rows of weight 0
  float* entropies;  // [rows] out, or null
  float* dhidden;    // [rows, D] f32, written (0 for rows of weight 0); null: forward only
  float* dweight;    // [V, D], added to; null: forward only
  void* scratch;     // policy_loss_scratch() bytes
  int64_t rows;
  PolicyLossOptions options;
};

// Log-probs and entropies of given next tokens; what `score` returns, bit for bit what PolicyLoss and Sample
// give.
struct LogProbs {
  const void* hidden;      // [rows, D]
  PackedWeight* weight;    // [V, D]
  const int32_t* targets;  // [rows], host memory
  float temperature;
  float* logprobs;   // [rows]
  float* entropies;  // [rows]
  void* scratch;     // log_probs_scratch() bytes
  int64_t rows;
};

struct SampleRow {
  float temperature;  // 0: greedy, lowest index on ties; log-prob and entropy are then those of temperature 1
  int32_t top_k;      // 0: off
  float top_p;        // 1: off
  float min_p;        // 0: off
  uint64_t seed;  // Philox key (seed, sample), counter (position, vocabulary index): nothing else matters to
                  // a draw
  uint32_t sample;
  uint32_t position;
};

struct SampleResult {
  int32_t token;
  float logprob;          // of softmax(logits / temperature) over the whole vocabulary
  float entropy;          // of the same
  float sampled_logprob;  // of the truncated distribution; equals logprob where nothing was truncated
};

struct Sample {
  const float* logits;  // [rows, V], rows contiguous
  int64_t rows;
  int64_t vocabulary;
  const SampleRow* settings;  // [rows], host memory
  SampleResult* results;      // [rows]
  void* scratch;              // sample_scratch(vocabulary) bytes
};

struct AdamW {
  float* weight;
  PackedWeight* packed;  // brought up to date with `weight`, which is all of it; or null
  const float* gradient;
  float* first_moment;
  float* second_moment;
  int64_t count;
  double learning_rate;                        // doubles: 1 - 0.999f is off by 1e-5
  double beta1, beta2, epsilon, weight_decay;  // decoupled: w -= learning_rate * weight_decay * w
  int64_t step;                                // 1 for the first
  float gradient_scale;                        // clip factor, multiplied into the gradient
};

class Ops {
 public:
  virtual ~Ops() = default;

  // Memory, aligned to 64 bytes. kOutOfMemory names what was asked for and what is free
  // (min of cgroup limit, available memory, SSRL_MEMORY less what this backend holds).
  virtual Status allocate(size_t bytes, void** out) = 0;
  virtual void release(void* pointer) = 0;
  virtual Status fill_zero(void* pointer, size_t bytes) = 0;
  virtual Status copy(void* to, const void* from, size_t bytes) = 0;
  virtual Status copy_from_host(void* to, const void* from, size_t bytes) = 0;
  virtual Status copy_to_host(void* to, const void* from, size_t bytes) = 0;
  // Waits for all work so far, and tells how it ended.
  virtual Status synchronize() = 0;
  // Bytes that could still be allocated.
  virtual Status free_memory(uint64_t* out) = 0;

  // Threads that the next kernels run on; called by the compute thread before each piece of work.
  virtual void set_threads(int threads) = 0;
  virtual int max_threads() const = 0;
  // kOk, or kNoDevice with advice.
  virtual Status supports(DType compute) const = 0;

  // Matrix products. pack and repack read f32 [outputs, inputs] and round to the compute type.
  virtual Status pack(const float* weight, int64_t outputs, int64_t inputs, DType compute,
                      std::unique_ptr<PackedWeight>* out) = 0;
  virtual Status repack(const float* weight, PackedWeight* packed) = 0;
  // y[rows, outputs] (+)= x[rows, inputs]·Wᵀ + bias (or null). x has the weight's compute type and contiguous
  // rows; y is F32 or the compute type; accumulate only with F32 y.
  virtual Status linear(PackedWeight& weight, const void* x, int64_t rows, const float* bias, void* y,
                        DType y_type, bool accumulate) = 0;
  // dx[rows, inputs] = dy[rows, outputs]·W. dy has the compute type; dx F32 or compute type.
  virtual Status linear_backward_input(PackedWeight& weight, const void* dy, int64_t rows, void* dx,
                                       DType dx_type) = 0;
  // dweight[outputs, inputs] += dyᵀ·x and, unless null, dbias[outputs] += column sums of dy. dy and x of type
  // `type`.
  virtual Status linear_backward_weight(const void* dy, const void* x, DType type, int64_t rows,
                                        int64_t outputs, int64_t inputs, float* dweight, float* dbias) = 0;

  // out[i] = row rows[i] of the weight, `inputs` f32.
  virtual Status unpack_rows(const PackedWeight& weight, const int32_t* rows, int64_t count, float* out) = 0;

  virtual Status rms_norm(const RmsNorm&) = 0;
  virtual Status rms_norm_backward(const RmsNormBackward&) = 0;
  virtual Status rope(const Rope&) = 0;
  virtual Status swiglu(const Swiglu&) = 0;
  virtual Status swiglu_backward(const SwigluBackward&) = 0;
  // x[tokens, D] = table[id], rounded to bf16 first when `compute` is BF16 (x stays f32).
  virtual Status embedding(const int32_t* ids, int64_t tokens, const float* table, int64_t width,
                           DType compute, float* x) = 0;
  // dtable[id] += dx[t], tokens in order.
  virtual Status embedding_backward(const int32_t* ids, int64_t tokens, const float* dx, int64_t width,
                                    float* dtable) = 0;
  // Rows of `width` elements: from + t * stride -> to[t]. Puts fresh keys and values into their pages.
  virtual Status scatter_rows(const void* from, DType type, int64_t stride, int64_t rows, int64_t width,
                              void* const* to) = 0;
  // out[i] = from[indices[i]], contiguous rows of `width` elements.
  virtual Status gather_rows(const void* from, DType type, const int64_t* indices, int64_t rows,
                             int64_t width, void* out) = 0;
  virtual Status convert(const void* from, DType from_type, void* to, DType to_type, int64_t count) = 0;

  virtual Status attention(const Attention&) = 0;
  virtual size_t attention_backward_scratch(const AttentionBackward&) const = 0;  // floats
  virtual Status attention_backward(const AttentionBackward&) = 0;

  virtual size_t log_probs_scratch(const PackedWeight& weight) const = 0;  // bytes
  virtual Status log_probs(const LogProbs&) = 0;
  virtual size_t policy_loss_scratch(const PackedWeight& weight) const = 0;  // bytes
  virtual Status policy_loss(const PolicyLoss&, PolicyLossStatistics*) = 0;
  virtual size_t sample_scratch(int64_t vocabulary) const = 0;  // bytes
  virtual Status sample(const Sample&) = 0;

  virtual Status adamw(const AdamW&) = 0;
  // Sum of squares in an order that depends on `count` only.
  virtual Status sum_of_squares(const float* x, int64_t count, double* out) = 0;
};

// The CPU backend; one instance per process.
Ops& cpu();

// Bytes that the CPU backend holds in this process, and what it could still allocate
// (kInvalidArg when SSRL_MEMORY can't be read).
uint64_t memory_held();
Status memory_free(uint64_t* out);

// Keeps every kernel of the process to the instruction set that SSRL_CPU names (avx2, avx512 or amx). Works
// once, before the first kernel; kInvalidArg when the name is another.
Status apply_cpu_limit();

}  // namespace ops
}  // namespace ssrl
