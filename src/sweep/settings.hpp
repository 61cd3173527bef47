// Settings of one run as a sweep file gives them: by dotted key, each with the node it comes from, so that
// a fault names its file and line.
//
//   Settings settings = Settings::flatten(defaults_node, faults);
//   settings.put_over(Settings::flatten(entry_node, faults));      // the entry's keys go first
//   fill(settings, variables, [](const std::string& key) { return key != "tokens"; }, config, faults);
//
// Where a number is expected a formula (expression.hpp) may stand.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/config.hpp"
#include "sweep/expression.hpp"
#include "sweep/run_config.hpp"

namespace varscale::sweep {

class Settings {
 public:
  // Adds the values below `node`: nested maps and dotted keys alike. `extra` are keys beside those of
  // RunConfig that may stand there. An unknown key is a fault.
  static Settings flatten(const base::Node& node, base::Faults& faults,
                          const std::vector<std::string>& extra = {});

  const base::Node* find(const std::string& key) const;
  // A budget replaces any other budget, and a warm-up the other.
  void put(const std::string& key, const base::Node& node);
  void put_over(const Settings& above);
  void erase(const std::string& key) { nodes_.erase(key); }
  const std::vector<std::string>& order() const noexcept { return order_; }
  std::string where(const std::string& key, const std::string& otherwise) const;

 private:
  void add(const base::Node& node, const std::string& prefix, base::Faults& faults,
           const std::vector<std::string>& extra);
  std::map<std::string, base::Node> nodes_;
  std::vector<std::string> order_;  // as the keys were first put
};

// Keys of which one sets how long a run trains.
const std::vector<std::string>& budget_keys();

// Ways to say one thing, of which a run takes one.
struct Exclusive {
  const char* what;  // "the budget"
  std::vector<std::string> keys;
};
const std::vector<Exclusive>& exclusive_keys();

// Assigns the settings that `wanted` picks. A value that does not fit is a fault and leaves its field.
void fill(const Settings& settings, const Variables& variables,
          const std::function<bool(const std::string&)>& wanted, RunConfig& config,
          base::Faults& faults);

// Every key of RunConfig, dotted.
const std::vector<base::ConfigHelpLine>& setting_keys();

}  // namespace varscale::sweep
