#include "formats/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

namespace ssrl {

Status io_error(const std::string& action, const std::string& path, int error) {
  std::string reason = error == ENOSPC || error == EDQUOT ? "no space left on the device"
                                                          : std::generic_category().message(error);
  return {Code::kIo, "Could not " + action + " " + path + ": " + reason};
}

Result<std::unique_ptr<ReadFile>> ReadFile::open(const std::string& path) {
  if (path.find('\0') != std::string::npos) return invalid_arg("Expected a path without NUL characters");
  // O_NONBLOCK keeps open() from waiting for the writer of a named pipe.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return io_error("open", path, errno);
  struct stat info;
  if (fstat(fd, &info) != 0) {
    const int error = errno;
    ::close(fd);
    return io_error("open", path, error);
  }
  if (!S_ISREG(info.st_mode)) {
    ::close(fd);
    return Status(Code::kIo, "Expected a regular file at " + path +
                                 (S_ISDIR(info.st_mode) ? ", found a folder" : ", found something else"));
  }
  return std::unique_ptr<ReadFile>(new ReadFile(path, fd, static_cast<uint64_t>(info.st_size)));
}

ReadFile::~ReadFile() {
  ::close(fd_);
}

Status ReadFile::read(uint64_t offset, void* out, size_t bytes) const {
  char* target = static_cast<char*>(out);
  while (bytes > 0) {
    const ssize_t got = ::pread(fd_, target, std::min<size_t>(bytes, 1 << 30), static_cast<off_t>(offset));
    if (got < 0) {
      if (errno == EINTR) continue;
      return io_error("read", path_, errno);
    }
    if (got == 0) {
      return {Code::kIo, "Expected " + std::to_string(bytes) + " more bytes at offset " +
                             std::to_string(offset) + " of " + path_ + ", but the file ends there"};
    }
    target += got;
    offset += static_cast<uint64_t>(got);
    bytes -= static_cast<size_t>(got);
  }
  return {};
}

Result<std::unique_ptr<WriteFile>> WriteFile::create(const std::string& path) {
  if (path.find('\0') != std::string::npos) return invalid_arg("Expected a path without NUL characters");
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0) return io_error("create", path, errno);
  return std::unique_ptr<WriteFile>(new WriteFile(path, fd));
}

WriteFile::~WriteFile() {
  if (fd_ >= 0) ::close(fd_);
}

Status WriteFile::write(const void* data, size_t bytes) {
  const char* source = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t put = ::write(fd_, source, std::min<size_t>(bytes, 1 << 30));
    if (put < 0) {
      if (errno == EINTR) continue;
      return io_error("write", path_, errno);
    }
    source += put;
    position_ += static_cast<uint64_t>(put);
    bytes -= static_cast<size_t>(put);
  }
  return {};
}

Status WriteFile::pad_to(uint64_t position) {
  static constexpr char kZeros[4096] = {};
  while (position_ < position) {
    SSRL_RETURN_IF_ERROR(write(kZeros, std::min<uint64_t>(sizeof(kZeros), position - position_)));
  }
  return {};
}

Status WriteFile::finish() {
  // A device such as /dev/full cannot be synchronised (EINVAL); what was written to it is as safe as it gets.
  if (::fsync(fd_) != 0 && errno != EINVAL) return io_error("write", path_, errno);
  const int fd = fd_;
  fd_ = -1;
  if (::close(fd) != 0) return io_error("write", path_, errno);
  return {};
}

}  // namespace ssrl
