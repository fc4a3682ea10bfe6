// Matrix products in the three transposes that a layer needs, in bf16 on the tensor cores. An element is the
// sum of its slices of K in order, each summed from zero by steps of 16, so that a row's bits depend on
// nothing but the row, and a product may be cut to the card in two ways: tiles whose warps walk all of K, for
// grids that fill it, and small tiles whose warps take a slice each, for few rows.
#include <algorithm>

#include "ops/cuda/matmul_tile.h"

namespace ssrl::cuda {
namespace {

// Buffers in a ring: those ahead arrive by asynchronous copies while one is multiplied.
constexpr int kStages = 3;

template <int Rows, int Columns, int WarpsDown, int WarpsAcross>
struct TileCut {
  static constexpr int kRows = Rows, kColumns = Columns, kAcross = WarpsAcross;
  static constexpr int kThreads = 32 * WarpsDown * WarpsAcross;
  static constexpr int kWarpRows = Rows / WarpsDown, kWarpColumns = Columns / WarpsAcross;
  struct Memory {
    Shared<Bf16, kStages * Rows * kDepth> a;
    Shared<Bf16, kStages * Columns * kDepth> b;
  };
};
using Large = TileCut<128, 128, 2, 4>;
using Medium = TileCut<64, 64, 2, 2>;

template <typename Cut, bool TransposedA, bool TransposedB>
__global__ void __launch_bounds__(Cut::kThreads) multiply_tiles(Gemm g) {
  constexpr int kRows = Cut::kRows, kColumns = Cut::kColumns;
  constexpr int kDown = Cut::kWarpRows / 16, kAcross = Cut::kWarpColumns / 8;
  auto& memory = shared_memory<typename Cut::Memory>();
  const int64_t row = static_cast<int64_t>(block_x()) * kRows,
                column = static_cast<int64_t>(block_y()) * kColumns;
  const Operand a = operand_of<TransposedA>(g.a, g.rows, g.depth),
                b = operand_of<TransposedB>(g.b, g.columns, g.depth);
  const auto fill = [&](int stage, int64_t k) {
    if (k < g.depth) {
      const int thread = thread_index();
      fill_tile<TransposedA, kRows, Cut::kThreads>(memory.a, stage * kRows * kDepth, a, row, k, thread);
      fill_tile<TransposedB, kColumns, Cut::kThreads>(memory.b, stage * kColumns * kDepth, b, column, k,
                                                      thread);
    }
    commit();
  };
  const int warp_row = warp_index() / Cut::kAcross * Cut::kWarpRows,
            warp_column = warp_index() % Cut::kAcross * Cut::kWarpColumns;
  Accumulator totals[kDown][kAcross] = {}, sums[kDown][kAcross] = {};
#pragma unroll
  for (int stage = 0; stage < kStages - 1; ++stage) fill(stage, stage * kDepth);
  int stage = 0;
  for (int64_t k = 0; k < g.depth; k += kDepth) {
    wait<kStages - 2>();
    // All have left the buffer that comes next in the ring.
    sync_threads();
    fill((stage + kStages - 1) % kStages, k + (kStages - 1) * kDepth);
    multiply_step<TransposedA, TransposedB, kRows, kColumns>(
        sums, memory.a, stage * kRows * kDepth, warp_row, memory.b, stage * kColumns * kDepth, warp_column);
    stage = (stage + 1) % kStages;
    if ((k + kDepth) % kSlice != 0 && k + kDepth < g.depth) continue;
#pragma unroll
    for (int i = 0; i < kDown; ++i) {
#pragma unroll
      for (int j = 0; j < kAcross; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) totals[i][j].value[e] += sums[i][j].value[e];
        sums[i][j] = {};
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kDown; ++i) {
#pragma unroll
    for (int j = 0; j < kAcross; ++j) {
      const int64_t to_row = row + warp_row + 16 * i + lane_index() / 4,
                    to_column = column + warp_column + 8 * j + lane_index() % 4 * 2;
      const float(&values)[4] = totals[i][j].value;
      store_products(g, to_row, to_column, values[0], values[1]);
      store_products(g, to_row + 8, to_column, values[2], values[3]);
    }
  }
}

// ---- few rows: every warp of a block takes the same tile, and a slice of its own

// The smallest tiles are for grids that do not fill the card, where only more warps are left to hide latency;
// of larger ones two blocks fit a multiprocessor.
template <int Side>
constexpr int kMostWarps = Side == 16 ? 8 : 4;

template <int Side>
struct SliceMemory {
  Shared<Bf16, kMostWarps<Side> * kStages * Side * kDepth> a, b;
  Shared<float, kMostWarps<Side> * Side * Side> parts;  // of each warp, as its fragments lie
};

template <int Side, bool TransposedA, bool TransposedB>
__global__ void __launch_bounds__(32 * kMostWarps<Side>) multiply_slices(Gemm g) {
  constexpr int kDown = Side / 16, kAcross = Side / 8, kSteps = kSlice / kDepth;
  // Pairs of neighbours of the tile, and how many each thread of the smallest block adds up.
  constexpr int kPairs = Side * Side / 2, kMostOwn = kPairs / 32;
  auto& memory = shared_memory<SliceMemory<Side>>();
  const int64_t row = static_cast<int64_t>(block_x()) * Side, column = static_cast<int64_t>(block_y()) * Side;
  const Operand a = operand_of<TransposedA>(g.a, g.rows, g.depth),
                b = operand_of<TransposedB>(g.b, g.columns, g.depth);
  const int warp = warp_index(), warps = block_threads() / 32;
  const auto rounds = static_cast<int>((g.depth + kSlice * warps - 1) / (kSlice * warps));
  const auto k_of = [&](int step) {
    return (static_cast<int64_t>(step / kSteps) * warps + warp) * kSlice + step % kSteps * kDepth;
  };
  const auto base_of = [&](int step) { return (warp * kStages + step % kStages) * Side * kDepth; };
  const auto fill = [&](int step) {
    if (step < rounds * kSteps && k_of(step) < g.depth) {
      fill_tile<TransposedA, Side, 32>(memory.a, base_of(step), a, row, k_of(step), lane_index());
      fill_tile<TransposedB, Side, 32>(memory.b, base_of(step), b, column, k_of(step), lane_index());
    }
    commit();
  };
  FloatPair totals[kMostOwn] = {};
  Accumulator sums[kDown][kAcross] = {};
#pragma unroll
  for (int step = 0; step < kStages - 1; ++step) fill(step);
  for (int step = 0; step < rounds * kSteps; ++step) {
    wait<kStages - 2>();
    sync_warp();
    fill(step + kStages - 1);
    if (k_of(step) < g.depth) {
      multiply_step<TransposedA, TransposedB, Side, Side>(sums, memory.a, base_of(step), 0, memory.b,
                                                          base_of(step), 0);
    }
    if ((step + 1) % kSteps != 0) continue;
#pragma unroll
    for (int i = 0; i < kDown; ++i) {
#pragma unroll
      for (int j = 0; j < kAcross; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int at = ((warp * kDown + i) * kAcross + j) * 4 + e;
          memory.parts.store(at * 32 + lane_index(), sums[i][j].value[e]);
        }
        sums[i][j] = {};
      }
    }
    sync_threads();
#pragma unroll
    for (int own = 0; own < kMostOwn; ++own) {
      const int pair = own * block_threads() + thread_index(), half = pair / 32 * 2;
      if (pair >= kPairs) continue;
      for (int other = 0; other < warps; ++other) {
        const int at = (other * kDown * kAcross * 4 + half) * 32 + pair % 32;
        totals[own].first += memory.parts.load(at);
        totals[own].second += memory.parts.load(at + 32);
      }
    }
    sync_threads();
  }
#pragma unroll
  for (int own = 0; own < kMostOwn; ++own) {
    const int pair = own * block_threads() + thread_index(), half = pair / 32, lane = pair % 32;
    if (pair >= kPairs) continue;
    const int fragment = half / 2;
    store_products(g, row + fragment / kAcross * 16 + half % 2 * 8 + lane / 4,
                   column + fragment % kAcross * 8 + lane % 4 * 2, totals[own].first, totals[own].second);
  }
}

unsigned blocks_of(int64_t count, int side) {
  return static_cast<unsigned>(pieces_of(count, side));
}

template <typename Cut, bool TransposedA, bool TransposedB>
Status launch_tiles(const Gemm& g, Stream stream) {
  const LaunchShape shape{{blocks_of(g.rows, Cut::kRows), blocks_of(g.columns, Cut::kColumns)},
                          Cut::kThreads,
                          sizeof(typename Cut::Memory)};
  return launch<multiply_tiles<Cut, TransposedA, TransposedB>>(shape, stream, g);
}

template <int Side, bool TransposedA, bool TransposedB>
Status launch_slices(const Gemm& g, Stream stream) {
  const int64_t slices = pieces_of(g.depth, kSlice);
  const int warps = static_cast<int>(std::clamp<int64_t>(slices, 1, kMostWarps<Side>));
  const LaunchShape shape{
      {blocks_of(g.rows, Side), blocks_of(g.columns, Side)}, 32 * warps, sizeof(SliceMemory<Side>)};
  return launch<multiply_slices<Side, TransposedA, TransposedB>>(shape, stream, g);
}

// The largest tiles with which every multiprocessor has one; of tiles that fill one by themselves, two, so
// that the last ones do not leave half of the card idle.
template <bool TransposedA, bool TransposedB>
Status launch_product(const Gemm& g, int multiprocessors, Stream stream) {
  const auto tiles = [&](int side) { return pieces_of(g.rows, side) * pieces_of(g.columns, side); };
  if (g.rows > 64 && tiles(128) >= 2 * multiprocessors)
    return launch_tiles<Large, TransposedA, TransposedB>(g, stream);
  if (g.rows > 32 && tiles(64) >= multiprocessors)
    return launch_tiles<Medium, TransposedA, TransposedB>(g, stream);
  if (tiles(32) >= multiprocessors) return launch_slices<32, TransposedA, TransposedB>(g, stream);
  return launch_slices<16, TransposedA, TransposedB>(g, stream);
}

}  // namespace

Status multiply(const Gemm& g, int multiprocessors, Stream stream) {
  if (g.rows == 0 || g.columns == 0) return {};
  if (g.type == DType::kF32) return multiply_floats(g, stream);
  if (g.transposed_a) return launch_product<true, true>(g, multiprocessors, stream);
  return g.transposed_b ? launch_product<false, true>(g, multiprocessors, stream)
                        : launch_product<false, false>(g, multiprocessors, stream);
}

}  // namespace ssrl::cuda
