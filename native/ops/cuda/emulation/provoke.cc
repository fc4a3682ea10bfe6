#include "ops/cuda/emulation/provoke.h"

#include <functional>
#include <utility>

#include "ops/cuda/device.h"

namespace ssrl::cuda::emulation {
namespace {

constexpr int kThreads = 64;

struct Memory {
  Shared<float, kThreads> values;
  Shared<Bf16, kThreads * 8> tile;
};

// A sum over the block through shared memory, with each barrier where it belongs.
void correct(float* out) {
  Memory& memory = shared_memory<Memory>();
  memory.values.store(thread_index(), 1.0f);
  sync_threads();
  float sum = 0;
  for (int i = 0; i < kThreads; ++i) sum += memory.values.load(i);
  out[thread_index()] = sum;
}

void early_read(float* out) {
  Memory& memory = shared_memory<Memory>();
  if (thread_index() < 16) cp_async(memory.values, 4 * thread_index(), out + 4 * thread_index(), true);
  commit();
  if (thread_index() == 0) out[kThreads] = memory.values.load(0);
}

// The copy has ended for the thread that waited, not for the others.
void unordered_copy(float* out) {
  Memory& memory = shared_memory<Memory>();
  if (thread_index() < 16) cp_async(memory.values, 4 * thread_index(), out + 4 * thread_index(), true);
  commit();
  sync_threads();
  wait<0>();
  out[kThreads + thread_index()] = memory.values.load(kThreads - 1 - thread_index());
}

void unset(float* out) {
  out[thread_index()] = shared_memory<Memory>().values.load(thread_index());
}

void out_of_range(float*) {
  shared_memory<Memory>().values.store(thread_index() + 1, 1.0f);
}

struct TooLarge {
  Shared<Memory, 2> pair;
};
void too_large(float*) {
  shared_memory<TooLarge>();
}

void divergent(float* out) {
  if (thread_index() % 2 == 0) {
    out[thread_index()] = shuffle(1.0f, 0);
  } else {
    out[thread_index()] = static_cast<float>(ballot(true));
  }
}

void foreign_lane(float* out) {
  if (thread_index() % 32 < 16) out[thread_index()] = shuffle(1.0f, 20, 0xffffu);
}

void divergent_barrier(float*) {
  if (thread_index() < 32) {
    sync_threads();
  } else {
    sync_threads();
  }
}

void deadlock(float*) {
  if (thread_index() != 5) sync_warp();
}

void missing_barrier(float* out) {
  Memory& memory = shared_memory<Memory>();
  memory.values.store(thread_index(), 1.0f);
  out[thread_index()] = memory.values.load(thread_index() / 2);
}

void missing_second_barrier(float* out) {
  Memory& memory = shared_memory<Memory>();
  memory.values.store(thread_index(), 1.0f);
  sync_threads();
  out[thread_index()] = memory.values.load(kThreads - 1 - thread_index());
  memory.values.store(thread_index(), 2.0f);
}

void unordered_atomics(float* out) {
  Shared<uint32_t, 1>& count = shared_memory<Shared<uint32_t, 1>>();
  if (thread_index() == 0) count.store(0, 0u);
  sync_threads();
  atomic_add(count, 0, 1u);
  out[thread_index()] = static_cast<float>(count.load(0));
}

void misaligned(float* out) {
  load_words(out + 1);
}

using Kernel = void (*)(float*);
constexpr std::pair<const char*, Kernel> kKernels[] = {
    {"none", correct},
    {"early read", early_read},
    {"unordered copy", unordered_copy},
    {"unset", unset},
    {"out of range", out_of_range},
    {"too large", too_large},
    {"divergent", divergent},
    {"foreign lane", foreign_lane},
    {"divergent barrier", divergent_barrier},
    {"deadlock", deadlock},
    {"missing barrier", missing_barrier},
    {"missing second barrier", missing_second_barrier},
    {"unordered atomics", unordered_atomics},
    {"misaligned", misaligned},
};

uint32_t pair_of(const float* values) {
  return static_cast<uint32_t>(ops::to_bf16(values[0])) | static_cast<uint32_t>(ops::to_bf16(values[1]))
                                                              << 16;
}

void multiply(const float* a, const float* b, float* c) {
  const int lane = thread_index();
  const float* mine = a + 8 * lane;
  const uint32_t left[4] = {pair_of(mine), pair_of(mine + 2), pair_of(mine + 4), pair_of(mine + 6)};
  const uint32_t right[2] = {pair_of(b + 4 * lane), pair_of(b + 4 * lane + 2)};
  Accumulator sum{};
  mma(&sum, left, right);
  for (int i = 0; i < 4; ++i) c[4 * lane + i] = sum.value[i];
}

template <bool Transposed>
void load_matrices(const float* matrices, float* out) {
  Shared<Bf16, 256>& tile = shared_memory<Shared<Bf16, 256>>();
  const int lane = thread_index();
  for (int i = lane; i < 256; i += 32) tile.store(i, from_float<Bf16>(matrices[i]));
  sync_warp();
  const Matrices loaded = ldmatrix<Transposed>(tile, 8 * lane);
  for (int i = 0; i < 8; ++i) {
    out[8 * lane + i] = ops::from_bf16(static_cast<uint16_t>(loaded.part[i / 2] >> (16 * (i % 2))));
  }
}

}  // namespace

Status provoke(const std::string& kind) {
  alignas(16) float out[2 * kThreads] = {};
  for (const auto& [name, kernel] : kKernels) {
    if (kind == name) return launch_kernel("", kernel, {{1}, kThreads, sizeof(Memory)}, nullptr, out);
  }
  return invalid_arg("Expected the name of a fault but received " + kind);
}

Status run_mma(const std::vector<float>& a, const std::vector<float>& b, std::vector<float>* c) {
  if (a.size() != 256 || b.size() != 128) return invalid_arg("Expected a [32, 8] and b [32, 4]");
  c->assign(128, 0.0f);
  return launch_kernel("", multiply, {{1}, 32}, nullptr, a.data(), b.data(), c->data());
}

Status run_ldmatrix(const std::vector<float>& matrices, bool transposed, std::vector<float>* out) {
  if (matrices.size() != 256) return invalid_arg("Expected matrices [4, 8, 8]");
  out->assign(256, 0.0f);
  const LaunchShape shape{{1}, 32, sizeof(Shared<Bf16, 256>)};
  return launch_kernel("", transposed ? load_matrices<true> : load_matrices<false>, shape, nullptr,
                       matrices.data(), out->data());
}

}  // namespace ssrl::cuda::emulation
