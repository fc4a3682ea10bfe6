// Which rows get a place and pages in the next step. Who is served when changes no row's result, as its bits
// do not depend on the others, and what was dropped is computed again from the tokens.
#include <algorithm>
#include <utility>

#include "engine/generator.h"
#include "engine/generator_limits.h"

namespace ssrl {

void Generator::refresh() {
  ++clock_;
  if (version_ == model_.version()) return;
  // Keys and values of other weights: everything is computed again when it is needed.
  version_ = model_.version();
  for (const RowPointer& row : active_) cache_.drop(*row->sequence);
  for (const auto& sequence : sessions_) cache_.drop(*sequence);
}

void Generator::admit() {
  while (!waiting_.empty() && active_.size() < kActiveRows) {
    Row& row = *waiting_.front();
    row.sequence->in_use = true;
    // A row that finds no room for its prompt would only take turns in pushing others out.
    // The rows that run will want pages, too: one each within kKeyBlock steps.
    const int64_t soon = int64_t(active_.size()) / 4;
    const auto fits = [&] {
      return cache_.used() + soon + cache_.missing(*row.sequence, row.sequence->length() + 1) <=
             cache_.capacity();
    };
    while (!active_.empty() && !fits()) {
      if (evict_session()) continue;
      row.sequence->in_use = false;
      return;
    }
    adopt_prompt(row);
    RowPointer admitted = std::move(waiting_.front());
    waiting_.pop_front();
    activate(std::move(admitted));
  }
}

// A sample whose sibling has the prompt in its pages takes the whole ones over. At least the prompt's last
// token is left to compute: the sample begins with what follows it.
void Generator::adopt_prompt(Row& row) {
  if (row.session_length >= 0) return;
  const int32_t whole = (row.prompt_length - 1) / ops::kKeyBlock * ops::kKeyBlock;
  for (const RowPointer& other : active_) {
    if (other->call != row.call || other->completion.request != row.completion.request) continue;
    const int32_t common = std::min(whole, other->sequence->computed / ops::kKeyBlock * ops::kKeyBlock);
    if (common <= row.sequence->computed) continue;
    cache_.drop(*row.sequence);
    cache_.share(*other->sequence, common, *row.sequence);
  }
}

Status Generator::schedule() {
  scheduled_.clear();
  int32_t decoding = 0;
  for (const RowPointer& row : active_) decoding += row->pending() == 1;
  int32_t room = kStepRows - decoding;
  int32_t first_row = 0;
  bool finished = false;
  for (size_t i = 0; i < active_.size(); ++i) {
    Row& row = *active_[i];
    const int32_t pending = row.pending();
    if (pending <= 0) {
      row.finished = finished = true;  // a prompt that was computed already
      continue;
    }
    const int32_t count = pending == 1 ? 1 : std::min(pending, room);
    if (count == 0) continue;
    Status status = make_room(row, row.sequence->computed + count);
    if (!status.ok()) {
      if (status.code() != Code::kOutOfMemory) return status;
      // It is the youngest: it waits until others have left. If there is none, it needs more than there is.
      if (!scheduled_.empty() || finished) {
        preempt_last();
      } else {
        fail(*row.call, std::move(status));
      }
      break;
    }
    if (pending > 1) room -= count;
    scheduled_.push_back({&row, first_row, count});
    first_row += count;
  }
  return {};
}

// Pages for the row up to token `end`, if need be at the cost of waiting sessions and younger rows. On
// kOutOfMemory the row is the youngest.
Status Generator::make_room(Row& row, int32_t end) {
  for (;;) {
    Status status = cache_.reserve(*row.sequence, end);
    if (status.ok() || status.code() != Code::kOutOfMemory) return status;
    if (evict_session()) continue;
    if (active_.back().get() == &row) return status;
    preempt_last();
  }
}

// Takes the pages of the session that was not used for longest.
bool Generator::evict_session() {
  Sequence* oldest = nullptr;
  for (const auto& sequence : sessions_) {
    if (sequence->pages.empty() || sequence->in_use) continue;
    if (oldest == nullptr || sequence->last_used < oldest->last_used) oldest = sequence.get();
  }
  if (oldest == nullptr) return false;
  cache_.drop(*oldest);
  return true;
}

void Generator::preempt_last() {
  RowPointer row = std::move(active_.back());
  active_.pop_back();
  cache_.drop(*row->sequence);
  row->sequence->in_use = false;
  ++statistics_.preemptions;
  wait(std::move(row));
}

}  // namespace ssrl
