// How rows come and go.
#include <algorithm>
#include <string>
#include <utility>

#include "engine/generator.h"
#include "engine/generator_limits.h"

namespace ssrl {
namespace {

template <typename Rows, typename Row>
void insert_by_age(Rows& rows, Row row) {
  const auto place =
      std::upper_bound(rows.begin(), rows.end(), row->serial,
                       [](uint64_t serial, const auto& other) { return serial < other->serial; });
  rows.insert(place, std::move(row));
}

}  // namespace

int32_t Generator::Row::pending() const {
  // The last token of a prompt that is only computed waits for the call that samples after it.
  return sequence->length() - sequence->computed - (limit == 0 ? 1 : 0);
}

void Generator::add(std::shared_ptr<GenerateCall> call) {
  Status status = ensure_budget();
  if (status.ok()) status = check(*call);
  if (!status.ok()) {
    call->closed = true;
    call->on_done(std::move(status));
    return;
  }
  calls_.push_back(call);
  for (size_t i = 0; i < call->requests.size(); ++i) {
    const int32_t samples = call->requests[i].samples;
    if (samples == 0) continue;
    call->open_rows += samples;
    RowPointer row = make_row(call, int32_t(i), 0);
    row->unspawned = samples - 1;
    next_serial_ += uint64_t(row->unspawned);  // the ages of the other samples
    waiting_.push_back(std::move(row));
  }
}

Status Generator::ensure_budget() {
  if (budget_set_) return {};
  uint64_t free = 0;
  SSRL_RETURN_IF_ERROR(model_.ops().free_memory(&free));
  set_cache_budget(size_t(double(free) * kCacheShare));
  // Another call may find more.
  budget_set_ = cache_.capacity() > 0;
  return {};
}

Status Generator::check(const GenerateCall& call) const {
  const ModelConfig& config = model_.config();
  const auto check_ids = [&](const std::vector<int32_t>& tokens) -> Status {
    for (int32_t token : tokens) {
      if (token >= 0 && token < config.vocabulary) continue;
      return invalid_arg("Expected token ids from 0 to " + std::to_string(config.vocabulary - 1) +
                         " but received " + std::to_string(token));
    }
    return {};
  };
  if (call.session && call.session->busy) {
    return invalid_arg("Expected a session that is at rest, but it is working: wait for its last call");
  }
  for (const GenerateRequest& request : call.requests) {
    size_t length = call.append.size() + (call.session ? call.session->tokens : request.tokens).size();
    if (length == 0) return invalid_arg("Expected a prompt of at least one token but received none");
    if (int64_t(length) + (call.prefill_only ? 0 : 1) > config.max_positions) {
      return invalid_arg("Expected a prompt that leaves room in the model's context of " +
                         std::to_string(config.max_positions) + " tokens but received " +
                         std::to_string(length) + " tokens; shorten it");
    }
    SSRL_RETURN_IF_ERROR(check_ids(request.tokens));
  }
  return check_ids(call.append);
}

Generator::RowPointer Generator::make_row(const std::shared_ptr<GenerateCall>& call, int32_t request,
                                          int32_t sample) {
  const GenerateRequest& from = call->requests[request];
  auto row = std::make_unique<Row>();
  row->call = call;
  row->serial = next_serial_++;
  row->session_length = -1;
  if (call->session) {
    row->sequence = call->session;
    row->session_length = call->session->length();
    row->sequence->busy = true;
    row->sequence->tokens.insert(row->sequence->tokens.end(), call->append.begin(), call->append.end());
  } else {
    row->sequence = std::make_shared<Sequence>();
    row->sequence->tokens = from.tokens;
  }
  row->prompt_length = row->sequence->length();
  row->limit = call->prefill_only ? 0
                                  : std::min(from.sampling.max_new_tokens,
                                             model_.config().max_positions - row->prompt_length);
  row->unspawned = 0;
  row->truncates = from.sampling.truncates();
  row->finished = false;
  row->completion.request = request;
  row->completion.sample = sample;
  return row;
}

void Generator::wait(RowPointer row) {
  insert_by_age(waiting_, std::move(row));
}

void Generator::activate(RowPointer row) {
  // Once it runs, a token allocates nothing.
  const size_t expected = std::min<size_t>(size_t(row->limit), 4096);
  row->sequence->tokens.reserve(size_t(row->prompt_length) + expected);
  row->completion.tokens.reserve(expected);
  row->completion.log_probs.reserve(expected);
  row->completion.entropies.reserve(expected);
  row->sequence->in_use = true;
  insert_by_age(active_, std::move(row));
}

// The prompt is computed: its other samples begin, on the same pages, as far as there are places. Those that
// must wait are led by one that will take the prompt over from its siblings.
void Generator::spawn(Row& leader) {
  const size_t taken = active_.size() + spawned_.size();
  const int32_t places = int32_t(kActiveRows - std::min(kActiveRows, taken));
  const int32_t first = leader.completion.sample + 1;
  const int32_t now = std::min(leader.unspawned, places);
  const uint64_t next = next_serial_;
  for (int32_t i = 0; i < leader.unspawned; ++i) {
    next_serial_ = leader.serial + 1 + uint64_t(i);
    RowPointer row = make_row(leader.call, leader.completion.request, first + i);
    if (i == now) {
      row->unspawned = leader.unspawned - now - 1;
      wait(std::move(row));
      break;
    }
    cache_.share(*leader.sequence, leader.sequence->computed, *row->sequence);
    sampling_.push_back(row.get());
    spawned_.push_back(std::move(row));
  }
  next_serial_ = next;
  leader.unspawned = 0;
}

// Ends a call with what went wrong; sweep() tells it, and takes its rows away.
void Generator::fail(GenerateCall& call, Status status) {
  if (call.closed) return;
  call.closed = true;
  call.outcome = std::move(status);
}

void Generator::sweep() {
  for (const auto& call : calls_) {
    if (!call->events.tokens.empty()) call->on_tokens(std::exchange(call->events, {}));
  }
  remove_rows();
  const auto is_over = [](const std::shared_ptr<GenerateCall>& call) {
    if (!call->closed && call->open_rows > 0) return false;
    call->closed = true;
    call->on_done(std::move(call->outcome));
    return true;
  };
  calls_.erase(std::remove_if(calls_.begin(), calls_.end(), is_over), calls_.end());
}

void Generator::remove_rows() {
  const auto is_over = [this](const RowPointer& row) {
    GenerateCall& call = *row->call;
    if (!row->finished && !call.closed) return false;
    release(*row, call.closed);
    if (call.closed) return true;
    --call.open_rows;
    if (call.on_completion) call.on_completion(std::move(row->completion));
    return true;
  };
  active_.erase(std::remove_if(active_.begin(), active_.end(), is_over), active_.end());
  waiting_.erase(std::remove_if(waiting_.begin(), waiting_.end(), is_over), waiting_.end());
}

void Generator::release(Row& row, bool roll_back) {
  row.sequence->in_use = row.sequence->busy = false;
  if (row.session_length < 0) {
    cache_.drop(*row.sequence);
  } else if (roll_back) {
    cache_.truncate(*row.sequence, row.session_length);
  }
}

void Generator::close(const Status& status) {
  for (const auto& call : calls_) fail(*call, status);
  sweep();
  for (const auto& sequence : sessions_) cache_.drop(*sequence);
  sessions_.clear();
  cache_.trim();
}

void Generator::keep(std::shared_ptr<Sequence> sequence) {
  sessions_.push_back(std::move(sequence));
}

void Generator::forget(const std::shared_ptr<Sequence>& sequence) {
  const auto found = std::find(sessions_.begin(), sessions_.end(), sequence);
  if (found == sessions_.end()) return;
  cache_.drop(*sequence);
  sessions_.erase(found);
}

std::shared_ptr<Sequence> Generator::fork(const Sequence& from) {
  auto sequence = std::make_shared<Sequence>();
  sequence->tokens = from.tokens;
  if (version_ == model_.version()) cache_.share(from, from.computed, *sequence);
  sessions_.push_back(sequence);
  return sequence;
}

}  // namespace ssrl
