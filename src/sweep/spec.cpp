#include "sweep/spec.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <type_traits>
#include <utility>

#include "base/error.hpp"
#include "base/file.hpp"
#include "sweep/expression.hpp"

namespace varscale::sweep {

using base::Faults;
using base::Node;
using base::UserError;

namespace {

constexpr int64_t kMostRuns = 10000;

// Settled before all others, in this order: what formulas may use.
constexpr const char* kFirstKeys[] = {"model.depth", "model.width",  "model.heads",
                                      "train.batch", "train.epochs", "train.images"};

std::optional<std::string> nearest_setting(const std::string& word) {
  std::vector<std::string> keys, ends;
  for (const base::ConfigHelpLine& line : setting_keys()) {
    keys.push_back(line.key);
    if (line.key.ends_with("." + word)) ends.push_back(line.key);  // "depth" for "model.depth"
  }
  return ends.size() == 1 ? ends.front() : base::nearest(word, keys);
}

// Visitor over a RunConfig that fills the fields of `settings` that `wanted` picks.
class Assigner {
 public:
  using Wanted = std::function<bool(const std::string&)>;
  Assigner(const Settings& settings, const Variables& variables, Wanted wanted, Faults& faults,
           std::string prefix = {})
      : settings_(settings),
        variables_(variables),
        wanted_(std::move(wanted)),
        faults_(faults),
        prefix_(std::move(prefix)) {}

  template <class T>
  requires std::is_arithmetic_v<T>
  void field(const char* key, T& value, const char*, Range<T> range, Identity = Identity::kYes) {
    assign_number(key, value, range);
  }
  void field(const char* key, int64_t& value, const char*) { assign_number(key, value, {}); }
  void field(const char* key, double& value, const char*) { assign_number(key, value, {}); }
  void field(const char* key, uint64_t& value, const char*, Identity = Identity::kYes) {
    if (const Node* node = find(key)) value = node->as_uint(faults_, value);
  }
  void field(const char* key, bool& value, const char*, Identity = Identity::kYes) {
    if (const Node* node = find(key)) value = node->as_bool(faults_, value);
  }
  void field(const char* key, std::string& value, const char*, Identity = Identity::kYes) {
    if (const Node* node = find(key)) value = node->as_string(faults_, value);
  }
  void field(const char* key, std::string& value, const char*, const OneOf& names,
             Identity = Identity::kYes) {
    const Node* node = find(key);
    if (!node) return;
    const size_t before = faults_.sentences().size();
    const std::string read = node->as_string(faults_, value);
    if (faults_.sentences().size() != before) return;
    if (std::ranges::find(names.names, read) != names.names.end()) {
      value = read;
      return;
    }
    const auto near = base::nearest(read, names.names);
    faults_.add(node->where(), fmt::format("{} is '{}', expected one of {}{}", node->path(), read,
                                           fmt::join(names.names, ", "),
                                           near ? "; did you mean " + *near + "?" : ""));
  }
  template <class Struct>
  void section(const char* key, Struct& value, const char*) {
    Assigner below(settings_, variables_, wanted_, faults_, prefix_ + key + ".");
    value.visit(below);
  }

 private:
  const Node* find(const char* key) const {
    const std::string path = prefix_ + key;
    return wanted_(path) ? settings_.find(path) : nullptr;
  }

  template <class T>
  void assign_number(const char* key, T& value, const Range<T>& range) {
    const Node* node = find(key);
    if (!node) return;
    const std::optional<T> read = read_number<T>(*node);
    if (!read) return;
    if (range.holds(*read)) {
      value = *read;
    } else {
      faults_.add(node->where(), fmt::format("{} is {}, expected {}", node->path(),
                                             shown(*node, *read), range.words()));
    }
  }

  template <class T>
  static std::string shown(const Node& node, T value) {
    const std::string text = node.scalar(), number = fmt::format("{}", value);
    return text == number ? number : fmt::format("'{}' = {}", text, number);
  }

  template <class T>
  std::optional<T> read_number(const Node& node) {
    Faults plain;
    const double number = node.as_double(plain, 0);
    if (node.kind() == Node::Kind::kScalar && !plain.empty()) return read_formula<T>(node);
    const size_t before = faults_.sentences().size();
    T value;
    if constexpr (std::is_same_v<T, double>) {
      value = plain.empty() ? number : node.as_double(faults_, 0);
    } else {
      value = node.as_int(faults_, 0);
    }
    return faults_.sentences().size() == before ? std::optional<T>(value) : std::nullopt;
  }

  template <class T>
  std::optional<T> read_formula(const Node& node) {
    constexpr bool is_integer = !std::is_same_v<T, double>;
    try {
      const double value = Expression::parse(node.scalar()).evaluate(variables_);
      if constexpr (is_integer) {
        if (value != std::floor(value) || std::abs(value) > 9e15)
          throw UserError("it gives {}, not an integer", value);
      }
      return static_cast<T>(value);
    } catch (const UserError& error) {
      faults_.add(node.where(),
                  fmt::format("{} is '{}', expected {} or a formula: {}", node.path(),
                              node.scalar(), is_integer ? "an integer" : "a number", error.what()));
      return std::nullopt;
    }
  }

  const Settings& settings_;
  const Variables& variables_;
  Wanted wanted_;
  Faults& faults_;
  std::string prefix_;
};

// One document on its way to runs.
class SweepReader {
 public:
  SweepReader(const base::Document& document, Purpose purpose, const TokenLookup& lookup)
      : document_(document), purpose_(purpose), lookup_(lookup) {}

  Sweep read() {
    const Node root = document_.root();
    if (root.kind() != Node::Kind::kMap) {
      faults_.add(root.where(), "the file is not a map; expected name, defaults and runs");
      faults_.throw_if_any();
    }
    read_name(root);
    const Node assume = root.child("assume");
    if (assume.present()) {
      has_assumption_ = true;
      read_assumption(assume);
    }
    defaults_ = Settings::flatten(root.child("defaults"), faults_);
    refuse_two_budgets(defaults_);
    read_runs(root.child("runs"));
    for (const auto& [place, used] : schedule_parts_)
      if (!used)
        faults_.add(place.first, fmt::format("unused key {}: the schedule.kind of its runs has no "
                                             "such part",
                                             place.second));
    faults_.refuse_unread(document_);
    faults_.throw_if_any();
    return std::move(sweep_);
  }

 private:
  void read_name(const Node& root) {
    const Node name = root.child("name"), output = root.child("output");
    sweep_.name = name.as_string(faults_, "");
    constexpr std::string_view kAllowed =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    if (!name.present()) {
      faults_.add(root.where(), "name is missing; expected a short name of the sweep");
    } else if (name.kind() == Node::Kind::kScalar &&
               (sweep_.name.empty() ||
                sweep_.name.find_first_not_of(kAllowed) != std::string::npos)) {
      faults_.add(name.where(), fmt::format("name is '{}', expected letters, digits, '.', '_', '-'",
                                            sweep_.name));
    }
    sweep_.output = output.as_string(faults_, "results/" + sweep_.name);
    if (output.present() && sweep_.output.empty())
      faults_.add(output.where(), "output is empty; expected the folder of the sweep");
  }

  void read_assumption(const Node& node) {
    const size_t before = faults_.sentences().size();
    const auto assumed = base::read_config<AssumedTokens>(node, faults_);
    if (faults_.sentences().size() != before) return;
    try {
      TokenFacts facts;
      facts.train_images = assumed.images;
      facts.validation_images = assumed.validation;
      facts.crops = assumed.crops;
      facts.classes = assumed.classes;
      facts.space = {assumed.vocabulary, assumed.code_width, scaling::ScaleList(assumed.scales)};
      assumed_ = std::move(facts);
    } catch (const UserError& error) {
      faults_.add(node.where(), error.what());
    }
  }

  void read_runs(const Node& runs) {
    if (runs.kind() != Node::Kind::kList || runs.items().empty()) {
      faults_.add(runs.where(),
                  "runs is not a list of runs; expected as in\n  runs:\n"
                  "    - {model.depth: [1, 2], train.seed: 0}");
      runs.mark_read();
      return;
    }
    for (const Node& entry : runs.items()) {
      if (entry.kind() != Node::Kind::kMap) {
        faults_.add(entry.where(), fmt::format("{} is not a map of settings, as in "
                                               "{{model.depth: [1, 2], train.seed: 0}}",
                                               entry.path()));
        entry.mark_read();
        continue;
      }
      const Settings grid = Settings::flatten(entry, faults_);
      refuse_two_budgets(grid);
      Settings merged = defaults_;
      if (grid.find("train.images")) merged.erase("train.epochs");
      if (grid.find("train.epochs")) merged.erase("train.images");
      expand(grid, 0, merged, entry.where());
    }
  }

  void refuse_two_budgets(const Settings& settings) {
    const Node *images = settings.find("train.images"), *epochs = settings.find("train.epochs");
    if (images && epochs)
      faults_.add(epochs->where(), fmt::format("unused key {}: {} sets the budget already",
                                               epochs->path(), images->path()));
  }

  // Fills in the keys of the grid from `at` on, each value of a list in turn.
  void expand(const Settings& grid, size_t at, const Settings& merged, const std::string& where) {
    if (expanded_ > kMostRuns) return;
    if (at == grid.order().size()) {
      if (++expanded_ > kMostRuns)
        faults_.add(where, fmt::format("the lists under runs make more than {} runs", kMostRuns));
      else
        add_run(merged, where);
      return;
    }
    const std::string& key = grid.order()[at];
    const Node& node = *grid.find(key);
    Settings next = merged;
    if (node.kind() != Node::Kind::kList) {
      next.put(key, node);
      expand(grid, at + 1, next, where);
      return;
    }
    if (node.items().empty())
      faults_.add(node.where(), fmt::format("{} is an empty list, expected values", node.path()));
    for (const Node& value : node.items()) {
      next.put(key, value);
      expand(grid, at + 1, next, where);
    }
  }

  void add_run(const Settings& settings, const std::string& where) {
    const size_t before = faults_.sentences().size();
    Variables variables;
    RunConfig config;
    const auto assign = [&](const Assigner::Wanted& wanted) {
      Assigner assigner(settings, variables, wanted, faults_);
      config.visit(assigner);
    };
    const auto assign_one = [&](const char* key) {
      assign([key](const std::string& each) { return each == key; });
    };
    assign_one("tokens");
    const TokenFacts* tokens = tokens_of(config, settings, where);
    for (const char* key : kFirstKeys) {
      assign_one(key);
      const std::string_view name = key;
      if (name == "model.depth") {
        variables["depth"] = static_cast<double>(config.model.depth);
      } else if (name == "model.width") {
        const int64_t width = config.model.width ? config.model.width : 64 * config.model.depth;
        variables["width"] = static_cast<double>(width);
      } else if (name == "model.heads") {
        const int64_t heads = config.model.heads ? config.model.heads : config.model.depth;
        variables["heads"] = static_cast<double>(heads);
      } else if (name == "train.batch") {
        variables["batch"] = static_cast<double>(config.train.batch);
      } else if (name == "train.images" && tokens) {
        const double epochs = config.train.epochs * static_cast<double>(tokens->train_images);
        variables["images"] =
            config.train.images ? static_cast<double>(config.train.images) : std::round(epochs);
      }
    }
    // Without its data a run's formulas cannot be judged; the fault is already noted.
    if (!tokens) variables["images"] = 1;
    assign([](const std::string& each) {
      return each != "tokens" && std::ranges::find(kFirstKeys, each) == std::end(kFirstKeys);
    });
    note_schedule_parts(settings, config.schedule.kind);
    if (!tokens || faults_.sentences().size() != before) return;
    finish_run(std::move(config), *tokens, settings, where);
  }

  void finish_run(RunConfig config, const TokenFacts& tokens, const Settings& settings,
                  const std::string& where) {
    SweepRun run{{}, where, {}, tokens};
    std::string place = settings.where("model.heads", settings.where("model.width", where));
    try {
      run.config = resolve(std::move(config), tokens);
      place = settings.where("train.keep_at", where);
      kept_steps_of(run.config);
    } catch (const UserError& error) {
      faults_.add(place, error.what());
      return;
    }
    const std::string hash = identity_hash(run.config, tokens);
    run.id = run_id(run.config, tokens);
    const auto [first, is_new] = ids_.emplace(run.id, std::pair(hash, where));
    if (!is_new) {
      const bool same = first->second.first == hash;
      faults_.add(
          where, fmt::format("run {} is asked for twice{}, first at {}; remove one of them", run.id,
                             same ? "" : " (two runs with one short id)", first->second.second));
      return;
    }
    sweep_.runs.push_back(std::move(run));
  }

  // The facts of the run's token file, or null after noting a fault.
  const TokenFacts* tokens_of(const RunConfig& config, const Settings& settings,
                              const std::string& where) {
    const std::string place = settings.where("tokens", where);
    if (config.tokens.empty()) {
      faults_.add(place,
                  "tokens is not set; expected the path of a file made by var_data tokenize");
      return nullptr;
    }
    auto found = tokens_.find(config.tokens);
    if (found == tokens_.end()) {
      std::optional<TokenFacts> facts;
      try {
        facts = lookup_(config.tokens);
        if (!facts && purpose_ == Purpose::kPlan) facts = assumed_;
        if (!facts && !(has_assumption_ && purpose_ == Purpose::kPlan))
          faults_.add(place, fmt::format("token file {} does not exist; make it with var_data "
                                         "tokenize, or state its geometry under assume: to plan "
                                         "without it",
                                         config.tokens));
      } catch (const UserError& error) {
        faults_.add(place, error.what());
      }
      found = tokens_.emplace(config.tokens, std::move(facts)).first;
    }
    return found->second ? &*found->second : nullptr;
  }

  // A part of the schedule that no run's kind has is an unused key.
  void note_schedule_parts(const Settings& settings, const std::string& kind) {
    const auto note = [&](const char* key, bool used) {
      if (const Node* node = settings.find(key))
        schedule_parts_[{node->where(), node->path()}] |= used;
    };
    note("schedule.hold", kind == "wsd" || kind == "public");
    note("schedule.end", kind != "constant");
  }

  const base::Document& document_;
  Purpose purpose_;
  const TokenLookup& lookup_;
  Faults faults_;
  Sweep sweep_;
  Settings defaults_;
  bool has_assumption_ = false;
  std::optional<TokenFacts> assumed_;
  std::map<std::string, std::optional<TokenFacts>> tokens_;
  std::map<std::string, std::pair<std::string, std::string>> ids_;      // id: identity hash, place
  std::map<std::pair<std::string, std::string>, bool> schedule_parts_;  // where, path: is used
  int64_t expanded_ = 0;
};

}  // namespace

const std::vector<base::ConfigHelpLine>& setting_keys() {
  static const std::vector<base::ConfigHelpLine> lines = base::help_config<RunConfig>();
  return lines;
}

Settings Settings::flatten(const Node& node, Faults& faults) {
  Settings settings;
  if (node.kind() == Node::Kind::kMap) {
    settings.add(node, "", faults);
  } else if (node.present() && node.kind() != Node::Kind::kNull) {
    faults.add(node.where(),
               fmt::format("{} is not a map, expected settings of a run", node.path()));
    node.mark_read();
  }
  return settings;
}

void Settings::add(const Node& node, const std::string& prefix, Faults& faults) {
  for (const std::string& name : node.keys()) {
    const Node child = node.child(name);
    const std::string key = prefix + name;
    const auto is_key = [&](const base::ConfigHelpLine& line) { return line.key == key; };
    const auto is_section = [&](const base::ConfigHelpLine& line) {
      return line.key.starts_with(key + ".");
    };
    if (std::ranges::any_of(setting_keys(), is_key)) {
      const auto [first, is_new] = nodes_.emplace(key, child);
      if (is_new)
        order_.push_back(key);
      else
        faults.add(child.where(), fmt::format("key {} is given twice, first at {}", child.path(),
                                              first->second.where()));
    } else if (child.kind() == Node::Kind::kMap &&
               std::ranges::any_of(setting_keys(), is_section)) {
      add(child, key + ".", faults);
    } else {
      if (std::ranges::any_of(setting_keys(), is_section)) {
        faults.add(child.where(), fmt::format("{} is not a map of settings", child.path()));
      } else {
        const auto near = nearest_setting(key);
        faults.add(child.where(), fmt::format("unknown key {}{}", child.path(),
                                              near ? "; did you mean " + *near + "?" : ""));
      }
      child.mark_read();
    }
  }
}

const Node* Settings::find(const std::string& key) const {
  const auto found = nodes_.find(key);
  return found == nodes_.end() ? nullptr : &found->second;
}

std::string Settings::where(const std::string& key, const std::string& otherwise) const {
  const Node* node = find(key);
  return node ? node->where() : otherwise;
}

std::optional<TokenFacts> read_token_facts(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return std::nullopt;
  return facts_of(records::TokenFile(path));
}

Sweep read_sweep(const base::Document& document, Purpose purpose, const TokenLookup& lookup) {
  return SweepReader(document, purpose, lookup).read();
}

Sweep load_sweep(const std::filesystem::path& path, const std::vector<std::string>& overrides,
                 Purpose purpose, const TokenLookup& lookup) {
  const std::string text = base::read_file(path);
  Sweep sweep = read_sweep(base::Document::parse(text, path.string(), overrides), purpose, lookup);
  sweep.text = text;
  for (const std::string& each : overrides) sweep.text += "# --set " + each + "\n";
  return sweep;
}

}  // namespace varscale::sweep
