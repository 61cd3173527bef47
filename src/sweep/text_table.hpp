// Plain-text tables with aligned columns.
//
//   TextTable table({"id", "N"});
//   table.add({"d2-s0-1f3a9c", "593 k"});
//   fmt::print("{}", table.text());
#pragma once

#include <string>
#include <vector>

namespace varscale::sweep {

// Texts are aligned left, columns that hold nothing but numbers (units behind them allowed) right.
class TextTable {
 public:
  explicit TextTable(std::vector<std::string> head) : head_(std::move(head)) {}
  void add(std::vector<std::string> cells);  // one per column
  std::string text() const;                  // head, rule, rows; each line ends in a newline

 private:
  std::vector<std::string> head_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace varscale::sweep
