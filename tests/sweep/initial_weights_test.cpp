// model.init_from in a sweep file.
#include "sweep/initial_weights.hpp"

#include <algorithm>

#include "base/file.hpp"
#include "tests/sweep/sweep_fixture.hpp"

namespace varscale::sweep {
namespace {

using testing::HasSubstr;

class InitFrom : public testing::Test {
 protected:
  TemporaryFolder folder_;
  std::string path_ = (folder_.path() / "w.safetensors").string();

  // Weights of a model of small.h5 (sweep_fixture.hpp), all of one value.
  std::string write(int64_t depth, float value, const std::map<std::string, std::string>& origin = {}) {
    const TokenFacts tokens = small_tokens();
    return archives::write_weights(path_, scaling::VarShape::from_depth(depth, tokens.space, tokens.classes), origin,
                                   [&](const scaling::StateEntry& entry, float* out) {
                                     int64_t count = 1;
                                     for (const int64_t size : entry.shape) count *= size;
                                     std::fill_n(out, count, value);
                                   });
  }
  // A file of one run of depth 1 whose settings these are.
  static std::string file(const std::string& settings) {
    return "name: t\ndefaults: {tokens: small.h5, train.images: 6400}\nruns:\n  - {model.depth: 1" + settings + "}\n";
  }
  std::string from() const { return ", model.init_from: " + path_; }
};

TEST_F(InitFrom, EntersTheIdByTheValuesAlone) {
  const std::string fingerprint = write(1, 0.5f, {{"source", "one"}});
  const SweepRun run = sweep_of(file(from())).runs.front();
  EXPECT_EQ(run.config.model.init_fingerprint, fingerprint);
  EXPECT_NE(run.id, sweep_of(file("")).runs.front().id);

  path_ = (folder_.path() / "moved.safetensors").string();
  EXPECT_EQ(write(1, 0.5f, {{"source", "other"}}), fingerprint);
  EXPECT_EQ(sweep_of(file(from())).runs.front().id, run.id);
  write(1, 0.25f);
  EXPECT_NE(sweep_of(file(from())).runs.front().id, run.id);
}

TEST_F(InitFrom, IsRefusedWithTheFirstKeyThatDoesNotFit) {
  write(2, 0.5f);
  EXPECT_THAT(refusal_of(file(from())),
              testing::AllOf(HasSubstr("t.yaml:4: model.init_from: " + path_),
                             HasSubstr("pos_start has shape [1, 1, 128], expected [1, 1, 64]")));
  write(1, 0.5f);
  EXPECT_THAT(refusal_of(file(from() + ", model.shared_adaln: true")), HasSubstr("has no shared_ada_lin.1.weight"));
  EXPECT_THAT(refusal_of(file(", model.init_from: none.safetensors")),
              HasSubstr("t.yaml:4: model.init_from: none.safetensors"));
  base::write_file_atomic(path_, "no weights");
  EXPECT_THAT(refusal_of(file(from())), HasSubstr("not a safetensors file"));
}

TEST_F(InitFrom, MayBePinnedByItsFingerprint) {
  const std::string fingerprint = write(1, 0.5f);
  const std::string id = sweep_of(file(from())).runs.front().id;
  EXPECT_EQ(sweep_of(file(from() + ", model.init_fingerprint: '" + fingerprint + "'")).runs.front().id, id);
  EXPECT_THAT(refusal_of(file(from() + ", model.init_fingerprint: 'abc'")),
              HasSubstr("model.init_fingerprint asks for abc"));
}

TEST_F(InitFrom, LeavesNoUseForSettingsOfTheStart) {
  const std::string fingerprint = write(1, 0.5f);
  EXPECT_THAT(refusal_of(file(from() + ", model.init_std: 0.1")),
              HasSubstr("model.init_std: model.init_from gives the weights"));
  EXPECT_THAT(refusal_of(file(from() + ", model.adaln_gamma_init: 0.1")), HasSubstr("unused key"));
  EXPECT_THAT(refusal_of(file(", model.init_fingerprint: abc")), HasSubstr("its runs have no model.init_from"));
  // In the defaults they may be for other runs.
  const Sweep sweep = sweep_of(
      "name: t\ndefaults: {tokens: small.h5, train.images: 6400, model.init_std: 0.1, "
      "model.init_fingerprint: '" +
      fingerprint +
      "'}\nruns:\n"
      "  - {model.depth: 1}\n  - {model.depth: 1" +
      from() + "}\n");
  const std::string drawn =
      "name: t\ndefaults: {tokens: small.h5, train.images: 6400, model.init_std: 0.1}\nruns: [{model.depth: 1}]\n";
  EXPECT_EQ(sweep.runs.at(0).id, sweep_of(drawn).runs.front().id);
  EXPECT_EQ(sweep.runs.at(1).id, sweep_of(file(from())).runs.front().id);
}

}  // namespace
}  // namespace varscale::sweep
