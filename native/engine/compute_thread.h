// The one thread that all numeric work of the process runs on. OpenMP keeps a pool of threads per calling
// thread, so a second one would double the threads and the caches fought over; policies and worker threads
// share a FIFO queue.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

#include "status.h"

namespace ssrl {

struct Job {
  const void* owner;  // whose it is, for cancel()
  int threads;        // ops threads while it runs; 0 leaves them
  std::function<void()> run;
};

class ComputeThread {
 public:
  static ComputeThread& instance();

  // Adds a job to the end of the queue and starts the thread if need be. A job may post itself again, so that
  // long work takes turns with others'. After shutdown() the job is dropped: kAborted. kOutOfMemory where the
  // system refuses the threads that the job needs; it is dropped then, too.
  Status post(Job job);

  // Drops the owner's waiting jobs and waits for its running one; the caller has raised the abort flags
  // before.
  void cancel(const void* owner);

  // Drops all waiting jobs, stops the running one at its next look at an abort flag, and joins. For process
  // exit.
  void shutdown();

  bool is_current() const { return std::this_thread::get_id() == id_; }

 private:
  ComputeThread() = default;
  void loop();
  Status start();
  Status require_threads(int count);

  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable idle_;
  std::deque<Job> queue_;
  std::thread thread_;
  std::thread::id id_;
  const void* running_ = nullptr;
  int proven_threads_ = 1;  // the system has once given so many at a time
  bool started_ = false;
  bool stopped_ = false;
};

}  // namespace ssrl
