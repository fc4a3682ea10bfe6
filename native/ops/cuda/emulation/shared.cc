// Shared memory of an emulated block: what each word is worth to whom, and the copies that are under way.
#include <cstring>
#include <string>

#include "ops/cuda/emulation/block.h"

namespace ssrl::cuda::emulation {

void* Block::shared(size_t bytes, Place place) {
  if (bytes > shared_bytes_) {
    fault("Out of range: " + std::to_string(bytes) + " bytes of shared memory, launched with " +
              std::to_string(shared_bytes_),
          place);
  }
  return shared_;
}

Granule* Block::granules(const void* pointer, size_t bytes, Place place) {
  const auto* at = static_cast<const uint8_t*>(pointer);
  if (at < shared_ || at + bytes > shared_ + shared_bytes_) {
    fault("Out of range: the address is not in shared memory", place);
  }
  return shadow_.data() + (at - shared_) / 2;
}

// Whether what `other` did at those epochs is over for the running thread.
bool Block::ordered(int other, uint32_t epoch, uint32_t warp_epoch) const {
  if (other < 0 || other == running_->index || epoch < epoch_) return true;
  return other / kWarp == running_->index / kWarp && warp_epoch < running_->warp_epoch;
}

void Block::check_atomics(const Granule& granule, Place place) {
  if (granule.atomic_epoch == epoch_ + 1) {
    fault("Race: this shared memory has been added to atomically, with no barrier since", place);
  }
}

// Atomics are in no order among themselves, and only a barrier puts them in one with others.
void Block::check_atomic(const void* pointer, size_t bytes, Place place) {
  Granule* granule = granules(pointer, bytes, place);
  for (size_t i = 0; i < (bytes + 1) / 2; ++i) {
    if (granule[i].atomic_epoch == epoch_ + 1) continue;
    check_read(static_cast<const uint8_t*>(pointer) + 2 * i, 2, place);
    granule[i].atomic_epoch = epoch_ + 1;
  }
}

void Block::check_read(const void* pointer, size_t bytes, Place place) {
  if (counts_banks()) banks_.record(running_->index, pointer, bytes, place);
  Granule* granule = granules(pointer, bytes, place);
  for (size_t i = 0; i < (bytes + 1) / 2; ++i, ++granule) {
    if (granule->state == Granule::State::kUnset) fault("Unset shared memory is read", place);
    check_atomics(*granule, place);
    if (granule->state == Granule::State::kPending) {
      fault("Early read: an asynchronous copy into this shared memory has not been waited for", place);
    }
    if (!ordered(granule->writer, granule->write_epoch, granule->write_warp_epoch)) {
      fault("Race: thread " + std::to_string(granule->writer) +
                " has written this shared memory, with no barrier since",
            place);
    }
    granule->reader = static_cast<int16_t>(running_->index);
    granule->read_epoch = epoch_;
    granule->read_warp_epoch = running_->warp_epoch;
  }
}

void Block::check_write(const void* pointer, size_t bytes, Place place) {
  if (counts_banks()) banks_.record(running_->index, pointer, bytes, place);
  Granule* granule = granules(pointer, bytes, place);
  for (size_t i = 0; i < (bytes + 1) / 2; ++i, ++granule) {
    check_atomics(*granule, place);
    const bool read = ordered(granule->reader, granule->read_epoch, granule->read_warp_epoch);
    if (!read || !ordered(granule->writer, granule->write_epoch, granule->write_warp_epoch)) {
      fault("Race: thread " + std::to_string(read ? granule->writer : granule->reader) +
                " has used this shared memory, with no barrier since",
            place);
    }
    granule->state = Granule::State::kSet;
    granule->writer = static_cast<int16_t>(running_->index);
    granule->write_epoch = epoch_;
    granule->write_warp_epoch = running_->warp_epoch;
  }
}

void Block::copy_async(const AsyncCopy& copy, Place place) {
  if (reinterpret_cast<uintptr_t>(copy.to) % copy.bytes != 0 ||
      reinterpret_cast<uintptr_t>(copy.from) % copy.bytes != 0) {
    fault("Out of range: an asynchronous copy of " + std::to_string(copy.bytes) + " bytes is not aligned",
          place);
  }
  check_write(copy.to, copy.bytes, place);
  Granule* granule = granules(copy.to, copy.bytes, place);
  for (size_t i = 0; i < copy.bytes / 2; ++i) granule[i].state = Granule::State::kPending;
  std::memset(copy.to, 0xff, copy.bytes);
  const Unseen unseen;
  running_->copies.push_back(copy);
}

void Block::commit_copies() {
  size_t fresh = 0;
  for (AsyncCopy& copy : running_->copies) {
    if (!copy.committed) copy.committed = true, ++fresh;
  }
  const Unseen unseen;
  running_->groups.push_back(fresh);
}

void Block::wait_copies(size_t left) {
  Thread& thread = *running_;
  while (thread.groups.size() > left) {
    for (size_t i = 0; i < thread.groups.front(); ++i) {
      const AsyncCopy& copy = thread.copies[i];
      if (copy.from == nullptr) {
        std::memset(copy.to, 0, copy.bytes);
      } else {
        std::memcpy(copy.to, copy.from, copy.bytes);
      }
      Granule* granule = shadow_.data() + (static_cast<uint8_t*>(copy.to) - shared_) / 2;
      for (size_t k = 0; k < copy.bytes / 2; ++k) {
        granule[k].state = Granule::State::kSet;
        granule[k].write_epoch = epoch_;
        granule[k].write_warp_epoch = thread.warp_epoch;
      }
    }
    const Unseen unseen;
    thread.copies.erase(thread.copies.begin(),
                        thread.copies.begin() + static_cast<std::ptrdiff_t>(thread.groups.front()));
    thread.groups.erase(thread.groups.begin());
  }
}

}  // namespace ssrl::cuda::emulation
