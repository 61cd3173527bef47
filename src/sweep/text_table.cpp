#include "sweep/text_table.hpp"

#include <algorithm>

#include "base/error.hpp"

namespace varscale::sweep {

void TextTable::add(std::vector<std::string> cells) {
  VARSCALE_CHECK(cells.size() == head_.size(), "{} cells in a table of {} columns", cells.size(),
                 head_.size());
  rows_.push_back(std::move(cells));
}

std::string TextTable::text() const {
  std::vector<size_t> widths(head_.size());
  std::vector<bool> is_number(head_.size(), !rows_.empty());
  for (size_t c = 0; c < head_.size(); ++c) {
    widths[c] = head_[c].size();
    for (const auto& row : rows_) {
      widths[c] = std::max(widths[c], row[c].size());
      const bool digits = !row[c].empty() && row[c].front() >= '0' && row[c].front() <= '9';
      if (!digits && row[c] != "-" && !row[c].empty()) is_number[c] = false;
    }
  }
  std::string text;
  const auto append = [&](const std::vector<std::string>& cells) {
    std::string line;
    for (size_t c = 0; c < cells.size(); ++c) {
      const std::string gap(widths[c] - cells[c].size(), ' ');
      line += (c ? "  " : "") + (is_number[c] ? gap + cells[c] : cells[c] + gap);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  };
  append(head_);
  size_t total = 2 * (widths.size() - 1);
  for (const size_t width : widths) total += width;
  text += std::string(total, '-') + "\n";
  for (const auto& row : rows_) append(row);
  return text;
}

}  // namespace varscale::sweep
