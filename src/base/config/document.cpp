// Loading: YAML text, overrides and JSON into one tree.
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cstdlib>
#include <sstream>

#include "base/config.hpp"
#include "base/config/tree.hpp"
#include "base/error.hpp"
#include "base/file.hpp"
#include "base/json.hpp"

namespace varscale::base {
namespace {

using TreePtr = std::shared_ptr<ConfigTree>;
using Kind = Node::Kind;

// Aliases can make a short text endless or enormous.
constexpr int kMaxDepth = 100;
constexpr int64_t kMaxNodes = 100'000;

// Turns yaml-cpp's nodes into ours. `where_of` words a mark of the text.
class YamlBuilder {
 public:
  YamlBuilder(std::string name, bool with_lines)
      : name_(std::move(name)), with_lines_(with_lines) {}

  TreePtr load(const std::string& text, const std::string& path) {
    last_line_ = std::max<int64_t>(1, std::ranges::count(text, '\n') + !text.ends_with('\n'));
    YAML::Node document;
    bool empty = false;
    try {
      // yaml-cpp takes a quote that is still open after the last line break for closed. The comment
      // sign makes the last line one without a break, and that it refuses.
      const std::string whole = text + "\n#";
      empty = !require_one_document(whole);
      if (!empty) document = YAML::Load(whole);
    } catch (const YAML::Exception& error) {
      throw UserError("{}: not valid YAML: {}", where(error.mark, name_), error.msg);
    }
    const std::string first_line = with_lines_ ? name_ + ":1" : name_;
    if (empty) {
      auto empty = std::make_shared<ConfigTree>();
      empty->kind = Kind::kNull;
      empty->where = first_line;
      empty->path = path;
      return empty;
    }
    return build(document, first_line, path, 0);
  }

 private:
  // False where there is none. YAML::LoadAll would go on for ever behind a document that ends in a stray sign.
  bool require_one_document(const std::string& text) const {
    struct Starts : YAML::EventHandler {
      YAML::Mark last;
      void OnDocumentStart(const YAML::Mark& mark) override { last = mark; }
      void OnDocumentEnd() override {}
      void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
      void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
      void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t, const std::string&) override {}
      void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {}
      void OnSequenceEnd() override {}
      void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {}
      void OnMapEnd() override {}
    } starts;
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    if (!parser.HandleNextDocument(starts)) return false;
    if (parser.HandleNextDocument(starts))
      throw UserError("{}: another YAML document begins here, expected one", where(starts.last, name_));
    return true;
  }

  std::string where(const YAML::Mark& mark, const std::string& otherwise) const {
    if (!with_lines_ || mark.is_null()) return otherwise;
    return fmt::format("{}:{}", name_, std::min<int64_t>(mark.line + 1, last_line_));
  }

  TreePtr build(const YAML::Node& node, std::string place, std::string path, int depth) {
    if (depth > kMaxDepth)
      throw UserError("{}: {} is nested deeper than {} levels", place, path, kMaxDepth);
    if (++nodes_ > kMaxNodes) throw UserError("{}: more than {} values", place, kMaxNodes);
    auto tree = std::make_shared<ConfigTree>();
    tree->where = std::move(place);
    tree->path = std::move(path);
    if (node.IsScalar()) {
      tree->kind = Kind::kScalar;
      tree->text = node.Scalar();
    } else if (node.IsSequence()) {
      tree->kind = Kind::kList;
      for (const auto& item : node)
        tree->list.push_back(build(item, where(item.Mark(), tree->where),
                                   fmt::format("{}[{}]", tree->path, tree->list.size()),
                                   depth + 1));
    } else if (node.IsMap()) {
      tree->kind = Kind::kMap;
      build_map(node, *tree, depth);
    } else {
      tree->kind = Kind::kNull;
    }
    return tree;
  }

  void build_map(const YAML::Node& node, ConfigTree& tree, int depth) {
    for (const auto& pair : node) {
      const std::string place = where(pair.first.Mark(), tree.where);
      if (!pair.first.IsScalar())
        throw UserError("{}: a key of {} is not a plain word", place,
                        tree.path.empty() ? "the file" : tree.path);
      const std::string& key = pair.first.Scalar();
      const std::string path = join_path(tree.path, key);
      if (const TreePtr first = tree.find(key))
        throw UserError("{}: key {} is given twice, first at {}", place, path, first->where);
      tree.map.emplace_back(key, build(pair.second, place, path, depth + 1));
    }
  }

  std::string name_;
  bool with_lines_;
  int64_t last_line_ = 1;
  int64_t nodes_ = 0;
};

void apply_override(const TreePtr& root, const std::string& text) {
  const size_t equals = text.find('=');
  const std::string path = text.substr(0, equals);
  const std::string where = "--set " + path;
  if (equals == std::string::npos || equals == 0)
    throw UserError("--set {}: expected key=value, as in train.batch=64", text);

  TreePtr parent = root;
  size_t begin = 0;
  while (true) {
    if (parent->kind == Kind::kNull) parent->kind = Kind::kMap;
    if (parent->kind != Kind::kMap)
      throw UserError("{}: {} is not a map, so it has no keys to set", where,
                      parent->path.empty() ? "the file" : parent->path);
    const size_t dot = path.find('.', begin);
    const std::string key = path.substr(begin, dot - begin);
    if (key.empty()) throw UserError("{}: an empty name between the dots of the key", where);
    TreePtr child = parent->find(key);
    const bool last = dot == std::string::npos;
    if (last || !child) {
      TreePtr made;
      if (last) {
        made = YamlBuilder(where, false).load(text.substr(equals + 1), path);
      } else {
        made = std::make_shared<ConfigTree>();
        made->kind = Kind::kMap;
        made->where = where;
        made->path = path.substr(0, dot);
      }
      if (child) {
        for (auto& [name, value] : parent->map)
          if (name == key) value = made;
      } else {
        parent->map.emplace_back(key, made);
      }
      child = made;
    }
    if (last) return;
    parent = child;
    begin = dot + 1;
  }
}

std::string expanded(const ConfigTree& tree, Faults& faults) {
  std::string text;
  size_t at = 0;
  while (true) {
    const size_t begin = tree.text.find("${", at);
    text += tree.text.substr(at, begin - at);
    if (begin == std::string::npos) return text;
    const size_t end = tree.text.find('}', begin);
    const std::string inside = tree.text.substr(begin + 2, end - begin - 2);
    const size_t dash = inside.find(":-");
    const std::string name = inside.substr(0, dash);
    if (end == std::string::npos || name.empty()) {
      faults.add(tree.where, fmt::format("{} is '{}', expected ${{NAME}} or ${{NAME:-default}}", tree.path, tree.text));
      return tree.text;
    }
    const char* value = std::getenv(name.c_str());
    if (value != nullptr && *value != '\0') {
      text += value;
    } else if (dash != std::string::npos) {
      text += inside.substr(dash + 2);
    } else {
      faults.add(tree.where, fmt::format("{} names the environment variable {}, which is not set; set it, or give a "
                                         "default as in ${{{}:-value}}",
                                         tree.path, name, name));
      return tree.text;
    }
    at = end + 1;
  }
}

void expand_below(ConfigTree& tree, Faults& faults) {
  if (tree.kind == Kind::kScalar) tree.text = expanded(tree, faults);
  for (auto& [key, child] : tree.map) expand_below(*child, faults);
  for (auto& child : tree.list) expand_below(*child, faults);
}

TreePtr from_json_value(const nlohmann::ordered_json& json, const std::string& where,
                        std::string path) {
  auto tree = std::make_shared<ConfigTree>();
  tree->where = where;
  tree->path = std::move(path);
  if (json.is_object()) {
    tree->kind = Kind::kMap;
    for (const auto& [key, value] : json.items())
      tree->map.emplace_back(key, from_json_value(value, where, join_path(tree->path, key)));
  } else if (json.is_array()) {
    tree->kind = Kind::kList;
    for (const auto& item : json)
      tree->list.push_back(
          from_json_value(item, where, fmt::format("{}[{}]", tree->path, tree->list.size())));
  } else if (json.is_null()) {
    tree->kind = Kind::kNull;
  } else {
    tree->kind = Kind::kScalar;
    tree->text = json.is_string() ? json.get<std::string>() : json_text(json);
  }
  return tree;
}

}  // namespace

Document Document::load(const std::filesystem::path& path,
                        const std::vector<std::string>& overrides) {
  return parse(read_file(path), path.string(), overrides);
}

Document Document::parse(const std::string& text, const std::string& name,
                         const std::vector<std::string>& overrides) {
  TreePtr root = YamlBuilder(name, true).load(text, "");
  for (const std::string& each : overrides) apply_override(root, each);
  Document document;
  document.name_ = name;
  document.root_ = Node(std::move(root));
  return document;
}

void Document::expand_environment(Faults& faults) { expand_below(*root_.tree_, faults); }

Document Document::from_json(const nlohmann::ordered_json& json, const std::string& name) {
  Document document;
  document.name_ = name;
  document.root_ = Node(from_json_value(json, name, ""));
  return document;
}

}  // namespace varscale::base
