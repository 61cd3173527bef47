#include "sweep/identity.hpp"

#include <functional>
#include <map>
#include <set>

#include "tests/sweep/sweep_fixture.hpp"

namespace varscale::sweep {
namespace {

RunConfig depth_four() {
  RunConfig config;
  config.tokens = "small.h5";
  config.model.depth = 4;
  config.train.images = 64000;
  config.optimizer.weight_decay_end = 0.08;
  return config;
}

// Changes the field number `target` (in declared order) to another legal value and keeps its key.
class Flip {
 public:
  explicit Flip(int target, std::string prefix = {}, int* at = nullptr)
      : target_(target), prefix_(std::move(prefix)), at_(at ? at : &own_) {}

  template <class T, class... Rest>
  void field(const char* field_key, T& value, const char*, Rest&&...) {
    if ((*at_)++ != target_) return;
    key = prefix_ + field_key;
    change(value);
  }
  template <class Struct>
  void section(const char* name, Struct& value, const char*) {
    Flip below(target_, prefix_ + name + ".", at_);
    value.visit(below);
    if (!below.key.empty()) key = below.key;
  }
  std::string key;

 private:
  static void change(bool& value) { value = !value; }
  static void change(int64_t& value) { value = value ? 2 * value : 1; }
  static void change(uint64_t& value) { ++value; }
  static void change(double& value) { value = value > 0 ? value / 2 : 0.5; }
  static void change(std::string& value) {
    const std::map<std::string, std::string> other = {{"small.h5", "moved.h5"}, {"main", "data"},
                                                      {"wsd", "public"},        {"fp32", "bf16"},
                                                      {"none", "public"},       {"cpu", "cuda"},
                                                      {"auto", "zero3"},        {"", "64000"},
                                                      {"cached", "online"}};
    value = other.at(value);
  }

  int target_;
  std::string prefix_;
  int own_ = 0;
  int* at_;
};

TEST(Identity, HashesExactlyWhatChangesTheNumbers) {
  // Paths, roles, division of the work and logging. Epochs, tokens and FLOPs are other ways to say images.
  const std::set<std::string> outside = {
      "tokens", "role", "interpolated", "train.epochs", "train.tokens", "train.flops", "train.micro_batch", "train.save_every_min",
      "train.keep", "train.keep_at", "train.max_skipped", "train.threads", "train.device",
      "data.images", "data.tokenizer", "model.init_from",
      "train.cuda_graph", "parallel.mode", "parallel.shards", "parallel.recompute", "parallel.overlap",
      "parallel.memory_gib", "parallel.deadline_s", "parallel.first_deadline_s", "eval.points",
      "eval.max_cost", "eval.batch"};
  const RunConfig base = resolve(depth_four(), small_tokens());
  const std::string id = run_id(base, small_tokens());
  std::set<std::string> seen;
  for (int target = 0;; ++target) {
    RunConfig changed = base;
    Flip flip(target);
    changed.visit(flip);
    if (flip.key.empty()) break;
    seen.insert(flip.key);
    const std::string changed_id = run_id(resolve(changed, small_tokens()), small_tokens());
    if (outside.contains(flip.key))
      EXPECT_EQ(changed_id, id) << flip.key;
    else
      EXPECT_NE(changed_id, id) << flip.key;
  }
  EXPECT_EQ(seen.size(), base::help_config<RunConfig>().size());
  for (const std::string& key : outside) EXPECT_TRUE(seen.contains(key)) << key;
}

TEST(KeptSteps, AreTheFirstToReachEachBudget) {
  RunConfig run = resolve(depth_four(), small_tokens());  // 1000 steps of 64 images
  EXPECT_TRUE(kept_steps_of(run).empty());
  run.train.keep_at = "64, 65 6.4e3  64000 1e9";  // the last lies beyond the run
  EXPECT_EQ(kept_steps_of(run), (std::set<int64_t>{1, 2, 100, 1000}));
  for (const char* text : {"many", "64 -1", "0", "10k", "nan"}) {
    run.train.keep_at = text;
    EXPECT_THROW(kept_steps_of(run), base::UserError) << text;
  }
}

TEST(Identity, HashesTheTokensThemselves) {
  TokenFacts other = small_tokens();
  other.fingerprint = "07e4";
  const RunConfig run = resolve(depth_four(), small_tokens());
  EXPECT_NE(run_id(run, small_tokens()), run_id(run, other));
}

// Runs that people have were trained before there was data.tokens.
TEST(Identity, OfCachedTokensIsThatOfRunsBeforeThereWereOthers) {
  RunConfig run = resolve(depth_four(), small_tokens());
  EXPECT_EQ(run_id(run, small_tokens()), "d4-s0-7b98db");
  EXPECT_FALSE(identity_of(run, small_tokens()).at("settings").contains("data"));
  run.data = {.tokens = "online", .images = "here", .tokenizer = "there"};
  EXPECT_EQ(identity_of(run, small_tokens()).at("settings").at("data").dump(), R"({"tokens":"online"})");
}

TEST(Identity, ReadsDepthSeedAndSixDigits) {
  RunConfig config = depth_four();
  config.train.seed = 7;
  const std::string id = run_id(resolve(config, small_tokens()), small_tokens());
  EXPECT_THAT(id, testing::MatchesRegex("d4-s7-[0-9a-f]{6}"));
  EXPECT_EQ(id.substr(6),
            identity_hash(resolve(config, small_tokens()), small_tokens()).substr(0, 6));
}

TEST(Identity, MarksAnIdWhoseTokensAreOnlyAssumed) {
  TokenFacts assumed = small_tokens();
  assumed.fingerprint.clear();
  EXPECT_THAT(run_id(resolve(depth_four(), assumed), assumed),
              testing::MatchesRegex("d4-s0-[0-9a-f]{6}-\\?"));
}

TEST(Identity, DoesNotCareWhetherARuleOrItsResultIsWritten) {
  const std::string by_rule = run_id(resolve(depth_four(), small_tokens()), small_tokens());
  RunConfig written = depth_four();
  written.model.width = 256;
  written.model.heads = 4;
  written.train.images = 0;
  written.train.epochs = 64000.0 / 14000;
  written.model.drop_path = 0.1 * 4 / 24;
  EXPECT_EQ(run_id(resolve(written, small_tokens()), small_tokens()), by_rule);
  // Resolved settings resolve to themselves.
  const RunConfig once = resolve(depth_four(), small_tokens());
  EXPECT_EQ(base::dump_config(resolve(once, small_tokens())), base::dump_config(once));
}

TEST(Identity, CountsWholeBatchesAsSteps) {
  RunConfig config = depth_four();
  config.train.images = 100;
  config.train.batch = 16;
  const RunConfig run = resolve(config, small_tokens());
  EXPECT_EQ(steps_of(run), 7);
  EXPECT_EQ(images_seen_of(run), 112);
}

}  // namespace
}  // namespace varscale::sweep
