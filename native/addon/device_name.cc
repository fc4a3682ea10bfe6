#include <charconv>

#include "addon/devices.h"

namespace ssrl {

int device_index(const std::string& name, const std::string& kind) {
  if (name == kind) return 0;
  const std::string prefix = kind + ":";
  if (!name.starts_with(prefix)) return -1;
  int index = -1;
  const char* const begin = name.data() + prefix.size();
  const char* const end = name.data() + name.size();
  const auto [stop, error] = std::from_chars(begin, end, index);
  return error == std::errc() && stop == end && index >= 0 ? index : -1;
}

Status unknown_device(const std::string& name) {
  return {Code::kNoDevice, "Expected 'cpu', 'cuda' or 'cuda:n' for the device but received '" + name + "'"};
}

}  // namespace ssrl
