// YAML settings as typed structs: one visit() gives parsing, defaults, ranges, help and dump.
//
//   struct OptimizerConfig {
//     double lr = 1e-4;
//     std::string schedule = "cosine";
//     template <class Visitor> void visit(Visitor& v) {
//       v.field("lr", lr, "peak learning rate", Range<double>::positive());
//       v.field("schedule", schedule, "shape of the learning rate", OneOf{"cosine", "constant"});
//     }
//   };
//   auto document = Document::load("sweeps/depth.yaml", {"optimizer.lr=3e-4"});  // overrides
//   Faults faults;
//   auto optimizer = read_config<OptimizerConfig>(document.root().child("optimizer"), faults);
//   faults.refuse_unread(document);  // every key that nothing read, with "did you mean"
//   faults.throw_if_any();           // one UserError with all sentences, one a line
//
// A sub-struct is v.section("name", struct, "help"). Keys are read once; what is never read is an
// error that names file:line and the nearest valid key. Duplicate keys are refused while loading.
//
// Errors   UserError. Each sentence starts with "file:line: " (or "--set key: " for an override).
#pragma once

#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.hpp"

namespace varscale::base {

struct ConfigTree;  // what a node looks at; private to src/base/config
class Document;

// Faults of one user's file, all of them before anything is refused.
class Faults {
 public:
  void add(const std::string& where, const std::string& sentence);
  bool empty() const noexcept { return sentences_.empty(); }
  const std::vector<std::string>& sentences() const noexcept { return sentences_; }
  void refuse_unread(const Document& document);
  void throw_if_any() const;

 private:
  std::vector<std::string> sentences_;
};

// A view of one node of a loaded document. Copies are cheap and share the "was read" marks.
class Node {
 public:
  Node() = default;  // kAbsent
  enum class Kind { kAbsent, kNull, kScalar, kList, kMap };
  Kind kind() const;
  bool present() const { return kind() != Kind::kAbsent; }
  std::string where() const;  // "sweeps/depth.yaml:14" or "--set train.lr"
  std::string path() const;   // "train.lr"; "" for the root

  Node child(std::string_view key) const;  // kAbsent where missing; marks the key as known and read
  std::vector<std::string> keys() const;   // of a map, in file order; reads nothing
  std::vector<Node> items() const;         // of a list; reads them
  std::string scalar() const;              // the text; marks it read

  // Typed scalars. Absent: `fallback`. Mistyped: a fault is added and `fallback` comes back.
  int64_t as_int(Faults& faults, int64_t fallback) const;  // also "1_000_000", and 1e6 where whole
  uint64_t as_uint(Faults& faults, uint64_t fallback) const;
  double as_double(Faults& faults, double fallback) const;  // finite
  bool as_bool(Faults& faults, bool fallback) const;        // true/false/yes/no/on/off
  std::string as_string(Faults& faults, std::string fallback) const;

  void mark_read() const;                      // this node and everything below it
  void add_known(std::string_view key) const;  // a valid key, for "did you mean"

 private:
  friend class Document;
  friend class Faults;
  explicit Node(std::shared_ptr<ConfigTree> tree) : tree_(std::move(tree)) {}
  std::shared_ptr<ConfigTree> tree_;
};

class Document {
 public:
  // Overrides are "a.b=value" with a YAML value; they replace or add a key.
  static Document load(const std::filesystem::path& path,
                       const std::vector<std::string>& overrides = {});
  static Document parse(const std::string& text, const std::string& name,
                        const std::vector<std::string>& overrides = {});
  // Replaces ${NAME} and ${NAME:-default} in scalar values by environment variables. Faults: a variable that is not
  // set and has no default, an open ${.
  void expand_environment(Faults& faults);
  Node root() const { return root_; }
  const std::string& name() const noexcept { return name_; }

  // A document built in memory from JSON (for resolved configurations and tests).
  static Document from_json(const nlohmann::ordered_json& json, const std::string& name);

 private:
  Node root_;
  std::string name_;
};

// The nearest of `candidates` by edit distance, or nothing if none is near.
std::optional<std::string> nearest(std::string_view word,
                                   const std::vector<std::string>& candidates);
// The end of a sentence about an unknown word: "; did you mean NEAREST?", or nothing.
std::string did_you_mean(std::string_view word, const std::vector<std::string>& candidates);

template <class T>
struct Range {
  T low = std::numeric_limits<T>::lowest();
  T high = std::numeric_limits<T>::max();
  bool open_low = false;  // low itself is refused
  static Range positive() { return {T{0}, std::numeric_limits<T>::max(), true}; }
  static Range at_least(T low) { return {low, std::numeric_limits<T>::max(), false}; }
  static Range between(T low, T high) { return {low, high, false}; }
  bool holds(T value) const { return (open_low ? value > low : value >= low) && value <= high; }
  std::string words() const;  // "positive", "at least 1", "between 0 and 1"
};

struct OneOf {
  std::vector<std::string> names;
  OneOf(std::initializer_list<const char*> list) : names(list.begin(), list.end()) {}
};

// Whether a setting changes the numbers of a run, and so belongs to its identity.
enum class Identity { kYes, kNo };

// Visitor that fills a struct from a node.
class ConfigReader {
 public:
  ConfigReader(Node node, Faults& faults) : node_(std::move(node)), faults_(faults) {}
  void field(const char* key, int64_t& value, const char* help, Range<int64_t> range = {},
             Identity = Identity::kYes);
  void field(const char* key, uint64_t& value, const char* help, Identity = Identity::kYes);
  void field(const char* key, double& value, const char* help, Range<double> range = {},
             Identity = Identity::kYes);
  void field(const char* key, bool& value, const char* help, Identity = Identity::kYes);
  void field(const char* key, std::string& value, const char* help, Identity = Identity::kYes);
  void field(const char* key, std::string& value, const char* help, const OneOf& names,
             Identity = Identity::kYes);
  void field(const char* key, std::vector<int64_t>& value, const char* help,
             Range<int64_t> each = {}, Identity = Identity::kYes);
  void field(const char* key, std::vector<double>& value, const char* help, Range<double> each = {},
             Identity = Identity::kYes);
  template <class Struct>
  void section(const char* key, Struct& value, const char* /*help*/) {
    ConfigReader below(node_.child(key), faults_);
    if (below.enter()) value.visit(below);
  }
  bool enter();  // true where the node is a map, empty or absent; a fault otherwise

 private:
  template <class T>
  void read_list(const Node& node, std::vector<T>& value, const char* wanted, const Range<T>& each);
  Node node_;
  Faults& faults_;
};

// Visitor that dumps a struct as JSON, in declared order; identity_only omits Identity::kNo fields.
class ConfigWriter {
 public:
  explicit ConfigWriter(bool identity_only = false) : identity_only_(identity_only) {}
  template <class T>
  void field(const char* key, T& value, const char*, Range<T> = {},
             Identity identity = Identity::kYes) {
    put(key, value, identity);
  }
  void field(const char* key, uint64_t& value, const char*, Identity identity = Identity::kYes) {
    put(key, value, identity);
  }
  void field(const char* key, bool& value, const char*, Identity identity = Identity::kYes) {
    put(key, value, identity);
  }
  void field(const char* key, std::string& value, const char*, Identity identity = Identity::kYes) {
    put(key, value, identity);
  }
  void field(const char* key, std::string& value, const char*, const OneOf&,
             Identity identity = Identity::kYes) {
    put(key, value, identity);
  }
  template <class T>
  void field(const char* key, std::vector<T>& value, const char*, Range<T> = {},
             Identity identity = Identity::kYes) {
    put(key, value, identity);
  }
  template <class Struct>
  void section(const char* key, Struct& value, const char*) {
    ConfigWriter below(identity_only_);
    value.visit(below);
    if (!below.json.empty() || !identity_only_) json[key] = below.json;
  }
  nlohmann::ordered_json json = nlohmann::ordered_json::object();

 private:
  template <class T>
  void put(const char* key, const T& value, Identity identity) {
    if (!identity_only_ || identity == Identity::kYes) json[key] = value;
  }
  bool identity_only_;
};

// Visitor that lists every key with its default, range and help, for --help-config and the docs.
struct ConfigHelpLine {
  std::string key, default_value, range, help;
  Identity identity;
};
class ConfigHelp {
 public:
  explicit ConfigHelp(std::string prefix = {}) : prefix_(std::move(prefix)) {}
  void field(const char* key, int64_t& value, const char* help, Range<int64_t> range = {},
             Identity = Identity::kYes);
  void field(const char* key, uint64_t& value, const char* help, Identity = Identity::kYes);
  void field(const char* key, double& value, const char* help, Range<double> range = {},
             Identity = Identity::kYes);
  void field(const char* key, bool& value, const char* help, Identity = Identity::kYes);
  void field(const char* key, std::string& value, const char* help, Identity = Identity::kYes);
  void field(const char* key, std::string& value, const char* help, const OneOf& names,
             Identity = Identity::kYes);
  void field(const char* key, std::vector<int64_t>& value, const char* help,
             Range<int64_t> each = {}, Identity = Identity::kYes);
  void field(const char* key, std::vector<double>& value, const char* help, Range<double> each = {},
             Identity = Identity::kYes);
  template <class Struct>
  void section(const char* key, Struct& value, const char*) {
    ConfigHelp below(prefix_ + key + ".");
    value.visit(below);
    lines.insert(lines.end(), below.lines.begin(), below.lines.end());
  }
  std::vector<ConfigHelpLine> lines;

 private:
  std::string prefix_;
};

template <class Struct>
Struct read_config(const Node& node, Faults& faults) {
  Struct value;
  ConfigReader reader(node, faults);
  if (reader.enter()) value.visit(reader);
  return value;
}

template <class Struct>
nlohmann::ordered_json dump_config(Struct value, bool identity_only = false) {
  ConfigWriter writer(identity_only);
  value.visit(writer);
  return writer.json;
}

template <class Struct>
std::vector<ConfigHelpLine> help_config() {
  Struct value;
  ConfigHelp help;
  value.visit(help);
  return help.lines;
}

}  // namespace varscale::base
