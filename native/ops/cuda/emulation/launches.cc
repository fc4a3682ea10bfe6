#include "ops/cuda/emulation/launches.h"

#include <atomic>
#include <mutex>
#include <utility>

namespace ssrl::cuda::emulation {
namespace {

std::atomic<bool> enabled{false};
std::mutex lock;
std::vector<LaunchRecord> launches;

// "... [with auto Kernel = ssrl::cuda::{anonymous}::rotate<float>; ...]" or "... [Kernel = ...]" ->
// "rotate<float>"
std::string kernel_of(const std::string& text) {
  const std::string mark = "Kernel = ";
  const size_t found = text.find(mark), begin = found == std::string::npos ? 0 : found + mark.size();
  size_t end = begin;
  for (int depth = 0; end < text.size(); ++end) {
    const char c = text[end];
    if (depth == 0 && (c == ';' || c == ']' || c == ',')) break;
    depth += (c == '<' || c == '(') - (c == '>' || c == ')');
  }
  std::string name = text.substr(begin, end - begin);
  for (const std::string part : {"ssrl::cuda::", "{anonymous}::", "(anonymous namespace)::", "&"}) {
    for (size_t at = name.find(part); at != std::string::npos; at = name.find(part)) {
      name.erase(at, part.size());
    }
  }
  return name;
}

}  // namespace

void record_launches(bool on) {
  enabled.store(on);
}

bool records_launches() {
  return enabled.load(std::memory_order_relaxed);
}

void record_launch(const std::string& name, LaunchRecord record) {
  record.kernel = kernel_of(name);
  const std::lock_guard held(lock);
  launches.push_back(std::move(record));
}

std::vector<LaunchRecord> take_launches() {
  const std::lock_guard held(lock);
  return std::exchange(launches, {});
}

}  // namespace ssrl::cuda::emulation
