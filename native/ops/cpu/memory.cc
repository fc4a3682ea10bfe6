// Memory with an account: what is asked for is held against what the container, the machine and SSRL_MEMORY
// leave before anything is allocated, because Linux grants first and kills later.
#include <algorithm>
#include <atomic>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <mutex>
#include <sstream>
#include <string>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "ops/cpu/kernels.h"

namespace ssrl::ops {
namespace host {
namespace {

constexpr uint64_t kUnlimited = std::numeric_limits<uint64_t>::max();
constexpr size_t kAlignment = 64;
std::atomic<uint64_t> held{0};

// The number in a one-line file such as memory.max; kUnlimited when there is none.
uint64_t read_number(const std::string& path) {
  std::ifstream file(path);
  uint64_t value = 0;
  return file >> value ? value : kUnlimited;
}

// The value behind `key` in files of "key value" lines.
uint64_t read_keyed(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  std::string word;
  uint64_t value = 0;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    if (words >> word >> value && word == key) return value;
  }
  return 0;
}

// What one cgroup leaves; its file cache counts as free, since the kernel drops that first.
uint64_t cgroup_room(const std::string& folder, const char* limit_name, const char* usage_name,
                     const char* cache_name) {
  const uint64_t limit = read_number(folder + limit_name);
  if (limit >= (uint64_t{1} << 60)) return kUnlimited;
  const uint64_t usage = read_number(folder + usage_name);
  if (usage == kUnlimited) return kUnlimited;
  const uint64_t cache = std::min(usage, read_keyed(folder + "/memory.stat", cache_name));
  const uint64_t busy = usage - cache;
  return limit > busy ? limit - busy : 0;
}

// The tightest limit on the way from this process's cgroup up to the root.
uint64_t cgroup_free() {
  uint64_t room = kUnlimited;
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool unified = controllers.empty();
    if (!unified && ("," + controllers + ",").find(",memory,") == std::string::npos) continue;
    const std::string root = unified ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
    for (std::string path = line.substr(second + 1);; path.erase(path.rfind('/'))) {
      if (path == "/") path.clear();
      room =
          std::min(room, unified ? cgroup_room(root + path, "/memory.max", "/memory.current", "inactive_file")
                                 : cgroup_room(root + path, "/memory.limit_in_bytes",
                                               "/memory.usage_in_bytes", "total_inactive_file"));
      if (path.empty() || path.rfind('/') == std::string::npos) break;
    }
  }
  return room;
}

uint64_t available_memory() {
  const uint64_t kilobytes = read_keyed("/proc/meminfo", "MemAvailable:");
  return kilobytes == 0 ? kUnlimited : kilobytes * 1024;
}

// SSRL_MEMORY: bytes, or a number with K, M, G, T (powers of 1000) or Ki, Mi, Gi, Ti (of 1024), "B" optional.
// False when it can't be read.
bool memory_setting(uint64_t* out) {
  *out = kUnlimited;
  const char* text = std::getenv("SSRL_MEMORY");
  if (text == nullptr || *text == '\0') return true;
  char* end = nullptr;
  const double number = std::strtod(text, &end);
  if (end == text || !std::isfinite(number) || number < 0) return false;
  while (*end == ' ') ++end;
  std::string unit;
  for (; *end != '\0'; ++end) unit += static_cast<char>(std::toupper(static_cast<unsigned char>(*end)));
  if (!unit.empty() && unit.back() == 'B') unit.pop_back();
  const double base = unit.size() == 2 && unit[1] == 'I' ? 1024 : 1000;
  if (unit.size() == 2 && unit[1] == 'I') unit.pop_back();
  const size_t power = std::string("KMGT").find(unit.empty() ? '?' : unit[0]);
  if (unit.size() > 1 || (!unit.empty() && power == std::string::npos)) return false;
  const double bytes = unit.empty() ? number : number * std::pow(base, static_cast<double>(power) + 1);
  *out = bytes >= 9e18 ? kUnlimited : static_cast<uint64_t>(bytes);
  return true;
}

std::string megabytes(uint64_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f MB", static_cast<double>(bytes) / 1e6);
  return text;
}

Status out_of_memory(size_t bytes, uint64_t free) {
  return {Code::kOutOfMemory,
          "Needed " + megabytes(bytes) + " of memory but only " + megabytes(free) + " are free (" +
              megabytes(held.load()) +
              " held already). Use a smaller batch, context or model, the dtype bf16, or raise "
              "SSRL_MEMORY or the container's limit."};
}

// Files are read for large requests only; small ones can't be what breaks the limit, and come often.
constexpr size_t kCheckedBytes = size_t{1} << 20;

Status check_room(size_t bytes) {
  uint64_t setting = kUnlimited;
  if (!memory_setting(&setting)) {
    return invalid_arg(
        "Expected SSRL_MEMORY to be a size such as \"2GB\", \"500MB\" or bytes but received \"" +
        std::string(std::getenv("SSRL_MEMORY")) + "\"");
  }
  const uint64_t now = held.load();
  uint64_t free = setting == kUnlimited ? kUnlimited : setting > now ? setting - now : 0;
  if (bytes >= kCheckedBytes) free = std::min({free, cgroup_free(), available_memory()});
  return bytes > free ? out_of_memory(bytes, free) : Status();
}

// What lies before each piece of memory; a piece of a chunk keeps the chunk.
struct Header {
  size_t bytes;
  void* chunk;  // its first byte, or null for a piece of its own
};
static_assert(sizeof(Header) <= kAlignment);

Header* header_of(void* data) {
  return reinterpret_cast<Header*>(static_cast<char*>(data) - kAlignment);
}

size_t round_up(size_t bytes, size_t multiple) {
  return (bytes + multiple - 1) / multiple * multiple;
}

// Packed weights are read from end to end for every token. In pages of 2 MB, where the system has them, that
// costs few looks into the page table; most weights are smaller than such a page, so they share chunks.
constexpr size_t kHugePage = size_t{2} << 20, kChunkBytes = 16 * kHugePage;
// A piece of its own in such pages takes up to one page more than was asked for.
constexpr size_t kFewestHugeBytes = 8 * kHugePage;

// In whole huge pages, or null.
char* make_huge(size_t bytes) {
  const size_t size = round_up(bytes, kHugePage);
  char* memory = static_cast<char*>(std::aligned_alloc(kHugePage, size));
#ifdef MADV_HUGEPAGE
  if (memory != nullptr) madvise(memory, size, MADV_HUGEPAGE);
#endif
  return memory;
}

class Chunks {
 public:
  // Memory for `bytes` after a header, or null.
  char* take(size_t bytes, void** chunk) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (current_ == nullptr || used_ + bytes > size_) {
      char* fresh = make(std::max(kChunkBytes, round_up(kAlignment + bytes, kHugePage)));
      if (fresh == nullptr) return nullptr;
      if (current_ != nullptr) drop(current_);
      current_ = fresh;
    }
    *chunk = current_;
    ++references(current_);
    char* result = current_ + used_;
    used_ += bytes;
    return result;
  }

  void give_back(void* chunk) {
    std::lock_guard<std::mutex> lock(mutex_);
    drop(static_cast<char*>(chunk));
    // The last piece of the current chunk: from the beginning again.
    if (chunk == current_ && references(current_) == 1) used_ = kAlignment;
  }

 private:
  static int64_t& references(char* chunk) { return *reinterpret_cast<int64_t*>(chunk); }

  char* make(size_t size) {
    char* chunk = make_huge(size);
    if (chunk == nullptr) return nullptr;
    references(chunk) = 1;  // of being the current one
    size_ = size;
    used_ = kAlignment;
    return chunk;
  }

  void drop(char* chunk) {
    if (--references(chunk) == 0) std::free(chunk);
  }

  std::mutex mutex_;
  char* current_ = nullptr;
  size_t size_ = 0, used_ = 0;
};

Chunks& chunks() {
  static Chunks* const instance = new Chunks;
  return *instance;
}

Status allocate_in(bool in_chunk, size_t bytes, void** out) {
  *out = nullptr;
  if (bytes > std::numeric_limits<size_t>::max() / 2) return out_of_memory(bytes, 0);
  SSRL_RETURN_IF_ERROR(check_room(bytes));
  const size_t total = round_up(bytes, kAlignment) + kAlignment;
  void* chunk = nullptr;
  char* const base = in_chunk                    ? chunks().take(total, &chunk)
                     : total >= kFewestHugeBytes ? make_huge(total)
                                                 : static_cast<char*>(std::aligned_alloc(kAlignment, total));
  if (base == nullptr) return out_of_memory(bytes, 0);
  *out = base + kAlignment;
  *header_of(*out) = {bytes, chunk};
  held += bytes;
  return {};
}

}  // namespace

Status allocate(size_t bytes, void** out) {
  return allocate_in(false, bytes, out);
}

Status allocate_weights(size_t bytes, void** out) {
  return allocate_in(true, bytes, out);
}

void release(void* pointer) {
  if (pointer == nullptr) return;
  const Header header = *header_of(pointer);
  held -= header.bytes;
  if (header.chunk != nullptr) return chunks().give_back(header.chunk);
  std::free(header_of(pointer));
}

}  // namespace host

uint64_t memory_held() {
  return host::held.load();
}

Status memory_free(uint64_t* out) {
  uint64_t setting = host::kUnlimited;
  if (!host::memory_setting(&setting)) return host::check_room(0);
  const uint64_t now = host::held.load();
  const uint64_t left = setting == host::kUnlimited ? setting : setting > now ? setting - now : 0;
  *out = std::min({left, host::cgroup_free(), host::available_memory()});
  return {};
}

}  // namespace ssrl::ops
