#include "data/parallel_images.hpp"

#include <omp.h>
#include <vips/vips.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace varscale::data {

int64_t default_threads() { return std::max(1, omp_get_max_threads()); }

void for_each_image(int64_t count, int64_t threads, const std::function<void(int64_t)>& work) {
  std::atomic<int64_t> next{0};
  std::atomic<bool> failed{false};
  std::mutex mutex;
  std::exception_ptr error;
  int64_t error_number = count;
  const auto loop = [&] {
    // Numbers are handed out in order and a taken one is always finished, so every number below the
    // first failing one has been tried: the error that is reported does not depend on the threads.
    while (!failed) {
      const int64_t i = next++;
      if (i >= count) break;
      try {
        work(i);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (i < error_number) {
          error_number = i;
          error = std::current_exception();
        }
        failed = true;
      }
    }
  };
  const int64_t others = std::min(threads, count) - 1;
  std::vector<std::thread> pool;
  for (int64_t t = 0; t < others; ++t) {
    pool.emplace_back([&] {
      loop();
      vips_thread_shutdown();
    });
  }
  loop();
  for (std::thread& thread : pool) thread.join();
  if (error) std::rethrow_exception(error);
}

}  // namespace varscale::data
