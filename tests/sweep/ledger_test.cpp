#include "sweep/ledger.hpp"

#include <atomic>
#include <cmath>
#include <fstream>
#include <stdexcept>
#include <thread>
#include <vector>

#include "base/file.hpp"
#include "base/json.hpp"
#include "base/machine.hpp"
#include "records/run_file.hpp"
#include "tests/sweep/sweep_fixture.hpp"

namespace varscale::sweep {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

Sweep sweep_in(const fs::path& folder, const std::string& depths = "[1, 2, 3]",
               const std::string& name = "q") {
  return sweep_of("name: " + name + "\noutput: " + folder.string() +
                  "\ndefaults: {tokens: small.h5}\nruns: [{model.depth: " + depths + "}]\n");
}

Plan plan_of(const Sweep& sweep) { return make_plan(sweep, Throughput("cpu"), machine_of("cpu", 1)); }
Ledger open(const Sweep& sweep) { return Ledger::open(sweep, plan_of(sweep)); }

// Takes the run and starts it; it is released when the claim dies.
Claim started(const Ledger& ledger, const SweepRun& run) {
  std::optional<Claim> claim = ledger.take(run);
  if (!claim) throw std::runtime_error(run.id + " cannot be taken");
  ledger.prepare(run, claim->attempt());
  ledger.start(run, claim->attempt());
  return std::move(*claim);
}

std::string refusal(const Sweep& sweep) {
  try {
    open(sweep);
  } catch (const base::UserError& error) {
    return error.what();
  }
  return "";
}

// A finished run's file: `loss` at the end, steps of 2 s and 100 FLOP on two ranks.
void write_results(const Ledger& ledger, const SweepRun& run, double loss) {
  records::RunTables tables;
  tables.facts["depth"] = run.config.model.depth;
  tables.facts["seed"] = int64_t{0};
  tables.facts["ranks"] = int64_t{2};
  tables.facts["params_total"] = int64_t{12345};
  for (int64_t step = 1; step <= 3; ++step) {
    records::StepRow row{};
    row.step = step;
    row.flops = 100.0 * static_cast<double>(step);
    row.step_s = 2;
    tables.steps.push_back(row);
    records::EvalRow eval{};
    eval.step = step;
    eval.loss_mean = loss + 3 - static_cast<double>(step);
    eval.loss_tail = loss + 0.25;
    eval.err_mean = 0.5;
    eval.err_tail = 0.75;
    tables.eval.push_back(eval);
  }
  records::write_run(ledger.run_folder(run.id) / "run.h5", tables);
}

TEST(Ledger, RunsEveryRunOfTheFileOnceAndInItsOrder) {
  const TemporaryFolder folder;
  const Sweep sweep = sweep_in(folder.path() / "q");
  const Ledger ledger = open(sweep);
  std::vector<int64_t> depths;
  while (const auto next = next_run(sweep, ledger, {})) {
    const SweepRun& run = sweep.runs[*next];
    depths.push_back(run.config.model.depth);
    const Claim claim = started(ledger, run);
    EXPECT_EQ(ledger.status(run.id).state, RunState::kRunning);
    ledger.finish(run, claim.attempt());
    EXPECT_EQ(ledger.status(run.id).state, RunState::kDone);
    EXPECT_EQ(ledger.status(run.id).step, steps_of(run.config));
  }
  EXPECT_THAT(depths, ElementsAre(1, 2, 3));
}

TEST(Ledger, GoesOnWithWhatIsNotDone) {
  const TemporaryFolder folder;
  const Sweep sweep = sweep_in(folder.path());
  {
    const Ledger ledger = open(sweep);
    ledger.finish(sweep.runs[0], started(ledger, sweep.runs[0]).attempt());
    ledger.note_step(sweep.runs[1], started(ledger, sweep.runs[1]).attempt(), 5, 4.25, 90);  // and left
  }
  const Ledger ledger = open(sweep);
  EXPECT_EQ(next_run(sweep, ledger, {}), std::optional<size_t>(1));
  {
    const Claim claim = started(ledger, sweep.runs[1]);
    EXPECT_EQ(ledger.status(sweep.runs[1].id).step, 5);
    EXPECT_EQ(next_run(sweep, ledger, {}), std::optional<size_t>(2));  // this job itself has it
    ledger.stop(sweep.runs[1], claim.attempt(), 7);
    EXPECT_EQ(ledger.status(sweep.runs[1].id).state, RunState::kStopped);
  }
  EXPECT_EQ(next_run(sweep, ledger, {}), std::optional<size_t>(1));
  EXPECT_EQ(next_run(sweep, ledger, {sweep.runs[1].id}), std::optional<size_t>(2));
}

TEST(Ledger, TriesAFailedRunThreeTimes) {
  const TemporaryFolder folder;
  const Sweep sweep = sweep_in(folder.path(), "[1]");
  const Ledger ledger = open(sweep);
  for (int64_t i = 0; i < kMostFailures; ++i) {
    ASSERT_EQ(next_run(sweep, ledger, {}), std::optional<size_t>(0)) << i;
    ledger.fail(sweep.runs[0], started(ledger, sweep.runs[0]).attempt(), "the loss is not finite");
  }
  EXPECT_EQ(next_run(sweep, ledger, {}), std::nullopt);
  EXPECT_FALSE(ledger.take(sweep.runs[0]));
  EXPECT_EQ(ledger.status(sweep.runs[0].id).reason, "the loss is not finite");
  // Until it is asked for.
  EXPECT_TRUE(ledger.forgive(sweep.runs[0]));
  EXPECT_FALSE(ledger.forgive(sweep.runs[0]));
  EXPECT_EQ(next_run(sweep, ledger, {}), std::optional<size_t>(0));
  EXPECT_EQ(ledger.status(sweep.runs[0].id).reason, "the loss is not finite");
}

TEST(Ledger, ShowsHowFarARunInTrainingIs) {
  const TemporaryFolder folder;
  const Sweep sweep = sweep_in(folder.path(), "[1]");
  const Ledger ledger = open(sweep);
  const Claim claim = started(ledger, sweep.runs[0]);
  ledger.note_step(sweep.runs[0], claim.attempt(), 5, 4.25, 90);
  const std::string table = summary_table("q", summarise(sweep, ledger));
  EXPECT_THAT(table, HasSubstr("training loss 4.2500; 1 min 30 s left; on " + base::host_name()));
  const auto json = summary_json("q", summarise(sweep, ledger));
  EXPECT_EQ(json["runs"][0]["training_loss"], 4.25);
  EXPECT_EQ(json["runs"][0]["left_s"], 90);
  // What is not a number is not written: the file stays JSON.
  ledger.note_step(sweep.runs[0], claim.attempt(), 6, std::nan(""), 1 / 0.0);
  EXPECT_THAT(summary_table("q", summarise(sweep, ledger)), Not(HasSubstr("training loss")));
  ledger.finish(sweep.runs[0], claim.attempt());
  EXPECT_THAT(summary_table("q", summarise(sweep, ledger)), Not(HasSubstr(" left")));
}

TEST(Ledger, KeepsWhatWasPlannedAndTheUsersFile) {
  const TemporaryFolder folder;
  const auto source = folder.path() / "my.yaml";
  base::write_file_atomic(
      source, "# mine\nname: q\ndefaults: {tokens: small.h5}\nruns: [{model.depth: 2}]\n");
  const Sweep sweep = load_sweep(source, {"output=" + (folder.path() / "out").string()},
                                 Purpose::kTrain, stated_tokens);
  const Ledger ledger = open(sweep);
  const std::string copy = base::read_file(folder.path() / "out" / "sweep.yaml");
  EXPECT_THAT(copy, testing::StartsWith("# mine\nname: q\n"));
  EXPECT_THAT(copy, HasSubstr("# --set output="));
  const auto plan = base::parse_json(base::read_file(folder.path() / "out" / "plan.json"));
  EXPECT_EQ(plan["runs"][0]["id"], sweep.runs[0].id);
}

TEST(Ledger, WritesAConfigurationThatReadsBackAsTheRun) {
  const TemporaryFolder folder;
  const Sweep sweep = sweep_in(folder.path(), "[3]");
  const Ledger ledger = open(sweep);
  started(ledger, sweep.runs[0]);
  const auto document = base::Document::load(ledger.run_folder(sweep.runs[0].id) / "config.yaml");
  base::Faults faults;
  EXPECT_EQ(document.root().child("id").as_string(faults, ""), sweep.runs[0].id);
  document.root().child("identity").mark_read();
  const auto config = base::read_config<RunConfig>(document.root(), faults);
  faults.refuse_unread(document);
  faults.throw_if_any();
  EXPECT_EQ(base::dump_config(config), base::dump_config(sweep.runs[0].config));
}

TEST(Ledger, RefusesAFolderOfAnotherSweep) {
  const TemporaryFolder folder;
  open(sweep_in(folder.path(), "[1]", "first"));
  const Sweep other = sweep_in(folder.path(), "[1]", "second");
  EXPECT_THAT(refusal(other), HasSubstr("this folder belongs to sweep first, not second"));
  EXPECT_THROW(Ledger::look(other), base::UserError);
  EXPECT_THAT(base::read_file(folder.path() / "plan.json"), HasSubstr("first"));
  // The same name with another file is an edited sweep.
  EXPECT_EQ(refusal(sweep_in(folder.path(), "[2]", "first")), "");
}

TEST(Ledger, SharesTheRunsOfAFolderBetweenJobs) {
  const TemporaryFolder folder;
  const Sweep sweep = sweep_in(folder.path());
  const Ledger first = open(sweep), second = open(sweep);
  const Claim one = started(first, sweep.runs[0]);
  EXPECT_EQ(next_run(sweep, second, {}), std::optional<size_t>(1));
  EXPECT_FALSE(second.take(sweep.runs[0]));
  const Claim other = started(second, sweep.runs[1]);
  const Claim more = started(second, sweep.runs[2]);  // several at once
  EXPECT_EQ(next_run(sweep, first, {}), std::nullopt);
  const auto held = held_elsewhere(sweep, first, {sweep.runs[2].id});
  ASSERT_EQ(held.size(), 1u);
  EXPECT_EQ(held[0].id, sweep.runs[1].id);
  EXPECT_EQ(held[0].holder.job.nonce, second.job().nonce);
  EXPECT_EQ(held[0].holder.life, Life::kAlive);
  first.finish(sweep.runs[0], one.attempt());
  second.finish(sweep.runs[1], other.attempt());
  EXPECT_TRUE(held_elsewhere(sweep, first, {sweep.runs[2].id}).empty());
}

TEST(Ledger, DoesNotTakeARunThatAnotherJobHasFinishedMeanwhile) {
  const TemporaryFolder folder;
  const Sweep sweep = sweep_in(folder.path());
  const Ledger first = open(sweep), second = open(sweep);
  const auto seen = next_run(sweep, second, {});
  ASSERT_EQ(seen, std::optional<size_t>(0));
  first.finish(sweep.runs[0], started(first, sweep.runs[0]).attempt());
  EXPECT_FALSE(second.take(sweep.runs[0]));
  EXPECT_FALSE(second.holder(sweep.runs[0].id));  // and does not keep it
  EXPECT_EQ(second.status(sweep.runs[0].id).state, RunState::kDone);
}

TEST(Ledger, WritesNoStatusOfARunThatWasTakenFromIt) {
  const TemporaryFolder folder;
  const Sweep sweep = sweep_in(folder.path(), "[1]");
  const SweepRun& run = sweep.runs[0];
  double now = 0;
  JobOptions options;
  options.expiry_s = 1e6;  // so that nobody beats while the test lasts
  const Ledger first = Ledger::open(sweep, plan_of(sweep), options);
  const Claim lost = started(first, run);
  options.clock = [&] { return now; };
  const Ledger second = Ledger::open(sweep, plan_of(sweep), options);
  EXPECT_FALSE(second.take(run));
  now = 2e6;
  const Claim claim = started(second, run);
  second.note_step(run, claim.attempt(), 3, 1.5, 60);
  const std::string before = base::read_file(second.run_folder(run.id) / "status.json");
  EXPECT_FALSE(lost.held());
  EXPECT_ANY_THROW(first.note_step(run, lost.attempt(), 2, 2.5, 90));
  EXPECT_ANY_THROW(first.fail(run, lost.attempt(), "the loss is not finite"));
  EXPECT_ANY_THROW(first.stop(run, lost.attempt(), 2));
  EXPECT_ANY_THROW(first.finish(run, lost.attempt()));
  EXPECT_EQ(base::read_file(second.run_folder(run.id) / "status.json"), before);
  EXPECT_TRUE(claim.held());
}

TEST(Ledger, ForgivesNoRunThatAnotherJobTriesAgain) {
  const TemporaryFolder folder;
  const Sweep sweep = sweep_in(folder.path(), "[1]");
  const SweepRun& run = sweep.runs[0];
  const Ledger first = open(sweep), second = open(sweep);
  for (int64_t i = 0; i < kMostFailures; ++i) first.fail(run, started(first, run).attempt(), "broken");
  EXPECT_TRUE(first.forgive(run));
  const Claim claim = started(first, run);
  EXPECT_FALSE(second.forgive(run));
  EXPECT_EQ(second.status(run.id).state, RunState::kRunning);
}

TEST(Ledger, OfTwoSweepsThatComeAtOnceLetsOneHaveTheFolder) {
  const TemporaryFolder folder;
  for (int round = 0; round < 20; ++round) {
    const auto output = folder.path() / std::to_string(round);
    std::atomic<int> opened = 0;
    std::vector<std::thread> launches;
    for (const char* name : {"first", "second"})
      launches.emplace_back([&, name] {
        const Sweep sweep = sweep_in(output, "[1]", name);
        if (refusal(sweep).empty()) ++opened;
      });
    for (std::thread& launch : launches) launch.join();
    EXPECT_EQ(opened, 1);
  }
}

TEST(Ledger, RefusesAFolderThatCannotBeWritten) {
  const TemporaryFolder folder;
  std::ofstream(folder.path() / "file") << "in the way";
  EXPECT_THAT(refusal(sweep_in(folder.path() / "file" / "q")), HasSubstr("file"));
}

TEST(Ledger, RefusesFilesThatAreNotItsOwn) {
  const TemporaryFolder folder;
  const Sweep sweep = sweep_in(folder.path(), "[1]");
  for (const char* text : {"", "{", "[]", "{\"sweep\": 3}", "{\"runs\": []}"}) {
    base::write_file_atomic(folder.path() / "plan.json", text);
    EXPECT_THAT(refusal(sweep), HasSubstr("plan.json")) << text;
  }
  fs::remove(folder.path() / "plan.json");
  const Ledger ledger = open(sweep);
  started(ledger, sweep.runs[0]);
  for (const char* text : {"", "{}", "[]", "{\"state\": \"gone\", \"step\": 0, \"steps\": 1}",
                           "{\"state\": \"done\", \"step\": \"x\", \"steps\": 1}"}) {
    base::write_file_atomic(ledger.run_folder(sweep.runs[0].id) / "status.json", text);
    EXPECT_THROW(ledger.status(sweep.runs[0].id), base::UserError) << text;
  }
}

TEST(Ledger, RefusesARunFolderOfOtherSettings) {
  const TemporaryFolder folder;
  const Sweep sweep = sweep_in(folder.path(), "[1]");
  const Ledger ledger = open(sweep);
  const Claim claim = started(ledger, sweep.runs[0]);
  EXPECT_NO_THROW(ledger.prepare(sweep.runs[0], claim.attempt()));
  SweepRun other = sweep.runs[0];
  other.config.optimizer.lr *= 2;  // under the id of the first
  EXPECT_THROW(ledger.prepare(other, claim.attempt()), base::UserError);
}

TEST(Summary, ShowsResultsAndOrphansAfterAnEdit) {
  const TemporaryFolder folder;
  const Sweep before = sweep_in(folder.path(), "[1, 2]");
  {
    const Ledger ledger = open(before);
    for (const SweepRun& run : before.runs) {
      const Claim claim = started(ledger, run);
      write_results(ledger, run, 4.5 - static_cast<double>(run.config.model.depth));
      ledger.finish(run, claim.attempt());
    }
  }
  const Sweep after = sweep_in(folder.path(), "[2, 3]");  // 1 removed, 3 added
  const Ledger ledger = open(after);
  const auto rows = summarise(after, ledger);
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[0].state, "done");
  EXPECT_EQ(rows[0].loss_mean, std::optional<double>(2.5));  // the last row, not the first
  EXPECT_EQ(rows[0].loss_tail, std::optional<double>(2.75));
  EXPECT_EQ(rows[0].err_tail, std::optional<double>(0.75));
  EXPECT_EQ(rows[1].state, "planned");
  EXPECT_EQ(rows[1].loss_mean, std::nullopt);
  EXPECT_EQ(rows[2].id, before.runs[0].id);
  EXPECT_EQ(rows[2].state, "orphan");
  EXPECT_EQ(rows[2].depth, std::optional<int64_t>(1));
  EXPECT_EQ(rows[2].parameters, std::optional<int64_t>(12345));
  EXPECT_EQ(rows[2].loss_mean, std::optional<double>(3.5));
  const std::string table = summary_table("q", rows);
  EXPECT_THAT(table, HasSubstr("sweep q: 1 of 2 runs done"));
  EXPECT_THAT(table, HasSubstr("2.5000"));
  EXPECT_TRUE(summary_json("q", rows)["runs"][1]["loss_mean"].is_null());
  EXPECT_EQ(summary_json("q", rows)["runs"][0]["loss_mean"], 2.5);
}

TEST(Summary, MeasuresFinishedRunsPerRank) {
  const TemporaryFolder folder;
  const Sweep sweep = sweep_in(folder.path(), "[2, 3]");
  const Ledger ledger = open(sweep);
  const Claim claim = started(ledger, sweep.runs[0]);
  write_results(ledger, sweep.runs[0], 1);
  EXPECT_TRUE(measured_rates(sweep, ledger).empty());  // not finished yet
  ledger.finish(sweep.runs[0], claim.attempt());
  const auto rates = measured_rates(sweep, ledger);
  ASSERT_EQ(rates.size(), 1u);
  EXPECT_EQ(rates[0].depth, 2);
  EXPECT_DOUBLE_EQ(rates[0].flops_per_s, 25);  // 100 FLOP in 2 s on 2 ranks
}

TEST(Summary, LooksWithoutMakingAnything) {
  const TemporaryFolder folder;
  const Sweep sweep = sweep_in(folder.path() / "new", "[2]");
  const Ledger ledger = Ledger::look(sweep);
  EXPECT_EQ(summarise(sweep, ledger).at(0).state, "planned");
  EXPECT_FALSE(fs::exists(folder.path() / "new"));
}

}  // namespace
}  // namespace varscale::sweep
