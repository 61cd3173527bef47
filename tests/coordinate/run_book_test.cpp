// Claims and states of runs as the coordinator keeps them. No ranks take part: the first rank tests alone.
#include "coordinate/run_book.hpp"

#include <filesystem>
#include <fstream>

#include "comm/communicator.hpp"
#include "tests/comm/world.hpp"
#include "tests/sweep/sweep_fixture.hpp"

namespace varscale::coordinate {
namespace {

namespace fs = std::filesystem;
using sweep::RunState;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

class Book : public testing::Test {
 protected:
  void SetUp() override {
    if (comm::shared_world()->rank() > 0) GTEST_SKIP() << "the first rank's";
  }
  sweep::Ledger open(sweep::JobOptions options = {}) const {
    return sweep::Ledger::open(
        sweep_, sweep::make_plan(sweep_, sweep::Throughput("cpu"), sweep::machine_of("cpu", 1)), std::move(options));
  }
  const std::string& id(size_t run) const { return sweep_.runs.at(run).id; }
  static Report ended(Report::End end, int64_t step = 0, const std::string& reason = "") {
    return {.kind = Report::Kind::kEnded, .end = end, .step = step, .reason = reason};
  }

  sweep::TemporaryFolder folder_;
  sweep::Sweep sweep_ = sweep::sweep_of("name: b\noutput: " + folder_.path().string() +
                                        "\ndefaults: {tokens: small.h5}\nruns: [{model.depth: [1, 2, 3]}]\n");
};

TEST_F(Book, WritesTheStatesOfARunAndGivesItsClaimBack) {
  const sweep::Ledger ledger = open();
  RunBook book(sweep_, ledger);
  ASSERT_TRUE(book.take(0));
  EXPECT_EQ(ledger.status(id(0)).state, RunState::kPlanned);  // the ranks have not waited for it
  book.write();
  EXPECT_EQ(ledger.status(id(0)).state, RunState::kRunning);
  book.ended(0, ended(Report::End::kDone), /*keep=*/false);
  EXPECT_TRUE(ledger.holder(id(0)));
  const auto news = book.write();
  ASSERT_THAT(news.ended, SizeIs(1));
  EXPECT_EQ(news.ended[0].second.end, Report::End::kDone);
  EXPECT_EQ(ledger.status(id(0)).state, RunState::kDone);
  EXPECT_FALSE(ledger.holder(id(0)));
  EXPECT_FALSE(book.take(0));
}

TEST_F(Book, ARunThatGoesOnStaysClaimed) {
  const sweep::Ledger ledger = open();
  RunBook book(sweep_, ledger);
  const auto before = book.take(1);
  book.write();
  book.ended(1, ended(Report::End::kStopped, 7), /*keep=*/true);
  const auto after = book.take(1);  // before the end is written
  ASSERT_TRUE(before && after);
  EXPECT_EQ(before->text(), after->text());
  EXPECT_THAT(book.write().ended, IsEmpty());
  EXPECT_EQ(ledger.status(id(1)).state, RunState::kRunning);
  EXPECT_EQ(ledger.status(id(1)).step, 7);
}

TEST_F(Book, ClaimsAheadAreUsedOrGivenUp) {
  const sweep::Ledger ledger = open(), other = open();
  RunBook book(sweep_, ledger);
  book.take_ahead({0, 1});
  EXPECT_FALSE(other.take(sweep_.runs[0]));
  book.write();
  EXPECT_EQ(ledger.status(id(0)).state, RunState::kPlanned);  // it is not in training yet
  EXPECT_TRUE(fs::exists(ledger.run_folder(id(0)) / "config.yaml"));
  EXPECT_TRUE(book.take(0));
  book.give_up_ahead();
  EXPECT_FALSE(other.take(sweep_.runs[0]));
  EXPECT_TRUE(other.take(sweep_.runs[1]));
  const auto taken = other.take(sweep_.runs[2]);
  book.take_ahead({2});
  EXPECT_FALSE(book.take(2));
}

TEST_F(Book, AFailureHasItsReasonInTheStatus) {
  const sweep::Ledger ledger = open();
  RunBook book(sweep_, ledger);
  ASSERT_TRUE(book.take(0));
  book.ended(0, ended(Report::End::kFailed, 0, "no memory left"), false);
  const auto news = book.write();
  ASSERT_THAT(news.ended, SizeIs(1));
  EXPECT_EQ(news.ended[0].second.reason, "no memory left");
  EXPECT_EQ(ledger.status(id(0)).state, RunState::kFailed);
  EXPECT_EQ(ledger.status(id(0)).reason, "no memory left");
}

// The end of a run cannot be written: that run has failed, and the launch is to end.
TEST_F(Book, AnEndThatCannotBeWrittenIsAFailure) {
  const sweep::Ledger ledger = open();
  RunBook book(sweep_, ledger);
  ASSERT_TRUE(book.take(0) && book.take(1));
  book.write();
  const fs::path status = ledger.run_folder(id(0)) / "status.json";
  fs::remove(status);
  fs::create_directory(status);  // a rename onto a folder is refused
  book.ended(0, ended(Report::End::kDone), false);
  book.ended(1, ended(Report::End::kDone), false);
  const auto news = book.write();
  ASSERT_TRUE(news.broken);
  EXPECT_THAT(*news.broken, HasSubstr("status.json"));
  ASSERT_THAT(news.ended, SizeIs(1));
  EXPECT_EQ(news.ended[0].first, 1);
  EXPECT_EQ(news.ended[0].second.end, Report::End::kDone);
}

TEST_F(Book, ARunThatAnotherJobHasTakenIsLost) {
  double now = 0;
  sweep::JobOptions options;
  options.expiry_s = 1e6;  // so that nobody beats while the test lasts
  const sweep::Ledger first = open(options);
  RunBook book(sweep_, first);
  ASSERT_TRUE(book.take(0));
  options.clock = [&] { return now; };
  const sweep::Ledger second = open(options);
  EXPECT_FALSE(second.take(sweep_.runs[0]));
  now = 2e6;
  const auto claim = second.take(sweep_.runs[0]);
  ASSERT_TRUE(claim);
  EXPECT_THAT(book.write().lost, testing::ElementsAre(0));
  EXPECT_THAT(book.write().lost, IsEmpty());  // said once
  book.ended(0, ended(Report::End::kDone), false);
  const auto news = book.write();
  ASSERT_THAT(news.ended, SizeIs(1));
  EXPECT_EQ(news.ended[0].second.end, Report::End::kLost);
  EXPECT_EQ(second.status(id(0)).state, RunState::kPlanned);
  EXPECT_TRUE(claim->held());
}

}  // namespace
}  // namespace varscale::coordinate
