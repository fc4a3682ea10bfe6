// The CUDA execution model on one OS thread. A CUDA thread is a fiber, a block is a set of fibers, and blocks
// run one after another. A fiber runs until it waits for others; who goes on next is the schedule's choice:
// in order for seed 0, shuffled warps and lanes for every other seed.
//
// What a GPU leaves undefined is reported here, with the kernel's source line: lanes that come to different
// collectives, threads that wait for ever, shared memory that is read before it was written or while an
// asynchronous copy into it is under way, two threads at the same word without a barrier between, and an
// access outside of an array.
#pragma once

#include <boost/context/fiber.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "ops/cuda/emulation/banks.h"
#include "ops/cuda/emulation/sanitizers.h"
#include "status.h"

namespace ssrl::cuda::emulation {

constexpr int kWarp = 32;

struct Shape {
  unsigned x = 1, y = 1, z = 1;
};

// Where a thread is, for collectives to compare and reports to name.
struct Place {
  const char* operation;
  const char* file;
  int line;
};

struct AsyncCopy {
  void* to;
  const void* from;  // null: zeros
  size_t bytes;
  bool committed;
};

struct Thread {
  enum class State { kReady, kWaiting, kEnded };
  int index = 0;
  State state = State::kReady;
  Place place{};  // while it waits
  uint32_t warp_epoch = 0;
  std::vector<AsyncCopy> copies;  // in the order of issue
  std::vector<size_t> groups;     // copies in each committed group that has not been waited for
  boost::context::fiber fiber, scheduler;
  Execution execution;
};

// What is known of two neighbouring bytes of shared memory.
struct Granule {
  enum class State : uint8_t { kUnset, kPending, kSet };
  State state = State::kUnset;
  int16_t writer = -1, reader = -1;
  uint32_t write_epoch = 0, write_warp_epoch = 0;
  uint32_t read_epoch = 0, read_warp_epoch = 0;
  uint32_t atomic_epoch = 0;  // 1 + the epoch of the last atomic access; 0: none
};

class StackPool;

class Block {
 public:
  Block(Shape grid, int threads, size_t shared_bytes, StackPool* stacks);
  ~Block();

  // Runs the kernel for one block; the fault's report when there was one.
  Status run(Shape index, const std::function<void()>& kernel, uint64_t seed);

  // ---- from a running fiber

  static Block& current();
  Thread& thread() { return *running_; }
  Shape index() const { return index_; }
  Shape grid() const { return grid_; }
  int threads() const { return static_cast<int>(threads_.size()); }

  void* shared(size_t bytes, Place place);
  void barrier(Place place);
  // Registers this lane's operand. The last lane of the mask gets the operands of all by lane, combines, and
  // calls release(); the others get null once it has.
  void** arrive(Place place, uint32_t mask, void* operand, bool orders_memory);
  void release(uint32_t mask, bool orders_memory);

  void copy_async(const AsyncCopy& copy, Place place);
  void commit_copies();
  // Completes all but the newest `left` groups.
  void wait_copies(size_t left);

  void check_read(const void* pointer, size_t bytes, Place place);
  void check_write(const void* pointer, size_t bytes, Place place);
  void check_atomic(const void* pointer, size_t bytes, Place place);

  // Ends the launch with a report.
  [[noreturn]] void fault(const std::string& what, Place place);

 private:
  struct Collective {
    Place place;
    uint32_t mask = 0, arrived = 0;
    void* operands[kWarp] = {};
    void* order = nullptr;
  };

  void start(Thread& thread, const std::function<void()>& kernel);
  void renew_memory();
  void* order(size_t i) { return orders_.get() + 8 * i; }
  void wait(Place place);
  void to_scheduler();
  void one_round(uint64_t* random);
  bool all_ended() const;
  std::string waiting_report() const;
  Granule* granules(const void* pointer, size_t bytes, Place place);
  void check_atomics(const Granule& granule, Place place);
  bool ordered(int other, uint32_t epoch, uint32_t warp_epoch) const;
  [[noreturn]] void diverged(const Collective& open, Place place, uint32_t mask);

  Shape grid_, index_;
  std::vector<std::unique_ptr<Thread>> threads_;
  std::vector<std::vector<Collective>> collectives_;  // of each warp
  uint8_t* shared_ = nullptr;  // an exact piece of the heap, so that AddressSanitizer sees its end
  size_t shared_bytes_;
  std::vector<Granule> shadow_;
  StackPool* stacks_;
  // Addresses by which sanitizers know what comes before what: two barriers in turns, and collectives.
  std::unique_ptr<char[]> orders_;
  size_t collectives_opened_ = 0;
  Execution scheduler_;
  Thread* running_ = nullptr;
  Place barrier_{};
  int barrier_arrived_ = 0;
  uint32_t epoch_ = 0;
  std::string report_;
  bool moved_ = false;
  BankCounter banks_;
};

// The schedule of the launches that follow, in this process.
void set_seed(uint64_t seed);

Status run_grid(Shape grid, int threads, size_t shared_bytes, const std::function<void()>& kernel);

}  // namespace ssrl::cuda::emulation
