#include "sweep/spec.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <map>
#include <set>
#include <utility>

#include "base/error.hpp"
#include "sweep/branches.hpp"
#include "sweep/conditional.hpp"
#include "sweep/include.hpp"
#include "sweep/initial_weights.hpp"
#include "sweep/settings.hpp"
#include "sweep/tune.hpp"

namespace varscale::sweep {

using base::Faults;
using base::Node;
using base::UserError;

namespace {

constexpr int64_t kMostRuns = 10000;

// Settled before all others, in this order: what formulas may use.
constexpr const char* kFirstKeys[] = {
    "model.depth",  "model.width",  "model.heads", "model.mlp_ratio", "model.shared_adaln", "model.attn_l2_norm",
    "train.batch", "train.epochs", "train.images", "train.tokens",    "train.flops"};

// A sweep file and the files that it includes, on their way to runs.
class SweepReader {
 public:
  // Included files come before the file that includes them.
  SweepReader(const std::vector<base::Document>& layers, Purpose purpose, const TokenLookup& lookup)
      : layers_(layers), purpose_(purpose), lookup_(lookup) {}

  Sweep read() {
    for (const base::Document& layer : layers_) {
      if (layer.root().kind() != Node::Kind::kMap)
        faults_.add(layer.root().where(), "the file is not a map; expected name, defaults and runs");
    }
    faults_.throw_if_any();
    read_name();
    const Node assume = last_of("assume");
    if (assume.present()) {
      has_assumption_ = true;
      read_assumption(assume);
    }
    for (const base::Document& layer : layers_) {
      const Node root = layer.root();
      const bool included = &layer != &layers_.back();
      defaults_.put_over(read_settings(root.child("defaults")));
      read_recipes(root.child("recipes"), included);
      read_by_depth(root.child("by_depth"), included);
    }
    read_runs(last_of("runs"));
    read_tune(last_of("tune"));
    read_evaluate(last_of("evaluate"));
    for (const auto& [name, recipe] : recipes_)
      if (!recipe.used)
        faults_.add(recipe.where, fmt::format("unused recipe {}: no entry of runs names it", name));
    for (const auto& [depth, settings] : by_depth_)
      if (!settings.used)
        faults_.add(settings.where, fmt::format("unused key by_depth.{}: no run has this depth", depth));
    conditional_.refuse_unused(faults_);
    for (const base::Document& layer : layers_) faults_.refuse_unread(layer);
    faults_.throw_if_any();
    return std::move(sweep_);
  }

 private:
  // Settings that some runs have beside the defaults.
  struct Named {
    std::string where;
    Settings settings;
    bool used = false;  // what an included file offers may stay unused
  };

  // Of the files that have the key, the last one's.
  Node last_of(const char* key) const {
    Node found;
    for (const base::Document& layer : layers_) {
      const Node node = layer.root().child(key);
      if (!node.present()) continue;
      if (found.present()) found.mark_read();
      found = node;
    }
    return found;
  }

  Settings read_settings(const Node& node, const std::vector<std::string>& extra = {}) {
    Settings settings = Settings::flatten(node, faults_, extra);
    for (const Exclusive& group : exclusive_keys()) {
      const Node* first = nullptr;
      for (const std::string& key : group.keys) {
        const Node* node_of_key = settings.find(key);
        if (node_of_key && first)
          faults_.add(node_of_key->where(), fmt::format("unused key {}: {} sets {} already", node_of_key->path(),
                                                        first->path(), group.what));
        if (node_of_key && !first) first = node_of_key;
      }
    }
    return settings;
  }

  void read_recipes(const Node& recipes, bool included) {
    if (!is_map_of(recipes, "names, each with settings")) return;
    for (const std::string& name : recipes.keys()) {
      const Node node = recipes.child(name);
      recipes_[name] = {node.where(), read_settings(node), included};
    }
  }

  void read_by_depth(const Node& by_depth, bool included) {
    if (!is_map_of(by_depth, "depths, each with settings")) return;
    for (const std::string& key : by_depth.keys()) {
      const Node node = by_depth.child(key);
      int64_t depth = 0;
      const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), depth);
      if (error != std::errc{} || end != key.data() + key.size() || depth < 1) {
        faults_.add(node.where(), fmt::format("{} is not of a depth; expected as in by_depth: {{30: "
                                              "{{train.batch: 1024}}}}",
                                              node.path()));
        node.mark_read();
        continue;
      }
      Named& named = by_depth_[depth];
      named.where = node.where();
      named.used = included;
      named.settings.put_over(read_settings(node));
    }
  }

  bool is_map_of(const Node& node, const char* what) {
    if (node.kind() == Node::Kind::kMap) return true;
    if (node.present() && node.kind() != Node::Kind::kNull) {
      faults_.add(node.where(), fmt::format("{} is not a map, expected {}", node.path(), what));
      node.mark_read();
    }
    return false;
  }

  void read_name() {
    const Node root = layers_.back().root(), name = last_of("name"), output = last_of("output");
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
    const Node placement = last_of("placement");
    const std::string word = placement.as_string(faults_, "packed");
    if (word != "packed" && word != "whole")
      faults_.add(placement.where(), fmt::format("placement is '{}', expected packed or whole", word));
    sweep_.whole = word == "whole";
  }

  void read_tune(const Node& tune) {
    const bool is_list = tune.kind() == Node::Kind::kList;
    if (tune.present() && !is_list) {
      faults_.add(tune.where(), fmt::format("tune is not a list, expected tune: [{}]", kTunable));
      tune.mark_read();
    }
    if (!is_list) return;
    for (const Node& node : tune.items()) {
      const std::string word = node.as_string(faults_, kTunable);
      if (word == kTunable)
        sweep_.tune = {word};
      else
        faults_.add(node.where(), fmt::format("{} is '{}', expected {}", node.path(), word, kTunable));
    }
    if (sweep_.tune.empty() || !faults_.empty()) return;  // runs are missing where there were faults
    for (const TuneFault& fault : tune_faults(sweep_.runs, tune.where())) faults_.add(fault.where, fault.sentence);
  }

  void read_evaluate(const Node& node) {
    const size_t before = faults_.sentences().size();
    sweep_.evaluation = read_evaluation(node, faults_);
    if (!sweep_.evaluation || faults_.sentences().size() != before) return;
    for (const SweepRun& run : sweep_.runs)
      if (const std::string fault = misfit(*sweep_.evaluation, run.tokens); !fault.empty())
        faults_.add(node.where(), fault);
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
      faults_.add(runs.present() ? runs.where() : layers_.back().root().where(),
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
      expand(read_settings(entry, {"recipe", "branches"}), 0, {}, entry.where());
    }
  }

  // Chooses values for the keys of the grid from `at` on, each value of a list in turn.
  void expand(const Settings& grid, size_t at, const Settings& chosen, const std::string& where) {
    if (expanded_ > kMostRuns) return;
    if (at == grid.order().size()) {
      if (const Node* branches = chosen.find("branches")) {
        add_branches(chosen, *branches, where);
      } else if (has_room(where)) {
        if (auto run = make_run(layered(chosen), where)) add_run(std::move(*run));
      }
      return;
    }
    const std::string& key = grid.order()[at];
    const Node& node = *grid.find(key);
    Settings next = chosen;
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

  // All settings of a run: the entry's before those of its depth, its recipe and the defaults.
  Settings layered(Settings entry) {
    Settings settings = defaults_;
    if (const Node* name = entry.find("recipe")) {
      const std::string word = name->as_string(faults_, "");
      const auto found = recipes_.find(word);
      if (found != recipes_.end()) {
        found->second.used = true;
        settings.put_over(found->second.settings);
      } else if (name->kind() == Node::Kind::kScalar) {
        std::vector<std::string> names;
        for (const auto& [each, unused] : recipes_) names.push_back(each);
        faults_.add(name->where(), fmt::format("{} is '{}', expected a name under recipes{}", name->path(),
                                               word, base::did_you_mean(word, names)));
      }
      entry.erase("recipe");
    }
    if (!by_depth_.empty()) {
      Settings probe = settings;
      probe.put_over(entry);
      RunConfig config;
      Faults ignored;  // the run itself names them
      fill(probe, {}, [](const std::string& key) { return key == "model.depth"; }, config, ignored);
      const auto found = by_depth_.find(config.model.depth);
      if (found != by_depth_.end()) {
        found->second.used = true;
        settings.put_over(found->second.settings);
      }
    }
    settings.put_over(entry);
    return settings;
  }

  bool has_room(const std::string& where) {
    if (++expanded_ <= kMostRuns) return true;
    faults_.add(where, fmt::format("the lists under runs make more than {} runs", kMostRuns));
    return false;
  }

  // A run for each budget under `branches`, and the trunk of them all before them.
  void add_branches(Settings entry, const Node& branches, const std::string& where) {
    entry.erase("branches");
    const bool is_map = branches.kind() == Node::Kind::kMap;
    const Settings budgets = is_map ? read_settings(branches) : Settings();
    const Node* list = nullptr;
    std::string key;
    for (const std::string& each : budgets.order()) {
      const Node& node = *budgets.find(each);
      if (std::ranges::find(budget_keys(), each) == budget_keys().end())
        faults_.add(node.where(), fmt::format("{} is not a budget; branches differ in one of {}", node.path(),
                                              fmt::join(budget_keys(), ", ")));
      else
        key = each, list = &node;
    }
    for (const std::string& each : budget_keys())
      if (const Node* node = entry.find(each))
        faults_.add(node->where(), fmt::format("unused key {}: {} sets the budgets", node->path(), branches.path()));
    if (!list || list->kind() != Node::Kind::kList || list->items().empty()) {
      faults_.add(branches.where(), fmt::format("{} is not a list of budgets, expected as in branches: "
                                                "{{train.epochs: [4, 8, 16]}}",
                                                branches.path()));
      branches.mark_read();
      return;
    }
    const size_t before = faults_.sentences().size();
    std::vector<SweepRun> runs;
    Settings settings;
    for (const Node& budget : list->items()) {
      if (!has_room(where)) return;
      entry.put(key, budget);
      settings = layered(entry);
      if (auto run = make_run(settings, where)) runs.push_back(std::move(*run));
    }
    if (runs.empty() || faults_.sentences().size() != before) return;
    for (const BranchFault& fault : branch_faults(runs)) {
      const Node budget = list->items()[fault.index];
      faults_.add(settings.where(fault.key, budget.where()),
                  fault.key.empty() ? fmt::format("{} is {}: {}", budget.path(), budget.scalar(), fault.sentence)
                                    : fault.sentence);
    }
    if (faults_.sentences().size() != before) return;
    SweepRun trunk = make_trunk(runs);
    add_run(std::move(trunk));
    for (SweepRun& run : runs) add_run(std::move(run));
  }

  // The run of these settings, or nothing after noting why there is none.
  std::optional<SweepRun> make_run(const Settings& settings, const std::string& where) {
    const size_t before = faults_.sentences().size();
    Variables variables;
    RunConfig config;
    const auto assign = [&](const std::function<bool(const std::string&)>& wanted) {
      fill(settings, variables, wanted, config, faults_);
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
        variables["width"] = static_cast<double>(config.model.width_or_rule());
      } else if (name == "model.heads") {
        variables["heads"] = static_cast<double>(config.model.heads_or_rule());
      } else if (name == "train.batch") {
        variables["batch"] = static_cast<double>(config.train.batch);
      } else if (name == "train.flops" && tokens) {  // the last of the budgets
        try {
          variables["images"] = static_cast<double>(budget_images(config, *tokens));
        } catch (const UserError&) {
          variables["images"] = 1;  // resolve() names the fault
        }
      }
    }
    // Without its data a run's formulas cannot be judged; the fault is already noted.
    if (!tokens) variables["images"] = 1;
    assign([](const std::string& each) {
      return each != "tokens" && std::ranges::find(kFirstKeys, each) == std::end(kFirstKeys);
    });
    conditional_.note(settings, config, where, purpose_ == Purpose::kTrain, faults_);
    if (!tokens || faults_.sentences().size() != before) return std::nullopt;
    SweepRun run{{}, where, {}, *tokens};
    try {
      config.model.init_fingerprint = initial_weights_.fingerprint_for(config, *tokens);
      run.config = resolve(std::move(config), *tokens);
      kept_steps_of(run.config);
    } catch (const UserError& error) {
      // Where the sentence begins with a setting, that is the one to blame.
      const std::string sentence = error.what();
      faults_.add(settings.where(sentence.substr(0, sentence.find_first_of(" :")),
                                 settings.where("model.heads", settings.where("model.width", where))),
                  sentence);
      return std::nullopt;
    }
    run.id = run_id(run.config, *tokens);
    return run;
  }

  void add_run(SweepRun run) {
    const std::string hash = identity_hash(run.config, run.tokens);
    const auto [first, is_new] = ids_.emplace(run.id, std::pair(hash, run.where));
    if (!is_new) {
      const bool same = first->second.first == hash;
      faults_.add(run.where,
                  fmt::format("run {} is asked for twice{}, first at {}; remove one of them", run.id,
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
        if (!facts && purpose_ == Purpose::kPlan && assumed_) {
          facts = assumed_;
          if (std::ranges::any_of(tokens_, [](const auto& known) { return known.second && known.second->assumed(); }))
            facts->assumed_apart = config.tokens;
        }
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

  const std::vector<base::Document>& layers_;
  Purpose purpose_;
  const TokenLookup& lookup_;
  Faults faults_;
  Sweep sweep_;
  Settings defaults_;
  std::map<std::string, Named> recipes_;
  std::map<int64_t, Named> by_depth_;
  bool has_assumption_ = false;
  std::optional<TokenFacts> assumed_;
  std::map<std::string, std::optional<TokenFacts>> tokens_;
  std::map<std::string, std::pair<std::string, std::string>> ids_;      // id: identity hash, place
  ConditionalSettings conditional_;
  InitialWeights initial_weights_;
  int64_t expanded_ = 0;
};

}  // namespace

std::optional<TokenFacts> read_token_facts(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return std::nullopt;
  return facts_of(records::TokenFile(path));
}

Sweep read_sweep(const std::vector<base::Document>& layers, Purpose purpose, const TokenLookup& lookup) {
  return SweepReader(layers, purpose, lookup).read();
}

Sweep load_sweep(const std::filesystem::path& path, const std::vector<std::string>& overrides,
                 Purpose purpose, const TokenLookup& lookup) {
  const Layers layers = load_layers(path, overrides);
  Sweep sweep = read_sweep(layers.documents, purpose, lookup);
  sweep.text = layers.text;
  for (const std::string& each : overrides) sweep.text += "# --set " + each + "\n";
  return sweep;
}

}  // namespace varscale::sweep
