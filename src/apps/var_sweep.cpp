// var_sweep: the main job. Plans a sweep file and trains every run of it that is not done.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/command_line.hpp"
#include "base/error.hpp"
#include "base/signals.hpp"
#include "comm/communicator.hpp"
#include "comm/probe.hpp"
#include "coordinate/coordinator.hpp"
#include "coordinate/run_jobs.hpp"
#include "coordinate/worker.hpp"
#include "data/vips_runtime.hpp"
#include "records/run_file.hpp"
#include "scaling/count.hpp"
#include "sweep/gather.hpp"
#include "sweep/ledger.hpp"
#include "sweep/plan.hpp"
#include "sweep/settings.hpp"
#include "sweep/simulation.hpp"
#include "sweep/spec.hpp"
#include "sweep/throughput.hpp"
#include "sweep/widths.hpp"
#include "train/trainer.hpp"

namespace varscale {
namespace {

using base::ExitCode;
using base::UserError;

constexpr const char* kExamples = R"(Examples:
  var_sweep sweeps/depth.yaml --plan --device h200 --ranks 64    what it costs; needs no MPI, no GPU
  mpirun -n 2 var_sweep sweeps/quickstart.yaml                   train; again: go on where it stopped
  var_sweep sweeps/quickstart.yaml --status                      the table so far, while it runs
  var_sweep sweeps/quickstart.yaml --csv tables                  every table as CSV, while it runs
  var_sweep sweeps/quickstart.yaml --set defaults.train.batch=32 --set output=results/batch32
  var_sweep sweeps/depth.yaml --calibrate                        measure this machine for later plans)";

struct Options {
  std::string file, device = "cpu", only, csv;
  std::vector<std::string> overrides;
  int64_t ranks = 0;  // 0: this launch's
  bool device_given = false;
  bool plan = false, status = false, json = false, calibrate = false, help_config = false;
  bool retry_failed = false;
  int64_t simulate = 0;  // draws
  double time_limit_min = 0;  // 0: the batch job's
  double claim_expiry_s = 120;
};

sweep::Throughput throughput_for(const Options& options, const sweep::Sweep& sweep,
                                 const sweep::Ledger& ledger) {
  sweep::Throughput throughput(options.device);
  // Finished runs were measured on this machine, which need not be the one that --device names.
  if (!options.device_given)
    throughput.add_measured("finished runs", sweep::measured_rates(sweep, ledger));
  throughput.add_measured("calibration",
                          sweep::read_calibration(sweep::calibration_path(options.device)));
  return throughput;
}

// The sweep for those who only look: a missing token file may be assumed.
sweep::Sweep sweep_to_look_at(const Options& options) {
  return sweep::load_sweep(options.file, options.overrides, sweep::Purpose::kPlan);
}

scaling::Machine planned_machine(const Options& options) {
  return sweep::machine_of(options.device, std::max<int64_t>(1, options.ranks));
}

void print_help_config() {
  for (const base::ConfigHelpLine& line : sweep::setting_keys())
    fmt::print("{:<28} {:<10} {}  ({}{})\n", line.key, line.default_value, line.help, line.range,
               line.identity == base::Identity::kNo ? "; not in the id" : "");
}

ExitCode print_plan(const Options& options) {
  const sweep::Sweep sweep = sweep_to_look_at(options);
  const sweep::Ledger ledger = sweep::Ledger::look(sweep);
  const sweep::Plan plan = sweep::make_plan(sweep, throughput_for(options, sweep, ledger), planned_machine(options));
  if (options.json)
    fmt::print("{}\n", sweep::plan_json(plan).dump(2));
  else
    fmt::print("{}", sweep::plan_table(plan));
  return ExitCode::kDone;
}

void print_summary(const Options& options, const sweep::Sweep& sweep, const sweep::Ledger& ledger) {
  const auto rows = sweep::summarise(sweep, ledger);
  if (options.json)
    fmt::print("{}\n", sweep::summary_json(sweep.name, rows).dump(2));
  else
    fmt::print("{}", sweep::summary_table(sweep.name, rows));
  std::fflush(stdout);
}

// What the placement makes of the sweep on so many ranks, in draws of speeds that it does not know.
ExitCode print_simulation(const Options& options) {
  const sweep::Sweep sweep = sweep_to_look_at(options);
  const auto throughput = throughput_for(options, sweep, sweep::Ledger::look(sweep));
  const scaling::Machine machine = planned_machine(options);
  sweep::Simulation simulation{.ranks = machine.ranks, .node_ranks = machine.node_ranks};
  for (const sweep::SweepRun& run : sweep.runs)
    simulation.runs.push_back(
        {static_cast<double>(sweep::steps_of(run.config)), sweep::speeds_of(run, throughput, machine)});
  std::vector<double> placed, one_by_one, fixed, bounds;
  for (int64_t draw = 0; draw < options.simulate; ++draw) {
    const sweep::Makespans made = sweep::simulate(simulation, static_cast<uint64_t>(draw));
    placed.push_back(made.placed / made.bound);
    one_by_one.push_back(made.one_by_one / made.bound);
    fixed.push_back(made.fixed_groups / made.bound);
    bounds.push_back(made.bound / 3600);
  }
  const std::pair<const char*, sweep::Distribution> rows[] = {
      {"packed", sweep::distribution_of(placed)},
      {"one after another, at the fastest width", sweep::distribution_of(one_by_one)},
      {"equal groups, the best number in hindsight", sweep::distribution_of(fixed)}};
  fmt::print("sweep {}: {} runs on {} ranks of {}, {} draws of speeds within {:.0f} % of the estimates\n", sweep.name,
             sweep.runs.size(), machine.ranks, options.device, options.simulate, 100 * simulation.error);
  fmt::print("no placement ends before {:.3g} hours (median of the draws); the end over that bound:\n",
             sweep::distribution_of(bounds).median);
  fmt::print("{:<44} {:>8} {:>8}\n", "", "median", "95 %");
  for (const auto& [name, over_bound] : rows)
    fmt::print("{:<44} {:>8.3f} {:>8.3f}\n", name, over_bound.median, over_bound.p95);
  return ExitCode::kDone;
}

ExitCode print_status(const Options& options) {
  const sweep::Sweep sweep = sweep_to_look_at(options);
  print_summary(options, sweep, sweep::Ledger::look(sweep));
  return ExitCode::kDone;
}

ExitCode write_csv(const Options& options) {
  const sweep::Sweep sweep = sweep_to_look_at(options);
  const int64_t with_rows = sweep::export_csv(sweep, sweep::Ledger::look(sweep), options.csv);
  fmt::print("{}: summary.csv, and the tables of {} runs\n", options.csv, with_rows);
  return ExitCode::kDone;
}

// The launch of one sweep on all ranks. The first rank alone touches the ledger and decides.
class Launch {
 public:
  Launch(const Options& options, comm::Communicator& world) : options_(options), world_(world) {
    comm::agree_on(world_, "sweep file", [&] {
      if (options.ranks > 0 && options.ranks != world.size())
        throw UserError("--ranks {}: this launch has {}; --ranks is for --plan", options.ranks,
                        world.size());
      sweep_ = sweep::load_sweep(options.file, options.overrides, sweep::Purpose::kTrain);
      if (!options.only.empty()) leave_out_all_but(options.only);
      if (!coordinate::any_online(sweep_)) return;
      vips_.emplace("var_sweep");
      if (is_first()) coordinate::check_images(sweep_, sweep::Ledger::look(sweep_));
    });
  }

  ExitCode train() {
    std::optional<coordinate::Coordinator> coordinator;  // on the first rank
    comm::agree_on(world_, "sweep folder", [&] {
      const comm::Libraries libraries = comm::probe_libraries();
      if (std::ranges::any_of(sweep_.runs, [](const auto& run) { return run.config.train.device != "cpu"; }))
        comm::require_usable(libraries);
      if (!is_first()) return;
      const auto throughput = throughput_for(options_, sweep_, sweep::Ledger::look(sweep_));
      const scaling::Machine machine = sweep::machine_of(options_.device, world_.size());
      const sweep::Plan plan = sweep::make_plan(sweep_, throughput, machine);
      ledger_.emplace(sweep::Ledger::open(sweep_, plan, {.expiry_s = options_.claim_expiry_s}));
      if (!options_.json) fmt::print(stderr, "{}\n\n{}\n", comm::line(libraries), sweep::plan_table(plan));
      if (options_.retry_failed) forgive();
      coordinator.emplace(sweep_, *ledger_, world_.post(), world_.size(), coordinator_options(throughput, machine));
    });
    const ExitCode code = coordinate::Worker(sweep_, world_, stop_, options_.json).work();
    comm::agree_on(world_, "sweep", [&] {
      if (!coordinator) return;
      coordinator->finish();
      sweep::write_sweep_file(sweep_, *ledger_);
    });
    if (is_first()) print_summary(options_, sweep_, *ledger_);
    if (is_first() && sweep_.evaluation && code == ExitCode::kDone && !options_.json)
      fmt::print(stderr, "to sample and score these runs: var_eval sweep {}\n", options_.file);
    return code;
  }

  // A few steps of each depth, kept as results/calibration-<device>.json for later plans.
  ExitCode calibrate() {
    std::vector<sweep::MeasuredRate> rates;
    std::set<std::pair<int64_t, std::string>> seen;
    const auto scratch = sweep_.output / "calibration";
    coordinate::RunJobs jobs(sweep_);
    for (sweep::SweepRun run : sweep_.runs) {
      if (run.config.train.device != "cpu" && !options_.device_given)
        throw UserError("--calibrate with train.device {}: name the device, as in --device h200",
                        run.config.train.device);
      if (left_out_.contains(run.id)) continue;
      if (!seen.emplace(run.config.model.depth, run.config.train.precision).second) continue;
      const int64_t steps = run.config.train.cuda_graph ? 16 : 8;  // the first of a graph are launched as they are
      run.config.train.images = steps * run.config.train.batch;
      run.config.eval.points = 1;
      const auto folder = scratch / run.id;
      comm::agree_on(world_, "calibration folder", [&] {
        if (!is_first()) return;
        std::filesystem::remove_all(folder);
        std::filesystem::create_directories(folder);
      });
      train::TrainJob job = jobs.job_of(run, folder);
      job.quiet = options_.json;
      const auto outcome = train::train(job, jobs.tokens_of(run), world_, stop_);
      if (outcome.state == train::Outcome::State::kStopped) return ExitCode::kStopped;
      if (is_first()) {
        const double rate =
            sweep::measured_flops_per_s(records::read_run(folder / "run.h5")) / world_.size();
        rates.push_back({run.config.model.depth, run.config.train.precision, rate});
        fmt::print("depth {} {}: {:.4g} GFLOP/s a rank\n", run.config.model.depth,
                   run.config.train.precision, rate / 1e9);
      }
    }
    comm::agree_on(world_, "calibration file", [&] {
      if (!is_first()) return;
      std::filesystem::remove_all(scratch);
      const auto path = sweep::calibration_path(options_.device);
      sweep::write_calibration(path, options_.device, rates);
      fmt::print("{}\n", path.string());
    });
    return ExitCode::kDone;
  }

 private:
  bool is_first() const { return world_.rank() == 0; }

  // The plan and the summary still show the whole sweep.
  void leave_out_all_but(const std::string& id) {
    bool found = false;
    std::string known;
    for (const sweep::SweepRun& run : sweep_.runs) {
      known += (known.empty() ? "" : ", ") + run.id;
      if (run.id == id)
        found = true;
      else
        left_out_.insert(run.id);
    }
    if (!found) throw UserError("--only {}: no such run; the sweep has {}", id, known);
  }

  // Runs that have failed too often are tried again.
  void forgive() {
    for (const sweep::SweepRun& run : sweep_.runs)
      if (!left_out_.contains(run.id) && ledger_->forgive(run))
        fmt::print(stderr, "{}: tried again, though it has failed {} times\n", run.id, sweep::kMostFailures);
  }

  coordinate::CoordinatorOptions coordinator_options(const sweep::Throughput& throughput,
                                                     const scaling::Machine& machine) const {
    coordinate::CoordinatorOptions options{
        .placement = {.node_ranks = machine.node_ranks, .whole = sweep_.whole || world_.size() == 1},
        .speeds = {},
        .step_flops = {},
        .left_out = left_out_,
        .time_limit_s = time_limit_s(),
        .quiet = options_.json};
    // On a CPU a save and a start take seconds.
    if (!machine.on_gpu) options.placement.change_s = 5;
    for (const sweep::SweepRun& run : sweep_.runs) {
      options.speeds.push_back(sweep::speeds_of(run, throughput, machine));
      options.step_flops.push_back(
          scaling::training_flops(sweep::shape_of(run.config, run.tokens), static_cast<double>(run.config.train.batch)));
    }
    return options;
  }

  // --time-limit, or what the batch job has left.
  std::optional<double> time_limit_s() const {
    if (options_.time_limit_min > 0) return 60 * options_.time_limit_min;
    const char* end = std::getenv("SLURM_JOB_END_TIME");
    if (end == nullptr) return std::nullopt;
    const double left = std::atof(end) - static_cast<double>(std::time(nullptr));
    return left > 0 ? std::optional(left) : std::nullopt;
  }

  const Options& options_;
  comm::Communicator& world_;
  base::StopSignals stop_;
  std::optional<data::VipsRuntime> vips_;  // where images are decoded
  sweep::Sweep sweep_;
  std::set<std::string> left_out_;       // by --only
  std::optional<sweep::Ledger> ledger_;  // on the first rank
};

ExitCode run(const Options& options) {
  if (options.help_config) {
    print_help_config();
    return ExitCode::kDone;
  }
  if (options.file.empty()) throw UserError("no sweep file given; see var_sweep --help");
  if (options.plan) return print_plan(options);
  if (options.simulate > 0) return print_simulation(options);
  if (options.status) return print_status(options);
  if (!options.csv.empty()) return write_csv(options);
  const auto world = comm::open_world();
  return comm::end_together(*world, [&] {
    Launch launch(options, *world);
    return options.calibrate ? launch.calibrate() : launch.train();
  });
}

ExitCode parse_and_run(int argc, char** argv) {
  Options options;
  CLI::App app("Trains every run of a sweep file; started again, it goes on where it stopped.",
               "var_sweep");
  app.footer(kExamples);
  app.add_option("file", options.file, "the sweep file");
  app.add_option("--set", options.overrides, "override a key of the file: defaults.train.batch=32")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  auto* device = app.add_option("--device", options.device,
                                "whose speed the plan takes: cpu, a100, h100, h200, b200");
  app.add_option("--ranks", options.ranks, "ranks that the plan takes")->check(CLI::PositiveNumber);
  auto* retry = app.add_flag("--retry-failed", options.retry_failed,
                             fmt::format("also runs that have failed {} times", sweep::kMostFailures));
  auto* expiry = app.add_option("--claim-expiry", options.claim_expiry_s,
                                "seconds without a sign of life after which another job's runs are taken over")
                     ->check(CLI::Range(1.0, 1e6))
                     ->capture_default_str();
  auto* limit = app.add_option("--time-limit", options.time_limit_min,
                               "minutes after which every run saves and stops (exit code 75); in a Slurm job its own")
                    ->check(CLI::PositiveNumber);
  app.add_option("--only", options.only, "train this run alone");
  auto* plan = app.add_flag("--plan", options.plan, "print the plan and stop");
  auto* status = app.add_flag("--status", options.status, "print the table of runs and stop");
  auto* calibrate =
      app.add_flag("--calibrate", options.calibrate, "measure the speed of each depth");
  auto* csv = app.add_option("--csv", options.csv, "write every table as CSV into this folder and stop");
  auto* simulate = app.add_option("--simulate", options.simulate,
                                  "what the placement makes of the sweep on --ranks, in so many draws, and stop")
                       ->check(CLI::Range(1, 100000));
  plan->excludes(status)->excludes(calibrate)->excludes(simulate);
  status->excludes(calibrate);
  for (auto* of_training : {retry, expiry, limit})
    of_training->excludes(plan)->excludes(status)->excludes(calibrate)->excludes(csv)->excludes(simulate);
  csv->excludes(plan)->excludes(status)->excludes(calibrate);
  app.add_flag("--json", options.json, "tables as JSON on stdout, no progress line");
  app.add_flag("--help-config", options.help_config, "every setting of a run, with its default");
  if (!base::parse_command_line(app, argc, argv)) return ExitCode::kDone;
  options.device_given = device->count() > 0;
  return run(options);
}

}  // namespace
}  // namespace varscale

int main(int argc, char** argv) {
  return varscale::base::run_main("var_sweep", [&] { return varscale::parse_and_run(argc, argv); });
}
