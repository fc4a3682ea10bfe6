#include "ops/cuda/context.h"

#include <algorithm>
#include <cstring>

#include "ops/cuda/cuda_ops.h"

namespace ssrl::cuda {
namespace {

constexpr int kOldestMajor = 8;  // bf16 tensor cores and asynchronous copies into shared memory
constexpr size_t kChunkBytes = size_t{1} << 20;
// Pieces of one staging chunk begin at multiples of this.
constexpr size_t kStagedAlignment = 128;
// More than this is not kept for the next step.
constexpr size_t kKeptChunks = 16;

Status no_device(std::string message) {
  return {Code::kNoDevice, std::move(message)};
}

Status missing(cudaError_t error, int driver) {
  if (driver == 0 || error == cudaErrorInsufficientDriver) {
    return no_device(
        "There is no NVIDIA driver, or it is older than this build's CUDA runtime: install the driver, or "
        "take "
        "device 'cpu'");
  }
  return no_device(std::string("The NVIDIA driver finds no device (") + cudaGetErrorString(error) +
                   "): take device 'cpu'");
}

Status too_old(const DeviceInfo& info) {
  if (info.major >= kOldestMajor) return {};
  return no_device("Expected a device of compute capability 8.0 or newer but " + info.name + " has " +
                   std::to_string(info.major) + "." + std::to_string(info.minor) + ": take device 'cpu'");
}

}  // namespace

Inventory take_inventory() {
  Inventory inventory;
  (void)cudaDriverGetVersion(&inventory.driver);
  (void)cudaRuntimeGetVersion(&inventory.runtime);
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || count == 0) {
    (void)cudaGetLastError();
    inventory.usable = missing(error == cudaSuccess ? cudaErrorNoDevice : error, inventory.driver);
    return inventory;
  }
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties;
    DeviceInfo info;
    const cudaError_t found = cudaGetDeviceProperties(&properties, i);
    if (found == cudaSuccess) {
      info = {.name = properties.name,
              .memory = properties.totalGlobalMem,
              .major = properties.major,
              .minor = properties.minor,
              .multiprocessors = properties.multiProcessorCount,
              .usable = {}};
      info.usable = too_old(info);
    } else {
      info.name = "unknown";
      info.usable = no_device(std::string("The driver says of it: ") + cudaGetErrorString(found));
    }
    inventory.devices.push_back(std::move(info));
  }
  return inventory;
}

Result<std::unique_ptr<Context>> Context::open(int device) {
  const Inventory inventory = take_inventory();
  if (!inventory.usable.ok()) return inventory.usable;
  const int count = static_cast<int>(inventory.devices.size());
  if (device >= count) {
    return no_device("Expected a device below 'cuda:" + std::to_string(count) + "', as there are " +
                     std::to_string(count) + ", but received 'cuda:" + std::to_string(device) + "'");
  }
  const DeviceInfo& info = inventory.devices[device];
  if (!info.usable.ok()) return info.usable;
  std::unique_ptr<Context> context(new Context(device, info.multiprocessors));
  Status status = context->enter();
  if (status.ok()) {
    status = context->explain(cudaStreamCreateWithFlags(&context->stream_, cudaStreamNonBlocking),
                              "Making a stream");
  }
  if (!status.ok()) return status;
  return Result<std::unique_ptr<Context>>(std::move(context));
}

Context::~Context() {
  if (!enter().ok()) return;
  for (const Chunk& chunk : chunks_) {
    (void)cudaFree(chunk.device);
    (void)cudaFreeHost(chunk.host);
  }
  if (stream_ != nullptr) (void)cudaStreamDestroy(stream_);
}

Status Context::enter() {
  if (is_lost_) return lost_;
  return explain(cudaSetDevice(device_), "Choosing the device");
}

Status Context::explain(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return {};
  const std::string reason = std::string(what) + " failed: " + cudaGetErrorString(error);
  if (error == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();
    return {Code::kOutOfMemory, reason};
  }
  return explain(Status(Code::kInternal, reason));
}

// An error that stays, whatever is called, has taken the device from the process.
Status Context::explain(Status status) {
  if (status.ok() || status.code() == Code::kOutOfMemory || is_lost_) return status;
  (void)cudaGetLastError();
  if (cudaFree(nullptr) == cudaSuccess) return status;
  lost_ = no_device("The device 'cuda:" + std::to_string(device_) + "' was lost (" + status.message() +
                    "): what was loaded on it is gone; start the process again to use it. Policies on other "
                    "devices are not affected");
  is_lost_ = true;
  return lost_;
}

Status Context::allocate(size_t bytes, void** out) {
  SSRL_RETURN_IF_ERROR(enter());
  const cudaError_t error = cudaMalloc(out, std::max<size_t>(bytes, 1));
  if (error != cudaErrorMemoryAllocation) return explain(error, "Allocating memory");
  (void)cudaGetLastError();
  size_t free = 0, total = 0;
  SSRL_RETURN_IF_ERROR(explain(cudaMemGetInfo(&free, &total), "Asking for the free memory"));
  return {Code::kOutOfMemory,
          "Expected " + std::to_string(bytes) + " bytes on the device 'cuda:" + std::to_string(device_) +
              "' but " + std::to_string(free) + " of " + std::to_string(total) +
              " are free; take a smaller batch, a smaller model or dtype 'bf16', or end what "
              "else uses the device"};
}

void Context::release(void* pointer) {
  // A lost device's memory is gone already.
  if (pointer != nullptr && enter().ok()) (void)explain(cudaFree(pointer), "Giving memory back");
}

Status Context::free_memory(uint64_t* out) {
  SSRL_RETURN_IF_ERROR(enter());
  size_t free = 0, total = 0;
  SSRL_RETURN_IF_ERROR(explain(cudaMemGetInfo(&free, &total), "Asking for the free memory"));
  *out = free;
  return {};
}

Status Context::fill_zero(void* pointer, size_t bytes) {
  if (bytes == 0) return {};
  SSRL_RETURN_IF_ERROR(enter());
  return explain(cudaMemsetAsync(pointer, 0, bytes, stream_), "Clearing memory");
}

Status Context::copy(void* to, const void* from, size_t bytes) {
  if (bytes == 0) return {};
  SSRL_RETURN_IF_ERROR(enter());
  return explain(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_),
                 "Copying on the device");
}

Status Context::copy_from_host(void* to, const void* from, size_t bytes) {
  if (bytes == 0) return {};
  const std::lock_guard lock(copying_);
  SSRL_RETURN_IF_ERROR(enter());
  return explain(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_), "Copying to the device");
}

Status Context::copy_to_host(void* to, const void* from, size_t bytes) {
  if (bytes == 0) return {};
  SSRL_RETURN_IF_ERROR(enter());
  // Small results go by pinned memory, which the device writes without the driver's detour.
  if (bytes <= kChunkBytes) {
    const void* pinned = nullptr;
    SSRL_RETURN_IF_ERROR(fetch(from, bytes, &pinned));
    SSRL_RETURN_IF_ERROR(synchronize());
    std::memcpy(to, pinned, bytes);
    return {};
  }
  SSRL_RETURN_IF_ERROR(
      explain(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_), "Copying from the device"));
  return synchronize();
}

Status Context::synchronize() {
  SSRL_RETURN_IF_ERROR(enter());
  SSRL_RETURN_IF_ERROR(explain(cudaStreamSynchronize(stream_), "The work on the device"));
  reset_staging();
  return {};
}

// Room in the same place of a chunk's two memories. A chunk is never used twice between two waits: its copy,
// or the kernel that reads it, may be still to come.
Status Context::take(size_t bytes, char** host, char** device) {
  const size_t room = (bytes + kStagedAlignment - 1) / kStagedAlignment * kStagedAlignment;
  while (open_chunk_ < chunks_.size() && chunks_[open_chunk_].used + room > chunks_[open_chunk_].bytes) {
    SSRL_RETURN_IF_ERROR(flush());
    ++open_chunk_;
  }
  if (open_chunk_ == chunks_.size()) {
    Chunk chunk;
    chunk.bytes = std::max(kChunkBytes, room);
    void *pinned = nullptr, *memory = nullptr;
    SSRL_RETURN_IF_ERROR(allocate(chunk.bytes, &memory));
    const Status status = explain(cudaMallocHost(&pinned, chunk.bytes), "Allocating pinned memory");
    if (!status.ok()) {
      release(memory);
      return status;
    }
    chunk.host = static_cast<char*>(pinned);
    chunk.device = static_cast<char*>(memory);
    chunks_.push_back(chunk);
  }
  Chunk& chunk = chunks_[open_chunk_];
  *host = chunk.host + chunk.used;
  *device = chunk.device + chunk.used;
  chunk.used += room;
  return {};
}

Status Context::stage(const void* place, const void* content, size_t bytes, const void** on_device) {
  const auto known = staged_.find(place);
  if (known != staged_.end() && known->second.bytes == bytes &&
      std::memcmp(known->second.host, content, bytes) == 0) {
    *on_device = known->second.device;
    return {};
  }
  char *host = nullptr, *device = nullptr;
  SSRL_RETURN_IF_ERROR(take(bytes, &host, &device));
  if (bytes > 0) std::memcpy(host, content, bytes);
  staged_[place] = {host, device, bytes};
  *on_device = device;
  return {};
}

Status Context::flush() {
  if (open_chunk_ >= chunks_.size()) return {};
  Chunk& chunk = chunks_[open_chunk_];
  if (chunk.sent == chunk.used) return {};
  SSRL_RETURN_IF_ERROR(enter());
  SSRL_RETURN_IF_ERROR(explain(cudaMemcpyAsync(chunk.device + chunk.sent, chunk.host + chunk.sent,
                                               chunk.used - chunk.sent, cudaMemcpyHostToDevice, stream_),
                               "Copying to the device"));
  chunk.sent = chunk.used;
  return {};
}

Status Context::fetch(const void* from, size_t bytes, const void** on_host) {
  SSRL_RETURN_IF_ERROR(flush());
  char *host = nullptr, *unused = nullptr;
  SSRL_RETURN_IF_ERROR(take(bytes, &host, &unused));
  chunks_[open_chunk_].sent = chunks_[open_chunk_].used;
  *on_host = host;
  return explain(cudaMemcpyAsync(host, from, bytes, cudaMemcpyDeviceToHost, stream_),
                 "Copying from the device");
}

void Context::reset_staging() {
  while (chunks_.size() > kKeptChunks) {
    (void)cudaFree(chunks_.back().device);
    (void)cudaFreeHost(chunks_.back().host);
    chunks_.pop_back();
  }
  for (Chunk& chunk : chunks_) chunk.used = chunk.sent = 0;
  open_chunk_ = 0;
  staged_.clear();
}

}  // namespace ssrl::cuda
