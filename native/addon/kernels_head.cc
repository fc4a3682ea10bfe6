// `kernels.sample`, `kernels.policyLoss` and `kernels.logProbs`: everything that ends in a row of the
// vocabulary.
#include <cmath>
#include <memory>
#include <vector>

#include "addon/kernel_call.h"

namespace ssrl {
namespace {

constexpr int64_t kMaxSize = int64_t{1} << 31;

struct SampleJob {
  std::vector<ops::SampleRow> rows;
  std::vector<ops::SampleResult> results;
};

// Settings per row; a NaN fails every comparison.
std::shared_ptr<SampleJob> read_settings(KernelCall& call, int64_t rows) {
  const Array temperatures = call.host_floats("temperatures"), top_ps = call.host_floats("topPs"),
              min_ps = call.host_floats("minPs");
  const Array top_ks = call.ints("topKs"), samples = call.ints("samples"), positions = call.ints("positions");
  const std::vector<uint64_t> seeds = call.seeds("seeds");
  for (const auto& [name, array] : {std::pair{"temperatures", temperatures},
                                    {"topPs", top_ps},
                                    {"minPs", min_ps},
                                    {"topKs", top_ks},
                                    {"samples", samples},
                                    {"positions", positions}}) {
    call.require_count(name, array, rows, "[rows]");
  }
  call.require(static_cast<int64_t>(seeds.size()) == rows, "one seed per row");
  auto job = std::make_shared<SampleJob>();
  job->results.resize(static_cast<size_t>(rows));
  for (int64_t i = 0; i < rows; ++i) {
    const ops::SampleRow row{temperatures.floats()[i],
                             top_ks.ints()[i],
                             top_ps.floats()[i],
                             min_ps.floats()[i],
                             seeds[static_cast<size_t>(i)],
                             static_cast<uint32_t>(samples.ints()[i]),
                             static_cast<uint32_t>(positions.ints()[i])};
    const std::string where = " in row " + std::to_string(i);
    call.require(row.temperature == 0 || (row.temperature >= 1e-6f && row.temperature <= 1e6f),
                 "a temperature of 0 or from 1e-6 to 1e6" + where);
    call.require(row.top_k >= 0, "topK to be 0 (off) or more" + where);
    call.require(row.top_p > 0 && row.top_p <= 1, "topP above 0 and at most 1" + where);
    call.require(row.min_p >= 0 && row.min_p <= 1, "minP from 0 to 1" + where);
    call.require(samples.ints()[i] >= 0 && positions.ints()[i] >= 0,
                 "samples and positions of 0 or more" + where);
    job->rows.push_back(row);
  }
  return job;
}

Napi::Value sample(KernelCall& call) {
  const Array logits = call.floats("logits");
  const int64_t vocabulary = call.integer("vocabulary", 1, kMaxSize);
  const int64_t rows = call.rows_of("logits", logits, vocabulary);
  auto job = read_settings(call, rows);
  const Array tokens = call.double_output("tokens", rows), logprobs = call.host_output("logProbs", rows);
  const Array entropies = call.host_output("entropies", rows),
              sampled = call.host_output("sampledLogProbs", rows);
  ops::Ops& ops = call.ops();
  void* scratch = call.scratch(ops.sample_scratch(vocabulary));
  const size_t result_bytes = static_cast<size_t>(rows) * sizeof(ops::SampleResult);
  auto* const results = static_cast<ops::SampleResult*>(call.scratch(result_bytes));
  return call.run([=, &ops]() -> Status {
    SSRL_RETURN_IF_ERROR(ops.sample({logits.floats(), rows, vocabulary, job->rows.data(), results, scratch}));
    SSRL_RETURN_IF_ERROR(ops.copy_to_host(job->results.data(), results, result_bytes));
    for (int64_t i = 0; i < rows; ++i) {
      const ops::SampleResult& result = job->results[static_cast<size_t>(i)];
      static_cast<double*>(tokens.data)[i] = result.token;
      logprobs.floats()[i] = result.logprob;
      entropies.floats()[i] = result.entropy;
      sampled.floats()[i] = result.sampled_logprob;
    }
    return {};
  });
}

struct Head {
  Array hidden, weight, targets;
  int64_t inputs, vocabulary, rows;
};

Head read_head(KernelCall& call) {
  Head head{call.elements("hidden"), call.floats("weight"), call.ints("targets"), 0, 0, 0};
  head.inputs = call.integer("inputs", 1, kMaxSize);
  head.vocabulary = call.rows_of("weight", head.weight, head.inputs);
  head.rows = call.rows_of("hidden", head.hidden, head.inputs);
  call.require(head.vocabulary > 0, "weight to have at least one row");
  call.require_count("targets", head.targets, head.rows, "[rows]");
  call.require_below("targets", head.targets, head.vocabulary);
  return head;
}

ops::PolicyLossOptions read_loss(KernelCall& call) {
  const std::string type = call.word("type");
  call.require(type == "sft" || type == "policy-gradient", "type 'sft' or 'policy-gradient'");
  ops::PolicyLossOptions options{};
  options.type = type == "sft" ? ops::LossType::kSft : ops::LossType::kPolicyGradient;
  options.temperature = static_cast<float>(call.number("temperature", 1e-6, 1e6));
  options.epsilon = static_cast<float>(call.number("epsilon", 0, 1e6));
  options.epsilon_high = static_cast<float>(call.number("epsilonHigh", 0, 1e6));
  options.dual_clip = static_cast<float>(call.number("dualClip", 0, 1e6));
  options.beta = static_cast<float>(call.number("beta", 0, 1e6));
  const std::string kl = call.word("klEstimator");
  call.require(kl == "k1" || kl == "k2" || kl == "k3", "klEstimator 'k1', 'k2' or 'k3'");
  options.kl = kl == "k1"   ? ops::KlEstimator::kK1
               : kl == "k2" ? ops::KlEstimator::kK2
                            : ops::KlEstimator::kK3;
  call.require(options.dual_clip == 0 || options.dual_clip > 1, "dualClip of 0 (off) or above 1");
  return options;
}

// The forward's scratch depends on the packed weight, which is made on the compute thread.
struct PackedHead {
  ops::PackedWeight* weight = nullptr;
  Buffer scratch;
};

Status pack(KernelCall& call, const Head& head,
            const std::function<size_t(const ops::PackedWeight&)>& scratch_bytes, PackedHead& packed) {
  if (packed.weight != nullptr) return {};
  ops::PackedWeight* weight = nullptr;
  SSRL_RETURN_IF_ERROR(call.packed(head.weight, head.vocabulary, head.inputs, head.hidden.type, &weight));
  SSRL_RETURN_IF_ERROR(packed.scratch.allocate(call.ops(), scratch_bytes(*weight)));
  packed.weight = weight;
  return {};
}

void report(const ops::PolicyLossStatistics& from, double* to) {
  const double values[] = {from.loss,
                           from.policy_loss,
                           from.kl,
                           from.entropy,
                           from.ratio,
                           from.ratio_max,
                           from.mismatch,
                           static_cast<double>(from.clip_low),
                           static_cast<double>(from.clip_high),
                           static_cast<double>(from.rows)};
  std::copy(std::begin(values), std::end(values), to);
}

Napi::Value policy_loss(KernelCall& call) {
  const Head head = read_head(call);
  ops::PolicyLoss loss{};
  loss.options = read_loss(call);
  const Array weights = call.host_floats("weights"), advantages = call.host_floats_or_none("advantages");
  const Array old = call.host_floats_or_none("oldLogProbs"),
              reference = call.host_floats_or_none("referenceLogProbs");
  const Array log_ratios = call.host_floats_or_none("logRatios"),
              drift = call.host_floats_or_none("driftWeights");
  call.require_count("weights", weights, head.rows, "[rows]");
  call.require(advantages || loss.options.type == ops::LossType::kSft,
               "advantages for type 'policy-gradient'");
  call.require(reference || loss.options.beta == 0, "referenceLogProbs when beta is not 0");
  call.require(old || !drift, "oldLogProbs beside driftWeights");
  for (const auto& [name, array] : {std::pair{"advantages", advantages},
                                    {"oldLogProbs", old},
                                    {"referenceLogProbs", reference},
                                    {"logRatios", log_ratios},
                                    {"driftWeights", drift}}) {
    if (array) call.require_count(name, array, head.rows, "[rows]");
  }
  loss.hidden = head.hidden.data;
  loss.targets = head.targets.ints();
  loss.weights = weights.floats();
  loss.advantages = advantages.floats();
  loss.old_logprobs = old.floats();
  loss.ref_logprobs = reference.floats();
  loss.log_ratios = log_ratios.floats();
  loss.drift_weights = drift.floats();
  loss.logprobs = call.output("logProbs", head.rows).floats();
  loss.entropies = call.output("entropies", head.rows).floats();
  if (call.flag_or("backward", true)) {
    loss.dhidden = call.output("dhidden", head.hidden.count).floats();
    loss.dweight = call.output("dweight", head.weight.count).floats();
  }
  loss.rows = head.rows;
  const Array statistics = call.double_output("statistics", 10);
  ops::Ops& ops = call.ops();
  auto packed = std::make_shared<PackedHead>();
  return call.run([=, &ops, &call]() -> Status {
    const auto scratch_bytes = [&](const ops::PackedWeight& weight) {
      return ops.policy_loss_scratch(weight);
    };
    SSRL_RETURN_IF_ERROR(pack(call, head, scratch_bytes, *packed));
    ops::PolicyLoss arguments = loss;
    arguments.weight = packed->weight;
    arguments.scratch = packed->scratch.data();
    ops::PolicyLossStatistics totals;
    SSRL_RETURN_IF_ERROR(ops.policy_loss(arguments, &totals));
    report(totals, static_cast<double*>(statistics.data));
    return {};
  });
}

Napi::Value log_probs(KernelCall& call) {
  const Head head = read_head(call);
  const float temperature = static_cast<float>(call.number("temperature", 1e-6, 1e6));
  const Array logprobs = call.output("logProbs", head.rows), entropies = call.output("entropies", head.rows);
  ops::Ops& ops = call.ops();
  auto packed = std::make_shared<PackedHead>();
  return call.run([=, &ops, &call]() -> Status {
    const auto scratch_bytes = [&](const ops::PackedWeight& weight) { return ops.log_probs_scratch(weight); };
    SSRL_RETURN_IF_ERROR(pack(call, head, scratch_bytes, *packed));
    return ops.log_probs({head.hidden.data, packed->weight, head.targets.ints(), temperature,
                          logprobs.floats(), entropies.floats(), packed->scratch.data(), head.rows});
  });
}

}  // namespace

void init_head_kernels(Napi::Env env, Napi::Object kernels) {
  kernels.Set("sample", kernel_function(env, "sample", sample));
  kernels.Set("policyLoss", kernel_function(env, "policyLoss", policy_loss));
  kernels.Set("logProbs", kernel_function(env, "logProbs", log_probs));
}

}  // namespace ssrl
