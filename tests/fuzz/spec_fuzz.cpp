// Sweep files, with what they include, up to the plan that they give.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/json.hpp"
#include "sweep/plan.hpp"
#include "sweep/spec.hpp"
#include "tests/fuzz/driver.hpp"

namespace varscale {
namespace {

using sweep::TokenFacts;

constexpr const char* kIncluded = R"(defaults: {tokens: small.h5, train: {batch: 8, images: 64}}
recipes: {slow: {optimizer.lr: "1e-3 / depth"}}
by_depth: {2: {train.batch: 16}}
)";

std::optional<TokenFacts> lookup(const std::filesystem::path& path) {
  const std::string name = path.filename().string();
  if (name == "missing.h5") return std::nullopt;
  if (name == "broken.h5") throw base::UserError("broken.h5: is not a token file");
  TokenFacts facts;
  const bool large = name.find("imagenet") != std::string::npos;
  facts.train_images = large ? 1281167 : 14000;
  facts.validation_images = 500;
  facts.classes = large ? 1000 : 10;
  facts.space = large ? scaling::TokenSpace{4096, 32, scaling::ScaleList({1, 2, 3, 4, 5, 6, 8, 10, 13, 16})}
                      : scaling::TokenSpace{256, 16, scaling::ScaleList({1, 2, 4, 8})};
  facts.fingerprint = "5eed";
  return facts;
}

std::string read(const fuzz::Scratch& scratch, const std::string& input) {
  const std::string path = scratch.write("sweep.yaml", input);
  bool planned = false;
  for (const auto purpose : {sweep::Purpose::kTrain, sweep::Purpose::kPlan}) {
    try {
      const sweep::Sweep read = sweep::load_sweep(path, {}, purpose, lookup);
      VARSCALE_CHECK(!read.runs.empty() && !read.name.empty(), "a sweep without runs or name");
      const auto plan = sweep::make_plan(read, sweep::Throughput("h200"), sweep::machine_of("h200", 16));
      VARSCALE_CHECK(plan.rows.size() == read.runs.size(), "another number of runs in the plan");
      for (const sweep::PlanRow& row : plan.rows)
        VARSCALE_CHECK(row.parameters > 0 && row.images > 0 && row.tokens > 0 && row.steps > 0 && row.memory_bytes > 0 &&
                           row.flops > 0,
                       "{}: {} parameters, {} images, {} tokens, {} steps, {} bytes, {} FLOPs", row.id, row.parameters,
                       row.images, row.tokens, row.steps, row.memory_bytes, row.flops);
      sweep::plan_table(plan);
      base::json_text(sweep::plan_json(plan));
      planned = true;
    } catch (const base::UserError&) {
      if (purpose == sweep::Purpose::kPlan && !planned) throw;
    }
  }
  return "planned";
}

}  // namespace
}  // namespace varscale

int main(int argc, char** argv) {
  const varscale::fuzz::Scratch scratch;
  scratch.write("base.yaml", varscale::kIncluded);
  scratch.write("round.yaml", "include: round.yaml\n");
  return varscale::fuzz::run(
      argc, argv,
      {.name = "spec",
       .dictionary = {"name: q", "output: x", "include: base.yaml", "include: [base.yaml, round.yaml]", "defaults:",
                      "recipes:", "recipe: slow", "by_depth:", "runs:", "assume:", "tokens: small.h5",
                      "tokens: imagenet.h5", "tokens: missing.h5", "role: data", "model.depth:", "model.width:",
                      "model.heads:", "model.mlp_ratio:", "train.batch:", "train.images:", "train.epochs:",
                      "train.tokens:", "train.flops:", "train.keep_at: '4e6 16e6'", "train.micro_batch:",
                      "optimizer.lr:", "schedule: {kind: cosine}", "parallel.mode: hybrid", "parallel.shards: 2",
                      "parallel.memory_gib:", "eval.points:", "scales: [1, 2]", "vocabulary:", "images:", "classes:",
                      "[", "]", "{", "}", ", ", ": ", "\n  ", "\n", "- ", "&a ", "*a", "<<: *a", "\"", "'", "#", "|\n",
                      "!!binary ", "---\n", "...", "${HOME}", "${X:-1}", "${", "depth", "width", "batch", "images",
                      "sqrt(", "min(", "max(1, ", "1/0", "0/0", "^", "(((((((("},
       .seeds = {},
       .read = [&](const std::string& input) { return varscale::read(scratch, input); }});
}
