// What is resampled together.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <vector>

namespace varscale::fit {

// Indices by the group that `group_of` names, in the order of their first; a negative group is one of its own.
template <class Item, class GroupOf>
std::vector<std::vector<size_t>> grouped(std::span<const Item> items, GroupOf group_of) {
  std::vector<std::vector<size_t>> groups;
  std::map<int64_t, size_t> number;
  for (size_t i = 0; i < items.size(); ++i) {
    const int64_t name = group_of(items[i]);
    if (name < 0) {
      groups.push_back({i});
      continue;
    }
    const auto [group, fresh] = number.try_emplace(name, groups.size());
    if (fresh) groups.emplace_back();
    groups[group->second].push_back(i);
  }
  return groups;
}

}  // namespace varscale::fit
