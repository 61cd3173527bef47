// Work over many images on a few threads.
//
//   for_each_image(count, threads, [&](int64_t i) { ... });
//
// Errors   If calls throw, the one with the smallest number is rethrown once all threads have stopped.
#pragma once

#include <cstdint>
#include <functional>

namespace varscale::data {

// As many threads as OMP_NUM_THREADS asks for, otherwise as the machine has.
int64_t default_threads();

// work(i) for i in [0, count), each once, in rising order of start; any thread.
void for_each_image(int64_t count, int64_t threads, const std::function<void(int64_t)>& work);

}  // namespace varscale::data
