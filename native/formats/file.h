// A file that is read with pread: nothing is mapped, so a file that shrinks while it is read is an error and
// not a SIGBUS.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "status.h"

namespace ssrl {

class ReadFile {
 public:
  // Regular files only: a pipe or a device would block, a folder has no bytes. kIo when it cannot be opened.
  static Result<std::unique_ptr<ReadFile>> open(const std::string& path);
  ~ReadFile();
  ReadFile(const ReadFile&) = delete;
  ReadFile& operator=(const ReadFile&) = delete;

  const std::string& path() const { return path_; }
  uint64_t size() const { return size_; }
  // Reads exactly `bytes` bytes at `offset`; kIo when the file ends before. Safe from several threads.
  Status read(uint64_t offset, void* out, size_t bytes) const;

 private:
  ReadFile(std::string path, int fd, uint64_t size) : path_(std::move(path)), fd_(fd), size_(size) {}
  std::string path_;
  int fd_;
  uint64_t size_;
};

// A file that is written from front to back. Until finish() has succeeded the content is not safe on the
// disk; a writer that goes away before leaves a partial file, which its owner removes.
class WriteFile {
 public:
  static Result<std::unique_ptr<WriteFile>> create(const std::string& path);
  ~WriteFile();
  WriteFile(const WriteFile&) = delete;
  WriteFile& operator=(const WriteFile&) = delete;

  uint64_t position() const { return position_; }
  Status write(const void* data, size_t bytes);
  Status pad_to(uint64_t position);  // zeros up to `position`
  Status finish();                   // fsync and close

 private:
  WriteFile(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}
  std::string path_;
  int fd_;
  uint64_t position_ = 0;
};

// What went wrong with `path`, in words: "no space left on the device" for ENOSPC.
Status io_error(const std::string& action, const std::string& path, int error);

}  // namespace ssrl
