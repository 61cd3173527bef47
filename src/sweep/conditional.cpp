#include "sweep/conditional.hpp"

#include <fmt/format.h>

#include <filesystem>

namespace varscale::sweep {

namespace fs = std::filesystem;

void ConditionalSettings::note(const Settings& settings, const RunConfig& config, const std::string& where,
                               bool to_train, base::Faults& faults) {
  const auto note = [&](const char* key, bool used, const char* otherwise) {
    if (const base::Node* node = settings.find(key)) {
      Use& use = uses_[{node->where(), node->path()}];
      use.used |= used;
      use.otherwise = otherwise;
    }
  };
  const std::string& kind = config.schedule.kind;
  constexpr const char* kNoSuchPart = "the schedule.kind of its runs has no such part";
  note("schedule.hold", kind == "wsd" || kind == "public", kNoSuchPart);
  note("schedule.end", kind != "constant", kNoSuchPart);
  const bool given = !config.model.init_from.empty();
  constexpr const char* kGiven = "model.init_from gives the weights of its runs";
  note("model.init_std", !given, kGiven);
  note("model.adaln_gamma_init", !given, kGiven);
  note("model.init_fingerprint", given, "its runs have no model.init_from");
  constexpr const char* kCached = "data.tokens of its runs is cached, and only online reads images";
  note("data.images", config.data.online(), kCached);
  note("data.tokenizer", config.data.online(), kCached);
  if (config.data.online()) check_online(config.data, settings, where, to_train, faults);
}

void ConditionalSettings::refuse_unused(base::Faults& faults) const {
  for (const auto& [place, use] : uses_)
    if (!use.used) faults.add(place.first, fmt::format("unused key {}: {}", place.second, use.otherwise));
}

void ConditionalSettings::check_online(const DataConfig& data, const Settings& settings, const std::string& where,
                                       bool to_train, base::Faults& faults) {
  const auto check = [&](const char* key, const std::string& path, bool exists, const char* what) {
    const std::string place = settings.where(key, settings.where("data.tokens", where));
    std::string sentence;
    if (path.empty())
      sentence = fmt::format("{} is not set; data.tokens online needs {}", key, what);
    else if (to_train && !exists)
      sentence = fmt::format("{} is {}, which does not exist; expected {}", key, path, what);
    if (!sentence.empty() && said_.insert(place + sentence).second) faults.add(place, sentence);
  };
  std::error_code error;
  // Numbered archives in braces are looked for when they are listed.
  check("data.images", data.images, fs::exists(data.images, error) || data.images.find('{') != std::string::npos,
        "the training images that the token file was made from");
  check("data.tokenizer", data.tokenizer, fs::is_regular_file(data.tokenizer, error),
        "the weights of the tokenizer that the token file was made with");
}

}  // namespace varscale::sweep
