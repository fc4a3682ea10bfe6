// Log-probs, the losses and sampling, against loops.
#include <algorithm>
#include <cmath>

#include "ops/cuda/sanitized/host.h"
#include "ops/policy_loss_math.h"
#include "ops/sampling_math.h"

namespace ssrl::cuda::sanitized {
namespace {

struct Softmax {
  Doubles log_probs;
  double entropy = 0;
};

Softmax softmax_of(const Doubles& logits, double temperature) {
  const double largest = *std::max_element(logits.begin(), logits.end()) / temperature;
  double total = 0;
  for (const double logit : logits) total += std::exp(logit / temperature - largest);
  Softmax softmax;
  for (const double logit : logits) {
    const double log_prob = logit / temperature - largest - std::log(total);
    softmax.log_probs.push_back(log_prob);
    softmax.entropy -= std::exp(log_prob) * log_prob;
  }
  return softmax;
}

struct Head {
  int64_t rows, vocabulary, inputs;
  std::vector<float> hidden, weight;
  std::vector<int32_t> targets;

  Softmax softmax(int64_t row, double temperature) const {
    Doubles logits;
    for (int64_t v = 0; v < vocabulary; ++v) {
      double sum = 0;
      for (int64_t j = 0; j < inputs; ++j) {
        sum += static_cast<double>(hidden[row * inputs + j]) * weight[v * inputs + j];
      }
      logits.push_back(sum);
    }
    return softmax_of(logits, temperature);
  }
};

Head make_head(DType type, int64_t rows, int64_t vocabulary, int64_t inputs) {
  Head head{rows,
            vocabulary,
            inputs,
            some_values(1, rows * inputs, type),
            some_values(2, vocabulary * inputs, type),
            {}};
  for (int64_t row = 0; row < rows; ++row)
    head.targets.push_back(static_cast<int32_t>(row * 31 % vocabulary));
  return head;
}

struct Gradients {
  Doubles log_probs, dhidden, dweight;
};

// The softmax's part of the gradient; a row's own factor is that of row_loss, on the host.
Gradients gradients_of(const Head& head, const ops::PolicyLoss& loss) {
  Gradients g{{}, Doubles(head.hidden.size()), Doubles(head.weight.size())};
  for (int64_t row = 0; row < head.rows; ++row) {
    const Softmax softmax = head.softmax(row, loss.options.temperature);
    const double log_prob = softmax.log_probs[static_cast<size_t>(head.targets[row])];
    g.log_probs.push_back(loss.weights[row] == 0 ? 0 : log_prob);
    if (loss.weights[row] == 0) continue;
    const double slope =
        ops::row_loss(loss, row, static_cast<float>(log_prob)).derivative / loss.options.temperature;
    for (int64_t v = 0; v < head.vocabulary; ++v) {
      const double by_logit =
          slope * ((v == head.targets[row]) - std::exp(softmax.log_probs[static_cast<size_t>(v)]));
      for (int64_t j = 0; j < head.inputs; ++j) {
        g.dhidden[row * head.inputs + j] += by_logit * head.weight[v * head.inputs + j];
        g.dweight[v * head.inputs + j] += by_logit * head.hidden[row * head.inputs + j];
      }
    }
  }
  return g;
}

void check_loss(ops::Ops& ops, DType type, const Head& head, ops::LossType kind) {
  const auto count = static_cast<size_t>(head.rows);
  auto weights = some_values(5, head.rows);
  for (size_t i = 0; i < count; i += 3) weights[i] = 0;
  const auto advantages = some_values(6, head.rows);
  std::vector<float> old, reference;
  for (int64_t row = 0; row < head.rows; ++row) {
    const auto own = static_cast<float>(head.softmax(row, 0.7).log_probs[head.targets[row]]);
    old.push_back(own + 0.3f * advantages[static_cast<size_t>(head.rows - 1 - row)]);
    reference.push_back(own - 0.4f * weights[static_cast<size_t>(row)]);
  }
  const Array hidden(ops, head.hidden, type), weight(ops, head.weight), log_probs(ops, head.rows);
  const Array entropies(ops, head.rows), dhidden(ops, head.rows * head.inputs);
  const Array dweight(ops, head.vocabulary * head.inputs);
  std::unique_ptr<ops::PackedWeight> packed;
  must(ops.pack(weight.floats(), head.vocabulary, head.inputs, type, &packed));
  Buffer scratch;
  must(scratch.allocate(ops, ops.policy_loss_scratch(*packed)));
  const bool sft = kind == ops::LossType::kSft;
  const ops::PolicyLoss loss{hidden.data(),
                             packed.get(),
                             head.targets.data(),
                             weights.data(),
                             sft ? nullptr : advantages.data(),
                             sft ? nullptr : old.data(),
                             sft ? nullptr : reference.data(),
                             nullptr,
                             nullptr,
                             log_probs.floats(),
                             entropies.floats(),
                             dhidden.floats(),
                             dweight.floats(),
                             scratch.data(),
                             head.rows,
                             {kind, 0.7f, 0.1f, 0.2f, 1.3f, 0.05f}};
  ops::PolicyLossStatistics statistics;
  must(ops.policy_loss(loss, &statistics));
  const Gradients expected = gradients_of(head, loss);
  const Bound bound = type == DType::kF32 ? Bound{1e-4, 1e-4} : Bound{2e-2, 1.0 / 64};
  compare(name_of("policy_loss log-probs", type), log_probs.values(), expected.log_probs, {1e-5, 1e-5});
  compare(name_of("policy_loss dhidden", type), dhidden.values(), expected.dhidden, bound);
  compare(name_of("policy_loss dweight", type), dweight.values(), expected.dweight, bound);
}

void check_log_probs(ops::Ops& ops, DType type, const Head& head) {
  const Array hidden(ops, head.hidden, type), weight(ops, head.weight);
  const Array log_probs(ops, head.rows), entropies(ops, head.rows);
  std::unique_ptr<ops::PackedWeight> packed;
  must(ops.pack(weight.floats(), head.vocabulary, head.inputs, type, &packed));
  Buffer scratch;
  must(scratch.allocate(ops, ops.log_probs_scratch(*packed)));
  must(ops.log_probs({hidden.data(), packed.get(), head.targets.data(), 1.5f, log_probs.floats(),
                      entropies.floats(), scratch.data(), head.rows}));
  Doubles expected, spread;
  for (int64_t row = 0; row < head.rows; ++row) {
    const Softmax softmax = head.softmax(row, 1.5);
    expected.push_back(softmax.log_probs[static_cast<size_t>(head.targets[row])]);
    spread.push_back(softmax.entropy);
  }
  compare(name_of("log_probs", type), log_probs.values(), expected, {1e-5, 1e-5});
  compare(name_of("entropies", type), entropies.values(), spread, {1e-5, 1e-5});
}

// The token by definition, without truncation or with top_k 1.
int32_t drawn(const float* logits, int64_t vocabulary, const ops::SampleRow& row) {
  float best = -INFINITY;
  int32_t token = 0;
  for (int64_t i = 0; i < vocabulary; ++i) {
    float score = logits[i];
    if (row.temperature > 0 && row.top_k != 1) {
      const ops::PhiloxBlock words =
          ops::philox(row.seed, row.sample, row.position, static_cast<uint32_t>(i / 4));
      score = logits[i] * (1.0f / row.temperature) + ops::gumbel(words.word[i % 4]);
    }
    if (score > best) best = score, token = static_cast<int32_t>(i);
  }
  return token;
}

}  // namespace

void check_head(ops::Ops& ops, DType type) {
  const Head head = make_head(type, 11, 301, 23);
  check_log_probs(ops, type, head);
  check_loss(ops, type, head, ops::LossType::kPolicyGradient);
  check_loss(ops, type, head, ops::LossType::kSft);
}

void check_sampling(ops::Ops& ops) {
  constexpr int64_t kVocabulary = 517;
  const std::vector<ops::SampleRow> settings{
      {0, 0, 1, 0, 0, 0, 0},      {1, 0, 1, 0, 7, 0, 0},         {0.7f, 0, 1, 0, uint64_t{5} << 33, 3, 9},
      {1, 1, 1, 0, 9, 1, 1},      {1, 1, 0.5f, 0.1f, 9, 1, 2},   {1.3f, 516, 1, 0, 9, 1, 3},
      {1, 516, 1, 0, 11, 2, 400}, {1, 0, 0.999999f, 0, 3, 1, 4},
  };
  const auto rows = static_cast<int64_t>(settings.size());
  const auto logits = some_values(1, rows * kVocabulary);
  const Array logits_at(ops, logits);
  Buffer results;
  must(results.allocate(ops, settings.size() * sizeof(ops::SampleResult)));
  must(ops.sample({logits_at.floats(), rows, kVocabulary, settings.data(),
                   static_cast<ops::SampleResult*>(results.data()), nullptr}));
  std::vector<ops::SampleResult> got(settings.size());
  must(ops.copy_to_host(got.data(), results.data(), results.bytes()));
  for (size_t row = 0; row < settings.size(); ++row) {
    const float* const mine = logits.data() + static_cast<int64_t>(row) * kVocabulary;
    const double temperature = settings[row].temperature > 0 ? settings[row].temperature : 1;
    const Softmax softmax = softmax_of(Doubles(mine, mine + kVocabulary), temperature);
    const auto token = static_cast<float>(got[row].token);
    compare("token", {token}, {static_cast<double>(drawn(mine, kVocabulary, settings[row]))}, {0, 0});
    compare("its log-prob", {got[row].logprob}, {softmax.log_probs[static_cast<size_t>(got[row].token)]},
            {1e-5, 1e-5});
    compare("entropy", {got[row].entropy}, {softmax.entropy}, {1e-5, 1e-5});
  }
}

}  // namespace ssrl::cuda::sanitized
