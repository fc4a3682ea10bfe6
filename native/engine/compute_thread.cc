#include "engine/compute_thread.h"

#include <cstdlib>
#include <utility>
#include <vector>

#include "abort.h"
#include "ops/ops.h"

namespace ssrl {

ComputeThread& ComputeThread::instance() {
  // Never destroyed: static destructors run in no order that the thread could rely on.
  static ComputeThread* const thread = new ComputeThread();
  return *thread;
}

bool ComputeThread::post(Job job) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (stopped_) return false;
  if (!started_) {
    thread_ = std::thread([this] { loop(); });  // throws where the system has no thread to spare
    started_ = true;
    id_ = thread_.get_id();
    std::atexit([] { ComputeThread::instance().shutdown(); });
  }
  queue_.push_back(std::move(job));
  wake_.notify_one();
  return true;
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
