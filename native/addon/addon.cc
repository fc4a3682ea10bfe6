// Entry point of the addon: registers the functions that lib/native.ts describes.
#include <napi.h>

namespace ssrl {
namespace {

Napi::Object InitAddon(Napi::Env env, Napi::Object exports) {
  return exports;
}

}  // namespace
}  // namespace ssrl

static Napi::Object Init(Napi::Env env, Napi::Object exports) {
  return ssrl::InitAddon(env, exports);
}

NODE_API_MODULE(ssrl, Init)
