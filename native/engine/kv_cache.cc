#include "engine/kv_cache.h"

#include <algorithm>
#include <string>

namespace ssrl {
namespace {

// Pages are allocated by slabs of about this size, as they are needed.
constexpr size_t kSlabBytes = size_t(16) << 20;
// What a cache without pages in use keeps: fresh memory costs the system's clearing of it.
constexpr size_t kKeptBytes = size_t(128) << 20;

int32_t pages_for(int32_t tokens) {
  return (tokens + ops::kKeyBlock - 1) / ops::kKeyBlock;
}

}  // namespace

KvCache::~KvCache() {
  clear();
}

int32_t KvCache::missing(const Sequence& sequence, int32_t end) const {
  const int32_t wanted = pages_for(end);
  const int32_t have = int32_t(sequence.pages.size());
  int32_t count = std::max(0, wanted - have);
  for (int32_t i = sequence.computed / ops::kKeyBlock; i < std::min(wanted, have); ++i) {
    if (pages_[sequence.pages[i]].references > 1) ++count;
  }
  return count;
}

Status KvCache::reserve(Sequence& sequence, int32_t end) {
  const int32_t wanted = pages_for(end);
  for (int32_t i = sequence.computed / ops::kKeyBlock; i < wanted; ++i) {
    const bool exists = i < int32_t(sequence.pages.size());
    if (exists && pages_[sequence.pages[i]].references == 1) continue;
    int32_t page = -1;
    SSRL_RETURN_IF_ERROR(acquire(&page));
    if (!exists) {
      sequence.pages.push_back(page);
      continue;
    }
    const int32_t old = sequence.pages[i];
    SSRL_RETURN_IF_ERROR(ops_.copy(pages_[page].data, pages_[old].data, page_bytes_));
    release(old);
    sequence.pages[i] = page;
  }
  return {};
}

void KvCache::share(const Sequence& from, int32_t tokens, Sequence& to) {
  to.pages.assign(from.pages.begin(), from.pages.begin() + pages_for(tokens));
  for (int32_t page : to.pages) ++pages_[page].references;
  to.computed = tokens;
}

void KvCache::drop(Sequence& sequence) {
  for (int32_t page : sequence.pages) release(page);
  sequence.pages.clear();
  sequence.computed = 0;
}

void KvCache::truncate(Sequence& sequence, int32_t length) {
  sequence.tokens.resize(length);
  sequence.computed = std::min(sequence.computed, length);
  while (int32_t(sequence.pages.size()) > pages_for(sequence.computed)) {
    release(sequence.pages.back());
    sequence.pages.pop_back();
  }
}

void KvCache::trim() {
  if (used_ > 0 || pages_.size() * page_bytes_ <= kKeptBytes) return;
  clear();
}

void KvCache::clear() {
  for (void* slab : slabs_) ops_.release(slab);
  slabs_.clear();
  pages_.clear();
  free_.clear();
}

Status KvCache::acquire(int32_t* page) {
  if (used_ >= capacity_) {
    return {Code::kOutOfMemory,
            "Expected room in the key-value cache but all " + std::to_string(capacity_) + " pages of " +
                std::to_string(page_bytes_) +
                " bytes that its budget allows are in use; raise SSRL_MEMORY or the cache "
                "budget, or ask for shorter or fewer sequences"};
  }
  if (free_.empty()) SSRL_RETURN_IF_ERROR(add_slab());
  *page = free_.back();
  free_.pop_back();
  pages_[*page].references = 1;
  ++used_;
  return {};
}

void KvCache::release(int32_t page) {
  if (--pages_[page].references > 0) return;
  free_.push_back(page);
  --used_;
}

Status KvCache::add_slab() {
  const int64_t room = capacity_ - int64_t(pages_.size());
  const int64_t wanted = std::max<int64_t>(1, int64_t(kSlabBytes / page_bytes_));
  const int64_t count = std::max<int64_t>(1, std::min(wanted, room));
  void* slab = nullptr;
  SSRL_RETURN_IF_ERROR(ops_.allocate(count * page_bytes_, &slab));
  slabs_.push_back(slab);
  const int32_t first = int32_t(pages_.size());
  for (int64_t i = 0; i < count; ++i) {
    pages_.push_back({static_cast<char*>(slab) + i * page_bytes_, 0});
  }
  // Taken from the end: the lowest page first.
  for (int64_t i = count - 1; i >= 0; --i) free_.push_back(first + int32_t(i));
  return {};
}

}  // namespace ssrl
