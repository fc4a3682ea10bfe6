// What device.h offers, under nvcc: the CUDA runtime and inline PTX.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>

#include "ops/cuda/shared_limit.h"
#include "status.h"

namespace ssrl::cuda {

using Stream = cudaStream_t;

struct Bf16 {
  uint16_t bits;
};
__device__ __forceinline__ float to_float(float value) {
  return value;
}
__device__ __forceinline__ float to_float(Bf16 value) {
  return __uint_as_float(static_cast<uint32_t>(value.bits) << 16);
}
template <typename T>
__device__ __forceinline__ T from_float(float value) {
  if constexpr (std::is_same_v<T, Bf16>) {
    return {__bfloat16_as_ushort(__float2bfloat16_rn(value))};
  } else {
    return value;
  }
}

__device__ __forceinline__ int thread_index() {
  return static_cast<int>(threadIdx.x);
}
__device__ __forceinline__ int block_threads() {
  return static_cast<int>(blockDim.x);
}
__device__ __forceinline__ unsigned block_x() {
  return blockIdx.x;
}
__device__ __forceinline__ unsigned block_y() {
  return blockIdx.y;
}
__device__ __forceinline__ unsigned grid_x() {
  return gridDim.x;
}

__device__ __forceinline__ float square_root(float x) {
  return __fsqrt_rn(x);
}
__device__ __forceinline__ float exponential(float x) {
  return expf(x);
}
// Within 2^-22; 0 where the result would be subnormal.
__device__ __forceinline__ float exponential2(float x) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
}
__device__ __forceinline__ double logarithm(double x) {
  return log(x);
}
__device__ __forceinline__ float logarithm(float x) {
  return logf(x);
}
// The first in the lower half.
__device__ __forceinline__ uint32_t pack_bf16(float first, float second) {
  uint32_t both;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(second), "f"(first));
  return both;
}

// ---- global memory in pieces of 16 bytes

struct alignas(16) Words {
  uint32_t word[4];
};
__device__ __forceinline__ Words load_words(const void* from) {
  const uint4 words = *static_cast<const uint4*>(from);
  return {{words.x, words.y, words.z, words.w}};
}
__device__ __forceinline__ void store_words(void* to, Words words) {
  *static_cast<uint4*>(to) = make_uint4(words.word[0], words.word[1], words.word[2], words.word[3]);
}

// ---- shared memory

// An array inside of a shared_memory<> struct.
template <typename T, int N>
struct Shared {
  static constexpr int kCount = N;
  T values[N];

  __device__ __forceinline__ T load(int i) const { return values[i]; }
  __device__ __forceinline__ void store(int i, T value) { values[i] = value; }
  __device__ __forceinline__ Words load_words(int i) const { return cuda::load_words(values + i); }
  __device__ __forceinline__ void store_words(int i, Words words) { cuda::store_words(values + i, words); }
  __device__ __forceinline__ uint32_t address(int i) const {
    return static_cast<uint32_t>(__cvta_generic_to_shared(values + i));
  }
};

template <typename Struct>
__device__ __forceinline__ Struct& shared_memory() {
  extern __shared__ __align__(128) unsigned char ssrl_shared_bytes[];
  return *reinterpret_cast<Struct*>(ssrl_shared_bytes);
}

// ---- barriers and collectives

__device__ __forceinline__ void sync_threads() {
  __syncthreads();
}

constexpr uint32_t kAllLanes = 0xffffffffu;

__device__ __forceinline__ void sync_warp(uint32_t mask = kAllLanes) {
  __syncwarp(mask);
}
template <typename T>
__device__ __forceinline__ T shuffle(T value, int source, uint32_t mask = kAllLanes) {
  return __shfl_sync(mask, value, source);
}
template <typename T>
__device__ __forceinline__ T shuffle_xor(T value, int flip, uint32_t mask = kAllLanes) {
  return __shfl_xor_sync(mask, value, flip);
}
__device__ __forceinline__ uint32_t ballot(bool predicate, uint32_t mask = kAllLanes) {
  return __ballot_sync(mask, predicate);
}
__device__ __forceinline__ int lowest_lane(uint32_t votes) {
  return __ffs(static_cast<int>(votes)) - 1;
}

// Adds in shared memory; integers only, so that the order does not matter.
template <typename T, int N>
__device__ __forceinline__ void atomic_add(Shared<T, N>& array, int i, T value) {
  static_assert(std::is_integral_v<T>);
  if constexpr (sizeof(T) == 8) {
    atomicAdd(reinterpret_cast<unsigned long long*>(array.values + i),
              static_cast<unsigned long long>(value));
  } else {
    atomicAdd(array.values + i, value);
  }
}

// ---- asynchronous copies into shared memory, 16 bytes each

template <typename T, int N>
__device__ __forceinline__ void cp_async(Shared<T, N>& to, int i, const void* from, bool inside) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(to.address(i)), "l"(from),
               "r"(inside ? 16 : 0)
               : "memory");
}
__device__ __forceinline__ void commit() {
  asm volatile("cp.async.commit_group;\n" ::: "memory");
}
template <int Left>
__device__ __forceinline__ void wait() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(Left) : "memory");
}

// ---- tensor cores

struct Matrices {
  uint32_t part[4];
};

// Four 8x8 matrices of bf16: lane l gives the address of row l % 8 of matrix l / 8.
template <bool Transposed, int N>
__device__ __forceinline__ Matrices ldmatrix(const Shared<Bf16, N>& from, int i) {
  Matrices out;
  if constexpr (Transposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(out.part[0]), "=r"(out.part[1]), "=r"(out.part[2]), "=r"(out.part[3])
                 : "r"(from.address(i))
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(out.part[0]), "=r"(out.part[1]), "=r"(out.part[2]), "=r"(out.part[3])
                 : "r"(from.address(i))
                 : "memory");
  }
  return out;
}

struct Accumulator {
  float value[4];
};

// c += a·b with a [16, 16], b [16, 8] and c [16, 8].
__device__ __forceinline__ void mma(Accumulator* c, const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};\n"
      : "+f"(c->value[0]), "+f"(c->value[1]), "+f"(c->value[2]), "+f"(c->value[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// ---- launches

struct LaunchShape {
  dim3 grid;
  int threads;
  size_t shared_bytes = 0;
};

inline Status status_of(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return {};
  const Code code = error == cudaErrorMemoryAllocation ? Code::kOutOfMemory : Code::kInternal;
  return {code, std::string(what) + " failed on the CUDA device: " + cudaGetErrorString(error)};
}

// More than every device gives without being asked; once for each kernel and device.
template <typename Kernel>
inline Status ask_for_shared_memory(Kernel kernel, size_t bytes, std::atomic<uint64_t>* asked) {
  int device = 0, most = 0;
  SSRL_RETURN_IF_ERROR(status_of(cudaGetDevice(&device), "Asking for the device"));
  const uint64_t bit = device < 64 ? uint64_t{1} << device : 0;
  if ((asked->load() & bit) != 0) return {};
  SSRL_RETURN_IF_ERROR(
      status_of(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
                "Asking for the most shared memory"));
  SSRL_RETURN_IF_ERROR(enough_shared_memory(bytes, static_cast<size_t>(most)));
  SSRL_RETURN_IF_ERROR(status_of(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
      "Asking for shared memory"));
  asked->fetch_or(bit);
  return {};
}

template <auto Kernel>
struct Launch;
template <typename... Parameters, void (*Kernel)(Parameters...)>
struct Launch<Kernel> {
  static Status run(const LaunchShape& shape, Stream stream, Parameters... arguments) {
    constexpr size_t kWithoutAsking = 48 << 10;
    if (shape.shared_bytes > kWithoutAsking) {
      static std::atomic<uint64_t> asked{0};
      SSRL_RETURN_IF_ERROR(ask_for_shared_memory(Kernel, shape.shared_bytes, &asked));
    }
    Kernel<<<shape.grid, shape.threads, shape.shared_bytes, stream>>>(arguments...);
    return status_of(cudaGetLastError(), "A launch");
  }
};

template <auto Kernel, typename... Arguments>
inline Status launch(const LaunchShape& shape, Stream stream, const Arguments&... arguments) {
  return Launch<Kernel>::run(shape, stream, arguments...);
}

}  // namespace ssrl::cuda
