#include "sweep/plan.hpp"

#include <cmath>

#include "base/file.hpp"
#include "sweep/widths.hpp"
#include "tests/sweep/sweep_fixture.hpp"

namespace varscale::sweep {
namespace {

using testing::HasSubstr;

Sweep two_depths() {
  return sweep_of(R"(name: q
defaults: {tokens: imagenet.h5, train: {batch: 768, epochs: 2, precision: bf16}}
runs: [{model.depth: [16, 30]}]
)");
}

TEST(Plan, AgreesWithTheClosedFormsOfD16) {
  const Plan plan = make_plan(two_depths(), Throughput("h200"), machine_of("h200", 64));
  const PlanRow& d16 = plan.rows.at(0);
  EXPECT_EQ(d16.parameters, 310'283'520);  // of the public d16
  EXPECT_EQ(d16.steps, 3337);              // ceil(2 x 1,281,167 / 768) = ceil(3336.37)
  EXPECT_EQ(d16.images, 3337 * 768);
  EXPECT_EQ(d16.tokens, int64_t{3337} * 768 * 680);
  EXPECT_NEAR(d16.passes, 3337 * 768 / 1281167.0, 1e-12);
  // Forward 298.5 GFLOP an image, training three times that; the table's four digits.
  EXPECT_NEAR(d16.flops / (3 * 298.5e9 * 3337 * 768), 1, 2e-4);
  EXPECT_NEAR(d16.hours, d16.flops / (0.35 * 989e12 * 64) / 3600, 1e-9 * d16.hours);
  EXPECT_EQ(d16.hours_from, "h200 bf16 peak x 0.35 assumed");
  EXPECT_DOUBLE_EQ(plan.total_hours(), d16.hours + plan.rows.at(1).hours);
  EXPECT_DOUBLE_EQ(plan.total_flops(), d16.flops + plan.rows.at(1).flops);
}

TEST(Plan, EstimatesMemoryForTheShareOfOneRank) {
  const Sweep sweep = two_depths();
  const auto bytes = [&](int64_t micro_batch) {
    scaling::MemoryOptions options;
    options.micro_batch = micro_batch;
    options.precision = scaling::Precision::kBf16;
    options.on_gpu = true;
    return scaling::estimate_memory(shape_of(sweep.runs[0].config, sweep.runs[0].tokens), options)
        .total();
  };
  EXPECT_EQ(make_plan(sweep, Throughput("h200"), machine_of("h200", 64)).rows[0].memory_bytes, bytes(12));
  EXPECT_EQ(make_plan(sweep, Throughput("h200"), machine_of("h200", 100)).rows[0].memory_bytes,
            bytes(8));  // uneven: 7 or 8
  Sweep smaller = sweep;
  smaller.runs[0].config.train.micro_batch = 3;
  EXPECT_EQ(make_plan(smaller, Throughput("h200"), machine_of("h200", 64)).rows[0].memory_bytes, bytes(3));
}

Sweep one_depth(const std::string& parallel) {
  return sweep_of("name: q\ndefaults: {tokens: imagenet.h5, train: {batch: 512, precision: bf16}}\n"
                  "runs: [{model.depth: 30, parallel: " + parallel + "}]\n");
}

TEST(Plan, LetsAutoChooseTheFirstModeThatFitsTheDevice) {
  // d30 has 2.0 G parameters: 18 bytes each are 36 GB, activations of 8 images come on top; in fp32 of a
  // 32 GiB device only shards fit, and in 12 GiB only the smallest ones.
  const auto mode = [](const char* device, int64_t ranks, const std::string& parallel = "{}") {
    return make_plan(one_depth(parallel), Throughput(device), machine_of(device, ranks)).rows.at(0);
  };
  EXPECT_EQ(mode("h100", 64).mode, "replicated");
  EXPECT_EQ(mode("h100", 64, "{memory_gib: 32}").mode, "hybrid of 8");
  EXPECT_FALSE(mode("h100", 64, "{mode: replicated, memory_gib: 32}").fits);
  EXPECT_THAT(mode("h100", 64, "{memory_gib: 32}").mode_why,
              testing::AllOf(HasSubstr("replicated needs"), HasSubstr("hybrid of 8 ranks needs"),
                             HasSubstr("of 32.0 GiB a rank")));
  EXPECT_FALSE(mode("h100", 1).fits);
  EXPECT_THAT(plan_table(make_plan(one_depth("{}"), Throughput("h100"), machine_of("h100", 1))),
              HasSubstr("DOES NOT FIT: replicated needs"));
}

TEST(Plan, RefusesGroupsThatDoNotDivideTheRanksAndShardsWithoutUse) {
  for (const auto& [parallel, words] : std::vector<std::pair<std::string, std::string>>{
           {"{mode: hybrid, shards: 3}", "parallel.shards is 3; hybrid needs groups that divide the 8"},
           {"{mode: hybrid}", "parallel.shards is 0; hybrid needs"},
           {"{mode: zero3, shards: 4}", "parallel.shards is 4, but parallel.mode is zero3"}}) {
    try {
      make_plan(one_depth(parallel), Throughput("h200"), machine_of("h200", 8));
      ADD_FAILURE() << parallel << " was taken";
    } catch (const base::UserError& error) {
      EXPECT_THAT(error.what(), testing::AllOf(HasSubstr(words), HasSubstr(":3: ")));
    }
  }
}

Sweep recorded(const std::string& more) {
  return sweep_of("name: q\ndefaults: {tokens: imagenet.h5, train: {batch: 64, precision: bf16, cuda_graph: true}}\n"
                  "runs: [{model.depth: 8" + more + "}]\n");
}

TEST(Plan, GivesARecordedUpdateOneRankAndRefusesWhatItCannotHold) {
  const std::string on_gpu = ", train.device: cuda";
  const Plan whole = make_plan(recorded(on_gpu), Throughput("h200"), machine_of("h200", 8)),
             one = make_plan(recorded(on_gpu), Throughput("h200"), machine_of("h200", 1));
  EXPECT_EQ(whole.rows.at(0).hours, one.rows.at(0).hours);
  EXPECT_EQ(whole.rows.at(0).memory_bytes, one.rows.at(0).memory_bytes);
  EXPECT_EQ(whole.rows.at(0).mode, "replicated");
  for (const char* memory : {"", ", parallel.memory_gib: 0.001"}) {  // the latter fits no width
    const auto speeds = speeds_of(recorded(on_gpu + memory).runs.at(0), Throughput("h200"), machine_of("h200", 8));
    ASSERT_EQ(speeds.size(), 1U);
    EXPECT_EQ(speeds[0].ranks, 1);
  }
  for (const auto& [more, words] : std::vector<std::pair<std::string, std::string>>{
           {"", "train.device is cpu, expected cuda"},
           {on_gpu + ", parallel.mode: zero3", "parallel.mode is zero3, expected replicated"},
           {on_gpu + ", train.micro_batch: 32", "train.micro_batch is 32, expected the whole batch"},
           {on_gpu + ", optimizer.weight_decay_end: 0.2", "optimizer.weight_decay_end is 0.2, expected a constant decay"}}) {
    try {
      make_plan(recorded(more), Throughput("h200"), machine_of("h200", 1));
      ADD_FAILURE() << more << " was taken";
    } catch (const base::UserError& error) {
      EXPECT_THAT(error.what(), testing::AllOf(HasSubstr("train.cuda_graph"), HasSubstr(words), HasSubstr(":3: ")));
    }
  }
}

TEST(Plan, PrintsATableAndTheSameFiguresAsJson) {
  const Plan plan = make_plan(two_depths(), Throughput("h200"), machine_of("h200", 64));
  const std::string table = plan_table(plan);
  EXPECT_THAT(table, HasSubstr("sweep q: 2 runs, 64 ranks on h200"));
  EXPECT_THAT(table, HasSubstr(plan.rows[1].id));
  EXPECT_THAT(table, HasSubstr("h200 bf16 peak x 0.35 assumed"));
  EXPECT_THAT(table, testing::Not(HasSubstr("assume:")));
  const auto json = plan_json(plan);
  EXPECT_EQ(json["sweep"], "q");
  EXPECT_EQ(json["runs"][0]["parameters"], 310'283'520);
  EXPECT_EQ(json["runs"][1]["id"], plan.rows[1].id);
  EXPECT_EQ(json["runs"][0]["tokens_fingerprint"], "1a9e");
  EXPECT_EQ(json["runs"][0]["tokens_file"], "imagenet.h5");
  EXPECT_EQ(json["runs"][0]["data_tokens"], "cached");
  EXPECT_EQ(json["total"]["hours"], plan.total_hours());
}

TEST(Plan, SaysThatItAssumesTheTokens) {
  const Sweep sweep =
      sweep_of("name: q\ndefaults: {tokens: none.h5}\nruns: [{}]\nassume: {images: 9}\n", {},
               Purpose::kPlan);
  EXPECT_THAT(plan_table(make_plan(sweep, Throughput("cpu"), machine_of("cpu", 1))), HasSubstr("assume:"));
}

TEST(Throughput, InterpolatesMeasurementsOverLogDepth) {
  Throughput throughput("cpu");
  throughput.add_measured("finished runs", {{4, "fp32", 30e9}, {1, "fp32", 10e9}});
  EXPECT_DOUBLE_EQ(throughput.rate(1, "fp32").flops_per_s, 10e9);
  EXPECT_DOUBLE_EQ(throughput.rate(2, "fp32").flops_per_s, 20e9);  // half way from log 1 to log 4
  EXPECT_DOUBLE_EQ(throughput.rate(4, "fp32").flops_per_s, 30e9);
  EXPECT_DOUBLE_EQ(throughput.rate(30, "fp32").flops_per_s, 30e9);
  EXPECT_EQ(throughput.rate(2, "fp32").source, "finished runs");
}

TEST(Throughput, AsksItsSourcesInOrderAndByPrecision) {
  Throughput throughput("h100");
  throughput.add_measured("finished runs", {{4, "fp32", 1e12}});
  throughput.add_measured("calibration", {{4, "fp32", 2e12}, {4, "bf16", 3e12}});
  EXPECT_EQ(throughput.rate(8, "fp32").source, "finished runs");
  EXPECT_EQ(throughput.rate(8, "bf16").source, "calibration");
  EXPECT_EQ(Throughput("h100").rate(8, "bf16").source, "h100 bf16 peak x 0.35 assumed");
  EXPECT_DOUBLE_EQ(Throughput("a100").rate(8, "bf16").flops_per_s, 0.35 * 312e12);
  EXPECT_DOUBLE_EQ(Throughput("b200").rate(8, "bf16").flops_per_s, 0.35 * 2250e12);
  EXPECT_DOUBLE_EQ(Throughput("cpu").rate(8, "fp32").flops_per_s, kCpuFlopsPerCore);
}

TEST(Throughput, RefusesADeviceThatIsNotInTheTable) {
  EXPECT_THROW(Throughput("h2000"), base::UserError);
}

TEST(Throughput, TakesTheMedianStepOfARun) {
  records::RunTables tables;
  EXPECT_EQ(measured_flops_per_s(tables), 0);
  const double step_s[] = {9, 2, 2, 2, 7};  // the first is slow, the last was saved after
  for (int64_t i = 0; i < 5; ++i) {
    records::StepRow row{};
    row.step = i + 1;
    row.flops = 100.0 * static_cast<double>(i + 1);
    row.step_s = step_s[i];
    tables.steps.push_back(row);
  }
  EXPECT_DOUBLE_EQ(measured_flops_per_s(tables), 50);
}

TEST(Throughput, KeepsACalibration) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "results" / "calibration-cpu.json";
  EXPECT_TRUE(read_calibration(path).empty());
  write_calibration(path, "cpu", {{2, "fp32", 1.5e10}, {3, "bf16", 2.5e10}});
  const auto rates = read_calibration(path);
  ASSERT_EQ(rates.size(), 2u);
  EXPECT_EQ(rates[1].depth, 3);
  EXPECT_EQ(rates[1].precision, "bf16");
  EXPECT_DOUBLE_EQ(rates[1].flops_per_s, 2.5e10);
  for (const char* text : {"{", "[]", "{\"points\": [{\"depth\": 1}]}", "{\"points\": [3]}"}) {
    base::write_file_atomic(path, text);
    EXPECT_THROW(read_calibration(path), base::UserError) << text;
  }
}

}  // namespace
}  // namespace varscale::sweep
