// A policy as the files of the addon share it.
#pragma once

#include <napi.h>

#include <memory>

#include "engine/transformer.h"

namespace ssrl {

// What stands behind a NativePolicy; it lives as long as the policy or anything made from it (a learner, a
// session). Model and workspace belong to the compute thread.
struct PolicyState {
  std::shared_ptr<Model> model;
  Workspace workspace;
  int threads = 1;
  bool exact = false;
};

// Throws a kInvalidArg error for anything but a NativePolicy, kDisposed after its dispose().
std::shared_ptr<PolicyState> policy_state_of(Napi::Value policy);

}  // namespace ssrl
