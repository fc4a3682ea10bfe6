#include "ops/cuda/emulation/block.h"

#include <sys/mman.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#include "ops/cuda/emulation/stacks.h"

namespace ssrl::cuda::emulation {
namespace {

thread_local Block* running_block = nullptr;
std::atomic<uint64_t> schedule{0};

constexpr std::align_val_t kSharedAlignment{128};

uint64_t next_random(uint64_t* state) {  // splitmix64 (Steele et al., OOPSLA 2014)
  uint64_t z = (*state += 0x9E3779B97F4A7C15u);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

void shuffle(int* items, int count, uint64_t* random) {
  for (int i = count - 1; i > 0; --i) {
    std::swap(items[i], items[next_random(random) % static_cast<uint64_t>(i + 1)]);
  }
}

bool same(Place a, Place b) {
  return a.line == b.line && std::strcmp(a.operation, b.operation) == 0 && std::strcmp(a.file, b.file) == 0;
}

std::string text(Place place) {
  const char* slash = std::strrchr(place.file, '/');
  return std::string(place.operation) + " (" + (slash == nullptr ? place.file : slash + 1) + ":" +
         std::to_string(place.line) + ")";
}

std::string range(int first, int last) {
  return first == last ? "thread " + std::to_string(first)
                       : "threads " + std::to_string(first) + "-" + std::to_string(last);
}

// Of Block::order(): two barriers, then collectives in turns, so that who is ahead is not taken to be behind.
constexpr size_t kBarrierOrders = 2, kCollectiveOrders = 1024;

}  // namespace

Block::Block(Shape grid, int threads, size_t shared_bytes, StackPool* stacks)
    : grid_(grid), shared_bytes_(shared_bytes), stacks_(stacks) {
  for (int i = 0; i < threads; ++i) {
    threads_.push_back(std::make_unique<Thread>());
    threads_.back()->index = i;
  }
  collectives_.resize(static_cast<size_t>((threads + kWarp - 1) / kWarp));
  stacks->reserve(threads_.size());
  if (shared_bytes > 0 && !kThreadSanitized)
    shared_ = static_cast<uint8_t*>(::operator new(shared_bytes, kSharedAlignment));
}

Block::~Block() {
  threads_.clear();
  if (kThreadSanitized) {
    if (shared_ != nullptr) munmap(shared_, shared_bytes_);
  } else if (shared_ != nullptr) {
    ::operator delete(shared_, kSharedAlignment);
  }
}

// For ThreadSanitizer the memory of every block is another: nobody orders what two blocks do.
void Block::renew_memory() {
  orders_ = std::make_unique<char[]>(8 * (kBarrierOrders + kCollectiveOrders));
  if (shared_bytes_ == 0) return;
  if (kThreadSanitized) {
    if (shared_ != nullptr) munmap(shared_, shared_bytes_);
    void* const fresh =
        mmap(nullptr, shared_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (fresh == MAP_FAILED) throw std::bad_alloc();
    shared_ = static_cast<uint8_t*>(fresh);
  }
  // All ones is a NaN in f32 and in bf16.
  std::memset(shared_, 0xff, shared_bytes_);
}

Block& Block::current() {
  return *running_block;
}

void Block::start(Thread& thread, const std::function<void()>& kernel) {
  thread.state = Thread::State::kReady;
  thread.warp_epoch = 0;
  thread.copies.clear();
  thread.groups.clear();
  const Stack stack = stacks_->take();
  thread.execution = {stack.memory, kStackBytes, nullptr, stack.fiber};
  thread.fiber = boost::context::fiber(std::allocator_arg, PooledStack{stacks_, stack},
                                       [this, &thread, &kernel](boost::context::fiber&& scheduler) {
                                         arrive_at(thread.execution, &scheduler_);
                                         thread.scheduler = std::move(scheduler);
                                         take(orders_.get());
                                         kernel();
                                         give(this);
                                         thread.state = Thread::State::kEnded;
                                         leave(nullptr, scheduler_);
                                         return std::move(thread.scheduler);
                                       });
}

Status Block::run(Shape index, const std::function<void()>& kernel, uint64_t seed) {
  index_ = index;
  epoch_ = 0;
  barrier_arrived_ = 0;
  report_.clear();
  for (auto& open : collectives_) open.clear();
  renew_memory();
  shadow_.assign((shared_bytes_ + 1) / 2, Granule());
  scheduler_.fiber = current_fiber();
  give(orders_.get());
  for (auto& thread : threads_) start(*thread, kernel);

  Block* const outer = std::exchange(running_block, this);
  uint64_t random = seed;
  do {
    moved_ = false;
    one_round(seed == 0 ? nullptr : &random);
  } while (report_.empty() && moved_ && !all_ended());
  if (report_.empty() && !all_ended()) report_ = "Deadlock: " + waiting_report();
  banks_.flush_all();
  if (kSanitized && !report_.empty()) {
    std::fprintf(stderr, "%s\n", report_.c_str());
    std::abort();  // sanitizers can't follow an unwound fiber
  }
  // Suspended fibers unwind here.
  for (auto& thread : threads_) thread->fiber = boost::context::fiber();
  running_block = outer;
  if (report_.empty()) return {};
  return {Code::kInternal, report_ + " in block (" + std::to_string(index.x) + ", " +
                               std::to_string(index.y) + ", " + std::to_string(index.z) + ")"};
}

void Block::one_round(uint64_t* random) {
  const int warps = static_cast<int>(collectives_.size()), count = threads();
  std::vector<int> order(static_cast<size_t>(warps));
  for (int warp = 0; warp < warps; ++warp) order[static_cast<size_t>(warp)] = warp;
  if (random != nullptr) shuffle(order.data(), warps, random);
  for (const int warp : order) {
    int lanes[kWarp];
    for (int lane = 0; lane < kWarp; ++lane) lanes[lane] = lane;
    if (random != nullptr) shuffle(lanes, kWarp, random);
    for (const int lane : lanes) {
      if (warp * kWarp + lane >= count) continue;
      Thread& thread = *threads_[static_cast<size_t>(warp * kWarp + lane)];
      if (thread.state != Thread::State::kReady) continue;
      moved_ = true;
      running_ = &thread;
      leave(&scheduler_, thread.execution);
      thread.fiber = std::move(thread.fiber).resume();
      Execution before;
      arrive_at(scheduler_, &before);
      if (!report_.empty()) return;
    }
  }
}

bool Block::all_ended() const {
  for (const auto& thread : threads_) {
    if (thread->state != Thread::State::kEnded) return false;
  }
  return true;
}

// "threads 0-30 wait in sync_warp (norm.cu:12), thread 31 has ended"
std::string Block::waiting_report() const {
  const auto alike = [](const Thread& a, const Thread& b) {
    return a.state == b.state && (a.state == Thread::State::kEnded || same(a.place, b.place));
  };
  std::string report;
  for (size_t first = 0; first < threads_.size();) {
    size_t last = first;
    while (last + 1 < threads_.size() && alike(*threads_[first], *threads_[last + 1])) ++last;
    const bool ended = threads_[first]->state == Thread::State::kEnded;
    report += (report.empty() ? "" : ", ") + range(static_cast<int>(first), static_cast<int>(last)) +
              (ended ? " ended" : " in " + text(threads_[first]->place));
    first = last + 1;
  }
  return report;
}

void Block::fault(const std::string& what, Place place) {
  report_ = what + ", at " + text(place) + " by thread " + std::to_string(running_->index);
  running_->state = Thread::State::kWaiting;
  to_scheduler();
  std::abort();  // a thread with a fault is never resumed, only unwound
}

void Block::to_scheduler() {
  Thread& thread = *running_;
  leave(&thread.execution, scheduler_);
  thread.scheduler = std::move(thread.scheduler).resume();
  arrive_at(thread.execution, &scheduler_);
}

void Block::wait(Place place) {
  running_->state = Thread::State::kWaiting;
  running_->place = place;
  to_scheduler();
}

void Block::barrier(Place place) {
  if (barrier_arrived_ > 0 && !same(barrier_, place)) {
    fault("Divergent barrier: others wait in " + text(barrier_), place);
  }
  barrier_ = place;
  void* const order = this->order(epoch_ % kBarrierOrders);
  give(order);
  if (++barrier_arrived_ < threads()) {
    wait(place);
  } else {
    barrier_arrived_ = 0;
    ++epoch_;
    banks_.flush_all();
    for (auto& thread : threads_) thread->state = Thread::State::kReady;
  }
  take(order);
}

void Block::diverged(const Collective& open, Place place, uint32_t mask) {
  char masks[64];
  std::snprintf(masks, sizeof masks, " with the mask %08x, this is %08x", open.mask, mask);
  fault("Divergent collective: other lanes wait in " + text(open.place) + masks, place);
}

void** Block::arrive(Place place, uint32_t mask, void* operand, bool orders_memory) {
  const int warp = running_->index / kWarp, lane = running_->index % kWarp;
  if ((mask >> lane & 1u) == 0) fault("Divergent collective: the mask leaves out the lane itself", place);
  auto& open = collectives_[static_cast<size_t>(warp)];
  Collective* mine = nullptr;
  for (Collective& other : open) {
    if ((other.mask & mask) == 0) continue;
    if (other.mask != mask || !same(other.place, place)) diverged(other, place, mask);
    mine = &other;
  }
  if (mine == nullptr) {
    const Unseen unseen;
    open.emplace_back();
    mine = &open.back();
    mine->place = place;
    mine->mask = mask;
    mine->order = order(kBarrierOrders + collectives_opened_++ % kCollectiveOrders);
  }
  mine->arrived |= 1u << lane;
  mine->operands[lane] = operand;
  void* const order = mine->order;
  if (orders_memory) give(order);
  if (mine->arrived == mask) {
    if (orders_memory) take(order);
    return mine->operands;
  }
  wait(place);
  if (orders_memory) take(order);
  return nullptr;
}

void Block::release(uint32_t mask, bool orders_memory) {
  const int warp = running_->index / kWarp;
  const Unseen unseen;
  banks_.flush(warp);
  auto& open = collectives_[static_cast<size_t>(warp)];
  for (size_t i = 0; i < open.size(); ++i) {
    if (open[i].mask == mask) open.erase(open.begin() + static_cast<std::ptrdiff_t>(i--));
  }
  for (int lane = 0; lane < kWarp && warp * kWarp + lane < threads(); ++lane) {
    if ((mask >> lane & 1u) == 0) continue;
    Thread& thread = *threads_[static_cast<size_t>(warp * kWarp + lane)];
    thread.state = Thread::State::kReady;
    if (orders_memory) ++thread.warp_epoch;
  }
}

// ---- launches

void set_seed(uint64_t seed) {
  schedule.store(seed);
}

Status run_grid(Shape grid, int threads, size_t shared_bytes, const std::function<void()>& kernel) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || threads < 1 || threads > 1024) {
    return {Code::kInternal, "A launch needs at least one block, of 1 to 1024 threads"};
  }
  thread_local StackPool stacks;
  Block block(grid, threads, shared_bytes, &stacks);
  uint64_t random = schedule.load();
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        const uint64_t seed = random == 0 ? 0 : next_random(&random) | 1;
        SSRL_RETURN_IF_ERROR(block.run({x, y, z}, kernel, seed));
      }
    }
  }
  take(&block);
  return {};
}

}  // namespace ssrl::cuda::emulation
