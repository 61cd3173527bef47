#include "sweep/ledger.hpp"

#include <cmath>
#include <fstream>

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
Ledger claim(const Sweep& sweep) { return Ledger::claim(sweep, plan_of(sweep)); }

std::string claim_refusal(const Sweep& sweep) {
  try {
    claim(sweep);
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
  const Ledger ledger = claim(sweep);
  std::vector<int64_t> depths;
  while (const auto next = next_run(sweep, ledger, {})) {
    const SweepRun& run = sweep.runs[*next];
    depths.push_back(run.config.model.depth);
    ledger.start(run);
    EXPECT_EQ(ledger.status(run.id).state, RunState::kRunning);
    ledger.finish(run);
    EXPECT_EQ(ledger.status(run.id).state, RunState::kDone);
    EXPECT_EQ(ledger.status(run.id).step, steps_of(run.config));
  }
  EXPECT_THAT(depths, ElementsAre(1, 2, 3));
}

TEST(Ledger, GoesOnWithWhatIsNotDone) {
  const TemporaryFolder folder;
  const Sweep sweep = sweep_in(folder.path());
  {
    const Ledger ledger = claim(sweep);
    ledger.start(sweep.runs[0]);
    ledger.finish(sweep.runs[0]);
    ledger.start(sweep.runs[1]);
    ledger.note_step(sweep.runs[1], 5, 4.25, 90);  // and killed
  }
  const Ledger ledger = claim(sweep);
  EXPECT_EQ(next_run(sweep, ledger, {}), std::optional<size_t>(1));
  ledger.start(sweep.runs[1]);
  EXPECT_EQ(ledger.status(sweep.runs[1].id).step, 5);
  ledger.stop(sweep.runs[1], 7);
  EXPECT_EQ(ledger.status(sweep.runs[1].id).state, RunState::kStopped);
  EXPECT_EQ(next_run(sweep, ledger, {}), std::optional<size_t>(1));
  EXPECT_EQ(next_run(sweep, ledger, {sweep.runs[1].id}), std::optional<size_t>(2));
}

TEST(Ledger, TriesAFailedRunThreeTimes) {
  const TemporaryFolder folder;
  const Sweep sweep = sweep_in(folder.path(), "[1]");
  const Ledger ledger = claim(sweep);
  for (int64_t i = 0; i < kMostFailures; ++i) {
    ASSERT_EQ(next_run(sweep, ledger, {}), std::optional<size_t>(0)) << i;
    ledger.start(sweep.runs[0]);
    ledger.fail(sweep.runs[0], "the loss is not finite");
  }
  EXPECT_EQ(next_run(sweep, ledger, {}), std::nullopt);
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
  const Ledger ledger = claim(sweep);
  ledger.start(sweep.runs[0]);
  ledger.note_step(sweep.runs[0], 5, 4.25, 90);
  const std::string table = summary_table("q", summarise(sweep, ledger));
  EXPECT_THAT(table, HasSubstr("training loss 4.2500; 1 min 30 s left; on " + base::host_name()));
  const auto json = summary_json("q", summarise(sweep, ledger));
  EXPECT_EQ(json["runs"][0]["training_loss"], 4.25);
  EXPECT_EQ(json["runs"][0]["left_s"], 90);
  // What is not a number is not written: the file stays JSON.
  ledger.note_step(sweep.runs[0], 6, std::nan(""), 1 / 0.0);
  EXPECT_THAT(summary_table("q", summarise(sweep, ledger)), Not(HasSubstr("training loss")));
  ledger.finish(sweep.runs[0]);
  EXPECT_THAT(summary_table("q", summarise(sweep, ledger)), Not(HasSubstr(" left")));
}

TEST(Ledger, KeepsWhatWasPlannedAndTheUsersFile) {
  const TemporaryFolder folder;
  const auto source = folder.path() / "my.yaml";
  base::write_file_atomic(
      source, "# mine\nname: q\ndefaults: {tokens: small.h5}\nruns: [{model.depth: 2}]\n");
  const Sweep sweep = load_sweep(source, {"output=" + (folder.path() / "out").string()},
                                 Purpose::kTrain, stated_tokens);
  const Ledger ledger = claim(sweep);
  const std::string copy = base::read_file(folder.path() / "out" / "sweep.yaml");
  EXPECT_THAT(copy, testing::StartsWith("# mine\nname: q\n"));
  EXPECT_THAT(copy, HasSubstr("# --set output="));
  const auto plan = base::parse_json(base::read_file(folder.path() / "out" / "plan.json"));
  EXPECT_EQ(plan["runs"][0]["id"], sweep.runs[0].id);
}

TEST(Ledger, WritesAConfigurationThatReadsBackAsTheRun) {
  const TemporaryFolder folder;
  const Sweep sweep = sweep_in(folder.path(), "[3]");
  const Ledger ledger = claim(sweep);
  ledger.start(sweep.runs[0]);
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
  claim(sweep_in(folder.path(), "[1]", "first"));
  const Sweep other = sweep_in(folder.path(), "[1]", "second");
  EXPECT_THAT(claim_refusal(other), HasSubstr("this folder belongs to sweep first, not second"));
  EXPECT_THROW(Ledger::look(other), base::UserError);
  EXPECT_THAT(base::read_file(folder.path() / "plan.json"), HasSubstr("first"));
  // The same name with another file is an edited sweep.
  EXPECT_EQ(claim_refusal(sweep_in(folder.path(), "[2]", "first")), "");
}

TEST(Ledger, LetsOneLaunchWorkInAFolderAtATime) {
  const TemporaryFolder folder;
  const Sweep sweep = sweep_in(folder.path());
  {
    const Ledger first = claim(sweep);
    EXPECT_THAT(claim_refusal(sweep), HasSubstr("another var_sweep works in this folder"));
    EXPECT_NO_THROW(Ledger::look(sweep));
  }
  EXPECT_EQ(claim_refusal(sweep), "");
}

TEST(Ledger, RefusesAFolderThatCannotBeWritten) {
  const TemporaryFolder folder;
  std::ofstream(folder.path() / "file") << "in the way";
  EXPECT_THAT(claim_refusal(sweep_in(folder.path() / "file" / "q")), HasSubstr("file"));
}

TEST(Ledger, RefusesFilesThatAreNotItsOwn) {
  const TemporaryFolder folder;
  const Sweep sweep = sweep_in(folder.path(), "[1]");
  for (const char* text : {"", "{", "[]", "{\"sweep\": 3}", "{\"runs\": []}"}) {
    base::write_file_atomic(folder.path() / "plan.json", text);
    EXPECT_THAT(claim_refusal(sweep), HasSubstr("plan.json")) << text;
  }
  fs::remove(folder.path() / "plan.json");
  const Ledger ledger = claim(sweep);
  ledger.start(sweep.runs[0]);
  for (const char* text : {"", "{}", "[]", "{\"state\": \"gone\", \"step\": 0, \"steps\": 1}",
                           "{\"state\": \"done\", \"step\": \"x\", \"steps\": 1}"}) {
    base::write_file_atomic(ledger.run_folder(sweep.runs[0].id) / "status.json", text);
    EXPECT_THROW(ledger.status(sweep.runs[0].id), base::UserError) << text;
  }
}

TEST(Ledger, RefusesARunFolderOfOtherSettings) {
  const TemporaryFolder folder;
  const Sweep sweep = sweep_in(folder.path(), "[1]");
  const Ledger ledger = claim(sweep);
  ledger.start(sweep.runs[0]);
  EXPECT_NO_THROW(ledger.start(sweep.runs[0]));
  SweepRun other = sweep.runs[0];
  other.config.optimizer.lr *= 2;  // under the id of the first
  EXPECT_THROW(ledger.start(other), base::UserError);
}

TEST(Summary, ShowsResultsAndOrphansAfterAnEdit) {
  const TemporaryFolder folder;
  const Sweep before = sweep_in(folder.path(), "[1, 2]");
  {
    const Ledger ledger = claim(before);
    for (const SweepRun& run : before.runs) {
      ledger.start(run);
      write_results(ledger, run, 4.5 - static_cast<double>(run.config.model.depth));
      ledger.finish(run);
    }
  }
  const Sweep after = sweep_in(folder.path(), "[2, 3]");  // 1 removed, 3 added
  const Ledger ledger = claim(after);
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
  const Ledger ledger = claim(sweep);
  ledger.start(sweep.runs[0]);
  write_results(ledger, sweep.runs[0], 1);
  EXPECT_TRUE(measured_rates(sweep, ledger).empty());  // not finished yet
  ledger.finish(sweep.runs[0]);
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
