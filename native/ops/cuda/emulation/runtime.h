// The part of the CUDA runtime that the backend uses, emulated for tests that need no GPU. Two rules are
// enforced that a GPU would let pass or punish by chance:
//  - Device memory lies in pages that nobody may touch but a kernel or a copy of that device: a host that
//    reads it, and a kernel of another device, die with a report on stderr.
//  - A stream does nothing before somebody waits for it: what is read too early was never written, and what
//    the host changes too early arrives changed.
// A kernel that is given a pointer to host memory is a fault, too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "ops/cuda/emulation/block.h"
#include "status.h"

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInsufficientDriver = 35,
  cudaErrorNoDevice = 100,
  cudaErrorInvalidDevice = 101,
  cudaErrorLaunchFailure = 719,
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDeviceToDevice = 3 };
constexpr unsigned cudaStreamNonBlocking = 1;

using cudaStream_t = void*;
struct cudaDeviceProp {
  char name[256];
  size_t totalGlobalMem;
  int major, minor, multiProcessorCount;
};

cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaRuntimeGetVersion(int* version);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaMemGetInfo(size_t* free, size_t* total);
cudaError_t cudaMalloc(void** pointer, size_t bytes);
cudaError_t cudaFree(void* pointer);
cudaError_t cudaMallocHost(void** pointer, size_t bytes);
cudaError_t cudaFreeHost(void* pointer);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream);
cudaError_t cudaMemsetAsync(void* pointer, int value, size_t bytes, cudaStream_t stream);
// A fault of a kernel is told with its report.
const char* cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetLastError();

namespace ssrl::cuda::emulation {

constexpr int kDevices = 2;

// What a test may do to a device: give it less memory, and lose it.
void set_device_memory(int device, size_t bytes);
void lose_device(int device);
void set_capability(int device, int major, int minor);
// The most shared memory of a block on it.
void set_shared_memory(int device, size_t bytes);
size_t most_shared_memory(cudaStream_t stream);
// The error with which devices are looked for in vain; cudaSuccess: there they are.
void hide_devices(cudaError_t reason);

// What went over to devices and back, and how often a host has waited, since the last call.
struct Traffic {
  int64_t to_device = 0, to_host = 0, waits = 0, launches = 0;
};
Traffic take_traffic();

// Whether a kernel's argument, looked at word by word, holds the address of host memory.
bool holds_host_pointer(const void* argument, size_t bytes);

// Puts a launch at the end of the stream; without a stream it runs at once.
Status enqueue(cudaStream_t stream, std::function<Status()> launch);

}  // namespace ssrl::cuda::emulation
