#include "scaling/layout.hpp"

#include <fmt/format.h>

#include <vector>

#include "base/error.hpp"
#include "base/progress.hpp"

namespace varscale::scaling {

namespace {

std::string gib(double bytes) { return base::format_bytes(bytes); }

Layout estimate(const VarShape& shape, MemoryOptions options, const Machine& machine,
                const std::string& mode, int64_t shards) {
  options.holding = mode == "replicated" ? Holding::kReplicated
                    : mode == "zero2"    ? Holding::kZero2
                                         : Holding::kZero3;
  options.shards = mode == "replicated" ? 1 : shards;
  options.async_snapshot = false;
  Layout layout{.mode = mode, .shards = options.shards};
  layout.bytes = estimate_memory(shape, options).total();
  options.async_snapshot = true;
  const int64_t with_copy =
      machine.on_gpu ? layout.bytes : estimate_memory(shape, options).total();
  auto is_usable = [&](int64_t bytes) {
    return machine.memory_bytes <= 0 ||
           static_cast<double>(bytes) <= kUsableShare * machine.memory_bytes;
  };
  layout.fits = is_usable(layout.bytes);
  layout.async_save = is_usable(with_copy) || !layout.fits;
  if (is_usable(with_copy)) layout.bytes = with_copy;
  return layout;
}

std::string name_of(const Layout& layout) {
  return layout.mode == "replicated" ? layout.mode
                                     : fmt::format("{} of {} ranks", layout.mode, layout.shards);
}

std::string words_of(const Layout& layout) {
  return fmt::format("{} needs {}{}", name_of(layout), gib(static_cast<double>(layout.bytes)),
                     layout.async_save ? "" : " with checkpoints written while training waits");
}

std::string memory_words(const Machine& machine) {
  if (machine.memory_bytes <= 0) return "the memory of a rank is not known";
  return fmt::format("of {} a rank", gib(machine.memory_bytes));
}

}  // namespace

Layout choose_layout(const VarShape& shape, MemoryOptions options, const Machine& machine) {
  std::vector<std::pair<const char*, int64_t>> candidates{{"replicated", 1}};
  const bool several_nodes = machine.node_ranks > 1 && machine.node_ranks < machine.ranks &&
                             machine.ranks % machine.node_ranks == 0;
  if (several_nodes) candidates.emplace_back("hybrid", machine.node_ranks);
  if (machine.ranks > 1) {
    candidates.emplace_back("zero2", machine.ranks);
    candidates.emplace_back("zero3", machine.ranks);
  }
  std::string refused;
  Layout layout;
  for (const auto& [mode, shards] : candidates) {
    layout = estimate(shape, options, machine, mode, shards);
    if (layout.fits) break;
    refused += words_of(layout) + ", ";
  }
  layout.why =
      layout.fits
          ? fmt::format("{}{} {}", refused, words_of(layout), memory_words(machine))
          : fmt::format("{}{}", refused.substr(0, refused.size() - 2), " " + memory_words(machine));
  return layout;
}

Layout given_layout(const VarShape& shape, MemoryOptions options, const Machine& machine,
                    const std::string& mode, int64_t shards) {
  Layout layout =
      estimate(shape, options, machine, mode, mode == "hybrid" ? shards : machine.ranks);
  layout.why = fmt::format("as set; {} {}", words_of(layout), memory_words(machine));
  return layout;
}

}  // namespace varscale::scaling
