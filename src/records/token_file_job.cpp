#include "records/token_file_job.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <utility>

#include "base/error.hpp"
#include "base/file.hpp"
#include "records/token_writing.hpp"

namespace varscale::records {

namespace fs = std::filesystem;
using base::SystemError;
using base::UserError;
using JobJson = nlohmann::ordered_json;

namespace {

constexpr size_t kLine = 34;  // of a done file: two numbers of 16 hexadecimal digits, a blank and the end

std::string done_line(int64_t block, uint64_t checksum) {
  return fmt::format("{:016x} {:016x}\n", static_cast<uint64_t>(block), checksum);
}

class Descriptor {
 public:
  explicit Descriptor(int number = -1) : number_(number) {}
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  int number() const { return number_; }

 private:
  int number_;
};

Descriptor open_or_throw(const fs::path& path, int flags) {
  Descriptor descriptor(::open(path.c_str(), flags | O_CLOEXEC, 0666));
  if (descriptor.number() < 0) throw SystemError(path.string() + ": cannot be opened", errno);
  return descriptor;
}

// Numbers <launch> of the files done-<launch>-<process>.
int64_t launch_of(const std::string& name) {
  int64_t launch = 0;
  if (!name.starts_with("done-")) return 0;
  std::from_chars(name.data() + 5, name.data() + name.size(), launch);
  return launch;
}

struct DoneBlock {
  int64_t block;
  uint64_t checksum;
};

// Every complete line of one done file; a line that a crash has cut or overwritten is none.
void read_done(const fs::path& path, int64_t blocks, std::vector<DoneBlock>& into) {
  const std::string text = base::read_file(path);
  for (size_t at = 0; at + kLine <= text.size(); at += kLine) {
    uint64_t block = 0, checksum = 0;
    std::from_chars(text.data() + at, text.data() + at + 16, block, 16);
    std::from_chars(text.data() + at + 17, text.data() + at + 33, checksum, 16);
    if (block < static_cast<uint64_t>(blocks) &&
        text.compare(at, kLine, done_line(static_cast<int64_t>(block), checksum)) == 0)
      into.push_back({static_cast<int64_t>(block), checksum});
  }
}

std::string first_difference(const std::string& before, const std::string& now) {
  std::istringstream a(before), b(now);
  std::string old_line, new_line;
  while (true) {
    const bool more_a = static_cast<bool>(std::getline(a, old_line));
    const bool more_b = static_cast<bool>(std::getline(b, new_line));
    if (!more_a) old_line = "nothing more";
    if (!more_b) new_line = "nothing more";
    if (old_line != new_line || (!more_a && !more_b)) return fmt::format("\"{}\", now \"{}\"", old_line, new_line);
  }
}

}  // namespace

struct TokenFileJob::Impl {
  fs::path out, folder;
  TokenFileInfo info;
  std::vector<int64_t> begins;
  token_writing::Places places;
  int64_t launch = 1;
  int64_t rows_before = 0;  // done when this launch began
  std::vector<int64_t> left;
  QuantizerWeights quantizer;  // of the first process
  base::LockedFolder lock;     // likewise
  Descriptor tokens, done;

  fs::path tokens_path() const { return folder / "tokens.h5"; }
  fs::path stop_path() const { return folder / fmt::format("stop-{}", launch); }
  int64_t blocks() const { return static_cast<int64_t>(begins.size()) - 1; }
  int64_t first(int64_t block) const { return begins.at(static_cast<size_t>(block)); }
  int64_t count(int64_t block) const { return begins.at(static_cast<size_t>(block) + 1) - first(block); }

  void open_files(int process) {
    tokens = open_or_throw(tokens_path(), O_WRONLY);
    done = open_or_throw(folder / fmt::format("done-{}-{}", launch, process), O_WRONLY | O_CREAT | O_APPEND);
  }

  void create(const std::string& words) {
    lock.clear();
    places = token_writing::create(tokens_path(), out, info, quantizer);
    const JobJson json = {{"places", {places.tokens, places.labels, places.split, places.source_ids, places.checksums}},
                       {"bytes", fs::file_size(tokens_path())}};
    base::write_file_atomic(folder / "job.txt", json.dump() + "\n" + words);
    left.resize(static_cast<size_t>(blocks()));
    for (int64_t block = 0; block < blocks(); ++block) left[static_cast<size_t>(block)] = block;
  }

  // False where the file of an earlier launch is not there in full.
  bool take_up(const std::string& words) {
    const std::string text = base::read_file(folder / "job.txt");
    const size_t end = std::min(text.find('\n'), text.size() - 1);
    const JobJson json = JobJson::parse(text.substr(0, end), nullptr, /*allow_exceptions=*/false);
    std::error_code error;
    const uint64_t size = fs::file_size(tokens_path(), error);
    if (json.is_discarded() || error || json.value("bytes", uint64_t{0}) != size) return false;
    if (text.substr(end + 1) != words)
      throw UserError("{}: holds work that was begun with {}; give the same options and images, or remove it",
                      folder.string(), first_difference(text.substr(end + 1), words));
    const auto at = json.at("places").get<std::vector<int64_t>>();
    places = {at.at(0), at.at(1), at.at(2), at.at(3), at.at(4)};
    for (const auto& entry : fs::directory_iterator(folder))
      launch = std::max(launch, launch_of(entry.path().filename().string()) + 1);
    const std::set<int64_t> good = intact();
    for (int64_t block = 0; block < blocks(); ++block)
      if (good.contains(block))
        rows_before += count(block);
      else
        left.push_back(block);
    return true;
  }

  // Blocks that a process says it has written and whose rows are those.
  std::set<int64_t> intact() const {
    std::vector<DoneBlock> said;
    for (const auto& entry : fs::directory_iterator(folder))
      if (launch_of(entry.path().filename().string()) > 0) read_done(entry.path(), blocks(), said);
    const base::MappedFile mapped(tokens_path());
    const token_layout::Columns columns = token_writing::columns_of(mapped, places);
    std::set<int64_t> good;
    for (const DoneBlock& one : said)
      if (!good.contains(one.block) &&
          token_layout::rows_checksum(info, columns, first(one.block), count(one.block)) == one.checksum)
        good.insert(one.block);
    return good;
  }
};

TokenFileJob::TokenFileJob(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TokenFileJob::TokenFileJob(TokenFileJob&&) noexcept = default;
TokenFileJob::~TokenFileJob() = default;

TokenFileJob TokenFileJob::begin(const fs::path& out, const TokenFileInfo& info, const QuantizerWeights& quantizer,
                                 const TokenFilePlan& plan) {
  token_layout::check_info(out.string(), info);
  token_layout::check_quantizer_sizes(out.string(), info, quantizer);
  VARSCALE_CHECK(plan.begins.size() >= 2 && plan.begins.front() == 0 && plan.begins.back() == info.rows() &&
                     std::is_sorted(plan.begins.begin(), plan.begins.end()),
                 "{} boundaries of blocks for {} rows", plan.begins.size(), info.rows());
  auto impl = std::make_unique<Impl>();
  impl->out = out;
  impl->folder = out.string() + ".part";
  impl->info = info;
  impl->quantizer = quantizer;
  impl->begins = plan.begins;
  const std::string words = token_layout::identity(info, quantizer) + "tokenizer_path " + info.tokenizer_path + "\n" +
                            plan.settings;
  const bool is_new = !fs::exists(impl->folder);
  impl->lock = base::LockedFolder(impl->folder, out, "another launch is writing it");
  try {
    // A folder without job.txt was left while it was made.
    if (!fs::exists(impl->folder / "job.txt") || !impl->take_up(words)) impl->create(words);
    impl->open_files(0);
  } catch (...) {
    std::error_code ignored;
    if (is_new) fs::remove_all(impl->folder, ignored);
    throw;
  }
  return TokenFileJob(std::move(impl));
}

std::string TokenFileJob::words() const {
  const Impl& from = *impl_;
  return JobJson{{"places",
               {from.places.tokens, from.places.labels, from.places.split, from.places.source_ids,
                from.places.checksums}},
              {"launch", from.launch},
              {"rows_before", from.rows_before},
              {"left", from.left},
              {"begins", from.begins},
              {"images", {from.info.train_images, from.info.validation_images, from.info.crops}},
              {"classes", from.info.classes},
              {"vocabulary", from.info.vocabulary},
              {"scales", from.info.scales}}
      .dump();
}

TokenFileJob TokenFileJob::join(const fs::path& out, int process, const std::string& words) {
  const JobJson json = JobJson::parse(words);
  auto impl = std::make_unique<Impl>();
  impl->out = out;
  impl->folder = out.string() + ".part";
  const auto at = json.at("places").get<std::vector<int64_t>>();
  impl->places = {at.at(0), at.at(1), at.at(2), at.at(3), at.at(4)};
  impl->launch = json.at("launch");
  impl->rows_before = json.at("rows_before");
  impl->left = json.at("left").get<std::vector<int64_t>>();
  impl->begins = json.at("begins").get<std::vector<int64_t>>();
  const auto images = json.at("images").get<std::vector<int64_t>>();
  impl->info.train_images = images.at(0), impl->info.validation_images = images.at(1), impl->info.crops = images.at(2);
  impl->info.classes = json.at("classes");
  impl->info.vocabulary = json.at("vocabulary");
  impl->info.scales = json.at("scales").get<std::vector<int64_t>>();
  impl->open_files(process);
  return TokenFileJob(std::move(impl));
}

const std::vector<int64_t>& TokenFileJob::left() const noexcept { return impl_->left; }

std::vector<int64_t> TokenFileJob::rows(int64_t block) const {
  return {impl_->first(block), impl_->first(block) + impl_->count(block)};
}

void TokenFileJob::write(int64_t block, const std::vector<uint16_t>& tokens, const std::vector<int32_t>& labels,
                         const std::vector<int64_t>& source_ids) {
  const Impl& to = *impl_;
  const int64_t first = to.first(block), count = to.count(block), length = to.info.tokens_per_image();
  VARSCALE_CHECK(tokens.size() == static_cast<size_t>(count * length) && labels.size() == static_cast<size_t>(count) &&
                     source_ids.size() == static_cast<size_t>(count),
                 "block {} has {} rows of {} tokens; {} tokens, {} labels and {} source ids came", block, count, length,
                 tokens.size(), labels.size(), source_ids.size());
  for (const uint16_t token : tokens)
    VARSCALE_CHECK(token < to.info.vocabulary, "token {} of {}", token, to.info.vocabulary);
  std::vector<uint8_t> split(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    const auto at = static_cast<size_t>(i);
    if (labels[at] < 0 || labels[at] >= to.info.classes)
      throw UserError("{}: row {} (image {}) has label {}; expected 0 to {}", to.out.string(), first + i,
                      source_ids[at],
                      labels[at], to.info.classes - 1);
    split[at] = first + i >= to.info.train_images * to.info.crops;
  }
  token_writing::write_rows(to.tokens.number(), to.tokens_path(), to.places, to.info,
                            {.first = first,
                             .count = count,
                             .tokens = tokens.data(),
                             .labels = labels.data(),
                             .source_ids = source_ids.data()});
  const auto bytes = [](const auto& column) { return reinterpret_cast<const std::byte*>(column.data()); };
  const uint64_t checksum = token_layout::rows_checksum(
      to.info, {bytes(tokens), bytes(labels), bytes(split), bytes(source_ids)}, /*first=*/0, count);
  // One call, appended as a whole.
  const std::string line = done_line(block, checksum);
  if (::write(to.done.number(), line.data(), line.size()) != static_cast<ssize_t>(line.size()))
    throw SystemError(to.folder.string() + ": cannot be written", errno);
}

int64_t TokenFileJob::rows_done() const {
  int64_t rows = impl_->rows_before;
  std::vector<DoneBlock> said;
  std::error_code error;
  for (fs::directory_iterator it(impl_->folder, error), end; !error && it != end; it.increment(error))
    if (launch_of(it->path().filename().string()) == impl_->launch) read_done(it->path(), impl_->blocks(), said);
  for (const DoneBlock& one : said) rows += impl_->count(one.block);
  return rows;
}

void TokenFileJob::ask_to_stop() const { open_or_throw(impl_->stop_path(), O_WRONLY | O_CREAT); }

bool TokenFileJob::asked_to_stop() const {
  std::error_code ignored;
  return fs::exists(impl_->stop_path(), ignored);
}

void TokenFileJob::commit() {
  const std::set<int64_t> good = impl_->intact();
  for (int64_t block = 0; block < impl_->blocks(); ++block)
    if (!good.contains(block))
      throw std::runtime_error(fmt::format("{}: rows {} to {} are not what was written; start again to write them anew",
                                           impl_->tokens_path().string(), impl_->first(block),
                                           impl_->first(block) + impl_->count(block) - 1));
  token_writing::finish(impl_->tokens_path(), impl_->out, impl_->info, impl_->quantizer, impl_->places);
  base::fsync_path(impl_->tokens_path());
  fs::rename(impl_->tokens_path(), impl_->out);
  base::fsync_path(impl_->out.has_parent_path() ? impl_->out.parent_path() : fs::path("."));
  discard();
}

void TokenFileJob::discard() noexcept {
  std::error_code ignored;
  fs::remove_all(impl_->folder, ignored);
}

}  // namespace varscale::records
