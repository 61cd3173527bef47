// Settings that another setting calls for or shuts out, over all runs of a sweep file.
//
//   ConditionalSettings conditional;
//   conditional.note(settings, config, where, /*to_train=*/true, faults);   // of each run
//   conditional.refuse_unused(faults);                                      // once all have been noted
//
// A key in `defaults` may be for some of the runs only; it is unused where no run has made its choice.
#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>

#include "sweep/settings.hpp"

namespace varscale::sweep {

class ConditionalSettings {
 public:
  // `where`: the run's place in the file. Faults: data.tokens is online without its folder and tokenizer or, to
  // train, with paths that do not exist; each is named once. Whether they are the right ones is not known here.
  void note(const Settings& settings, const RunConfig& config, const std::string& where, bool to_train,
            base::Faults& faults);
  void refuse_unused(base::Faults& faults) const;

 private:
  void check_online(const DataConfig& data, const Settings& settings, const std::string& where, bool to_train,
                    base::Faults& faults);

  struct Use {
    bool used = false;
    const char* otherwise = nullptr;  // why it is not
  };
  std::map<std::pair<std::string, std::string>, Use> uses_;  // by where and path of the key
  std::set<std::string> said_;
};

}  // namespace varscale::sweep
