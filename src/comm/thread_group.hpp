// Ranks as threads of one process: the same collectives without a launcher.
//
//   comm::run_ranks(4, [&](comm::Communicator& world) { ... });
//
// For tests, above all of faults: a rank that throws leaves the others in a call that it never
// joins; run_ranks() lets them run into their deadline. Legend and rules: comm/communicator.hpp.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "comm/communicator.hpp"

namespace varscale::comm {

struct ThreadGroupOptions {
  double deadline_s = 60;
};

// The ranks of one group, each to be used by one thread.
std::vector<std::unique_ptr<Communicator>> make_thread_group(int size,
                                                             const ThreadGroupOptions& options = {});

// Runs body(world) in `size` threads and waits for all. What each rank threw, in rank order; null
// where nothing.
std::vector<std::exception_ptr> try_ranks(int size, const std::function<void(Communicator&)>& body,
                                          const ThreadGroupOptions& options = {});

// The same, and rethrows what the lowest throwing rank threw.
void run_ranks(int size, const std::function<void(Communicator&)>& body,
               const ThreadGroupOptions& options = {});

}  // namespace varscale::comm
