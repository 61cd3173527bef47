#include "coordinate/letters.hpp"

#include <limits>
#include <nlohmann/json.hpp>

namespace varscale::coordinate {

using nlohmann::json;

std::string Order::text() const {
  return json{{"kind", kind}, {"group", group}, {"run", run}, {"ranks", ranks}, {"attempt", attempt}, {"exit_code", exit_code}}
      .dump();
}

Order Order::parse(const std::string& text) {
  const json letter = json::parse(text);
  return {letter.at("kind"), letter.at("group"), letter.at("run"), letter.at("ranks"), letter.at("attempt"),
          letter.at("exit_code")};
}

std::string Report::text() const {
  // A reason may quote a file that is not UTF-8.
  return json{{"kind", kind},     {"end", end},         {"group", group},   {"step", step}, {"steps_per_s", steps_per_s},
              {"loss", loss},     {"save_s", save_s},   {"train_s", train_s},
              {"reason", reason}, {"users_fault", users_fault}}
      .dump(-1, ' ', false, json::error_handler_t::replace);
}

Report Report::parse(const std::string& text) {
  const json letter = json::parse(text);
  const json& loss = letter.at("loss");  // null: no number
  return {.kind = letter.at("kind"),
          .end = letter.at("end"),
          .group = letter.at("group"),
          .step = letter.at("step"),
          .steps_per_s = letter.at("steps_per_s"),
          .loss = loss.is_null() ? std::numeric_limits<double>::quiet_NaN() : loss.get<double>(),
          .save_s = letter.at("save_s"),
          .train_s = letter.at("train_s"),
          .reason = letter.at("reason"),
          .users_fault = letter.at("users_fault")};
}

}  // namespace varscale::coordinate
