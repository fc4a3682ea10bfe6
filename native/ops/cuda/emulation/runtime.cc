#include "ops/cuda/emulation/runtime.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "ops/cuda/emulation/sanitizers.h"

namespace ssrl::cuda::emulation {
namespace {

constexpr uintptr_t kPage = 4096, kAlignment = 256;  // what cudaMalloc promises
#if defined(SSRL_THREAD_SANITIZER)
// One of the few places that ThreadSanitizer follows.
constexpr uintptr_t kFirstAddress = uintptr_t{0x10'0000'0000}, kReach = uintptr_t{1} << 32;
#else
// Above what V8 takes at random, below programs and libraries.
constexpr uintptr_t kFirstAddress = uintptr_t{0x4800'0000'0000}, kReach = uintptr_t{1} << 36;
#endif

struct Stream {
  int device;
  std::deque<std::function<Status()>> work;
};

// A piece of device memory: whole pages, the end of the last one where the content ends, and an unmapped one
// after.
struct Piece {
  uintptr_t pages;
  size_t page_bytes, bytes;
};

struct Device {
  std::map<uintptr_t, Piece> pieces;  // by the address that cudaMalloc gave
  std::vector<Stream*> streams;
  size_t limit = size_t{4} << 30, held = 0;
  int major = 8, minor = 0;
  size_t shared_memory = 163 << 10;
  bool lost = false, mapped = false;
};

// One lock over all: a test has no use for concurrency between devices. Recursive, as running a stream's work
// may come back for memory.
struct Runtime {
  std::recursive_mutex mutex;
  Device devices[kDevices];
  std::map<uintptr_t, size_t> pinned;
  cudaError_t hidden = cudaSuccess;
  std::string fault;
  Traffic traffic;
};

Runtime& runtime() {
  static Runtime* const instance = new Runtime;
  return *instance;
}

thread_local int current_device = 0;
struct sigaction previous_handler;

uintptr_t base_of(int device) {
  return kFirstAddress + uintptr_t(device) * kReach;
}

void report_touch(int signal, siginfo_t* info, void* context) {
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  if (address >= kFirstAddress && address < base_of(kDevices)) {
    char text[160];
    const int length = std::snprintf(text, sizeof text,
                                     "Device memory of the emulated CUDA device %d was touched by the host, "
                                     "by another device or past its end\n",
                                     int((address - kFirstAddress) / kReach));
    (void)!write(STDERR_FILENO, text, size_t(length));
    ::signal(SIGSEGV, SIG_DFL);
    return;
  }
  if ((previous_handler.sa_flags & SA_SIGINFO) != 0 && previous_handler.sa_sigaction != nullptr) {
    previous_handler.sa_sigaction(signal, info, context);
  } else {
    ::signal(SIGSEGV, SIG_DFL);
  }
}

bool map_device(int index) {
  Device& device = runtime().devices[index];
  if (device.mapped) return true;
  void* const wanted = reinterpret_cast<void*>(base_of(index));
  void* const got = mmap(wanted, kReach, PROT_NONE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
  if (got != wanted) return false;
  device.mapped = true;
  if (index == 0) {
    struct sigaction action = {};
    action.sa_sigaction = report_touch;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, &previous_handler);
  }
  return true;
}

void protect(const Piece& piece, int protection) {
  mprotect(reinterpret_cast<void*>(piece.pages), piece.page_bytes, protection);
}

// While it lives, this device's memory may be touched.
class Open {
 public:
  explicit Open(Device& device) : device_(device) {
    for (const auto& [address, piece] : device_.pieces) protect(piece, PROT_READ | PROT_WRITE);
  }
  ~Open() {
    for (const auto& [address, piece] : device_.pieces) protect(piece, PROT_NONE);
  }

 private:
  Device& device_;
};

cudaError_t usable(int index) {
  Runtime& r = runtime();
  if (r.hidden != cudaSuccess) return r.hidden;
  if (index < 0 || index >= kDevices) return cudaErrorInvalidDevice;
  return r.devices[index].lost ? cudaErrorLaunchFailure : cudaSuccess;
}

cudaError_t run(Stream& stream) {
  Device& device = runtime().devices[stream.device];
  if (stream.work.empty()) return usable(stream.device);
  if (!device.lost) {
    const Open open(device);
    while (!stream.work.empty() && !device.lost) {
      const std::function<Status()> work = std::move(stream.work.front());
      stream.work.pop_front();
      const Status status = work();
      if (status.ok()) continue;
      runtime().fault = status.message();
      device.lost = true;
    }
  }
  stream.work.clear();
  return usable(stream.device);
}

cudaError_t run_all(int index) {
  for (Stream* stream : runtime().devices[index].streams) (void)run(*stream);
  return usable(index);
}

bool inside(int index, const void* pointer, size_t bytes) {
  const auto& pieces = runtime().devices[index].pieces;
  const auto address = reinterpret_cast<uintptr_t>(pointer);
  auto next = pieces.upper_bound(address);
  if (next == pieces.begin()) return false;
  const auto& [begin, piece] = *std::prev(next);
  return address + bytes <= begin + piece.bytes;
}

bool is_pinned(const void* pointer, size_t bytes) {
  const auto& pinned = runtime().pinned;
  const auto address = reinterpret_cast<uintptr_t>(pointer);
  auto next = pinned.upper_bound(address);
  if (next == pinned.begin()) return false;
  const auto& [begin, size] = *std::prev(next);
  return address + bytes <= begin + size;
}

// The first gap that holds so many pages.
uintptr_t find_gap(const Device& device, int index, size_t page_bytes) {
  uintptr_t at = base_of(index) + kPage;
  for (const auto& [address, piece] : device.pieces) {
    if (piece.pages >= at + page_bytes + kPage) break;
    at = piece.pages + piece.page_bytes + kPage;
  }
  return at;
}

bool is_mapped(uintptr_t address) {
  unsigned char resident;
  return mincore(reinterpret_cast<void*>(address / kPage * kPage), 1, &resident) == 0;
}

}  // namespace

void set_device_memory(int device, size_t bytes) {
  runtime().devices[device].limit = bytes;
}

void lose_device(int device) {
  const std::lock_guard lock(runtime().mutex);
  runtime().fault = "an illegal memory access was encountered";
  runtime().devices[device].lost = true;
}

void set_capability(int device, int major, int minor) {
  runtime().devices[device].major = major;
  runtime().devices[device].minor = minor;
}

void set_shared_memory(int device, size_t bytes) {
  runtime().devices[device].shared_memory = bytes;
}

size_t most_shared_memory(cudaStream_t stream) {
  return runtime().devices[stream == nullptr ? 0 : static_cast<Stream*>(stream)->device].shared_memory;
}

void hide_devices(cudaError_t reason) {
  runtime().hidden = reason;
}

Traffic take_traffic() {
  const std::lock_guard lock(runtime().mutex);
  return std::exchange(runtime().traffic, {});
}

bool holds_host_pointer(const void* argument, size_t bytes) {
  // Stacks, libraries and the heaps of all threads but the first. Node's own lies so low that floats and
  // counts look like addresses in it.
  constexpr uintptr_t kLowest = uintptr_t{0x5000'0000'0000}, kHighest = uintptr_t{1} << 47;
  for (size_t at = 0; at + sizeof(uintptr_t) <= bytes; at += sizeof(uintptr_t)) {
    uintptr_t word = 0;
    std::memcpy(&word, static_cast<const char*>(argument) + at, sizeof word);
    if (word >= kLowest && word < kHighest && is_mapped(word)) return true;
  }
  return false;
}

Status enqueue(cudaStream_t stream, std::function<Status()> launch) {
  if (stream == nullptr) return launch();
  const std::lock_guard lock(runtime().mutex);
  ++runtime().traffic.launches;
  static_cast<Stream*>(stream)->work.push_back(std::move(launch));
  return {};
}

}  // namespace ssrl::cuda::emulation

using namespace ssrl::cuda::emulation;

cudaError_t cudaGetDeviceCount(int* count) {
  *count = runtime().hidden == cudaSuccess ? kDevices : 0;
  return runtime().hidden;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (const cudaError_t error = usable(device); error != cudaSuccess) return error;
  *properties = {};
  std::snprintf(properties->name, sizeof properties->name, "emulated device %d", device);
  properties->totalGlobalMem = runtime().devices[device].limit;
  properties->major = runtime().devices[device].major;
  properties->minor = runtime().devices[device].minor;
  properties->multiProcessorCount = 1;
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = runtime().hidden == cudaErrorInsufficientDriver ? 0 : 12000;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 12000;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= kDevices) return cudaErrorInvalidDevice;
  current_device = device;
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  const std::lock_guard lock(runtime().mutex);
  const Device& device = runtime().devices[current_device];
  *free = device.limit > device.held ? device.limit - device.held : 0;
  *total = device.limit;
  return usable(current_device);
}

cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  const std::lock_guard lock(runtime().mutex);
  if (const cudaError_t error = usable(current_device); error != cudaSuccess) return error;
  Device& device = runtime().devices[current_device];
  if (bytes > device.limit || device.held > device.limit - bytes) return cudaErrorMemoryAllocation;
  if (!map_device(current_device)) return cudaErrorMemoryAllocation;
  const size_t room = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  const size_t page_bytes = (room + kPage - 1) / kPage * kPage;
  const uintptr_t pages = find_gap(device, current_device, page_bytes);
  if (pages + page_bytes + kPage > base_of(current_device + 1)) return cudaErrorMemoryAllocation;
  const Piece piece{pages, page_bytes, bytes};
  const uintptr_t address = pages + page_bytes - room;
  protect(piece, PROT_READ | PROT_WRITE);
  // Patterns of NaN: what was never written can't pass for a number.
  std::memset(reinterpret_cast<void*>(pages), 0xff, page_bytes);
  forbid(reinterpret_cast<void*>(pages), address - pages);
  forbid(reinterpret_cast<void*>(address + bytes), pages + page_bytes - address - bytes);
  protect(piece, PROT_NONE);
  device.pieces.emplace(address, piece);
  device.held += bytes;
  *pointer = reinterpret_cast<void*>(address);
  return cudaSuccess;
}

cudaError_t cudaFree(void* pointer) {
  const std::lock_guard lock(runtime().mutex);
  if (pointer == nullptr) return usable(current_device);
  const auto address = reinterpret_cast<uintptr_t>(pointer);
  const int owner = int((address - kFirstAddress) / kReach);
  if (address < kFirstAddress || owner >= kDevices) return cudaErrorInvalidValue;
  Device& device = runtime().devices[owner];
  const cudaError_t error = run_all(owner);
  const auto found = device.pieces.find(address);
  if (found == device.pieces.end()) return cudaErrorInvalidValue;
  madvise(reinterpret_cast<void*>(found->second.pages), found->second.page_bytes, MADV_DONTNEED);
  allow(reinterpret_cast<void*>(found->second.pages), found->second.page_bytes);
  device.held -= found->second.bytes;
  device.pieces.erase(found);
  return error;
}

cudaError_t cudaMallocHost(void** pointer, size_t bytes) {
  const std::lock_guard lock(runtime().mutex);
  if (const cudaError_t error = usable(current_device); error != cudaSuccess) return error;
  *pointer = std::malloc(bytes);
  if (*pointer == nullptr) return cudaErrorMemoryAllocation;
  runtime().pinned.emplace(reinterpret_cast<uintptr_t>(*pointer), bytes);
  return cudaSuccess;
}

cudaError_t cudaFreeHost(void* pointer) {
  const std::lock_guard lock(runtime().mutex);
  runtime().pinned.erase(reinterpret_cast<uintptr_t>(pointer));
  std::free(pointer);
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  const std::lock_guard lock(runtime().mutex);
  if (const cudaError_t error = usable(current_device); error != cudaSuccess) return error;
  auto* const created = new Stream{current_device, {}};
  runtime().devices[current_device].streams.push_back(created);
  *stream = created;
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const std::lock_guard lock(runtime().mutex);
  auto* const mine = static_cast<Stream*>(stream);
  auto& streams = runtime().devices[mine->device].streams;
  streams.erase(std::find(streams.begin(), streams.end(), mine));
  delete mine;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const std::lock_guard lock(runtime().mutex);
  ++runtime().traffic.waits;
  return run(*static_cast<Stream*>(stream));
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  const std::lock_guard lock(runtime().mutex);
  auto& mine = *static_cast<Stream*>(stream);
  if (const cudaError_t error = usable(mine.device); error != cudaSuccess) return error;
  if (kind == cudaMemcpyHostToDevice) ++runtime().traffic.to_device;
  if (kind == cudaMemcpyDeviceToHost) ++runtime().traffic.to_host;
  const bool reads_device = kind != cudaMemcpyHostToDevice, writes_device = kind != cudaMemcpyDeviceToHost;
  if (reads_device && !inside(mine.device, from, bytes)) return cudaErrorInvalidValue;
  if (writes_device && !inside(mine.device, to, bytes)) return cudaErrorInvalidValue;
  // Pages that the system may move are copied before the call returns.
  std::shared_ptr<std::vector<char>> kept;
  if (!reads_device && !is_pinned(from, bytes)) {
    const char* const content = static_cast<const char*>(from);
    kept = std::make_shared<std::vector<char>>(content, content + bytes);
    from = kept->data();
  }
  mine.work.push_back([=]() -> ssrl::Status {
    std::memmove(to, from, bytes);
    (void)kept;
    return {};
  });
  return writes_device || is_pinned(to, bytes) ? cudaSuccess : run(mine);
}

cudaError_t cudaMemsetAsync(void* pointer, int value, size_t bytes, cudaStream_t stream) {
  const std::lock_guard lock(runtime().mutex);
  auto& mine = *static_cast<Stream*>(stream);
  if (const cudaError_t error = usable(mine.device); error != cudaSuccess) return error;
  if (!inside(mine.device, pointer, bytes)) return cudaErrorInvalidValue;
  mine.work.push_back([=]() -> ssrl::Status {
    std::memset(pointer, value, bytes);
    return {};
  });
  return cudaSuccess;
}

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInsufficientDriver:
      return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice:
      return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice:
      return "invalid device ordinal";
    case cudaErrorLaunchFailure:
      return runtime().fault.c_str();
    default:
      return "invalid argument";
  }
}

cudaError_t cudaGetLastError() {
  return usable(current_device);
}
