// Kernels with one mistake each, which only a sanitizer sees: what a run finds nothing with must be able to
// find something.
#include <limits>
#include <utility>

#include "ops/cuda/device.h"
#include "ops/cuda/sanitized/host.h"

namespace ssrl::cuda::sanitized {
namespace {

constexpr int kThreads = 64;

struct Memory {
  Shared<float, kThreads> values;
};

void none(float* out) {
  Memory& memory = shared_memory<Memory>();
  memory.values.store(thread_index(), 1.0f);
  sync_threads();
  if (block_x() == 0) out[thread_index()] = memory.values.load(kThreads - 1 - thread_index());
}

void race_of_threads(float* out) {
  out[thread_index() / 2] = 1.0f;
}

// A shuffle is no barrier.
void race_despite_shuffle(float* out) {
  if (thread_index() == 0) out[0] = 1.0f;
  shuffle(1.0f, 0);
  if (thread_index() == 31) out[0] += 1.0f;
}

void race_of_blocks(float* out) {
  if (thread_index() == 0) out[0] = static_cast<float>(block_x());
}

void past_device_memory(float* out) {
  if (thread_index() == 0) out[0] = out[2 * kThreads + 1];
}

void past_shared_memory(float* out) {
  Memory& memory = shared_memory<Memory>();
  if (thread_index() == 0) memory.values.values[kThreads + static_cast<int>(block_x())] = 0;
}

void past_an_array(float* out) {
  float own[4] = {};
  volatile int i = 4;
  own[i] = 1.0f;
  out[thread_index()] = own[0];
}

void overflow(float* out) {
  volatile int large = std::numeric_limits<int>::max();
  out[thread_index()] = static_cast<float>(large + 1);
}

void misaligned(float* out) {
  volatile auto address = reinterpret_cast<uintptr_t>(out) + 2;
  out[thread_index()] = *reinterpret_cast<const float*>(address);
}

using Kernel = void (*)(float*);
constexpr std::pair<const char*, Kernel> kMistakes[] = {
    {"none", none},
    {"race of threads", race_of_threads},
    {"race despite a shuffle", race_despite_shuffle},
    {"race of blocks", race_of_blocks},
    {"past device memory", past_device_memory},
    {"past shared memory", past_shared_memory},
    {"past an array", past_an_array},
    {"overflow", overflow},
    {"misaligned", misaligned},
};

}  // namespace

bool commit_mistake(const std::string& name) {
  for (const auto& [mistake, kernel] : kMistakes) {
    if (name != mistake) continue;
    cudaStream_t stream = nullptr;
    void* out = nullptr;
    cudaSetDevice(0);
    cudaMalloc(&out, (2 * kThreads + 1) * sizeof(float));
    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    cudaMemsetAsync(out, 0, (2 * kThreads + 1) * sizeof(float), stream);
    must(launch_kernel(mistake, kernel, {{2}, kThreads, sizeof(Memory)}, stream, static_cast<float*>(out)));
    if (cudaStreamSynchronize(stream) != cudaSuccess) must({Code::kInternal, "The kernel has failed"});
    return true;
  }
  return false;
}

}  // namespace ssrl::cuda::sanitized
