#include "sweep/settings.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <type_traits>
#include <utility>

#include "base/error.hpp"

namespace varscale::sweep {

using base::Faults;
using base::Node;
using base::UserError;

namespace {

std::optional<std::string> nearest_setting(const std::string& word) {
  std::vector<std::string> keys, ends;
  for (const base::ConfigHelpLine& line : setting_keys()) {
    keys.push_back(line.key);
    if (line.key.ends_with("." + word)) ends.push_back(line.key);  // "depth" for "model.depth"
  }
  return ends.size() == 1 ? ends.front() : base::nearest(word, keys);
}

// Visitor over a RunConfig that fills the fields of `settings` that `wanted` picks.
class Assigner {
 public:
  using Wanted = std::function<bool(const std::string&)>;
  Assigner(const Settings& settings, const Variables& variables, Wanted wanted, Faults& faults,
           std::string prefix = {})
      : settings_(settings),
        variables_(variables),
        wanted_(std::move(wanted)),
        faults_(faults),
        prefix_(std::move(prefix)) {}

  template <class T>
  requires std::is_arithmetic_v<T>
  void field(const char* key, T& value, const char*, Range<T> range, Identity = Identity::kYes) {
    assign_number(key, value, range);
  }
  void field(const char* key, int64_t& value, const char*) { assign_number(key, value, {}); }
  void field(const char* key, double& value, const char*) { assign_number(key, value, {}); }
  void field(const char* key, uint64_t& value, const char*, Identity = Identity::kYes) {
    if (const Node* node = find(key)) value = node->as_uint(faults_, value);
  }
  void field(const char* key, bool& value, const char*, Identity = Identity::kYes) {
    if (const Node* node = find(key)) value = node->as_bool(faults_, value);
  }
  void field(const char* key, std::string& value, const char*, Identity = Identity::kYes) {
    if (const Node* node = find(key)) value = node->as_string(faults_, value);
  }
  void field(const char* key, std::string& value, const char*, const OneOf& names,
             Identity = Identity::kYes) {
    const Node* node = find(key);
    if (!node) return;
    const size_t before = faults_.sentences().size();
    const std::string read = node->as_string(faults_, value);
    if (faults_.sentences().size() != before) return;
    if (std::ranges::find(names.names, read) != names.names.end()) {
      value = read;
      return;
    }
    faults_.add(node->where(), fmt::format("{} is '{}', expected one of {}{}", node->path(), read,
                                           fmt::join(names.names, ", "),
                                           base::did_you_mean(read, names.names)));
  }
  template <class Struct>
  void section(const char* key, Struct& value, const char*) {
    Assigner below(settings_, variables_, wanted_, faults_, prefix_ + key + ".");
    value.visit(below);
  }

 private:
  const Node* find(const char* key) const {
    const std::string path = prefix_ + key;
    return wanted_(path) ? settings_.find(path) : nullptr;
  }

  template <class T>
  void assign_number(const char* key, T& value, const Range<T>& range) {
    const Node* node = find(key);
    if (!node) return;
    const std::optional<T> read = read_number<T>(*node);
    if (!read) return;
    if (range.holds(*read)) {
      value = *read;
    } else {
      faults_.add(node->where(), fmt::format("{} is {}, expected {}", node->path(),
                                             shown(*node, *read), range.words()));
    }
  }

  template <class T>
  static std::string shown(const Node& node, T value) {
    const std::string text = node.scalar(), number = fmt::format("{}", value);
    return text == number ? number : fmt::format("'{}' = {}", text, number);
  }

  template <class T>
  std::optional<T> read_number(const Node& node) {
    Faults plain;
    const double number = node.as_double(plain, 0);
    if (node.kind() == Node::Kind::kScalar && !plain.empty()) return read_formula<T>(node);
    const size_t before = faults_.sentences().size();
    T value;
    if constexpr (std::is_same_v<T, double>) {
      value = plain.empty() ? number : node.as_double(faults_, 0);
    } else {
      value = node.as_int(faults_, 0);
    }
    return faults_.sentences().size() == before ? std::optional<T>(value) : std::nullopt;
  }

  template <class T>
  std::optional<T> read_formula(const Node& node) {
    constexpr bool is_integer = !std::is_same_v<T, double>;
    try {
      const double value = Expression::parse(node.scalar()).evaluate(variables_);
      if constexpr (is_integer) {
        if (value != std::floor(value) || std::abs(value) > 9e15)
          throw UserError("it gives {}, not an integer", value);
      }
      return static_cast<T>(value);
    } catch (const UserError& error) {
      faults_.add(node.where(),
                  fmt::format("{} is '{}', expected {} or a formula: {}", node.path(),
                              node.scalar(), is_integer ? "an integer" : "a number", error.what()));
      return std::nullopt;
    }
  }

  const Settings& settings_;
  const Variables& variables_;
  Wanted wanted_;
  Faults& faults_;
  std::string prefix_;
};

}  // namespace

const std::vector<std::string>& budget_keys() {
  return exclusive_keys().front().keys;
}

const std::vector<Exclusive>& exclusive_keys() {
  static const std::vector<Exclusive> groups{
      {"the budget", {"train.images", "train.epochs", "train.tokens", "train.flops"}},
      {"the warm-up", {"schedule.warmup", "schedule.warmup_images"}}};
  return groups;
}

void fill(const Settings& settings, const Variables& variables,
          const std::function<bool(const std::string&)>& wanted, RunConfig& config,
          Faults& faults) {
  Assigner assigner(settings, variables, wanted, faults);
  config.visit(assigner);
}

const std::vector<base::ConfigHelpLine>& setting_keys() {
  static const std::vector<base::ConfigHelpLine> lines = base::help_config<RunConfig>();
  return lines;
}

Settings Settings::flatten(const Node& node, Faults& faults, const std::vector<std::string>& extra) {
  Settings settings;
  if (node.kind() == Node::Kind::kMap) {
    settings.add(node, "", faults, extra);
  } else if (node.present() && node.kind() != Node::Kind::kNull) {
    faults.add(node.where(),
               fmt::format("{} is not a map, expected settings of a run", node.path()));
    node.mark_read();
  }
  return settings;
}

void Settings::add(const Node& node, const std::string& prefix, Faults& faults,
                   const std::vector<std::string>& extra) {
  for (const std::string& name : node.keys()) {
    const Node child = node.child(name);
    const std::string key = prefix + name;
    const auto is_key = [&](const base::ConfigHelpLine& line) { return line.key == key; };
    const auto is_section = [&](const base::ConfigHelpLine& line) {
      return line.key.starts_with(key + ".");
    };
    if (std::ranges::any_of(setting_keys(), is_key) || std::ranges::find(extra, key) != extra.end()) {
      const auto [first, is_new] = nodes_.emplace(key, child);
      if (is_new)
        order_.push_back(key);
      else
        faults.add(child.where(), fmt::format("key {} is given twice, first at {}", child.path(),
                                              first->second.where()));
    } else if (child.kind() == Node::Kind::kMap &&
               std::ranges::any_of(setting_keys(), is_section)) {
      add(child, key + ".", faults, extra);
    } else {
      if (std::ranges::any_of(setting_keys(), is_section)) {
        faults.add(child.where(), fmt::format("{} is not a map of settings", child.path()));
      } else {
        const auto near = nearest_setting(key);
        faults.add(child.where(), fmt::format("unknown key {}{}", child.path(),
                                              near ? "; did you mean " + *near + "?" : ""));
      }
      child.mark_read();
    }
  }
}

void Settings::put(const std::string& key, const Node& node) {
  for (const Exclusive& group : exclusive_keys())
    if (std::ranges::find(group.keys, key) != group.keys.end())
      for (const std::string& other : group.keys) nodes_.erase(other);
  if (std::ranges::find(order_, key) == order_.end()) order_.push_back(key);
  nodes_.insert_or_assign(key, node);
}

void Settings::put_over(const Settings& above) {
  for (const std::string& key : above.order_)
    if (const Node* node = above.find(key)) put(key, *node);
}

const Node* Settings::find(const std::string& key) const {
  const auto found = nodes_.find(key);
  return found == nodes_.end() ? nullptr : &found->second;
}

std::string Settings::where(const std::string& key, const std::string& otherwise) const {
  const Node* node = find(key);
  return node ? node->where() : otherwise;
}

}  // namespace varscale::sweep
