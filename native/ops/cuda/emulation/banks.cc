#include "ops/cuda/emulation/banks.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <set>
#include <utility>

#include "ops/cuda/emulation/block.h"

namespace ssrl::cuda::emulation {
namespace {

std::atomic<bool> enabled{false};
std::mutex totals_lock;
std::map<std::string, BankTotals> totals;

constexpr int kBanks = 32;
constexpr size_t kWavefront = 128;

// Wavefronts for the words at these addresses.
int wavefronts(const std::vector<uintptr_t>& addresses, size_t bytes) {
  std::set<uintptr_t> words;
  for (const uintptr_t address : addresses) {
    for (uintptr_t word = address / 4; word <= (address + bytes - 1) / 4; ++word) words.insert(word);
  }
  int used[kBanks] = {}, most = 0;
  for (const uintptr_t word : words) most = std::max(most, ++used[word % kBanks]);
  return most;
}

}  // namespace

void BankCounter::record(int thread, const void* pointer, size_t bytes, const Place& place) {
  std::vector<Site>& sites = sites_[thread / kWarp];
  const auto same = [&](const Site& site) {
    return site.line == place.line && site.file == place.file && site.operation == place.operation;
  };
  auto site = std::find_if(sites.begin(), sites.end(), same);
  if (site == sites.end()) {
    sites.push_back({place.operation, place.file, place.line, bytes});
    site = sites.end() - 1;
  }
  const int lane = thread % kWarp;
  const uint32_t time = site->times[lane]++;
  if (site->accesses.size() <= time) site->accesses.resize(time + 1);
  site->accesses[time].address[lane] = reinterpret_cast<uintptr_t>(pointer);
  site->accesses[time].lanes |= 1u << lane;
}

void BankCounter::flush(int warp) {
  const auto found = sites_.find(warp);
  if (found == sites_.end()) return;
  const std::lock_guard<std::mutex> held(totals_lock);
  for (const Site& site : found->second) {
    const char* slash = std::strrchr(site.file, '/');
    const std::string name = std::string(site.operation) + " " + (slash == nullptr ? site.file : slash + 1);
    BankTotals& total = totals[name + ":" + std::to_string(site.line)];
    const int together = static_cast<int>(kWavefront / std::max(site.bytes, size_t{4}));
    for (const Access& access : site.accesses) {
      for (int begin = 0; begin < kWarp; begin += together) {
        std::vector<uintptr_t> addresses;
        for (int lane = begin; lane < begin + together; ++lane) {
          if ((access.lanes >> lane & 1u) != 0) addresses.push_back(access.address[lane]);
        }
        if (addresses.empty()) continue;
        total.wavefronts += 1;
        total.conflicts += wavefronts(addresses, site.bytes) - 1;
      }
    }
  }
  sites_.erase(found);
}

void BankCounter::flush_all() {
  while (!sites_.empty()) flush(sites_.begin()->first);
}

void count_banks(bool on) {
  enabled.store(on);
}

bool counts_banks() {
  return enabled.load(std::memory_order_relaxed);
}

std::map<std::string, BankTotals> take_bank_totals() {
  const std::lock_guard<std::mutex> held(totals_lock);
  return std::exchange(totals, {});
}

}  // namespace ssrl::cuda::emulation
