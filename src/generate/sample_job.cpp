#include "generate/sample_job.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <utility>

#include "base/error.hpp"
#include "base/file.hpp"
#include "base/progress.hpp"
#include "data/png.hpp"

namespace varscale::generate {

namespace fs = std::filesystem;
using base::UserError;
using Json = nlohmann::ordered_json;

namespace {

// "top_k 900, now 0", or empty where both are equal.
std::string first_difference(const Json& before, const Json& now) {
  for (const auto& [key, value] : now.items()) {
    const auto old = before.find(key);
    if (old == before.end()) return fmt::format("no {}, now {}", key, value.dump());
    if (*old != value) return fmt::format("{} {}, now {}", key, old->dump(), value.dump());
  }
  for (const auto& [key, value] : before.items())
    if (!now.contains(key)) return fmt::format("{} {}, now none", key, value.dump());
  return {};
}

// Tokens are below 65,536, as every vocabulary is.
std::vector<uint16_t> narrow(const Tensor& tokens_BL) {
  const Tensor on_cpu_BL = tokens_BL.cpu().contiguous();
  const auto* tokens = on_cpu_BL.const_data_ptr<int64_t>();
  std::vector<uint16_t> narrow_BL;
  for (int64_t i = 0; i < on_cpu_BL.numel(); ++i) narrow_BL.push_back(static_cast<uint16_t>(tokens[i]));
  return narrow_BL;
}

}  // namespace

SampleJob::SampleJob(SampleWork work, comm::Communicator& world) : work_(std::move(work)), world_(world) {
  VARSCALE_CHECK(work_.group >= 1 && work_.side >= 1 && work_.tokens >= 1 && work_.batch >= 1,
                 "groups of {}, {} px, {} tokens, batches of {}", work_.group, work_.side, work_.tokens, work_.batch);
  const auto count = static_cast<int64_t>(work_.requests.size());
  std::vector<int64_t> images;
  for (const Request& request : work_.requests) images.push_back(request.image);
  groups_ = packed(images, work_.group);
  places_.resize(work_.requests.size());
  for (size_t group = 0; group < groups_.size(); ++group)
    for (size_t position = 0; position < groups_[group].size(); ++position)
      places_[groups_[group][position]] = {static_cast<int64_t>(group), position};

  // A rank ends when its share is done, which may be long after the first; a rank that is lost ends the launch.
  world_.set_deadline(30.0 * 24 * 3600);
  const Json first = Json::parse(world_.broadcast_bytes(work_.settings.dump(), 0, "what is drawn"));
  comm::agree_on(world_, "what is drawn", [&] {
    if (const std::string difference = first_difference(first, work_.settings); !difference.empty())
      throw UserError("rank {} draws something else than rank 0 ({}); expected files that all nodes share and that "
                      "do not change meanwhile",
                      world_.rank(), difference);
  });
  comm::agree_on(world_, "folder of the samples", [&] {
    if (world_.rank() == 0) enter();
  });
  left_ = Json::parse(world_.broadcast_bytes(Json(left_).dump(), 0, "groups")).get<std::vector<int64_t>>();
  images_before_ = count;
  for (const int64_t group : left_) images_before_ -= static_cast<int64_t>(groups_.at(group).size());
}

void SampleJob::enter() {
  const fs::path& folder = work_.folder;
  lock_ = base::LockedFolder(folder, folder, "another launch is drawing there");
  const fs::path job = folder / "job.json";
  if (fs::exists(job)) {
    const Json before = Json::parse(base::read_file(job), nullptr, /*allow_exceptions=*/false);
    const std::string difference = before.is_object() ? first_difference(before, work_.settings) : "other words";
    if (!difference.empty())
      throw UserError("{}: holds images that were begun with {}; give the same model and options, or remove it",
                      folder.string(), difference);
  } else {
    lock_.clear();  // of what a launch that was killed as it removed the folder has left
    base::write_file_atomic(job, work_.settings.dump(2) + "\n");
  }
  fs::remove(folder / "stop");
  for (int64_t group = 0; group < std::ssize(groups_); ++group)
    if (!is_done(group)) left_.push_back(group);
}

fs::path SampleJob::path_of(int64_t group) const { return work_.folder / fmt::format("group-{}.u8", group); }

bool SampleJob::is_done(int64_t group) const {
  std::error_code error;
  const uintmax_t bytes = fs::file_size(path_of(group), error);
  return !error && bytes == groups_.at(group).size() * (image_bytes() + token_bytes());
}

int64_t SampleJob::images_done() const {
  int64_t done = images_before_;
  for (const int64_t group : left_)
    if (is_done(group)) done += static_cast<int64_t>(groups_.at(group).size());
  return done;
}

bool SampleJob::draw(const Sampler& sampler, const tokenizer::Vqvae& tokenizer, const std::function<bool()>& stop) {
  const int64_t tokens_L = tokenizer.quantizer().config().scales.tokens();
  VARSCALE_CHECK(sampler.options().group == work_.group && tokenizer.config().image_side == work_.side &&
                     tokens_L == work_.tokens,
                 "groups of {}, {} px and {} tokens, the work has {}, {} and {}", sampler.options().group,
                 tokenizer.config().image_side, tokens_L, work_.group, work_.side, work_.tokens);
  const bool is_first = world_.rank() == 0;
  using base::Progress;
  Progress progress("sample", static_cast<int64_t>(places_.size()), "images",
                    is_first && !left_.empty() ? Progress::Style::kAuto : Progress::Style::kSilent);
  progress.set(images_before_);
  int64_t shown = images_before_;
  const auto show = [&] {
    const int64_t done = images_done();
    progress.advance(done - std::exchange(shown, done));
  };
  const auto told_to_stop = [&] {
    if (stop && stop()) base::write_file_once(work_.folder / "stop", "");
    return fs::exists(work_.folder / "stop");
  };

  const size_t ranks = world_.size(), rank = world_.rank();
  const size_t end = left_.size() * (rank + 1) / ranks;
  const auto at_a_time = static_cast<size_t>((work_.batch + work_.group - 1) / work_.group);
  bool complete = true;
  auto last_shown = std::chrono::steady_clock::now();
  for (size_t begin = left_.size() * rank / ranks; begin < end; begin += at_a_time) {
    if (told_to_stop()) {
      complete = false;
      break;
    }
    const std::vector<int64_t> batch(left_.begin() + begin, left_.begin() + std::min(begin + at_a_time, end));
    std::vector<Request> requests;
    for (const int64_t group : batch)
      for (const int64_t i : groups_.at(group)) requests.push_back(work_.requests[i]);
    const Samples samples = sampler.sample(requests);
    const at::Tensor images_u8_BXX3 = data::to_u8_BHWC(decode_each(tokenizer, samples.f_hat_BEHW));
    const std::vector<uint16_t> tokens_BL = narrow(samples.tokens_BL);
    const auto* pixels = reinterpret_cast<const char*>(images_u8_BXX3.const_data_ptr<uint8_t>());
    const auto* tokens = reinterpret_cast<const char*>(tokens_BL.data());
    for (const int64_t group : batch) {
      const size_t images = groups_.at(group).size();
      std::string bytes(pixels, images * image_bytes());
      bytes.append(tokens, images * token_bytes());
      base::write_file_atomic(path_of(group), bytes);
      pixels += images * image_bytes();
      tokens += images * token_bytes();
    }
    // Counting looks at every file.
    if (const auto now = std::chrono::steady_clock::now(); is_first && now - last_shown > std::chrono::seconds(1)) {
      last_shown = now;
      show();
    }
  }
  at::Tensor all_complete = at::full({1}, static_cast<int64_t>(complete), at::kLong);
  world_.all_reduce(all_complete, comm::Reduce::kMin, "end of the sampling").wait();
  if (is_first) show();
  progress.finish();
  return all_complete.item<int64_t>() == 1;
}

void SampleJob::read_at(int64_t group, size_t place, void* out, size_t bytes) const {
  const fs::path path = path_of(group);
  std::ifstream file(path, std::ios::binary);
  file.seekg(static_cast<std::streamoff>(place));
  if (!file.read(static_cast<char*>(out), static_cast<std::streamsize>(bytes)))
    throw std::runtime_error(fmt::format("{}: cannot be read", path.string()));
}

void SampleJob::read(int64_t i, uint8_t* out) const {
  const Place& place = places_.at(static_cast<size_t>(i));
  read_at(place.group, place.position * image_bytes(), out, image_bytes());
}

void SampleJob::read_tokens(int64_t i, uint16_t* out_L) const {
  const Place& place = places_.at(static_cast<size_t>(i));
  const size_t pixels = groups_.at(place.group).size() * image_bytes();
  read_at(place.group, pixels + place.position * token_bytes(), out_L, token_bytes());
}

Tensor SampleJob::batch(int64_t begin, int64_t count) const {
  const int64_t end = std::min(begin + count, static_cast<int64_t>(places_.size()));
  const Tensor pixels_BXX3 = at::empty({end - begin, work_.side, work_.side, 3}, at::kByte);
  for (int64_t i = begin; i < end; ++i) read(i, pixels_BXX3[i - begin].mutable_data_ptr<uint8_t>());
  return pixels_BXX3.permute({0, 3, 1, 2}).contiguous();
}

void SampleJob::finish() {
  if (world_.rank() != 0) return;
  // First what says that there is something to go on with.
  fs::remove(work_.folder / "job.json");
  fs::remove_all(work_.folder);
}

}  // namespace varscale::generate
