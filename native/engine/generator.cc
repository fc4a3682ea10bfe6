#include "engine/generator.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "engine/generator_limits.h"

namespace ssrl {

Generator::Generator(Model& model)
    : model_(model),
      cache_(model.ops(), page_bytes(model.config(), model.compute())),
      version_(model.version()) {}

Generator::~Generator() {
  close({Code::kDisposed, "The policy was disposed"});
}

void Generator::set_token_bytes(std::string blob, std::vector<int32_t> offsets) {
  token_bytes_ = std::move(blob);
  token_offsets_ = std::move(offsets);
}

void Generator::set_cache_budget(size_t bytes) {
  cache_.set_budget(bytes);
  budget_set_ = true;
}

bool Generator::step() {
  for (const auto& call : calls_) {
    Status status = check_abort(call->abort.get());
    if (!status.ok()) fail(*call, std::move(status));
  }
  sweep();
  if (idle()) return false;
  const auto start = std::chrono::steady_clock::now();
  refresh();
  admit();
  const Status status = run_step();
  if (!status.ok()) {
    // What failed is not one row's fault: all calls hear of it, and the generator starts afresh.
    for (const auto& call : calls_) fail(*call, status);
  }
  sweep();
  if (idle()) cache_.trim();
  statistics_.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return !idle();
}

Status Generator::run_step() {
  SSRL_RETURN_IF_ERROR(schedule());
  if (scheduled_.empty()) return {};
  SSRL_RETURN_IF_ERROR(forward());
  collect();
  return sample_rows();
}

Status Generator::forward() {
  tokens_.clear();
  positions_.clear();
  sequences_.clear();
  pages_.clear();
  for (const Scheduled& item : scheduled_) {
    const Sequence& sequence = *item.row->sequence;
    for (int32_t page : sequence.pages) pages_.push_back(cache_.data(page));
    for (int32_t i = 0; i < item.count; ++i) {
      tokens_.push_back(sequence.tokens[sequence.computed + i]);
      positions_.push_back(sequence.computed + i);
    }
  }
  size_t first_page = 0;
  for (const Scheduled& item : scheduled_) {
    const Sequence& sequence = *item.row->sequence;
    sequences_.push_back({item.first_row, item.count, sequence.computed, pages_.data() + first_page});
    first_page += sequence.pages.size();
  }
  const int64_t rows = int64_t(tokens_.size());
  const size_t row_bytes = model_.config().hidden * size_of(model_.compute());
  SSRL_RETURN_IF_ERROR(grow(hidden_, model_.ops(), rows * row_bytes));
  const PagedBatch batch{tokens_.data(), positions_.data(), rows, sequences_.data(),
                         int64_t(sequences_.size())};
  SSRL_RETURN_IF_ERROR(forward_paged(model_, workspace_, batch, hidden_.data()));
  ++statistics_.steps;

  return {};
}

// Which rows have all their tokens computed and get a new one.
void Generator::collect() {
  sampling_.clear();
  sampling_index_.clear();
  for (const Scheduled& item : scheduled_) {
    Row& row = *item.row;
    const bool is_decode = item.count == 1 && !row.completion.tokens.empty();
    if (!is_decode) statistics_.prefilled_tokens += item.count;
    row.sequence->computed += item.count;
    row.sequence->last_used = clock_;
    if (row.pending() > 0) continue;
    if (row.limit == 0) {
      row.finished = true;
      continue;
    }
    sampling_.push_back(&row);
    if (row.unspawned > 0) spawn(row);
    sampling_index_.resize(sampling_.size(), item.first_row + item.count - 1);
  }
  for (RowPointer& row : spawned_) activate(std::move(row));
  spawned_.clear();
}

Status Generator::sample_rows() {
  ops::Ops& ops = model_.ops();
  const ModelConfig& config = model_.config();
  const int64_t total = int64_t(sampling_.size());
  if (total == 0) return {};
  const int64_t chunk = std::min(total, logit_rows(config.vocabulary));
  SSRL_RETURN_IF_ERROR(grow(gathered_, ops, chunk * config.hidden * size_of(model_.compute())));
  SSRL_RETURN_IF_ERROR(grow(logits_, ops, chunk * config.vocabulary * sizeof(float)));
  SSRL_RETURN_IF_ERROR(grow(scratch_, ops, ops.sample_scratch(config.vocabulary)));
  SSRL_RETURN_IF_ERROR(grow(drawn_, ops, total * sizeof(ops::SampleResult)));
  auto* const drawn = static_cast<ops::SampleResult*>(drawn_.data());
  settings_.resize(total);
  results_.resize(total);
  for (int64_t i = 0; i < total; ++i) {
    const Row& row = *sampling_[i];
    const SamplingSettings& s = row.request().sampling;
    settings_[i] = {s.temperature,
                    s.top_k,
                    s.top_p,
                    s.min_p,
                    s.seed,
                    row.request().first_sample + uint32_t(row.completion.sample),
                    uint32_t(row.sequence->length())};
  }
  for (int64_t at = 0; at < total; at += chunk) {
    const int64_t rows = std::min(chunk, total - at);
    SSRL_RETURN_IF_ERROR(ops.gather_rows(hidden_.data(), model_.compute(), sampling_index_.data() + at, rows,
                                         config.hidden, gathered_.data()));
    SSRL_RETURN_IF_ERROR(
        ops.linear(model_.head(), gathered_.data(), rows, nullptr, logits_.data(), DType::kF32, false));
    SSRL_RETURN_IF_ERROR(ops.sample(
        {logits_.floats(), rows, config.vocabulary, settings_.data() + at, drawn + at, scratch_.data()}));
  }
  // The one place where a step waits for the device.
  SSRL_RETURN_IF_ERROR(ops.copy_to_host(results_.data(), drawn, total * sizeof(ops::SampleResult)));
  for (int64_t i = 0; i < total; ++i) {
    Status status = accept(*sampling_[i], results_[i]);
    if (!status.ok()) fail(*sampling_[i]->call, std::move(status));
  }
  return {};
}

Status Generator::accept(Row& row, const ops::SampleResult& result) {
  if (row.call->closed) return {};
  const int32_t token = result.token;
  if (token < 0 || token >= model_.config().vocabulary || !std::isfinite(result.logprob)) {
    return {Code::kNonFinite, "Expected finite logits but the model gave NaN or infinity at position " +
                                  std::to_string(row.sequence->length()) + "; check its weights"};
  }
  ++statistics_.decoded_tokens;
  row.sequence->tokens.push_back(token);
  Completion& completion = row.completion;
  completion.tokens.push_back(token);
  completion.log_probs.push_back(result.logprob);
  completion.entropies.push_back(result.entropy);
  if (row.truncates) completion.sampled_log_probs.push_back(result.sampled_logprob);
  GenerateCall& call = *row.call;
  if (call.on_tokens) {
    call.events.requests.push_back(completion.request);
    call.events.samples.push_back(completion.sample);
    call.events.tokens.push_back(token);
    call.events.log_probs.push_back(result.logprob);
  }
  const bool is_end =
      std::find(call.end_tokens.begin(), call.end_tokens.end(), token) != call.end_tokens.end();
  if (is_end && !row.request().sampling.ignore_end) {
    completion.reason = FinishReason::kEnd;
  } else if (!is_end && hits_stop(row, token)) {  // an end token is no part of the text
    completion.reason = FinishReason::kStop;
  } else if (int32_t(completion.tokens.size()) >= row.limit) {
    completion.reason = FinishReason::kLength;
  } else {
    return {};
  }
  row.finished = true;
  return {};
}

bool Generator::hits_stop(Row& row, int32_t token) {
  const std::vector<std::string>& stops = row.request().sampling.stop;
  if (stops.empty() || token + 1 >= int32_t(token_offsets_.size())) return false;
  row.tail.append(token_bytes_, token_offsets_[token], token_offsets_[token + 1] - token_offsets_[token]);
  size_t longest = 0;
  for (const std::string& stop : stops) {
    if (row.tail.find(stop) != std::string::npos) return true;
    longest = std::max(longest, stop.size());
  }
  if (longest > 0 && row.tail.size() >= longest) row.tail.erase(0, row.tail.size() - (longest - 1));
  return false;
}

}  // namespace ssrl
