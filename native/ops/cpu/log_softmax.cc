// The one way a row of logits becomes log-probs and an entropy, and the log-probs of given tokens by chunks
// of rows.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/log_softmax.cc"
#include <hwy/foreach_target.h>

#include <hwy/contrib/math/math-inl.h>

#include <cmath>

#include "ops/cpu/kernels.h"
#include "ops/cpu/simd-inl.h"
#include "ops/cpu/vocabulary.h"

HWY_BEFORE_NAMESPACE();
namespace ssrl::ops::host::HWY_NAMESPACE {

// Lanes past the end of the row.
HWY_INLINE V get_or(const float* from, int64_t left, float otherwise) {
  if (left >= kWidth) return get(from);
  alignas(64) float lanes[kWidth];
  for (int64_t i = 0; i < kWidth; ++i) lanes[i] = i < left ? from[i] : otherwise;
  return get(lanes);
}

// Largest logit; a NaN may or may not show here, the sums find it.
float row_maximum(const float* logits, int64_t vocabulary) {
  V best0 = hn::Set(F(), logits[0]), best1 = best0;
  for (int64_t i = 0; i < vocabulary; i += 2 * kWidth) {
    best0 = hn::Max(best0, get_or(logits + i, vocabulary - i, logits[0]));
    if (i + kWidth < vocabulary) {
      best1 = hn::Max(best1, get_or(logits + i + kWidth, vocabulary - i - kWidth, logits[0]));
    }
  }
  alignas(64) float lanes[kWidth];
  put(hn::Max(best0, best1), lanes);
  float best = lanes[0];
  for (int64_t i = 1; i < kWidth; ++i) best = lanes[i] > best ? lanes[i] : best;
  return best;
}

struct Sums {
  V total, weighted;
};

HWY_INLINE void add_exponentials(V logits, V inverse, V maximum, Sums* sums) {
  const F f;
  // Far below the maximum everything is 0 alike, and 0 * -infinity must not become NaN. The order of the
  // arguments keeps a NaN alive on x86, whose maximum returns the second.
  const V shifted = hn::Max(hn::Set(f, -200.0f), hn::Sub(hn::Mul(logits, inverse), maximum));
  const V weight = hn::Exp(f, shifted);
  sums->total = hn::Add(sums->total, weight);
  sums->weighted = hn::MulAdd(weight, shifted, sums->weighted);
}

RowSoftmax softmax_row(const float* logits, int64_t vocabulary, float inverse_temperature) {
  const F f;
  // Rounding is monotone: the largest scaled logit is the scaled largest.
  const float maximum = row_maximum(logits, vocabulary) * inverse_temperature;
  const V inverse = hn::Set(f, inverse_temperature), top = hn::Set(f, maximum), zero = hn::Zero(f);
  Sums sums[4] = {{zero, zero}, {zero, zero}, {zero, zero}, {zero, zero}};
  const float nothing = -INFINITY;
  int64_t i = 0;
  for (; i + 4 * kWidth <= vocabulary; i += 4 * kWidth) {
    for (int64_t k = 0; k < 4; ++k) add_exponentials(get(logits + i + k * kWidth), inverse, top, &sums[k]);
  }
  for (; i < vocabulary; i += kWidth) {
    add_exponentials(get_or(logits + i, vocabulary - i, nothing), inverse, top, &sums[0]);
  }
  double total = 0, weighted = 0;
  for (const Sums& part : sums) {
    total += sum_lanes(part.total);
    weighted += sum_lanes(part.weighted);
  }
  // Exp gives 0 for a NaN, so that only the weighted sum shows one.
  if (std::isnan(weighted)) total = weighted;
  const double log_sum = std::log(total);
  return {maximum, static_cast<float>(log_sum), static_cast<float>(log_sum - weighted / total)};
}

// gradient[i] = -factor * softmax(logits)[i]; gradient may start where logits does, its elements being no
// wider.
template <typename T>
void scaled_softmax(const float* logits, int64_t vocabulary, const RowSoftmax& row, float inverse_temperature,
                    float factor, T* gradient) {
  const F f;
  const V inverse = hn::Set(f, inverse_temperature), maximum = hn::Set(f, row.maximum);
  const V log_sum = hn::Set(f, row.log_sum_exp), scale = hn::Set(f, -factor);
  for (int64_t i = 0; i < vocabulary; i += kWidth) {
    const int64_t left = vocabulary - i;
    const V scaled = hn::Mul(left >= kWidth ? get(logits + i) : get_part(logits + i, left), inverse);
    const V value = hn::Mul(scale, hn::Exp(f, hn::Sub(hn::Sub(scaled, maximum), log_sum)));
    if (left >= kWidth) {
      put(value, gradient + i);
    } else {
      put_part(value, gradient + i, left);
    }
  }
}

void softmax_gradient(const float* logits, int64_t vocabulary, const RowSoftmax& row,
                      float inverse_temperature, float factor, DType type, void* gradient) {
  if (type == DType::kF32) {
    scaled_softmax(logits, vocabulary, row, inverse_temperature, factor, static_cast<float*>(gradient));
  } else {
    scaled_softmax(logits, vocabulary, row, inverse_temperature, factor, static_cast<uint16_t*>(gradient));
  }
}

}  // namespace ssrl::ops::host::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ssrl::ops::host {
HWY_EXPORT(softmax_row);
HWY_EXPORT(softmax_gradient);

RowSoftmax log_softmax_row(const float* logits, int64_t vocabulary, float inverse_temperature) {
  return HWY_DYNAMIC_DISPATCH(softmax_row)(logits, vocabulary, inverse_temperature);
}

void logits_to_gradient(const float* logits, int64_t vocabulary, int32_t target, const RowSoftmax& row,
                        float inverse_temperature, float derivative, DType type, void* gradient) {
  const float factor = derivative * inverse_temperature;
  const float probability = std::exp(row_logprob(row, logits[target], inverse_temperature));
  HWY_DYNAMIC_DISPATCH(softmax_gradient)
  (logits, vocabulary, row, inverse_temperature, factor, type, gradient);
  store(gradient, type, target, factor * (1.0f - probability));
}

int64_t vocabulary_chunk(const PackedWeight& weight, int64_t budget) {
  const int64_t rows = budget / (weight.outputs() * 4) / kRowTile * kRowTile;
  return rows < kRowTile ? kRowTile : rows > 512 ? 512 : rows;
}

// Nothing but the weight is read once for each chunk, so that few rows are as fast as many.
static int64_t score_chunk(const PackedWeight& weight) {
  return vocabulary_chunk(weight, int64_t{24} << 20);
}

size_t log_probs_scratch(const PackedWeight& weight) {
  return static_cast<size_t>(score_chunk(weight) * weight.outputs()) * sizeof(float);
}

Status log_probs(const LogProbs& a) {
  const int64_t vocabulary = a.weight->outputs(), chunk = score_chunk(*a.weight);
  const float inverse_temperature = 1.0f / a.temperature;
  float* logits = static_cast<float*>(a.scratch);
  for (int64_t begin = 0; begin < a.rows; begin += chunk) {
    const int64_t count = a.rows - begin < chunk ? a.rows - begin : chunk;
    const void* hidden = at(a.hidden, a.weight->compute(), begin * a.weight->inputs());
    SSRL_RETURN_IF_ERROR(linear(*a.weight, hidden, count, nullptr, logits, DType::kF32, false));
    parallel_for(count, 1, [&](int64_t i) {
      const float* row = logits + i * vocabulary;
      const RowSoftmax softmax = log_softmax_row(row, vocabulary, inverse_temperature);
      a.logprobs[begin + i] = row_logprob(softmax, row[a.targets[begin + i]], inverse_temperature);
      a.entropies[begin + i] = softmax.entropy;
    });
  }
  return {};
}

}  // namespace ssrl::ops::host
#endif
