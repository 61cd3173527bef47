// A value of a pickle as it lies in memory.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "archives/pickle.hpp"

namespace varscale::archives {

// What a value may be while the pickle is read.
enum class NodeKind {
  kNone,
  kBool,
  kInt,
  kFloat,
  kText,
  kBytes,
  kList,
  kTuple,
  kSet,
  kDict,
  kTensor,
  kGlobal,
  kStorage
};

inline constexpr std::array<std::string_view, 13> kNames = {"None",     "a bool", "an integer", "a number", "a text",
                                                     "bytes",    "a list", "a tuple",    "a set",    "a dict",
                                                     "a tensor", "a name", "a storage"};

struct Pickle::Node {
  NodeKind kind = NodeKind::kNone;
  int64_t integer = 0;  // of a bool, an integer, a global, a tensor (its place) or a storage (its type)
  double real = 0;
  std::string text = {};
  std::vector<uint32_t> items = {};  // of a dict: key, value, key, value
};

}  // namespace varscale::archives
