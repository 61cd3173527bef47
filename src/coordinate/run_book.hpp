// What the coordinator has to do with the folders of runs: their claims and their states. Everything that waits for
// the disk is kept until write(), when the ranks are at work again.
//
//   RunBook book(sweep, ledger);
//   if (const auto attempt = book.take(run)) send(*attempt);     // nothing: another job has the run
//   book.stepped(run, report);
//   book.ended(run, report, /*keep=*/false);
//   const RunBook::News news = book.write();                     // status.json; claims of what has ended are released
//   book.take_ahead({4, 7});                                     // so that take() of these finds the work done
//
// Lost     A run that another job has taken over: nothing is written to it any more, and write() says so.
// Errors   take() and take_ahead(): what Ledger::take() and prepare() throw. write() throws nothing of a run: that its
//          end could not be written is the run's failure, and News::broken; that its progress could not is said once.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "coordinate/letters.hpp"
#include "sweep/ledger.hpp"

namespace varscale::coordinate {

class RunBook {
 public:
  RunBook(const sweep::Sweep& sweep, const sweep::Ledger& ledger) : sweep_(sweep), ledger_(ledger) {}

  std::optional<sweep::Attempt> take(int64_t run);
  void take_ahead(const std::vector<int64_t>& runs);
  void give_up_ahead();

  void stepped(int64_t run, const Report& report);
  // `keep`: the run will go on with other ranks, and stays claimed.
  void ended(int64_t run, const Report& report, bool keep);

  struct News {
    std::vector<std::pair<int64_t, Report>> ended;  // `end` is kLost, or kFailed, where it has come to that
    std::vector<int64_t> lost;                      // in training
    std::vector<std::string> sentences;
    // A run has failed, and nothing can be written in the sweep folder: why. It is not in `ended`.
    std::optional<std::string> broken;
  };
  News write();

 private:
  using Clock = std::chrono::steady_clock;
  struct Page {
    sweep::Claim claim;
    bool ahead = false;     // claimed, but not taken yet
    bool starting = false;  // taken, and not written
    bool keep = false;
    bool lost = false, complained = false;
    std::optional<Report> step, end;
    Clock::time_point noted = {};  // when its state was last written
  };

  Page* open(int64_t run);
  void write_progress(int64_t number, Page& page, News& news);
  void write_end(int64_t number, Page& page, News& news);
  const sweep::SweepRun& run_of(int64_t number) const { return sweep_.runs[static_cast<size_t>(number)]; }

  const sweep::Sweep& sweep_;
  const sweep::Ledger& ledger_;
  std::map<int64_t, Page> pages_;  // by run
  Clock::time_point next_note_ = Clock::now();
};

}  // namespace varscale::coordinate
