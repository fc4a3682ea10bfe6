// The draw over a whole vocabulary, on vectors: random words four blocks of Philox at a time, and a cheap
// bound that spares all but a few tokens the two logarithms of a Gumbel value. Result for result it is what
// sampling_math.h says.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/draw.cc"
#include <hwy/foreach_target.h>

#include <limits>

#include "ops/cpu/kernels.h"
#include "ops/cpu/simd-inl.h"
#include "ops/cpu/vocabulary.h"
#include "ops/sampling_math.h"

HWY_BEFORE_NAMESPACE();
namespace ssrl::ops::host::HWY_NAMESPACE {

struct Best {
  float score = -std::numeric_limits<float>::infinity();
  int64_t token = 0;
};

inline void try_tokens(const float* logits, const uint32_t* words, int64_t first, int64_t count,
                       float inverse, Best* best) {
  for (int64_t i = 0; i < count; ++i) {
    const float score = logits[first + i] * inverse + gumbel(words[i]);
    if (score > best->score) best->score = score, best->token = first + i;
  }
}

#if HWY_TARGET == HWY_SCALAR

int32_t draw(const float* logits, int64_t vocabulary, const SampleRow& row, float inverse_temperature) {
  Best best;
  for (int64_t i = 0; i < vocabulary; i += 4) {
    const PhiloxBlock block = philox(row.seed, row.sample, row.position, static_cast<uint32_t>(i / 4));
    try_tokens(logits, block.word, i, vocabulary - i < 4 ? vocabulary - i : 4, inverse_temperature, &best);
  }
  return static_cast<int32_t>(best.token);
}

#else

using W = hn::Repartition<uint64_t, F>;
constexpr int64_t kBlocks = hn::MaxLanes(W());
constexpr int64_t kWords = 4 * kBlocks;
// Groups of kBlocks at a time: a round waits for its products, and another group's rounds fill the time.
constexpr int kGroups = 4;
constexpr int64_t kStep = kGroups * kWords;

struct Counters {
  hn::Vec<W> c0, c1, c2, c3;
};

// words[kStep] of the blocks from `first` on. Each counter lies in the low half of a 64-bit lane, where the
// 32-bit product wants it; the high halves hold garbage until the end.
HWY_INLINE void philox_words(const SampleRow& row, uint64_t first, uint32_t* words) {
  const W w;
  const hn::Repartition<uint32_t, W> u;
  Counters groups[kGroups];
  for (int g = 0; g < kGroups; ++g) {
    groups[g] = {hn::Iota(w, first + g * kBlocks), hn::Set(w, row.position), hn::Set(w, row.sample),
                 hn::Zero(w)};
  }
  uint32_t k0 = static_cast<uint32_t>(row.seed), k1 = static_cast<uint32_t>(row.seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const auto key0 = hn::Set(w, k0), key1 = hn::Set(w, k1);
    for (Counters& c : groups) {
      const auto p0 = hn::MulEven(hn::BitCast(u, c.c0), hn::Set(u, 0xD2511F53u));
      const auto p1 = hn::MulEven(hn::BitCast(u, c.c2), hn::Set(u, 0xCD9E8D57u));
      c.c0 = hn::Xor(hn::Xor(hn::ShiftRight<32>(p1), c.c1), key0);
      c.c2 = hn::Xor(hn::Xor(hn::ShiftRight<32>(p0), c.c3), key1);
      c.c1 = p1;
      c.c3 = p0;
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  const auto low = hn::Set(w, 0xffffffffu);
  for (int g = 0; g < kGroups; ++g) {
    const Counters& c = groups[g];
    const auto front = hn::Or(hn::And(c.c0, low), hn::ShiftLeft<32>(c.c1));
    const auto back = hn::Or(hn::And(c.c2, low), hn::ShiftLeft<32>(c.c3));
    hn::StoreInterleaved2(front, back, w, reinterpret_cast<uint64_t*>(words + g * kWords));
  }
}

// At least gumbel(word): -log(-log1p(-u)) <= -log(u) <= -ln 2 * floor(log2 u), and a little for rounding.
HWY_INLINE V gumbel_bound(hn::Vec<U> words) {
  const F f;
  const hn::RebindToSigned<F> s;
  const V u = hn::Mul(hn::Add(hn::ConvertTo(f, hn::BitCast(s, hn::ShiftRight<1>(words))), hn::Set(f, 0.5f)),
                      hn::Set(f, 4.656612873077393e-10f));
  const auto exponent = hn::Sub(hn::ShiftRight<23>(hn::BitCast(s, u)), hn::Set(s, 127));
  return hn::MulAdd(hn::ConvertTo(f, exponent), hn::Set(f, -0.6931473f), hn::Set(f, 1e-3f));
}

int32_t draw(const float* logits, int64_t vocabulary, const SampleRow& row, float inverse_temperature) {
  const F f;
  const V inverse = hn::Set(f, inverse_temperature);
  alignas(64) uint32_t words[kStep];
  Best best;
  int64_t i = 0;
  for (; i + kStep <= vocabulary; i += kStep) {
    philox_words(row, static_cast<uint64_t>(i / 4), words);
    for (int64_t k = 0; k < kStep; k += kWidth) {
      // Product and sum apart, as in try_tokens: rounding keeps the bound a bound.
      const V scaled = hn::Mul(get(logits + i + k), inverse);
      const V bound = hn::Add(scaled, gumbel_bound(hn::LoadU(U(), words + k)));
      if (hn::AllFalse(f, hn::Gt(bound, hn::Set(f, best.score)))) continue;
      try_tokens(logits, words + k, i + k, kWidth, inverse_temperature, &best);
    }
  }
  if (i < vocabulary) {
    philox_words(row, static_cast<uint64_t>(i / 4), words);
    try_tokens(logits, words, i, vocabulary - i, inverse_temperature, &best);
  }
  return static_cast<int32_t>(best.token);
}

#endif

}  // namespace ssrl::ops::host::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ssrl::ops::host {
HWY_EXPORT(draw);

int32_t draw_token(const float* logits, int64_t vocabulary, const SampleRow& row, float inverse_temperature) {
  return HWY_DYNAMIC_DISPATCH(draw)(logits, vocabulary, row, inverse_temperature);
}

}  // namespace ssrl::ops::host
#endif
