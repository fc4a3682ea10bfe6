// One token per row of logits: Gumbel-max over the kept tokens, in the arithmetic of sampling_math.h.
// Kept are, in this order: the top_k largest; the fewest largest of these whose mass reaches top_p; those
// with at least min_p of the largest probability. Ties keep the lower index.
#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/cpu/kernels.h"
#include "ops/cpu/vocabulary.h"
#include "ops/sampling_math.h"

namespace ssrl::ops::host {
namespace {

constexpr double kMassUnit = 4294967296.0;

struct Row {
  const float* logits;
  int64_t vocabulary;
  const SampleRow& settings;
  float inverse, maximum;

  float scaled(int64_t i) const { return logits[i] * inverse; }
  uint64_t mass(int64_t i) const { return sampling_mass(scaled(i), maximum); }
  bool before(int32_t a, int32_t b) const {
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
  }
};

// Distance from the maximum in eighths, so that a few buckets hold all that truncation can keep and only
// those need sorting. Mass ends before the last bucket begins.
struct Buckets {
  static constexpr int kCount = 256;
  int64_t count[kCount] = {};
  uint64_t mass[kCount] = {};

  static int of(const Row& row, int64_t i) {
    const float distance = (row.maximum - row.scaled(i)) * 8.0f;
    return distance < static_cast<float>(kCount - 1) ? static_cast<int>(distance) : kCount - 1;
  }
};

bool truncates(const SampleRow& row, int64_t vocabulary) {
  return (row.top_k > 0 && row.top_k < vocabulary) || row.top_p < 1.0f || row.min_p > 0.0f;
}

// The last bucket that top_k, or else top_p, reaches into.
int last_bucket(const Row& row, const Buckets& buckets) {
  const SampleRow& settings = row.settings;
  int64_t count = 0;
  uint64_t total = 0, reached = 0;
  for (const uint64_t mass : buckets.mass) total += mass;
  const double wanted = static_cast<double>(settings.top_p) * static_cast<double>(total);
  for (int b = 0; b < Buckets::kCount; ++b) {
    count += buckets.count[b];
    reached += buckets.mass[b];
    if (settings.top_k > 0 ? count >= settings.top_k : static_cast<double>(reached) >= wanted) return b;
  }
  return Buckets::kCount - 1;
}

// The length of the shortest prefix of the sorted tokens whose mass reaches top_p of their sum.
int64_t prefix_length(const Row& row, const int32_t* sorted, int64_t count, uint64_t total) {
  const double wanted = static_cast<double>(row.settings.top_p) * static_cast<double>(total);
  uint64_t reached = 0;
  int64_t length = 0;
  while (length < count && static_cast<double>(reached) < wanted) reached += row.mass(sorted[length++]);
  return std::max<int64_t>(length, 1);
}

// Indices of the kept tokens, in `kept`; their number is returned.
int64_t truncate(const Row& row, int32_t* kept) {
  const SampleRow& settings = row.settings;
  Buckets buckets;
  uint64_t total = 0;
  for (int64_t i = 0; i < row.vocabulary; ++i) {
    const int b = Buckets::of(row, i);
    buckets.count[b] += 1;
    if (b == Buckets::kCount - 1) continue;
    const uint64_t mass = row.mass(i);
    buckets.mass[b] += mass;
    total += mass;
  }
  const int last = last_bucket(row, buckets);
  int64_t count = 0;
  for (int64_t i = 0; i < row.vocabulary; ++i) {
    if (Buckets::of(row, i) <= last) kept[count++] = static_cast<int32_t>(i);
  }
  const auto order = [&](int32_t a, int32_t b) { return row.before(a, b); };
  if (settings.top_k > 0 && settings.top_k < count) {
    std::nth_element(kept, kept + settings.top_k, kept + count, order);
    count = settings.top_k;
  }
  if (settings.top_p < 1.0f) {
    if (settings.top_k > 0) {
      total = 0;
      for (int64_t k = 0; k < count; ++k) total += row.mass(kept[k]);
    }
    std::sort(kept, kept + count, order);
    count = prefix_length(row, kept, count, total);
  }
  if (settings.min_p > 0.0f) {
    // What has no mass is dropped, however small min_p is.
    const uint64_t least =
        std::max(uint64_t{1}, static_cast<uint64_t>(static_cast<double>(settings.min_p) * kMassUnit));
    count = std::partition(kept, kept + count, [&](int32_t i) { return row.mass(i) >= least; }) - kept;
  }
  std::sort(kept, kept + count);
  return count;
}

int32_t greedy(const float* logits, int64_t vocabulary) {
  int64_t best = 0;
  for (int64_t i = 1; i < vocabulary; ++i) {
    if (logits[i] > logits[best]) best = i;
  }
  return static_cast<int32_t>(best);
}

// `kept` in rising order.
int32_t draw_kept(const Row& row, const int32_t* kept, int64_t count) {
  const SampleRow& settings = row.settings;
  float best = -std::numeric_limits<float>::infinity();
  int32_t token = kept[0];
  for (int64_t k = 0; k < count; ++k) {
    const uint32_t i = static_cast<uint32_t>(kept[k]);
    const uint32_t word = philox(settings.seed, settings.sample, settings.position, i / 4).word[i % 4];
    const float score = row.scaled(i) + gumbel(word);
    if (score > best) best = score, token = kept[k];
  }
  return token;
}

SampleResult sample_row(const float* logits, int64_t vocabulary, const SampleRow& settings, int32_t* kept) {
  const float inverse = settings.temperature > 0 ? 1.0f / settings.temperature : 1.0f;
  const RowSoftmax softmax = log_softmax_row(logits, vocabulary, inverse);
  SampleResult result{};
  result.entropy = softmax.entropy;
  double kept_sum = 0;
  if (settings.temperature == 0) {
    result.token = greedy(logits, vocabulary);
  } else if (truncates(settings, vocabulary)) {
    const Row row{logits, vocabulary, settings, inverse, softmax.maximum};
    const int64_t count = truncate(row, kept);
    result.token = draw_kept(row, kept, count);
    for (int64_t k = 0; k < count; ++k)
      kept_sum += std::exp(static_cast<double>(row.scaled(kept[k]) - row.maximum));
  } else {
    result.token = draw_token(logits, vocabulary, settings, inverse);
  }
  result.logprob = row_logprob(softmax, logits[result.token], inverse);
  result.sampled_logprob =
      kept_sum > 0
          ? static_cast<float>((logits[result.token] * inverse - softmax.maximum) - std::log(kept_sum))
          : result.logprob;
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
