#include "sweep/claim.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "base/file.hpp"
#include "base/json.hpp"

namespace varscale::sweep {

namespace fs = std::filesystem;
using base::SystemError;
using base::UserError;
using nlohmann::ordered_json;

namespace {

constexpr std::string_view kReleased = ".released";

fs::path claims_of(const fs::path& run) { return run / "claims"; }
fs::path claim_path(const fs::path& run, int64_t epoch) {
  return claims_of(run) / fmt::format("claim-{}", epoch);
}
fs::path released_path(const fs::path& run, int64_t epoch) {
  return claim_path(run, epoch) += kReleased;
}

// The number that a name consists of after its prefix; nothing for any other name.
std::optional<int64_t> number_after(std::string_view name, std::string_view prefix) {
  if (!name.starts_with(prefix)) return std::nullopt;
  name.remove_prefix(prefix.size());
  int64_t number = 0;
  const auto [stopped, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (error != std::errc() || stopped != name.data() + name.size() || number < 1) return std::nullopt;
  return number;
}

struct Epochs {
  std::set<int64_t> claimed, released;
  int64_t newest() const { return claimed.empty() ? 0 : *claimed.rbegin(); }
};

// None where the run has no claims yet.
Epochs epochs_of(const fs::path& run) {
  Epochs epochs;
  std::error_code error;
  for (fs::directory_iterator entry(claims_of(run), error), end; !error && entry != end; entry.increment(error)) {
    const std::string file = entry->path().filename().string();
    std::string_view name = file;
    const bool released = name.ends_with(kReleased);
    if (released) name.remove_suffix(kReleased.size());
    if (const auto number = number_after(name, "claim-"))
      (released ? epochs.released : epochs.claimed).insert(*number);
  }
  if (error && error != std::errc::no_such_file_or_directory)
    throw SystemError(claims_of(run).string() + ": cannot be read", error.value());
  return epochs;
}

Job job_of(const fs::path& run, int64_t epoch) {
  const fs::path path = claim_path(run, epoch);
  return parse_job(base::read_file(path), path);
}

void remove_link(const fs::path& link) {  // or nothing, where there is none
  if (unlink(link.c_str()) != 0 && errno != ENOENT)
    throw SystemError(link.string() + ": cannot be removed", errno);
}

// Through the epoch's own link, as all that it writes: if the run is taken from it meanwhile, the rest fails.
void remove_unfinished(const fs::path& folder) {
  std::vector<fs::path> unfinished;
  for (const fs::path& place : {folder, folder / "checkpoints"}) {
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(place, error))
      if (entry.path().filename().string().find(".tmp-") != std::string::npos)
        unfinished.push_back(entry.path());
  }
  for (const fs::path& path : unfinished) fs::remove_all(path);
}

void replace_by_copy(const fs::path& file) {
  if (!fs::exists(file)) return;
  base::AtomicFile copy(file);
  fs::copy_file(file, copy.temporary(), fs::copy_options::overwrite_existing);
  copy.commit();
}

}  // namespace

bool Attempt::held() const {
  try {
    return epochs_of(run).newest() == epoch && job_of(run, epoch).nonce == job;
  } catch (const std::exception&) {
    return false;
  }
}

void Attempt::require_held() const {
  if (held()) return;
  std::string who = "its claims are gone";
  try {
    if (const int64_t newest = epochs_of(run).newest(); newest > 0) who = job_of(run, newest).words() + " has it";
  } catch (const std::exception& error) {
    who = error.what();
  }
  throw ClaimLost(fmt::format("{}: this launch no longer holds the run: {}", run.string(), who));
}

std::string Attempt::plain(std::string sentence) const {
  const std::string from = folder.string(), to = run.string();
  for (size_t at = 0; (at = sentence.find(from, at)) != std::string::npos; at += to.size())
    sentence.replace(at, from.size(), to);
  return sentence;
}

std::string Attempt::text() const {
  return base::json_text({{"run", run.string()}, {"folder", folder.string()}, {"epoch", epoch}, {"job", job}});
}

Attempt Attempt::parse(const std::string& text) {
  const ordered_json json = base::parse_json(text);
  return {.run = json.at("run").get<std::string>(),
          .folder = json.at("folder").get<std::string>(),
          .epoch = json.at("epoch").get<int64_t>(),
          .job = json.at("job").get<std::string>()};
}

Claim::~Claim() {
  try {
    release();
  } catch (const std::exception&) {
    // The run stays claimed until this process is seen to be gone.
  }
}

void Claim::release() {
  if (!attempt_) return;
  const Attempt attempt = *std::exchange(attempt_, std::nullopt);
  remove_link(attempt.folder);
  if (!attempt.held()) return;
  const fs::path marker = released_path(attempt.run, attempt.epoch);
  const int descriptor = open(marker.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
  if (descriptor < 0) throw SystemError(marker.string() + ": cannot be written", errno);
  close(descriptor);
}

namespace {

fs::path make_folders(const fs::path& output) {
  base::require_writable_folder(output / "attempts");
  base::require_writable_folder(output / "jobs");
  return output / "jobs";
}

// Of one epoch of one run, in attempts/. With a part of the nonce: epochs begin again at 1 when the folder of a
// run is moved away.
std::string link_name(const std::string& id, int64_t epoch, const std::string& nonce) {
  return fmt::format("{}.{}-{}", id, epoch, nonce.substr(0, 8));
}

}  // namespace

Claims::Claims(fs::path output, JobOptions options)
    : output_(std::move(output)),
      options_(std::move(options)),
      me_(this_job(options_.expiry_s / 6)),
      heartbeat_(make_folders(output_), me_),
      watch_(output_ / "jobs", me_, options_.expiry_s, options_.clock) {}

std::optional<Holder> Claims::holder(const std::string& id) {
  const Epochs epochs = epochs_of(run_folder(id));
  const int64_t newest = epochs.newest();
  if (newest == 0 || epochs.released.contains(newest)) return std::nullopt;
  Holder holder{job_of(run_folder(id), newest), Life::kAlive};
  holder.life = watch_.judge(holder.job);
  if (holder.life == Life::kDead) return std::nullopt;
  return holder;
}

// Links of the epochs before, and such as have no claim: left by a run folder that was moved away. Not those of
// epochs after: this process may have slept.
void Claims::remove_links(const Attempt& attempt, const std::string& id) const {
  const Epochs epochs = epochs_of(attempt.run);
  const fs::path folder = output_ / "attempts";
  // By name, whatever a network file system shows of the folder.
  for (const int64_t epoch : epochs.claimed)
    if (epoch < attempt.epoch && !epochs.released.contains(epoch))
      remove_link(folder / link_name(id, epoch, job_of(attempt.run, epoch).nonce));
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    const auto epoch = number_after(name.substr(0, name.rfind('-')), id + ".");
    if (epoch && (*epoch <= attempt.epoch || !epochs.claimed.contains(*epoch))) remove_link(entry.path());
  }
}

std::optional<Claim> Claims::take(const std::string& id) {
  const auto after = [&](std::string_view step) {
    if (options_.after) options_.after(step);
  };
  const fs::path run = run_folder(id);
  base::require_writable_folder(claims_of(run));
  const Epochs epochs = epochs_of(run);
  const int64_t newest = epochs.newest();
  std::optional<Job> dead;  // it may have left anything
  if (newest > 0 && !epochs.released.contains(newest)) {
    dead = job_of(run, newest);
    if (watch_.judge(*dead) != Life::kDead) return std::nullopt;
  }
  after("looked");
  const Attempt attempt{.run = run,
                        .folder = output_ / "attempts" / link_name(id, newest + 1, me_.nonce),
                        .epoch = newest + 1,
                        .job = me_.nonce};
  // The claim after the one that was judged: a job that was faster has made it.
  if (!base::write_file_once(claim_path(run, attempt.epoch), job_text(me_))) return std::nullopt;
  after("claimed");
  remove_links(attempt, id);
  after("fenced");
  fs::create_directory_symlink(fs::path("..") / "runs" / id, attempt.folder);
  after("linked");
  // Only now: who claims from here on finds the link, and who has claimed before is found.
  if (!attempt.held()) {
    remove_link(attempt.folder);
    return std::nullopt;
  }
  after("held");
  try {
    if (dead) {
      remove_unfinished(attempt.folder);
      after("cleared");
      replace_by_copy(attempt.folder / "run.h5");
      unlink((output_ / "jobs" / (dead->nonce + ".json")).c_str());
    }
  } catch (const std::exception&) {
    if (attempt.held()) throw;
    return std::nullopt;
  }
  after("done");
  return Claim(attempt);
}

}  // namespace varscale::sweep
