// The paged cache of keys and values. A page holds kKeyBlock tokens of every layer; sequences that begin
// alike share pages by reference count, and a shared page is copied by whoever wants to write into it.
//
// Compute thread only.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/ops.h"
#include "status.h"

namespace ssrl {

// Tokens and, for the first `computed` of them, keys and values.
struct Sequence {
  std::vector<int32_t> tokens;
  std::vector<int32_t> pages;  // covers at least `computed` tokens, or is empty
  int32_t computed = 0;
  uint64_t last_used = 0;
  bool busy = false;    // a session's: a call works on it
  bool in_use = false;  // by a row of the batch: its pages are not for others to take

  int32_t length() const { return int32_t(tokens.size()); }
};

class KvCache {
 public:
  KvCache(ops::Ops& ops, size_t page_bytes) : ops_(ops), page_bytes_(page_bytes) {}
  ~KvCache();
  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;

  // At most this many bytes of pages. Pages in use beyond it stay until they are released.
  void set_budget(size_t bytes) { capacity_ = int64_t(bytes / page_bytes_); }
  int64_t capacity() const { return capacity_; }
  int64_t used() const { return used_; }
  size_t page_bytes() const { return page_bytes_; }

  // Pages that are missing or shared where the sequence would write tokens computed .. end.
  int32_t missing(const Sequence& sequence, int32_t end) const;
  // Makes those pages; kOutOfMemory, with what was made kept, when the budget or the memory is used up.
  Status reserve(Sequence& sequence, int32_t end);
  // Lets `to`, which has no pages, begin with the first `tokens` tokens of `from`'s keys and values.
  void share(const Sequence& from, int32_t tokens, Sequence& to);
  // Gives all pages back: the sequence must be computed again.
  void drop(Sequence& sequence);
  // Forgets all tokens from `length` on.
  void truncate(Sequence& sequence, int32_t length);

  void* data(int32_t page) const { return pages_[page].data; }

  // If no page is in use, gives memory back to the system, but for a small rest that the next call will want.
  void trim();

 private:
  struct Page {
    void* data;
    int32_t references;
  };
  Status acquire(int32_t* page);
  void clear();
  void release(int32_t page);
  Status add_slab();

  ops::Ops& ops_;
  size_t page_bytes_;
  int64_t capacity_ = 0;
  int64_t used_ = 0;
  std::vector<Page> pages_;
  std::vector<int32_t> free_;
  std::vector<void*> slabs_;
};

}  // namespace ssrl
