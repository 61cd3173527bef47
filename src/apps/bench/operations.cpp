// var_bench operations.
#include <ATen/record_function.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "apps/bench/bench.hpp"
#include "apps/bench/training.hpp"
#include "base/error.hpp"

namespace varscale::bench {
namespace {

using Clock = std::chrono::steady_clock;

// What each operation of this thread and the engine's takes without those inside it.
class OperationTimes {
 public:
  struct Of {
    int64_t calls = 0;
    double self_s = 0;
  };

  OperationTimes() : handle_(at::addGlobalCallback(at::RecordFunctionCallback(&begin, &end).scopes(
                         {at::RecordScope::FUNCTION, at::RecordScope::BACKWARD_FUNCTION}))) {}
  ~OperationTimes() { at::removeCallback(handle_); }
  OperationTimes(const OperationTimes&) = delete;
  OperationTimes& operator=(const OperationTimes&) = delete;
  static std::map<std::string, Of> take() { return std::exchange(times(), {}); }

 private:
  struct Frame : at::ObserverContext {
    Clock::time_point start = Clock::now();
    double inner_s = 0;
    Frame* outer = nullptr;
  };
  // On the CPU autograd runs backward in the thread that asks for it, so one thread calls.
  static std::map<std::string, Of>& times() {
    static std::map<std::string, Of> times;
    return times;
  }
  static Frame*& top() {
    static thread_local Frame* top = nullptr;
    return top;
  }
  static std::unique_ptr<at::ObserverContext> begin(const at::RecordFunction&) {
    auto frame = std::make_unique<Frame>();
    frame->outer = std::exchange(top(), frame.get());
    return frame;
  }
  static void end(const at::RecordFunction& function, at::ObserverContext* context) {
    auto* frame = static_cast<Frame*>(context);
    const double seconds = std::chrono::duration<double>(Clock::now() - frame->start).count();
    top() = frame->outer;
    if (frame->outer != nullptr) frame->outer->inner_s += seconds;
    Of& of = times()[function.name()];
    ++of.calls;
    of.self_s += seconds - frame->inner_s;
  }

  at::CallbackHandle handle_;
};

class OperationsBench : public TrainingBench {
 public:
  CLI::App& add_to(CLI::App& app) override {
    CLI::App& command = add_command(app, "operations", "where a training step's time goes, on the CPU");
    command.add_option("--most", most_, "lines, the dearest first")->check(CLI::PositiveNumber);
    return command;
  }

  void run() override {
    if (options_.device != "cpu")
      throw base::UserError("--device {}: operations are timed on the CPU alone; a GPU's calls return before they end",
                            options_.device);
    const Place place(options_.device);
    Training training(options_, place);
    const OperationTimes record;
    for (int64_t i = 0; i < repeats_.warmup; ++i) training.step();
    OperationTimes::take();
    const Times times = place.repeat({.count = repeats_.count, .warmup = 0}, [&] { training.step(); });
    const std::map<std::string, OperationTimes::Of> all = OperationTimes::take();
    std::vector<std::pair<std::string, OperationTimes::Of>> sorted(all.begin(), all.end());
    std::sort(sorted.begin(), sorted.end(),
              [](const auto& a, const auto& b) { return a.second.self_s > b.second.self_s; });
    double whole = 0, inside = 0;
    for (const double seconds : times.seconds) whole += seconds;
    for (const auto& [name, of] : sorted) inside += of.self_s;
    const auto steps = static_cast<double>(repeats_.count);
    for (size_t i = 0; i < std::min(sorted.size(), static_cast<size_t>(most_)); ++i) {
      const auto& [name, of] = sorted[i];
      place.print({{"what", "operation"},
                   {"name", name},
                   {"calls_a_step", static_cast<double>(of.calls) / steps},
                   {"self_ms_a_step", 1e3 * of.self_s / steps},
                   {"share", of.self_s / whole}});
    }
    nlohmann::ordered_json json = options_.head("operations", place.ranks());
    json.update(times.json());
    json["share_in_operations"] = inside / whole;
    place.print(json);
  }

 private:
  int64_t most_ = 25;
};

}  // namespace

std::unique_ptr<Bench> operations_bench() { return std::make_unique<OperationsBench>(); }

}  // namespace varscale::bench
