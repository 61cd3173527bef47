// The tree behind base::Node, the same for YAML, overrides and JSON. Private to base.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/config.hpp"

namespace varscale::base {

struct ConfigTree {
  Node::Kind kind = Node::Kind::kAbsent;
  std::string text;   // of a scalar
  std::string where;  // "file:line" or "--set key"
  std::string path;   // "train.lr", "sizes[2]"; "" for the root
  std::vector<std::pair<std::string, std::shared_ptr<ConfigTree>>> map;  // in file order
  std::vector<std::shared_ptr<ConfigTree>> list;
  bool read = false;
  std::vector<std::string> known;  // keys asked for in this map

  std::shared_ptr<ConfigTree> find(std::string_view key) const {
    for (const auto& [name, child] : map)
      if (name == key) return child;
    return nullptr;
  }
};

inline std::string join_path(const std::string& parent, std::string_view key) {
  return parent.empty() ? std::string(key) : parent + "." + std::string(key);
}

}  // namespace varscale::base
