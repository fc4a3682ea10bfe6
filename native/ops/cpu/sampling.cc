// One token per row of logits: Gumbel-max over the kept tokens, in the arithmetic of sampling_math.h.
// Kept are, in this order: the top_k largest; the fewest largest of these whose mass reaches top_p; those
// with at least min_p of the largest probability. Ties keep the lower index.
#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/cpu/kernels.h"
#include "ops/sampling_math.h"

namespace ssrl::ops::host {
namespace {

struct Order {
  const float* logits;
  bool operator()(int32_t a, int32_t b) const {
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
  }
};

bool truncates(const SampleRow& row, int64_t vocabulary) {
  return (row.top_k > 0 && row.top_k < vocabulary) || row.top_p < 1.0f || row.min_p > 0.0f;
}

// Indices of the kept tokens, in `kept`; their number is returned.
int64_t truncate(const float* logits, int64_t vocabulary, const SampleRow& row, float inverse, float maximum,
                 int32_t* kept) {
  for (int64_t i = 0; i < vocabulary; ++i) kept[i] = static_cast<int32_t>(i);
  int64_t count = vocabulary;
  const Order order{logits};
  if (row.top_k > 0 && row.top_k < count) {
    std::nth_element(kept, kept + row.top_k, kept + count, order);
    count = row.top_k;
  }
  if (row.min_p > 0.0f) {
    const uint64_t least = static_cast<uint64_t>(static_cast<double>(row.min_p) * 4294967296.0);
    const auto enough = [&](int32_t i) { return sampling_mass(logits[i] * inverse, maximum) >= least; };
    if (row.top_p >= 1.0f) return std::partition(kept, kept + count, enough) - kept;
  }
  if (row.top_p < 1.0f) {
    std::sort(kept, kept + count, order);
    uint64_t total = 0, reached = 0;
    for (int64_t i = 0; i < count; ++i) total += sampling_mass(logits[kept[i]] * inverse, maximum);
    const double wanted = static_cast<double>(row.top_p) * static_cast<double>(total);
    int64_t length = 0;
    while (length < count && static_cast<double>(reached) < wanted) {
      reached += sampling_mass(logits[kept[length++]] * inverse, maximum);
    }
    count = std::max<int64_t>(length, 1);
  }
  if (row.min_p > 0.0f) {
    const uint64_t least = static_cast<uint64_t>(static_cast<double>(row.min_p) * 4294967296.0);
    while (count > 1 && sampling_mass(logits[kept[count - 1]] * inverse, maximum) < least) --count;
  }
  return count;
}

int32_t greedy(const float* logits, int64_t vocabulary) {
  int64_t best = 0;
  for (int64_t i = 1; i < vocabulary; ++i) {
    if (logits[i] > logits[best]) best = i;
  }
  return static_cast<int32_t>(best);
}

int32_t draw_full(const float* logits, int64_t vocabulary, const SampleRow& row, float inverse) {
  float best = -std::numeric_limits<float>::infinity();
  int64_t token = 0;
  for (int64_t i = 0; i < vocabulary; i += 4) {
    const PhiloxBlock random = philox(row.seed, row.sample, row.position, static_cast<uint32_t>(i / 4));
    const int64_t lanes = std::min<int64_t>(4, vocabulary - i);
    for (int64_t lane = 0; lane < lanes; ++lane) {
      const float score = logits[i + lane] * inverse + gumbel(random.word[lane]);
      if (score > best) best = score, token = i + lane;
    }
  }
  return static_cast<int32_t>(token);
}

int32_t draw_kept(const float* logits, const SampleRow& row, float inverse, const int32_t* kept,
                  int64_t count) {
  float best = -std::numeric_limits<float>::infinity();
  int32_t token = kept[0];
  for (int64_t k = 0; k < count; ++k) {
    const uint32_t i = static_cast<uint32_t>(kept[k]);
    const float score =
        logits[i] * inverse + gumbel(philox(row.seed, row.sample, row.position, i / 4).word[i % 4]);
    if (score > best || (score == best && kept[k] < token)) best = score, token = kept[k];
  }
  return token;
}

SampleResult sample_row(const float* logits, int64_t vocabulary, const SampleRow& row, int32_t* kept) {
  const float inverse = row.temperature > 0 ? 1.0f / row.temperature : 1.0f;
  const RowSoftmax softmax = log_softmax_row(logits, vocabulary, inverse);
  SampleResult result;
  result.entropy = softmax.entropy;
  if (row.temperature == 0) {
    result.token = greedy(logits, vocabulary);
  } else if (!truncates(row, vocabulary)) {
    result.token = draw_full(logits, vocabulary, row, inverse);
  } else {
    const int64_t count = truncate(logits, vocabulary, row, inverse, softmax.maximum, kept);
    result.token = draw_kept(logits, row, inverse, kept, count);
    double sum = 0;
    std::sort(kept, kept + count);
    for (int64_t k = 0; k < count; ++k)
      sum += std::exp(static_cast<double>(logits[kept[k]] * inverse - softmax.maximum));
    result.sampled_logprob =
        static_cast<float>((logits[result.token] * inverse - softmax.maximum) - std::log(sum));
    result.logprob = row_logprob(softmax, logits[result.token], inverse);
    return result;
  }
  result.logprob = row_logprob(softmax, logits[result.token], inverse);
  result.sampled_logprob = result.logprob;
  return result;
}

}  // namespace

size_t sample_scratch(int64_t vocabulary) {
  return static_cast<size_t>(vocabulary) * sizeof(int32_t) * static_cast<size_t>(max_threads());
}

Status sample(const Sample& a) {
  int32_t* scratch = static_cast<int32_t*>(a.scratch);
  parallel_for(a.rows, 1, [&](int64_t i) {
    int32_t* kept = scratch + omp_get_thread_num() * a.vocabulary;
    a.results[i] = sample_row(a.logits + i * a.vocabulary, a.vocabulary, a.settings[i], kept);
  });
  return {};
}

}  // namespace ssrl::ops::host
