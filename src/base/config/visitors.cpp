// The visitors that fill a struct and that list its keys.
#include <algorithm>
#include <type_traits>

#include "base/config.hpp"
#include "base/error.hpp"

namespace varscale::base {
namespace {

// A value in range replaces the default; a fault leaves the default in place.
template <class T>
void keep_if_in_range(const Node& node, T read, T& value, const Range<T>& range, Faults& faults) {
  if (range.holds(read)) {
    value = read;
  } else {
    faults.add(node.where(),
               fmt::format("{} is {}, expected {}", node.path(), read, range.words()));
  }
}

template <class T>
bool is_open_below(const Range<T>& range) {
  return range.low == std::numeric_limits<T>::lowest() && !range.open_low;
}

std::string join_names(const std::vector<std::string>& names) {
  return fmt::format("{}", fmt::join(names, ", "));
}

}  // namespace

template <class T>
std::string Range<T>::words() const {
  const bool no_low = is_open_below(*this), no_high = high == std::numeric_limits<T>::max();
  if (no_low && no_high) return "any";
  if (no_low) return fmt::format("at most {}", high);
  if (no_high && open_low) return low == T{0} ? "positive" : fmt::format("more than {}", low);
  if (no_high) return fmt::format("at least {}", low);
  return open_low ? fmt::format("more than {} and at most {}", low, high)
                  : fmt::format("between {} and {}", low, high);
}

template struct Range<int64_t>;
template struct Range<double>;

bool ConfigReader::enter() {
  const Node::Kind kind = node_.kind();
  if (kind == Node::Kind::kMap || kind == Node::Kind::kNull || kind == Node::Kind::kAbsent)
    return true;
  const std::string path = node_.path().empty() ? "the file" : node_.path();
  const std::string value = kind == Node::Kind::kList ? "a list" : "'" + node_.scalar() + "'";
  faults_.add(node_.where(), fmt::format("{} is {}, expected a map of settings", path, value));
  node_.mark_read();
  return false;
}

void ConfigReader::field(const char* key, int64_t& value, const char*, Range<int64_t> range,
                         Identity) {
  const Node node = node_.child(key);
  if (!node.present()) return;
  const size_t faults_before = faults_.sentences().size();
  const int64_t read = node.as_int(faults_, value);
  if (faults_.sentences().size() == faults_before)
    keep_if_in_range(node, read, value, range, faults_);
}

void ConfigReader::field(const char* key, uint64_t& value, const char*, Identity) {
  value = node_.child(key).as_uint(faults_, value);
}

void ConfigReader::field(const char* key, double& value, const char*, Range<double> range,
                         Identity) {
  const Node node = node_.child(key);
  if (!node.present()) return;
  const size_t faults_before = faults_.sentences().size();
  const double read = node.as_double(faults_, value);
  if (faults_.sentences().size() == faults_before)
    keep_if_in_range(node, read, value, range, faults_);
}

void ConfigReader::field(const char* key, bool& value, const char*, Identity) {
  value = node_.child(key).as_bool(faults_, value);
}

void ConfigReader::field(const char* key, std::string& value, const char*, Identity) {
  value = node_.child(key).as_string(faults_, value);
}

void ConfigReader::field(const char* key, std::string& value, const char*, const OneOf& names,
                         Identity) {
  const Node node = node_.child(key);
  if (!node.present()) return;
  const size_t faults_before = faults_.sentences().size();
  const std::string read = node.as_string(faults_, value);
  if (faults_.sentences().size() != faults_before) return;
  if (std::ranges::find(names.names, read) != names.names.end()) {
    value = read;
    return;
  }
  faults_.add(node.where(),
              fmt::format("{} is '{}', expected one of {}{}", node.path(), read,
                          join_names(names.names), did_you_mean(read, names.names)));
}

template <class T>
void ConfigReader::read_list(const Node& node, std::vector<T>& value, const char* wanted, const Range<T>& each) {
  if (!node.present()) return;
  if (node.kind() != Node::Kind::kList) {
    const std::string shown = node.kind() == Node::Kind::kScalar ? "'" + node.scalar() + "'"
                              : node.kind() == Node::Kind::kMap  ? "a map"
                                                                 : "empty";
    faults_.add(node.where(), fmt::format("{} is {}, expected {}", node.path(), shown, wanted));
    node.mark_read();
    return;
  }
  const size_t faults_before = faults_.sentences().size();
  std::vector<T> read;
  for (const Node& item : node.items()) {
    const size_t before = faults_.sentences().size();
    T element{};
    if constexpr (std::is_same_v<T, double>)
      element = item.as_double(faults_, 0);
    else
      element = item.as_int(faults_, 0);
    if (faults_.sentences().size() == before)
      keep_if_in_range(item, element, element, each, faults_);
    read.push_back(element);
  }
  if (faults_.sentences().size() == faults_before) value = std::move(read);
}

void ConfigReader::field(const char* key, std::vector<int64_t>& value, const char*, Range<int64_t> each, Identity) {
  read_list(node_.child(key), value, "a list of integers, as in [1, 2, 3]", each);
}

void ConfigReader::field(const char* key, std::vector<double>& value, const char*, Range<double> each, Identity) {
  read_list(node_.child(key), value, "a list of numbers, as in [1, 1.5, 2]", each);
}

void ConfigHelp::field(const char* key, int64_t& value, const char* help, Range<int64_t> range,
                       Identity identity) {
  lines.push_back({prefix_ + key, fmt::format("{}", value), range.words(), help, identity});
}

void ConfigHelp::field(const char* key, uint64_t& value, const char* help, Identity identity) {
  lines.push_back({prefix_ + key, fmt::format("{}", value), "at least 0", help, identity});
}

void ConfigHelp::field(const char* key, double& value, const char* help, Range<double> range,
                       Identity identity) {
  lines.push_back({prefix_ + key, fmt::format("{}", value), range.words(), help, identity});
}

void ConfigHelp::field(const char* key, bool& value, const char* help, Identity identity) {
  lines.push_back({prefix_ + key, value ? "true" : "false", "true or false", help, identity});
}

void ConfigHelp::field(const char* key, std::string& value, const char* help, Identity identity) {
  lines.push_back({prefix_ + key, "'" + value + "'", "text", help, identity});
}

void ConfigHelp::field(const char* key, std::string& value, const char* help, const OneOf& names,
                       Identity identity) {
  lines.push_back({prefix_ + key, value, "one of " + join_names(names.names), help, identity});
}

void ConfigHelp::field(const char* key, std::vector<int64_t>& value, const char* help,
                       Range<int64_t> each, Identity identity) {
  lines.push_back({prefix_ + key, fmt::format("[{}]", fmt::join(value, ", ")),
                   "each " + each.words(), help, identity});
}

void ConfigHelp::field(const char* key, std::vector<double>& value, const char* help, Range<double> each,
                       Identity identity) {
  lines.push_back({prefix_ + key, fmt::format("[{}]", fmt::join(value, ", ")), "each " + each.words(), help, identity});
}

}  // namespace varscale::base
