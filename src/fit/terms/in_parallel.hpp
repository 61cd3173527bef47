// The same work for every index, shared among the machine's cores.
//
//   std::vector<EndPoint> ends(starts.size());
//   in_parallel(starts.size(), [&](size_t i) { ends[i] = descend(starts[i]); });
//
// Who does what differs from run to run, so work(i) must depend on i alone. The first error of the lowest index is
// thrown again, once all threads have ended.
#pragma once

#include <algorithm>
#include <atomic>
#include <exception>
#include <thread>
#include <vector>

namespace varscale::fit {

template <class Work>
void in_parallel(size_t count, const Work& work) {
  constexpr size_t kAtOnce = 8;  // indices a thread takes together
  const size_t threads = std::clamp<size_t>(std::thread::hardware_concurrency(), 1, count / kAtOnce + 1);
  std::atomic<size_t> next{0};
  std::vector<std::exception_ptr> errors(count);
  const auto take = [&] {
    for (size_t first; (first = next.fetch_add(kAtOnce)) < count;)
      for (size_t i = first; i < std::min(first + kAtOnce, count); ++i) {
        try {
          work(i);
        } catch (...) {
          errors[i] = std::current_exception();
        }
      }
  };
  {
    std::vector<std::jthread> others;
    for (size_t k = 1; k < threads; ++k) others.emplace_back(take);
    take();
  }
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);
}

}  // namespace varscale::fit
