#include "coordinate/run_book.hpp"

#include <fmt/format.h>

#include "base/clock.hpp"
#include "base/file.hpp"

namespace varscale::coordinate {

namespace {

constexpr double kNoteEvery_s = 5;   // a run's step and loss
constexpr double kNoteShare = 0.1;   // of the coordinator's time, at most

// For the claim and the states of another run.
bool has_room(const std::filesystem::path& folder) {
  try {
    base::AtomicFile(folder / "room").write(std::string(1 << 14, ' '));  // dropped again
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

}  // namespace

// The page of a run that may be trained here; nothing where another job has it.
RunBook::Page* RunBook::open(int64_t run) {
  if (const auto found = pages_.find(run); found != pages_.end())
    return found->second.claim.held() ? &found->second : nullptr;
  if (!sweep::may_start(run_of(run), ledger_)) return nullptr;
  std::optional<sweep::Claim> claim = ledger_.take(run_of(run));
  if (!claim) return nullptr;  // it was faster
  ledger_.prepare(run_of(run), claim->attempt());
  return &pages_.emplace(run, Page{.claim = std::move(*claim), .step = {}, .end = {}}).first->second;
}

std::optional<sweep::Attempt> RunBook::take(int64_t run) {
  Page* const page = open(run);
  if (page == nullptr) return std::nullopt;
  page->ahead = false;
  page->starting = true;
  return page->claim.attempt();
}

void RunBook::take_ahead(const std::vector<int64_t>& runs) {
  for (const int64_t run : runs) {
    if (pages_.contains(run)) continue;
    if (Page* const page = open(run)) page->ahead = true;
  }
}

void RunBook::give_up_ahead() {
  std::erase_if(pages_, [](const auto& entry) { return entry.second.ahead; });
}

void RunBook::stepped(int64_t run, const Report& report) { pages_.at(run).step = report; }

void RunBook::ended(int64_t run, const Report& report, bool keep) {
  Page& page = pages_.at(run);
  page.end = report;
  page.keep = keep;
  page.step.reset();
}

RunBook::News RunBook::write() {
  News news;
  for (auto it = pages_.begin(); it != pages_.end();) {
    auto& [number, page] = *it;
    if (page.end) {
      write_end(number, page, news);
      if (!page.keep || page.lost) {
        it = pages_.erase(it);
        continue;
      }
    }
    write_progress(number, page, news);
    ++it;
  }
  return news;
}

void RunBook::write_progress(int64_t number, Page& page, News& news) {
  const auto now = Clock::now();
  const bool step = page.step && base::seconds_since(page.noted) >= kNoteEvery_s && now >= next_note_;
  if (page.lost || !(page.starting || step)) return;
  try {
    page.claim.require_held();
    const sweep::SweepRun& run = run_of(number);
    if (page.starting) ledger_.start(run, page.claim.attempt());
    if (step) {
      const auto left = static_cast<double>(sweep::steps_of(run.config) - page.step->step);
      ledger_.note_step(run, page.claim.attempt(), page.step->step, page.step->loss, left / page.step->steps_per_s);
    }
  } catch (const std::exception& error) {
    page.lost = !page.claim.held();
    if (page.lost) {
      news.lost.push_back(number);
    } else if (!page.complained) {
      page.complained = true;
      news.sentences.push_back(fmt::format("run {}: {}", run_of(number).id, page.claim.attempt().plain(error.what())));
    }
  }
  page.starting = false;
  page.step.reset();
  page.noted = Clock::now();
  next_note_ = page.noted + std::chrono::duration_cast<Clock::duration>((page.noted - now) / kNoteShare);
}

void RunBook::write_end(int64_t number, Page& page, News& news) {
  Report report = *page.end;
  page.end.reset();
  const sweep::SweepRun& run = run_of(number);
  bool written = true;
  try {
    page.claim.require_held();
    if (report.end == Report::End::kFailed)
      ledger_.fail(run, page.claim.attempt(), report.reason);
    else if (report.end == Report::End::kStopped)
      ledger_.stop(run, page.claim.attempt(), report.step);
    else
      ledger_.finish(run, page.claim.attempt());
  } catch (const std::exception& error) {
    written = false;
    page.lost = !page.claim.held();
    if (report.end != Report::End::kFailed) report.reason = page.claim.attempt().plain(error.what());
    report.end = page.lost ? Report::End::kLost : Report::End::kFailed;
  }
  if (report.end == Report::End::kFailed && (!written || !has_room(ledger_.folder())))
    news.broken = fmt::format("run {} failed: {}", run.id, report.reason);
  else if (!page.keep || page.lost)
    news.ended.emplace_back(number, std::move(report));
}

}  // namespace varscale::coordinate
