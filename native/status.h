// Errors cross the native code as values: a Status names one of the package's error codes and says what was
// expected, what came and what to do. Only native/addon turns it into a JavaScript error.
#pragma once

#include <string>
#include <utility>
#include <variant>

namespace ssrl {

enum class Code {
  kOk,
  kInvalidArg,
  kModelFormat,
  kOutOfMemory,
  kNonFinite,
  kNoDevice,
  kIo,
  kDisposed,
  kAborted,  // the caller's AbortSignal fired; becomes the signal's own reason
  kInternal,
};

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string message) : code_(code), message_(std::move(message)) {}
  bool ok() const { return code_ == Code::kOk; }
  Code code() const { return code_; }
  const std::string& message() const { return message_; }

 private:
  Code code_ = Code::kOk;
  std::string message_;
};

inline Status invalid_arg(std::string message) {
  return {Code::kInvalidArg, std::move(message)};
}
inline Status model_format(std::string message) {
  return {Code::kModelFormat, std::move(message)};
}

// A value, or the Status that explains why there is none.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::move(value)) {}
  Result(Status status) : state_(std::move(status)) {}
  bool ok() const { return std::holds_alternative<T>(state_); }
  Status status() const { return ok() ? Status() : std::get<Status>(state_); }
  T& value() { return std::get<T>(state_); }
  const T& value() const { return std::get<T>(state_); }

 private:
  std::variant<T, Status> state_;
};

}  // namespace ssrl

#define SSRL_RETURN_IF_ERROR(expression)         \
  do {                                           \
    ::ssrl::Status ssrl_status_ = (expression);  \
    if (!ssrl_status_.ok()) return ssrl_status_; \
  } while (0)
