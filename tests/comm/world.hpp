// The launch's one group, opened by main(), and the output of the ranks above 0.
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstdio>

#include "comm/communicator.hpp"

namespace varscale::comm {

inline Communicator*& shared_world() {
  static Communicator* world = nullptr;
  return world;
}

class FailurePrinter : public testing::EmptyTestEventListener {
 public:
  explicit FailurePrinter(int rank) : rank_(rank) {}
  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (!result.failed()) return;
    std::printf("rank %d: %s:%d: %s\n", rank_, result.file_name(), result.line_number(),
                result.summary());
  }

 private:
  int rank_;
};

}  // namespace varscale::comm
