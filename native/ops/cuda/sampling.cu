// One token per row of logits, in one launch: a block per row finds the softmax's sums, which tokens are
// kept, and the Gumbel-max among them, in the arithmetic of sampling_math.h. Truncation is exact over the
// whole vocabulary: the last kept token is found by descending through the bits of a key that orders tokens
// as a sort would, adding up counts (top-k) or masses (top-p), which are integers and so have no order.
#include <cmath>

#include "ops/cuda/block.h"
#include "ops/cuda/kernels.h"
#include "ops/sampling_math.h"

namespace ssrl::cuda {
namespace {

constexpr int kThreads = kRowThreads;
constexpr int kBins = 256;
constexpr double kMassUnit = 4294967296.0;

struct SampleMemory {
  BlockMemory block;
  Shared<uint64_t, kBins> bins;
  Shared<uint64_t, 2> chosen;  // the digit, and what came before it
};

struct Row {
  const float* logits;
  int64_t vocabulary;
  float inverse, maximum;
};

__device__ __forceinline__ float scaled(const Row& row, int64_t i) {
  return row.logits[i] * row.inverse;
}
__device__ __forceinline__ uint64_t mass(const Row& row, int64_t i) {
  return ops::sampling_mass(scaled(row, i), row.maximum);
}

// Smaller keys come first: the larger logit, then the lower index. -0 equals 0.
__device__ __forceinline__ uint64_t key_of(const Row& row, int64_t i) {
  const float logit = row.logits[i] == 0.0f ? 0.0f : row.logits[i];
  const uint32_t bits = ops::float_to_bits(logit);
  const uint32_t rising = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return static_cast<uint64_t>(~rising) << 32 | static_cast<uint32_t>(i);
}

// The kept tokens: those with a key up to `last` and a mass of `least` at least.
struct Kept {
  uint64_t last;
  uint64_t least;
};

__device__ __forceinline__ bool keeps(const Row& row, const Kept& kept, int64_t i) {
  return key_of(row, i) <= kept.last && (kept.least == 0 || mass(row, i) >= kept.least);
}

// The first bin at whose end the sum reaches `wanted`, and the sum before it; the last bin that holds
// anything when none does. One thread walks: there are 256 bins.
__device__ void choose_bin(SampleMemory& memory, uint64_t before, double wanted) {
  uint64_t digit = 0, reached = before, chosen_before = before;
  for (int bin = 0; bin < kBins; ++bin) {
    const uint64_t here = memory.bins.load(bin);
    if (here == 0) continue;
    digit = static_cast<uint64_t>(bin);
    chosen_before = reached;
    reached += here;
    if (static_cast<double>(reached) >= wanted) break;
  }
  memory.chosen.store(0, digit);
  memory.chosen.store(1, chosen_before);
}

// The key of the token with which, in key order up to `limit`, the sum of `amount(i)` first reaches `wanted`.
template <typename Amount>
__device__ uint64_t key_where(SampleMemory& memory, const Row& row, uint64_t limit, double wanted,
                              const Amount& amount) {
  uint64_t prefix = 0, before = 0;
  for (int shift = 56; shift >= 0; shift -= 8) {
    for (int bin = thread_index(); bin < kBins; bin += kThreads) memory.bins.store(bin, 0);
    sync_threads();
    for (int64_t i = thread_index(); i < row.vocabulary; i += kThreads) {
      const uint64_t key = key_of(row, i);
      if (key > limit || (shift < 56 && key >> (shift + 8) != prefix)) continue;
      const uint64_t value = amount(i);
      if (value != 0) atomic_add(memory.bins, static_cast<int>(key >> shift & 0xffu), value);
    }
    sync_threads();
    if (thread_index() == 0) choose_bin(memory, before, wanted);
    sync_threads();
    prefix = prefix << 8 | memory.chosen.load(0);
    before = memory.chosen.load(1);
    sync_threads();
  }
  return prefix;
}

template <typename Amount>
__device__ uint64_t total_of(SampleMemory& memory, const Row& row, uint64_t limit, const Amount& amount) {
  uint64_t sum = 0;
  for (int64_t i = thread_index(); i < row.vocabulary; i += kThreads) {
    if (key_of(row, i) <= limit) sum += amount(i);
  }
  return block_sum<kThreads>(memory.block, sum);
}

// Of the tokens with a key up to `limit`, those of the shortest prefix whose mass reaches top_p of their sum.
__device__ uint64_t nucleus(SampleMemory& memory, const Row& row, uint64_t limit, float top_p) {
  const auto amount = [&](int64_t i) { return mass(row, i); };
  const uint64_t total = total_of(memory, row, limit, amount);
  const double wanted = static_cast<double>(top_p) * static_cast<double>(total);
  // The first token alone when nothing is wanted: all logits are infinite or no numbers.
  return key_where(memory, row, limit, wanted, amount);
}

__device__ Kept truncate(SampleMemory& memory, const Row& row, const ops::SampleRow& settings) {
  Kept kept{~uint64_t{0}, 0};
  if (settings.top_k > 0 && settings.top_k < row.vocabulary) {
    kept.last = key_where(memory, row, kept.last, settings.top_k, [](int64_t) { return uint64_t{1}; });
  }
  if (settings.top_p < 1.0f) kept.last = nucleus(memory, row, kept.last, settings.top_p);
  if (settings.min_p > 0.0f) {
    // What has no mass is dropped, however small min_p is.
    const auto least = static_cast<uint64_t>(static_cast<double>(settings.min_p) * kMassUnit);
    kept.least = least < 1 ? 1 : least;
  }
  return kept;
}

// The token with the largest score, the lowest index on a tie; `all` means that every token is kept.
__device__ int32_t draw(SampleMemory& memory, const Row& row, const ops::SampleRow& settings,
                        const Kept* kept) {
  Best best{-INFINITY, 0};
  for (int64_t begin = 4 * thread_index(); begin < row.vocabulary; begin += 4 * kThreads) {
    const ops::PhiloxBlock words =
        ops::philox(settings.seed, settings.sample, settings.position, static_cast<uint32_t>(begin / 4));
    for (int k = 0; k < 4 && begin + k < row.vocabulary; ++k) {
      if (kept != nullptr && !keeps(row, *kept, begin + k)) continue;
      const float score = scaled(row, begin + k) + ops::gumbel(words.word[k]);
      if (score > best.score) best = {score, static_cast<int32_t>(begin + k)};
    }
  }
  return block_best<kThreads>(memory.block, best).index;
}

__device__ int32_t greedy(SampleMemory& memory, const Row& row) {
  Best best{-INFINITY, 0};
  for (int64_t i = thread_index(); i < row.vocabulary; i += kThreads) {
    if (row.logits[i] > best.score) best = {row.logits[i], static_cast<int32_t>(i)};
  }
  return block_best<kThreads>(memory.block, best).index;
}

// Log of the sum of exp(scaled - maximum) over the kept.
__device__ double kept_log_sum(SampleMemory& memory, const Row& row, const Kept& kept) {
  double sum = 0;
  for (int64_t i = thread_index(); i < row.vocabulary; i += kThreads) {
    if (keeps(row, kept, i)) sum += exponential(scaled(row, i) - row.maximum);
  }
  return logarithm(block_sum<kThreads>(memory.block, sum));
}

__global__ void __launch_bounds__(kThreads) sample_rows(ops::Sample a) {
  SampleMemory& memory = shared_memory<SampleMemory>();
  const ops::SampleRow settings = a.settings[block_x()];
  const float* logits = a.logits + static_cast<int64_t>(block_x()) * a.vocabulary;
  const float inverse = settings.temperature > 0 ? 1.0f / settings.temperature : 1.0f;
  const RowSoftmax softmax = log_softmax_row<kThreads>(memory.block, logits, a.vocabulary, inverse);
  const Row row{logits, a.vocabulary, inverse, softmax.maximum};
  const bool truncates =
      (settings.top_k > 0 && settings.top_k < a.vocabulary) || settings.top_p < 1.0f || settings.min_p > 0.0f;
  ops::SampleResult result;
  double kept_sum = 0;
  if (settings.temperature == 0) {
    result.token = greedy(memory, row);
  } else if (truncates) {
    const Kept kept = truncate(memory, row, settings);
    result.token = draw(memory, row, settings, &kept);
    kept_sum = kept_log_sum(memory, row, kept);
  } else {
    result.token = draw(memory, row, settings, nullptr);
  }
  const float top = logits[result.token] * inverse - softmax.maximum;
  result.logprob = top - softmax.log_sum_exp;
  result.entropy = softmax.entropy;
  result.sampled_logprob =
      truncates && settings.temperature != 0 ? static_cast<float>(top - kept_sum) : result.logprob;
  if (thread_index() == 0) a.results[block_x()] = result;
}

}  // namespace

Status sample(const ops::Sample& a, Stream stream) {
  if (a.rows == 0) return {};
  return launch<sample_rows>({{static_cast<unsigned>(a.rows)}, kThreads, sizeof(SampleMemory)}, stream, a);
}

}  // namespace ssrl::cuda
