#include "engine/compute_thread.h"

#include <cstdlib>
#include <exception>
#include <future>
#include <string>
#include <utility>
#include <vector>

#include "abort.h"
#include "ops/ops.h"

namespace ssrl {
namespace {

Status no_thread(int count, const std::exception& error) {
  return {Code::kOutOfMemory, "Expected " + std::to_string(count) + (count == 1 ? " thread" : " threads") +
                                  " to compute on but the system refuses them (" + error.what() +
                                  "): raise its limit on processes and threads (ulimit -u, or the "
                                  "container's), or ask for fewer threads"};
}

}  // namespace

ComputeThread& ComputeThread::instance() {
  // Never destroyed: static destructors run in no order that the thread could rely on.
  static ComputeThread* const thread = new ComputeThread();
  return *thread;
}

Status ComputeThread::post(Job job) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (stopped_) return {Code::kAborted, "The process is leaving"};
  SSRL_RETURN_IF_ERROR(require_threads(job.threads));
  SSRL_RETURN_IF_ERROR(start());
  queue_.push_back(std::move(job));
  wake_.notify_one();
  return {};
}

Status ComputeThread::start() {
  if (started_) return {};
  try {
    thread_ = std::thread([this] { loop(); });
  } catch (const std::exception& error) {
    return no_thread(1, error);
  }
  started_ = true;
  id_ = thread_.get_id();
  std::atexit([] { ComputeThread::instance().shutdown(); });
  return {};
}

// OpenMP's library ends the process when it can't start its threads, so as many are tried before it is asked.
Status ComputeThread::require_threads(int count) {
  if (count <= proven_threads_) return {};
  std::promise<void> enough;
  const std::shared_future<void> end = enough.get_future().share();
  std::vector<std::thread> trial;
  Status status;
  try {
    // The compute thread itself is one of them, unless it is still to be started.
    trial.reserve(size_t(count));
    for (int i = started_ ? 1 : 0; i < count; ++i) trial.emplace_back([end] { end.wait(); });
    proven_threads_ = count;
  } catch (const std::exception& error) {
    status = no_thread(count, error);
  }
  enough.set_value();
  for (std::thread& thread : trial) thread.join();
  return status;
}

void ComputeThread::cancel(const void* owner) {
  std::vector<Job> dropped;  // destroyed after the lock is given back: a job's captures may do anything
  std::unique_lock<std::mutex> lock(mutex_);
  std::deque<Job> kept;
  for (Job& job : queue_) {
    if (job.owner == owner) {
      dropped.push_back(std::move(job));
    } else {
      kept.push_back(std::move(job));
    }
  }
  queue_.swap(kept);
  if (is_current()) return;
  idle_.wait(lock, [&] { return running_ != owner; });
  lock.unlock();
}

void ComputeThread::shutdown() {
  std::deque<Job> dropped;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (stopped_) return;
    stopped_ = true;
    process_stopping.store(true);
    dropped.swap(queue_);
    wake_.notify_all();
  }
  if (thread_.joinable() && !is_current()) thread_.join();
}

void ComputeThread::loop() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return stopped_ || !queue_.empty(); });
    if (stopped_) return;
    Job job = std::move(queue_.front());
    queue_.pop_front();
    running_ = job.owner;
    lock.unlock();
    if (job.threads > 0) ops::cpu().set_threads(job.threads);
    job.run();
    job.run = nullptr;  // its captures die before the owner is told that it has ended
    lock.lock();
    running_ = nullptr;
    idle_.notify_all();
  }
}

}  // namespace ssrl
