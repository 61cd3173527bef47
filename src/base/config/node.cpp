// Nodes, their typed values, and the faults found in them.
#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <numeric>

#include "base/config.hpp"
#include "base/config/tree.hpp"
#include "base/error.hpp"

namespace varscale::base {
namespace {

// What a fault shows of a wrong value.
std::string words_of(const ConfigTree& tree) {
  switch (tree.kind) {
    case Node::Kind::kScalar:
      return "'" + tree.text + "'";
    case Node::Kind::kList:
      return "a list";
    case Node::Kind::kMap:
      return "a map";
    default:
      return "empty";
  }
}

std::string path_of(const ConfigTree& tree) { return tree.path.empty() ? "the file" : tree.path; }

void mark_tree_read(ConfigTree& tree) {
  tree.read = true;
  for (const auto& [key, child] : tree.map) mark_tree_read(*child);
  for (const auto& item : tree.list) mark_tree_read(*item);
}

// The whole text as a number, or nothing. A leading '+' and '_' between digits are allowed.
template <class T>
std::optional<T> parse_number(const std::string& text) {
  std::string digits;
  for (size_t i = text.starts_with('+') ? 1 : 0; i < text.size(); ++i) {
    const auto is_digit = [&](size_t at) {
      return at < text.size() && std::isdigit(static_cast<unsigned char>(text[at])) != 0;
    };
    if (text[i] == '_' && i > 0 && is_digit(i - 1) && is_digit(i + 1)) continue;
    digits += text[i];
  }
  if (digits.starts_with('-') && text.starts_with('+')) return std::nullopt;
  T value{};
  const char* end = digits.data() + digits.size();
  const auto [stop, error] = std::from_chars(digits.data(), end, value);
  if (error != std::errc{} || stop != end) return std::nullopt;
  return value;
}

// Integers also as 1e6, where the value is whole and fits.
template <class T>
std::optional<T> parse_integer(const std::string& text) {
  if (const auto value = parse_number<T>(text)) return value;
  const auto value = parse_number<double>(text);
  // max() + 1 is a power of two, so the upper bound is exact as a double.
  const double low = static_cast<double>(std::numeric_limits<T>::min());
  const double high = std::ldexp(1.0, std::numeric_limits<T>::digits);
  if (!value || !(*value >= low && *value < high) || *value != std::floor(*value))
    return std::nullopt;
  // A literal without exponent or point that did not fit must not come back rounded.
  if (text.find_first_of(".eE") == std::string::npos) return std::nullopt;
  return static_cast<T>(*value);
}

std::optional<bool> parse_bool(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  if (text == "true" || text == "yes" || text == "on") return true;
  if (text == "false" || text == "no" || text == "off") return false;
  return std::nullopt;
}

template <class T>
T read_scalar(ConfigTree* tree, Faults& faults, T fallback, const char* expected,
              std::optional<T> (*parse)(const std::string&)) {
  if (tree == nullptr || tree->kind == Node::Kind::kAbsent) return fallback;
  mark_tree_read(*tree);
  if (tree->kind == Node::Kind::kScalar)
    if (const auto value = parse(tree->text)) return *value;
  faults.add(tree->where,
             fmt::format("{} is {}, expected {}", path_of(*tree), words_of(*tree), expected));
  return fallback;
}

void collect_unread(const ConfigTree& tree, Faults& faults) {
  for (const auto& [key, child] : tree.map) {
    if (child->read) {
      collect_unread(*child, faults);
    } else if (std::ranges::find(tree.known, key) != tree.known.end()) {
      faults.add(child->where, fmt::format("unused key {}: nothing reads it here", child->path));
    } else {
      const auto near = nearest(key, tree.known);
      faults.add(child->where,
                 fmt::format("unknown key {}{}", child->path,
                             near ? "; did you mean " + join_path(tree.path, *near) + "?" : ""));
    }
  }
  for (const auto& item : tree.list) {
    if (item->read) {
      collect_unread(*item, faults);
    } else {
      faults.add(item->where, fmt::format("unused entry {}: nothing reads it here", item->path));
    }
  }
}

}  // namespace

void Faults::add(const std::string& where, const std::string& sentence) {
  sentences_.push_back(where.empty() ? sentence : where + ": " + sentence);
}

void Faults::refuse_unread(const Document& document) {
  const Node root = document.root();
  if (root.tree_) collect_unread(*root.tree_, *this);
}

void Faults::throw_if_any() const {
  if (empty()) return;
  // Two readers of one key find the same fault: it is said once.
  std::vector<std::string> different;
  for (const std::string& sentence : sentences_)
    if (std::ranges::find(different, sentence) == different.end()) different.push_back(sentence);
  throw UserError(fmt::format("{}", fmt::join(different, "\n")));
}

Node::Kind Node::kind() const { return tree_ ? tree_->kind : Kind::kAbsent; }
std::string Node::where() const { return tree_ ? tree_->where : std::string(); }
std::string Node::path() const { return tree_ ? tree_->path : std::string(); }

Node Node::child(std::string_view key) const {
  if (tree_) {
    add_known(key);
    if (auto found = tree_->find(key)) {
      found->read = true;
      return Node(std::move(found));
    }
  }
  auto absent = std::make_shared<ConfigTree>();
  absent->where = where();
  absent->path = join_path(path(), key);
  return Node(std::move(absent));
}

std::vector<std::string> Node::keys() const {
  std::vector<std::string> names;
  if (tree_)
    for (const auto& [key, child] : tree_->map) names.push_back(key);
  return names;
}

std::vector<Node> Node::items() const {
  std::vector<Node> nodes;
  if (!tree_) return nodes;
  for (const auto& item : tree_->list) {
    item->read = true;
    nodes.push_back(Node(item));
  }
  return nodes;
}

std::string Node::scalar() const {
  if (!tree_) return {};
  tree_->read = true;
  return tree_->text;
}

int64_t Node::as_int(Faults& faults, int64_t fallback) const {
  return read_scalar<int64_t>(tree_.get(), faults, fallback, "an integer", parse_integer<int64_t>);
}

uint64_t Node::as_uint(Faults& faults, uint64_t fallback) const {
  return read_scalar<uint64_t>(tree_.get(), faults, fallback, "an integer from 0 to 2^64 - 1",
                               parse_integer<uint64_t>);
}

double Node::as_double(Faults& faults, double fallback) const {
  return read_scalar<double>(tree_.get(), faults, fallback, "a number",
                             [](const std::string& text) -> std::optional<double> {
                               const auto value = parse_number<double>(text);
                               return value && std::isfinite(*value) ? value : std::nullopt;
                             });
}

bool Node::as_bool(Faults& faults, bool fallback) const {
  return read_scalar<bool>(tree_.get(), faults, fallback, "true or false",
                           [](const std::string& text) { return parse_bool(text); });
}

std::string Node::as_string(Faults& faults, std::string fallback) const {
  return read_scalar<std::string>(
      tree_.get(), faults, std::move(fallback), "a text",
      [](const std::string& text) { return std::optional<std::string>(text); });
}

void Node::mark_read() const {
  if (tree_) mark_tree_read(*tree_);
}

void Node::add_known(std::string_view key) const {
  if (tree_ && std::ranges::find(tree_->known, key) == tree_->known.end())
    tree_->known.emplace_back(key);
}

std::optional<std::string> nearest(std::string_view word,
                                   const std::vector<std::string>& candidates) {
  // Optimal string alignment: one letter wrong, missing or added, or two neighbours swapped.
  const auto distance = [&](std::string_view other) {
    std::vector<size_t> before(other.size() + 1), above(other.size() + 1), row(other.size() + 1);
    std::iota(above.begin(), above.end(), size_t{0});
    for (size_t i = 1; i <= word.size(); ++i) {
      row[0] = i;
      for (size_t j = 1; j <= other.size(); ++j) {
        const bool same = word[i - 1] == other[j - 1];
        row[j] = std::min({above[j] + 1, row[j - 1] + 1, above[j - 1] + (same ? 0 : 1)});
        if (i > 1 && j > 1 && word[i - 1] == other[j - 2] && word[i - 2] == other[j - 1])
          row[j] = std::min(row[j], before[j - 2] + 1);
      }
      before.swap(above);
      above.swap(row);
    }
    return above[other.size()];
  };
  std::optional<std::string> best;
  size_t best_distance = std::max<size_t>(word.size() < 4 ? 1 : 2, word.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    const size_t d = distance(candidate);
    // Two letters replaced by two others are no typing mistake.
    if (d < best_distance && d < std::max(word.size(), candidate.size())) {
      best = candidate;
      best_distance = d;
    }
  }
  return best;
}

std::string did_you_mean(std::string_view word, const std::vector<std::string>& candidates) {
  const auto near = nearest(word, candidates);
  return near ? "; did you mean " + *near + "?" : "";
}

}  // namespace varscale::base
