#include <algorithm>
#include <exception>
#include <new>
#include <utility>

#include "addon/policy.h"

namespace ssrl {

PolicyState::PolicyState(std::shared_ptr<Model> source, int threads, bool exact)
    : config(source->config()),
      compute(source->compute()),
      threads(threads),
      exact(exact),
      model(std::move(source)),
      generator(std::make_unique<Generator>(*model)) {}

Status PolicyState::check() const {
  if (!disposed()) return {};
  return {Code::kDisposed, "This policy was disposed; load it again to use it"};
}

void PolicyState::dispose() {
  disposed_.store(true);
  for (const auto& weak : flags_) {
    if (auto flag = weak.lock()) flag->raise(Code::kDisposed);
  }
  flags_.clear();
}

void PolicyState::free() {
  if (generator) generator->close(check());
  generator.reset();
  workspace = Workspace();
  model.reset();
}

void PolicyState::watch(const std::shared_ptr<AbortFlag>& flag) {
  flags_.erase(std::remove_if(flags_.begin(), flags_.end(), [](const auto& weak) { return weak.expired(); }),
               flags_.end());
  flags_.push_back(flag);
}

void PolicyState::post_step(const void* owner) {
  if (step_posted_) return;
  step_posted_ = true;
  auto step = [self = shared_from_this(), owner] {
    self->step_posted_ = false;
    if (!self->generator) return;
    bool more = false;
    try {
      more = self->generator->step();
    } catch (const std::bad_alloc&) {
      self->generator->close(
          {Code::kOutOfMemory, "Expected enough memory to generate but an allocation failed"});
    } catch (const std::exception& error) {
      self->generator->close(
          {Code::kInternal, std::string("Unexpected failure in native code: ") + error.what()});
    }
    if (more) self->post_step(owner);
  };
  (void)ComputeThread::instance().post({owner, threads, std::move(step)});
}

}  // namespace ssrl
