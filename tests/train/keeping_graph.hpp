// A graph of no device: it runs again what it was given, and counts.
#pragma once

#include <functional>

#include "nn/graph.hpp"

namespace varscale::test {

struct GraphCounts {
  int records = 0, replays = 0;
};

class KeepingGraph final : public nn::Graph {
 public:
  explicit KeepingGraph(GraphCounts& counts) : counts_(counts) {}
  void record(const std::function<void()>& work) override {
    ++counts_.records;
    work_ = work;
  }
  void replay() override {
    ++counts_.replays;
    work_();
  }

 private:
  GraphCounts& counts_;
  std::function<void()> work_;
};

}  // namespace varscale::test
