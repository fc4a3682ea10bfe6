// Bank conflicts of an emulated block, from the addresses. The lanes of a warp that come to the same access,
// the same number of times since their last barrier, are one instruction of a GPU. It moves 128 bytes at a
// time, in the order of the lanes, and once more for each further word that it needs of a bank.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace ssrl::cuda::emulation {

struct Place;

struct BankTotals {
  int64_t wavefronts = 0;  // without conflicts
  int64_t conflicts = 0;   // wavefronts beyond those
};

class BankCounter {
 public:
  void record(int thread, const void* pointer, size_t bytes, const Place& place);
  // The warp's lanes are together: nothing before belongs to what comes.
  void flush(int warp);
  void flush_all();

 private:
  struct Access {
    uintptr_t address[32];
    uint32_t lanes = 0;
  };
  struct Site {
    const char* operation;
    const char* file;
    int line;
    size_t bytes;
    uint32_t times[32] = {};
    std::vector<Access> accesses;
  };
  std::map<int, std::vector<Site>> sites_;  // of each warp
};

// Counting takes time, so it is asked for; the totals since the last call, by place.
void count_banks(bool enabled);
bool counts_banks();
std::map<std::string, BankTotals> take_bank_totals();

}  // namespace ssrl::cuda::emulation
