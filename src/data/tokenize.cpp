#include "data/tokenize.hpp"

#include <ATen/ATen.h>
#include <vips/vips.h>

#include <algorithm>
#include <chrono>
#include <future>
#include <nlohmann/json.hpp>
#include <numeric>
#include <utility>

#include "base/error.hpp"
#include "base/file.hpp"
#include "base/progress.hpp"
#include "data/png.hpp"
#include "records/token_file_job.hpp"

namespace varscale::data {
namespace {

using base::UserError;

void check_options(const TokenizeOptions& options) {
  if (options.crops < 1) throw UserError("--crops {}: expected at least 1", options.crops);
  if (options.batch < 1) throw UserError("--batch {}: expected at least 1", options.batch);
  if (options.validation_labels && !options.validation) {
    throw UserError("--val-labels {}: needs --val, the folder of those images",
                    options.validation_labels->string());
  }
  std::error_code error;
  if (options.validation && (options.train == *options.validation ||
                             std::filesystem::equivalent(options.train, *options.validation, error))) {
    throw UserError("--val {}: is the training source too; expected other images, or --split",
                    options.validation->string());
  }
}

SplitSets open_sets(const TokenizeOptions& options) {
  ImageSet train = ImageSet::open(options.train);
  if (!options.validation) return split(train, options.split, options.seed);
  ImageSet validation = options.validation_labels
                            ? ImageSet::open_flat(*options.validation, *options.validation_labels,
                                                  train.class_names())
                            : ImageSet::open(*options.validation, &train.class_names());
  return {std::move(train), std::move(validation)};
}

// Decodes a part of the set on every rank.
std::vector<CorruptImage> find_corrupt_together(const ImageSet& set, comm::Communicator& world) {
  std::vector<CorruptImage> mine, all;
  const int64_t rank = world.rank(), ranks = world.size();
  comm::agree_on(world, "unreadable images",
                 [&] { mine = find_corrupt(set, set.size() * rank / ranks, set.size() * (rank + 1) / ranks); });
  for (int root = 0; root < world.size(); ++root) {
    nlohmann::json json = nlohmann::json::array();
    if (root == world.rank())
      for (const CorruptImage& image : mine) json.push_back({image.number, image.reason});
    const auto replace = nlohmann::json::error_handler_t::replace;  // names need not be UTF-8
    json = nlohmann::json::parse(world.broadcast_bytes(json.dump(-1, ' ', false, replace), root, "unreadable images"));
    for (const auto& image : json) all.push_back({image.at(0), image.at(1)});
  }
  return all;
}

ImageSet without_corrupt(const ImageSet& set, comm::Communicator& world, std::vector<CorruptImage>& skipped) {
  const std::vector<CorruptImage> corrupt = find_corrupt_together(set, world);
  skipped.insert(skipped.end(), corrupt.begin(), corrupt.end());
  std::vector<int64_t> good;
  auto bad = corrupt.begin();
  for (int64_t i = 0; i < set.size(); ++i) {
    if (bad != corrupt.end() && bad->number == i) {
      ++bad;
    } else {
      good.push_back(i);
    }
  }
  comm::agree_on(world, "readable images", [&] {
    if (good.empty()) throw UserError("{}: no image can be read", set.source().string());
  });
  return set.subset(good);
}

// 2 bytes a token, 13 for label, split and source id.
int64_t row_bytes(const records::TokenFileInfo& info) { return info.rows() * (2 * info.tokens_per_image() + 13); }

std::string combined_fingerprint(const SplitSets& sets) {
  return base::sha256_hex(sets.train.fingerprint() + sets.validation.fingerprint(), 16);
}

// What is to be done, the same on every rank.
struct Job {
  SplitSets sets;
  Preprocessing how;
  records::TokenFileInfo info;
  std::vector<CorruptImage> skipped;
};

Job make_job(const TokenizeOptions& options, const ImageEncoder& encoder, comm::Communicator& world) {
  Job job;
  comm::agree_on(world, "images", [&] {
    check_options(options);
    job.sets = open_sets(options);
  });
  if (options.skip_corrupt) {
    job.sets = {without_corrupt(job.sets.train, world, job.skipped),
                without_corrupt(job.sets.validation, world, job.skipped)};
  }
  const SplitSets& sets = job.sets;
  // Several crops of an image that fills the crop exactly would be one image several times.
  job.how = {.side = encoder.image_side,
             .keep_exact = !options.always_resize && options.crops == 1,
             .seed = options.seed};
  records::TokenFileInfo& info = job.info;
  info.train_images = sets.train.size();
  info.validation_images = sets.validation.size();
  info.crops = options.crops;
  info.class_names = sets.train.class_names();
  info.classes = static_cast<int64_t>(info.class_names.size());
  info.vocabulary = encoder.quantizer.vocabulary;
  info.scales = encoder.scales;
  info.image_side = encoder.image_side;
  info.tokenizer_fingerprint = encoder.fingerprint;
  info.tokenizer_path = encoder.path;
  info.preprocessing = job.how.words();
  info.source_fingerprint = combined_fingerprint(sets);
  info.precision = encoder.precision;
  info.train_source = {.crop_seed = job.how.seed,
                       .keep_exact = job.how.keep_exact,
                       .fingerprint = sets.train.fingerprint()};
  const std::string first_sees = world.broadcast_bytes(info.source_fingerprint + encoder.fingerprint, 0,
                                                       "what is read");
  comm::agree_on(world, "what is read", [&] {
    if (first_sees != info.source_fingerprint + encoder.fingerprint)
      throw UserError("{}: rank {} sees other images or another tokenizer there than rank 0; expected folders that all "
                      "nodes share",
                      options.train.string(), world.rank());
  });
  return job;
}

// Numbers of images of one of the sets, in order.
struct Block {
  bool train = true;
  int64_t begin = 0, end = 0;
  std::vector<int64_t> numbers() const {
    std::vector<int64_t> list(static_cast<size_t>(end - begin));
    std::iota(list.begin(), list.end(), begin);
    return list;
  }
};

// The blocks of a file, by their number.
class Blocks {
 public:
  Blocks(const records::TokenFileInfo& info, int64_t batch)
      : info_(info), batch_(batch), train_blocks_((info.train_images + batch - 1) / batch) {}
  int64_t count() const { return train_blocks_ + (info_.validation_images + batch_ - 1) / batch_; }
  int64_t train_blocks() const { return train_blocks_; }
  Block at(int64_t i) const {
    const bool train = i < train_blocks_;
    const int64_t begin = (train ? i : i - train_blocks_) * batch_;
    return {train, begin, std::min(begin + batch_, train ? info_.train_images : info_.validation_images)};
  }
  std::vector<int64_t> row_begins() const {
    std::vector<int64_t> begins;
    for (int64_t i = 0; i < count(); ++i) {
      const Block block = at(i);
      begins.push_back(block.train ? block.begin * info_.crops : info_.train_images * info_.crops + block.begin);
    }
    begins.push_back(info_.rows());
    return begins;
  }

 private:
  const records::TokenFileInfo& info_;
  int64_t batch_, train_blocks_;
};

// Crops [first_crop, first_crop + crops) of a block: what is decoded at a time.
struct Part {
  int64_t block = 0;
  int64_t first_crop = 0, crops = 1;
  bool last = true;  // of its block
};

std::vector<Part> parts_of(const std::vector<int64_t>& blocks, const Blocks& layout, int64_t crops) {
  constexpr int64_t kCropsAtATime = 8;
  std::vector<Part> parts;
  for (const int64_t block : blocks) {
    const int64_t all = layout.at(block).train ? crops : 1;
    for (int64_t first = 0; first < all; first += kCropsAtATime) {
      const int64_t end = std::min(first + kCropsAtATime, all);
      parts.push_back({block, first, end - first, end == all});
    }
  }
  return parts;
}

// The rows of one block as they come.
struct Rows {
  std::vector<uint16_t> tokens;
  std::vector<int32_t> labels;
  std::vector<int64_t> source_ids;
};

// Decodes and encodes blocks of one job.
class Maker {
 public:
  Maker(const Job& job, const ImageEncoder& encoder, const Blocks& blocks)
      : job_(job),
        encoder_(encoder),
        blocks_(blocks),
        train_(job.sets.train, job.how, Crop::kRandom, /*cache_bytes=*/0),
        validation_(job.sets.validation, job.how, Crop::kCentre, /*cache_bytes=*/0) {}

  at::Tensor decode_u8_NBHWC(const Part& part) const {
    const Block block = blocks_.at(part.block);
    return (block.train ? train_ : validation_).crops_u8_NBHWC(block.numbers(), part.first_crop, part.crops);
  }

  // Puts the tokens of the part where they belong among the block's rows.
  void encode(const Part& part, const at::Tensor& images_u8_NBHWC, Rows& rows) const {
    const Block block = blocks_.at(part.block);
    const ImageSet& set = block.train ? job_.sets.train : job_.sets.validation;
    const int64_t crops = block.train ? job_.info.crops : 1, length = job_.info.tokens_per_image();
    const int64_t images = block.end - block.begin;
    if (part.first_crop == 0) {
      rows.tokens.assign(static_cast<size_t>(images * crops * length), 0);
      rows.labels.clear();
      rows.source_ids.clear();
      for (int64_t i = 0; i < images * crops; ++i) {
        rows.labels.push_back(static_cast<int32_t>(set.label(block.begin + i / crops)));
        rows.source_ids.push_back(set.source_id(block.begin + i / crops));
      }
    }
    for (int64_t n = 0; n < part.crops; ++n) {
      const at::Tensor x_BCHW = to_float_BCHW(images_u8_NBHWC[n].to(encoder_.device));
      const at::Tensor tokens_BL = encoder_.encode(x_BCHW).to(at::kCPU, at::kLong).contiguous();
      VARSCALE_CHECK(tokens_BL.dim() == 2 && tokens_BL.size(1) == length && tokens_BL.size(0) == images,
                     "the encoder gave {} numbers for {} images of {} tokens", tokens_BL.numel(), images, length);
      const int64_t* token = tokens_BL.const_data_ptr<int64_t>();
      for (int64_t b = 0; b < images; ++b) {
        uint16_t* row = rows.tokens.data() + (b * crops + part.first_crop + n) * length;
        for (int64_t l = 0; l < length; ++l, ++token) {
          VARSCALE_CHECK(*token >= 0 && *token < job_.info.vocabulary, "token {} of {}", *token, job_.info.vocabulary);
          row[l] = static_cast<uint16_t>(*token);
        }
      }
    }
  }

 private:
  const Job& job_;
  const ImageEncoder& encoder_;
  const Blocks& blocks_;
  ImageBatches train_, validation_;
};

// All rows of all ranks, drawn by the first; counting them reads files, so not after every block.
class JobProgress {
 public:
  JobProgress(const records::TokenFileJob& job, int64_t rows, bool first)
      : job_(job), line_("tokenize", rows, "images", first ? Progress::Style::kAuto : Progress::Style::kSilent) {
    done_ = job_.rows_done();
    line_.set(done_);
  }
  void update() {
    const auto now = std::chrono::steady_clock::now();
    if (now - counted_ < std::chrono::seconds(1)) return;
    counted_ = now;
    const int64_t done = job_.rows_done();
    line_.advance(done - std::exchange(done_, done));
  }
  void finish(int64_t done) {
    line_.advance(done - std::exchange(done_, done));
    line_.finish();
  }
  void say(const std::string& sentence) { line_.say(sentence); }

 private:
  using Progress = base::Progress;
  const records::TokenFileJob& job_;
  Progress line_;
  int64_t done_ = 0;
  std::chrono::steady_clock::time_point counted_ = std::chrono::steady_clock::now();
};

// Encodes the blocks, in order, decoding the next part meanwhile; false if told to stop before the last.
bool write_blocks(const std::vector<int64_t>& mine, const Maker& maker, const Blocks& blocks, int64_t crops,
                  records::TokenFileJob& file, JobProgress& progress, const std::function<bool()>& stop) {
  const std::vector<Part> parts = parts_of(mine, blocks, crops);
  const auto decode = [&](const Part& part) {
    struct ThreadEnd {
      ~ThreadEnd() { vips_thread_shutdown(); }
    } end;
    return maker.decode_u8_NBHWC(part);
  };
  const auto told_to_stop = [&] {
    if (stop && stop()) file.ask_to_stop();
    return file.asked_to_stop();
  };
  Rows rows;
  std::future<at::Tensor> next;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (parts[i].first_crop == 0 && told_to_stop()) return false;
    if (i == 0) next = std::async(std::launch::async, decode, parts[i]);
    const at::Tensor images_u8_NBHWC = next.get();
    if (i + 1 < parts.size()) next = std::async(std::launch::async, decode, parts[i + 1]);
    maker.encode(parts[i], images_u8_NBHWC, rows);
    if (!parts[i].last) continue;
    file.write(parts[i].block, rows.tokens, rows.labels, rows.source_ids);
    progress.update();
  }
  return true;
}

std::string size_words(const records::TokenFileInfo& info) {
  return fmt::format("{} training images x {} crop{} and {} validation images: {} rows of {} tokens, {}",
                     info.train_images, info.crops, info.crops == 1 ? "" : "s", info.validation_images, info.rows(),
                     info.tokens_per_image(), base::format_bytes(static_cast<double>(row_bytes(info))));
}

}  // namespace

TokenizeReport tokenize(const TokenizeOptions& options, const ImageEncoder& encoder, comm::Communicator& world,
                        const std::function<bool()>& stop) {
  const at::NoGradGuard no_grad;
  // Ranks end when their share is done, which may be long after the first; a rank that is lost ends the launch.
  world.set_deadline(30.0 * 24 * 3600);
  const Job job = make_job(options, encoder, world);
  const Blocks blocks(job.info, options.batch);
  std::optional<records::TokenFileJob> file;
  const bool is_first = world.rank() == 0;
  const auto settings = fmt::format("batch {}\ncrop_seed {}\n", options.batch, job.how.seed);
  comm::agree_on(world, "token file", [&] {
    if (is_first)
      file.emplace(records::TokenFileJob::begin(options.out, job.info, encoder.quantizer,
                                                {blocks.row_begins(), settings}));
  });
  const std::string words = world.broadcast_bytes(is_first ? file->words() : "", 0, "token file");
  comm::agree_on(world, "token file", [&] {
    if (!is_first) file.emplace(records::TokenFileJob::join(options.out, world.rank(), words));
  });
  JobProgress progress(*file, job.info.rows(), is_first);
  if (is_first) {
    std::string sentence = size_words(job.info);
    if (world.size() > 1) sentence += fmt::format("; {} ranks", world.size());
    if (const int64_t before = file->rows_done(); before > 0)
      sentence += fmt::format("; {} rows are there already", before);
    progress.say(sentence);
  }
  const auto& left = file->left();
  const auto place = [&](int rank) { return left.begin() + static_cast<int64_t>(left.size()) * rank / world.size(); };
  bool complete = false;
  try {
    complete = write_blocks({place(world.rank()), place(world.rank() + 1)}, Maker(job, encoder, blocks), blocks,
                            options.crops, *file, progress, stop);
  } catch (const UserError& error) {
    // With nothing done there is nothing to go on from.
    const int64_t done = file->rows_done();
    if (done == 0) {
      file->discard();
      throw;
    }
    throw UserError("{}; the {} rows done are kept in {}.part, and the same command goes on there", error.what(), done,
                    options.out.string());
  }
  at::Tensor all_complete = at::full({1}, static_cast<int64_t>(complete), at::kLong);
  world.all_reduce(all_complete, comm::Reduce::kMin, "end of the encoding").wait();
  TokenizeReport report{job.info, job.skipped, all_complete.item<int64_t>() == 0, file->rows_done()};
  if (!report.stopped)
    comm::agree_on(world, "token file", [&] {
      if (is_first) file->commit();
    });
  progress.finish(report.rows_done);
  return report;
}

TokenizeReport tokenize(const TokenizeOptions& options, const ImageEncoder& encoder) {
  const auto alone = comm::make_self();
  return tokenize(options, encoder, *alone);
}

TokenizePlan plan_tokenize(const TokenizeOptions& options, const ImageEncoder& encoder) {
  const at::NoGradGuard no_grad;
  const auto alone = comm::make_self();
  const Job job = make_job(options, encoder, *alone);
  const Blocks blocks(job.info, options.batch);
  const Maker maker(job, encoder, blocks);
  const Part part{.block = 0, .first_crop = 0, .crops = 1};
  Rows rows;
  using Clock = std::chrono::steady_clock;
  const auto seconds = [](Clock::duration duration) { return std::chrono::duration<double>(duration).count(); };
  maker.encode(part, maker.decode_u8_NBHWC(part), rows);  // the first one pays for what is set up once
  const auto begin = Clock::now();
  const at::Tensor images_u8_NBHWC = maker.decode_u8_NBHWC(part);
  const auto decoded = Clock::now();
  maker.encode(part, images_u8_NBHWC, rows);
  const double decode_s = seconds(decoded - begin), encode_s = seconds(Clock::now() - decoded);
  const Block block = blocks.at(0);
  return {.info = job.info,
          .skipped = job.skipped,
          .file_bytes = row_bytes(job.info),
          .rows_per_s = static_cast<double>(block.end - block.begin) / std::max(decode_s, encode_s),
          .decoding_share = decode_s / (decode_s + encode_s)};
}

}  // namespace varscale::data
