// What device.h offers, as C++ on the emulated execution model: the same names with the same meaning as in
// gpu/device.h, and every rule that a GPU does not check is checked.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "ops/bf16.h"
#include "ops/cuda/emulation/block.h"
#include "ops/cuda/emulation/launches.h"
#include "ops/cuda/emulation/runtime.h"
#include "ops/cuda/shared_limit.h"
#include "status.h"

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)

// The caller's place, as last parameters; __builtin_LINE in a default argument is the line of the call.
#define SSRL_PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()

namespace ssrl::cuda {

using emulation::Block;
using Stream = cudaStream_t;

struct Bf16 {
  uint16_t bits;
};
inline float to_float(float value) {
  return value;
}
inline float to_float(Bf16 value) {
  return ops::from_bf16(value.bits);
}
template <typename T>
inline T from_float(float value) {
  if constexpr (std::is_same_v<T, Bf16>) {
    return {ops::to_bf16(value)};
  } else {
    return value;
  }
}

inline int thread_index() {
  return Block::current().thread().index;
}
inline int block_threads() {
  return Block::current().threads();
}
inline unsigned block_x() {
  return Block::current().index().x;
}
inline unsigned block_y() {
  return Block::current().index().y;
}
inline unsigned grid_x() {
  return Block::current().grid().x;
}

using std::fmaf;
inline float square_root(float x) {
  return std::sqrt(x);
}
inline float exponential(float x) {
  return std::exp(x);
}
inline float exponential2(float x) {
  return std::exp2(x);
}
inline double logarithm(double x) {
  return std::log(x);
}
inline float logarithm(float x) {
  return std::log(x);
}
// The first in the lower half.
inline uint32_t pack_bf16(float first, float second) {
  return static_cast<uint32_t>(ops::to_bf16(first)) | static_cast<uint32_t>(ops::to_bf16(second)) << 16;
}

// ---- global memory in pieces of 16 bytes

struct alignas(16) Words {
  uint32_t word[4];
};
inline Words load_words(const void* from, SSRL_PLACE) {
  if (reinterpret_cast<uintptr_t>(from) % 16 != 0)
    Block::current().fault("Out of range: a load of 16 bytes is not aligned", {"load_words", file, line});
  Words words;
  std::memcpy(&words, from, sizeof words);
  return words;
}
inline void store_words(void* to, Words words, SSRL_PLACE) {
  if (reinterpret_cast<uintptr_t>(to) % 16 != 0)
    Block::current().fault("Out of range: a store of 16 bytes is not aligned", {"store_words", file, line});
  std::memcpy(to, &words, sizeof words);
}

// ---- shared memory

// An array inside of a shared_memory<> struct. Elements have an even number of bytes.
template <typename T, int N>
struct Shared {
  static_assert(sizeof(T) % 2 == 0);
  static constexpr int kCount = N;
  T values[N];

  T load(int i, SSRL_PLACE) const {
    Block::current().check_read(at(i, 1, file, line), sizeof(T), {"load", file, line});
    return values[i];
  }
  void store(int i, T value, SSRL_PLACE) {
    Block::current().check_write(at(i, 1, file, line), sizeof(T), {"store", file, line});
    values[i] = value;
  }
  // 16 bytes from element i on.
  Words load_words(int i, SSRL_PLACE) const {
    const T* from = at(i, 16 / sizeof(T), file, line);
    Block::current().check_read(from, 16, {"load_words", file, line});
    return cuda::load_words(from, file, line);
  }
  void store_words(int i, Words words, SSRL_PLACE) {
    T* to = at(i, 16 / sizeof(T), file, line);
    Block::current().check_write(to, 16, {"store_words", file, line});
    cuda::store_words(to, words, file, line);
  }
  // The address of element i, `count` elements from there being inside.
  const T* at(int i, int count, SSRL_PLACE) const {
    if (i < 0 || i + count > N) {
      Block::current().fault("Out of range: element " + std::to_string(i) + " to " +
                                 std::to_string(i + count) + " of " + std::to_string(N),
                             {"shared memory", file, line});
    }
    return values + i;
  }
  T* at(int i, int count, SSRL_PLACE) {
    return const_cast<T*>(static_cast<const Shared*>(this)->at(i, count, file, line));
  }
};

template <typename Struct>
inline Struct& shared_memory(SSRL_PLACE) {
  static_assert(std::is_trivially_default_constructible_v<Struct>);
  return *static_cast<Struct*>(Block::current().shared(sizeof(Struct), {"shared_memory", file, line}));
}

// ---- barriers and collectives

inline void sync_threads(SSRL_PLACE) {
  Block::current().barrier({"sync_threads", file, line});
}

constexpr uint32_t kAllLanes = 0xffffffffu;

// combine(operands): reads and writes the operands of all lanes of the mask, by lane, null outside of it.
template <typename Operand, typename Combine>
inline void collective(emulation::Place place, uint32_t mask, Operand& operand, const Combine& combine,
                       bool orders_memory = false) {
  Block& block = Block::current();
  void** arrived = block.arrive(place, mask, &operand, orders_memory);
  if (arrived == nullptr) return;
  {
    const emulation::Unseen unseen;
    Operand* lanes[emulation::kWarp];
    for (int lane = 0; lane < emulation::kWarp; ++lane) lanes[lane] = static_cast<Operand*>(arrived[lane]);
    combine(lanes);
  }
  block.release(mask, orders_memory);
}

inline void sync_warp(uint32_t mask = kAllLanes, SSRL_PLACE) {
  int nothing = 0;
  collective(
      {"sync_warp", file, line}, mask, nothing, [](int**) {}, true);
}

template <typename T>
struct Exchange {
  T in, out;
  int source;
};

// The value of lane `source`.
template <typename T>
inline T shuffle(T value, int source, uint32_t mask = kAllLanes, SSRL_PLACE) {
  Exchange<T> operand{value, value, source & 31};
  Block& block = Block::current();
  collective({"shuffle", file, line}, mask, operand, [&](Exchange<T>** lanes) {
    for (int lane = 0; lane < 32; ++lane) {
      if (lanes[lane] == nullptr) continue;
      const Exchange<T>* from = lanes[lanes[lane]->source];
      if (from == nullptr) {
        block.fault(
            "Divergent collective: lane " + std::to_string(lane) + " reads a lane that is not in the mask",
            {"shuffle", file, line});
      }
      lanes[lane]->out = from->in;
    }
  });
  return operand.out;
}
template <typename T>
inline T shuffle_xor(T value, int flip, uint32_t mask = kAllLanes, SSRL_PLACE) {
  return shuffle(value, (thread_index() & 31) ^ flip, mask, file, line);
}

inline uint32_t ballot(bool predicate, uint32_t mask = kAllLanes, SSRL_PLACE) {
  Exchange<uint32_t> operand{predicate ? 1u : 0u, 0, 0};
  collective({"ballot", file, line}, mask, operand, [](Exchange<uint32_t>** lanes) {
    uint32_t votes = 0;
    for (int lane = 0; lane < 32; ++lane) {
      if (lanes[lane] != nullptr) votes |= lanes[lane]->in << lane;
    }
    for (int lane = 0; lane < 32; ++lane) {
      if (lanes[lane] != nullptr) lanes[lane]->out = votes;
    }
  });
  return operand.out;
}
inline int lowest_lane(uint32_t votes) {
  return __builtin_ctz(votes);
}

// Adds in shared memory; integers only, so that the order does not matter.
template <typename T, int N>
inline void atomic_add(Shared<T, N>& array, int i, T value, SSRL_PLACE) {
  static_assert(std::is_integral_v<T>);
  Block::current().check_atomic(array.at(i, 1, file, line), sizeof(T), {"atomic_add", file, line});
  __atomic_fetch_add(&array.values[i], value, __ATOMIC_RELAXED);
}

// ---- asynchronous copies into shared memory, 16 bytes each

template <typename T, int N>
inline void cp_async(Shared<T, N>& to, int i, const void* from, bool inside, SSRL_PLACE) {
  Block::current().copy_async({to.at(i, 16 / sizeof(T), file, line), inside ? from : nullptr, 16, false},
                              {"cp_async", file, line});
}
inline void commit() {
  Block::current().commit_copies();
}
template <int Left>
inline void wait() {
  Block::current().wait_copies(Left);
}

// ---- tensor cores

struct Matrices {
  uint32_t part[4];
};

struct MatrixRow {
  const uint16_t* row;
  Matrices out;
};

// Four 8x8 matrices of bf16: lane l gives the address of row l % 8 of matrix l / 8, and gets of matrix m the
// elements 2 (l % 4) and 2 (l % 4) + 1 of row l / 4, or of column l / 4 when transposed (PTX ISA, ldmatrix).
template <bool Transposed, int N>
inline Matrices ldmatrix(const Shared<Bf16, N>& from, int i, SSRL_PLACE) {
  MatrixRow operand{&from.at(i, 8, file, line)->bits, {}};
  Block& block = Block::current();
  const emulation::Place place{Transposed ? "ldmatrix.trans" : "ldmatrix", file, line};
  if (reinterpret_cast<uintptr_t>(operand.row) % 16 != 0)
    block.fault("Out of range: a row is not aligned to 16 bytes", place);
  block.check_read(operand.row, 16, place);
  emulation::note_read(operand.row, 16);
  collective(place, kAllLanes, operand, [](MatrixRow** lanes) {
    for (int m = 0; m < 4; ++m) {
      for (int lane = 0; lane < 32; ++lane) {
        const int outer = lane / 4, inner = 2 * (lane % 4);
        const uint32_t low = Transposed ? lanes[8 * m + inner]->row[outer] : lanes[8 * m + outer]->row[inner];
        const uint32_t high =
            Transposed ? lanes[8 * m + inner + 1]->row[outer] : lanes[8 * m + outer]->row[inner + 1];
        lanes[lane]->out.part[m] = low | high << 16;
      }
    }
  });
  return operand.out;
}

struct Accumulator {
  float value[4];
};

struct Product {
  uint32_t a[4], b[2];
  Accumulator c;
};

// c += a·b with a [16, 16], b [16, 8] and c [16, 8]; fragments as in PTX ISA, mma.m16n8k16 for .bf16.
inline void mma(Accumulator* c, const uint32_t (&a)[4], const uint32_t (&b)[2], SSRL_PLACE) {
  Product operand{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}, *c};
  collective({"mma", file, line}, kAllLanes, operand, [](Product** lanes) {
    const auto half = [](uint32_t pair, int i) {
      return ops::from_bf16(static_cast<uint16_t>(i == 0 ? pair : pair >> 16));
    };
    float left[16][16], right[8][16];  // by row, and by column
    for (int lane = 0; lane < 32; ++lane) {
      for (int i = 0; i < 2; ++i) {
        const int outer = lane / 4, k = 2 * (lane % 4) + i;
        for (int part = 0; part < 4; ++part) {
          left[outer + 8 * (part % 2)][k + 8 * (part / 2)] = half(lanes[lane]->a[part], i);
        }
        for (int part = 0; part < 2; ++part) right[outer][k + 8 * part] = half(lanes[lane]->b[part], i);
      }
    }
    for (int lane = 0; lane < 32; ++lane) {
      for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + 8 * (i / 2), column = 2 * (lane % 4) + i % 2;
        double sum = 0;
        for (int k = 0; k < 16; ++k) sum += static_cast<double>(left[row][k]) * right[column][k];
        lanes[lane]->c.value[i] += static_cast<float>(sum);
      }
    }
  });
  *c = operand.c;
}

// ---- launches

struct LaunchShape {
  emulation::Shape grid;
  int threads;
  size_t shared_bytes = 0;
};

// `name` says `Kernel = ` and which, as the compiler puts it.
template <typename... Parameters>
inline Status launch_kernel(const char* name, void (*kernel)(Parameters...), const LaunchShape& shape,
                            Stream stream, std::type_identity_t<Parameters>... arguments) {
  SSRL_RETURN_IF_ERROR(enough_shared_memory(shape.shared_bytes, emulation::most_shared_memory(stream)));
  // What stood where a struct's padding is may look like an address.
  (__builtin_clear_padding(&arguments), ...);
  if (stream != nullptr && (emulation::holds_host_pointer(&arguments, sizeof arguments) || ...)) {
    return {Code::kInternal, "A kernel was given the address of host memory"};
  }
  if (emulation::records_launches()) {
    emulation::record_launch(name, {{}, shape.grid, shape.threads, shape.shared_bytes});
    return {};
  }
  return emulation::enqueue(stream, [=] {
    return emulation::run_grid(shape.grid, shape.threads, shape.shared_bytes, [&] { kernel(arguments...); });
  });
}

template <auto Kernel, typename... Arguments>
inline Status launch(const LaunchShape& shape, Stream stream, const Arguments&... arguments) {
  return launch_kernel(__PRETTY_FUNCTION__, Kernel, shape, stream, arguments...);
}

}  // namespace ssrl::cuda
