// var_sample: images from a trained run or a weights file, with a caption that says how they were made; and pictures
// changed by the same model: in-painting, out-painting, editing, super-resolution of the token maps.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/config.hpp"
#include "base/error.hpp"
#include "base/file.hpp"
#include "base/signals.hpp"
#include "comm/communicator.hpp"
#include "data/png.hpp"
#include "evaluate/resnet.hpp"
#include "generate/edit.hpp"
#include "generate/outputs.hpp"
#include "generate/pyramid.hpp"
#include "generate/reject.hpp"
#include "generate/sample_job.hpp"
#include "generate/sampler.hpp"
#include "sample_arguments.hpp"
#include "sample_model.hpp"
#include "sample_rejection.hpp"
#include "tokenizer/vqvae.hpp"

namespace varscale::apps {
namespace {

namespace fs = std::filesystem;
using base::ExitCode;
using base::UserError;
using Json = nlohmann::ordered_json;

constexpr int64_t kPixelsShown = 96;  // smaller images are enlarged by a whole factor

// --- what is drawn -------------------------------------------------------------------------------

int64_t class_of(const char* option, const std::string& word, const SampleModel& model) {
  const int64_t classes = model.model.shape().classes;
  int64_t number = -1;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), number);
  if (error == std::errc() && end == word.data() + word.size()) {
    if (number >= 0 && number < classes) return number;
    throw UserError("{}: {} is not a class; expected 0 to {}", option, number, classes - 1);
  }
  const auto found = std::ranges::find(model.class_names, word);
  if (found != model.class_names.end()) return found - model.class_names.begin();
  throw UserError("{}: no class is named {}{}", option, word, base::did_you_mean(word, model.class_names));
}

std::string name_of(int64_t label, const SampleModel& model) {
  if (label == model.model.shape().classes) return "none";
  return label < static_cast<int64_t>(model.class_names.size()) ? model.class_names[label] : fmt::format("{}", label);
}

std::vector<int64_t> classes_of(const std::string& list, const SampleModel& model) {
  const int64_t all = model.model.shape().classes;
  std::vector<int64_t> classes;
  if (list.empty() || list == "all") {
    const int64_t count = list.empty() ? std::min(all, kClassesByDefault) : all;
    for (int64_t c = 0; c < count; ++c) classes.push_back(c);
    return classes;
  }
  for (const std::string& word : CLI::detail::split(list, ',')) {
    classes.push_back(class_of("--classes", word, model));
    if (std::ranges::count(classes, classes.back()) > 1)
      throw UserError("--classes: {} is named twice", classes.back());
  }
  return classes;
}

// All that the command line asks for, in order.
struct Asked {
  std::vector<generate::Request> requests;
  std::vector<std::string> names;  // of files in a folder
  int64_t columns = 1;             // of the picture
  at::Tensor shown_u8_BXX3;        // what it has before the results; undefined: nothing
  Json facts;                      // for the caption
  std::string words;               // likewise
  std::string selected = "not selected";

  // Leaves some of them alone.
  void keep(const std::vector<int64_t>& numbers) {
    std::vector<generate::Request> some;
    std::vector<std::string> some_names;
    for (const int64_t i : numbers) some.push_back(requests[i]), some_names.push_back(names[i]);
    requests = std::move(some), names = std::move(some_names);
  }
};

Asked ask_for_classes(const Arguments& a, const SampleModel& model) {
  Asked asked;
  const std::vector<int64_t> classes = classes_of(a.classes, model);
  Json names = Json::array();
  const int64_t drawn = a.keep_share ? generate::candidates_for(a.per_class, *a.keep_share) : a.per_class;
  if (drawn > kImagesPerClass)
    throw UserError("--keep-share {:g}: asks for {} images of a class, expected at most {}", *a.keep_share, drawn,
                    kImagesPerClass);
  for (const int64_t c : classes) {
    names.push_back(name_of(c, model));
    for (int64_t j = 0; j < drawn; ++j) {
      asked.requests.push_back({.image = image_index(c, j), .label = c});
      asked.names.push_back(fmt::format("{:04}-{:06}", c, j));
    }
  }
  if (a.pyramid_alone()) asked.requests.resize(1), asked.names.resize(1);  // the others would not be seen
  asked.columns = a.per_class;
  asked.facts = {{"classes", classes},
                 {"class_names", std::move(names)},
                 {"per_class", a.per_class},
                 {"index_from_class_to_class", image_index(1, 0)}};
  if (a.keep_share) {
    asked.facts["candidates_per_class"] = drawn;
    asked.selected =
        fmt::format("of {} drawn of each class the {} that a classifier finds likeliest", drawn, a.per_class);
  }
  asked.words = fmt::format("Samples of {}, a row a class", model.words);
  return asked;
}

// The places that stay, and the caption's words for it.
at::Tensor kept_places(const Arguments& a, const generate::Picture& picture, const scaling::ScaleList& scales,
                       Json& facts) {
  if (a.task == Task::kSuper) {
    if (a.first_scales < 1 || a.first_scales > scales.count())
      throw UserError("--first-scales: {}, expected 1 to {}, the maps of the tokenizer", a.first_scales,
                      scales.count());
    facts["first_scales"] = a.first_scales;
    return generate::keep_first(scales, a.first_scales);
  }
  if (!a.mask.empty()) facts["mask_sha256"] = base::sha256_hex(base::read_file(a.mask));
  else facts["box"] = a.box;
  const at::Tensor marked_XX =
      a.mask.empty() ? picture.marked_by(generate::parse_box(a.box)) : picture.marked_by(a.mask);
  const at::Tensor keep_L =
      generate::keep_outside(scales, a.task == Task::kOutpaint ? marked_XX.logical_not() : marked_XX);
  if (keep_L.all().item<bool>()) {
    const int64_t cell = marked_XX.size(0) / scales.last_side();
    throw UserError("{}: leaves nothing to paint; expected at least half of a cell of {} x {} pixels {}",
                    a.mask.empty() ? "--box " + a.box : a.mask.string(), cell, cell,
                    a.task == Task::kOutpaint ? "without a mark" : "marked");
  }
  return keep_L;
}

Asked ask_for_edits(const Arguments& a, const SampleModel& model, const tokenizer::Vqvae& tokenizer) {
  const scaling::VarShape& shape = model.model.shape();
  const int64_t label = a.label.empty() ? shape.classes : class_of("--class", a.label, model);
  const generate::Picture picture = generate::Picture::read(a.image, tokenizer.config().image_side);
  Asked asked;
  asked.facts = {{"task", name_of(a.task)},
                 {"image", a.image.filename().string()},
                 {"image_sha256", base::sha256_hex(base::read_file(a.image))},
                 {"class", label},
                 {"class_name", name_of(label, model)}};
  const at::Tensor keep_L = kept_places(a, picture, shape.tokens.scales, asked.facts);
  const at::Tensor tokens_1L = tokenizer.tokens(picture.x_13XX());
  asked.facts["tokens_given"] = keep_L.sum().item<int64_t>();
  asked.facts["tokens"] = keep_L.numel();
  asked.facts["count"] = a.count;
  for (int64_t j = 0; j < a.count; ++j) {
    asked.requests.push_back({.image = j, .label = label, .given = {.tokens_L = tokens_1L[0], .keep_L = keep_L}});
    asked.names.push_back(fmt::format("{:06}", j));
  }
  asked.columns = a.count + 3;
  asked.shown_u8_BXX3 =
      at::cat({picture.pixels_u8_XX3().unsqueeze(0), data::to_u8_BHWC(tokenizer.decode_tokens(tokens_1L)),
               generate::shown_as_given(tokenizer, tokens_1L, keep_L)});
  asked.words =
      fmt::format("{}, what the tokenizer makes of it, what of that is given, and results of {} by {} (class {})",
                  a.image.filename().string(), name_of(a.task), model.words, name_of(label, model));
  return asked;
}

// --- captions and outputs ------------------------------------------------------------------------

int64_t enlarged_by(const tokenizer::Vqvae& tokenizer) {
  return std::max<int64_t>(1, kPixelsShown / tokenizer.config().image_side);
}

Json caption_of(const Arguments& a, const SampleModel& model, const tokenizer::Vqvae& tokenizer, const Asked& asked) {
  const generate::SamplingOptions& s = a.sampling;
  std::string choice = s.top_k > 0 ? fmt::format(", top-k {}", s.top_k) : "";
  if (s.top_p > 0) choice += fmt::format(", top-p {:g}", s.top_p);
  if (s.temperature != 1) choice += fmt::format(", temperature {:g}", s.temperature);
  if (s.smooth) choice += ", smoothed";
  Json caption;
  caption["caption"] = fmt::format("{}: guidance {:g} at the last map{}, seed {}; {}.", asked.words, s.cfg, choice,
                                   s.seed, asked.selected);
  caption.update(model.facts);
  caption["tokenizer"] = tokenizer.fingerprint();
  caption["scales"] = tokenizer.config().scales;
  caption["image_side"] = tokenizer.config().image_side;
  caption.update(asked.facts);
  caption["cfg"] = s.cfg;
  caption["cfg_rule"] = "logits (1 + t) cond - t uncond, t = cfg k / (S - 1)";
  caption["top_k"] = s.top_k;
  caption["top_p"] = s.top_p;
  caption["temperature"] = s.temperature;
  caption["smooth"] = s.smooth;
  caption["seed"] = s.seed;
  caption["group"] = s.group;
  caption["precision"] = a.precision;
  caption["threads"] = at::get_num_threads();
  if (!a.out.empty() || !a.pyramid.empty()) caption["enlarged"] = enlarged_by(tokenizer);
  if (!a.pyramid.empty()) caption["pyramid"] = "of the first image: its token maps, and below the image after each";
  if (!a.npz.empty()) {
    caption["order_seed"] = a.order_seed;
    caption["order_rule"] = "row r is image order(r) of the classes' images one after another";
  }
  if (a.npz_tokens) caption["npz_tokens"] = "arr_2 has the tokens of the rows, map after map of the sides in scales";
  return caption;
}

std::string text_of(const Json& caption) {
  return caption.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";  // names of files need not be UTF-8
}

evaluate::ResNet50 load_classifier(const Arguments& a, const SampleModel& model) {
  evaluate::ResNet50 classifier = evaluate::ResNet50::load(a.classifier);
  if (classifier.classes() != model.model.shape().classes)
    throw UserError("--classifier {}: tells {} classes apart, the model was trained on {}; expected the same ones in "
                    "the same order",
                    a.classifier.string(), classifier.classes(), model.model.shape().classes);
  return classifier;
}

void add_rejection(Json& caption, const Arguments& a, const evaluate::ResNet50& classifier, const Kept& kept) {
  caption["classifier"] = {{"file", a.classifier.filename().string()}, {"identity", classifier.identity()}};
  caption["keep_share"] = *a.keep_share;
  caption["keep_rule"] = "of each class the images to which the classifier gives the largest probability of the class";
  caption["probability_of_all"] = kept.mean_of_all;
  caption["probability_of_kept"] =
      std::accumulate(kept.probability.begin(), kept.probability.end(), 0.0) /
      static_cast<double>(kept.probability.size());
}

// Beside each output; all say the same.
std::vector<fs::path> captions_of(const Arguments& a) {
  std::vector<fs::path> captions;
  for (fs::path path : {a.npz, a.out, a.pyramid})
    if (!path.empty()) captions.push_back(path.replace_extension(".json"));
  if (!a.images.empty()) captions.push_back(a.images.string() + ".json");
  return captions;
}

// What has to be equal for a launch to go on with the images of another: the caption without what changes no pixel.
Json settings_of(Json caption) {
  for (const char* key : {"caption", "class_names", "class_name", "image", "cfg_rule", "threads", "enlarged",
                          "order_seed", "order_rule", "pyramid", "npz_tokens"})
    caption.erase(key);
  return caption;
}

void refuse_impossible_outputs(const Arguments& a) {
  for (const fs::path& path : {a.out, a.npz, a.images, a.pyramid})
    if (!path.empty()) base::require_writable_folder(path.has_parent_path() ? path.parent_path() : fs::path("."));
  for (const fs::path& path : {a.out, a.npz, a.pyramid})
    if (fs::is_directory(path)) throw UserError("{}: is a folder, expected the name of a file", path.string());
  // A launch that was killed after it has left its own.
  const bool goes_on = fs::exists(a.part() / "job.json") && fs::exists(a.images_begun());
  if (!a.images.empty() && fs::exists(a.images) && !goes_on)
    throw UserError("--images {}: is there already", a.images.string());
}

void write_pyramid(const fs::path& path, const std::vector<uint16_t>& tokens, const tokenizer::Vqvae& tokenizer) {
  const at::Tensor tokens_1L =
      at::tensor(std::vector<int64_t>(tokens.begin(), tokens.end()), at::kLong).unsqueeze(0);
  const at::Tensor pictures_BXX3 = generate::pyramid(tokenizer, tokens_1L);
  data::write_png(path, data::enlarge(data::grid(pictures_BXX3, pictures_BXX3.size(0) / 2), enlarged_by(tokenizer)));
}

void write_outputs(const Arguments& a, const generate::SampleJob& job, const std::vector<int64_t>& drawn,
                   const Asked& asked, const Json& caption, const tokenizer::Vqvae& tokenizer) {
  const int64_t side = tokenizer.config().image_side, tokens = tokenizer.quantizer().config().scales.tokens();
  if (!a.pyramid.empty()) {
    std::vector<uint16_t> first_L(static_cast<size_t>(tokens));
    job.read_tokens(drawn.front(), first_L.data());
    write_pyramid(a.pyramid, first_L, tokenizer);
  }
  generate::ImageSupply images{
      .side = side, .labels = {}, .read = [&](int64_t i, uint8_t* out) { job.read(drawn.at(i), out); }};
  for (const generate::Request& request : asked.requests) images.labels.push_back(request.label);
  if (a.npz_tokens) {
    images.tokens = tokens;
    images.read_tokens = [&](int64_t i, uint16_t* out_L) { job.read_tokens(drawn.at(i), out_L); };
  }
  if (!a.npz.empty()) generate::write_npz(a.npz, images, a.order_seed);
  if (!a.images.empty() && !(fs::exists(a.images) && fs::exists(a.images_begun()))) {
    base::write_file_atomic(a.images_begun(), "");
    generate::write_image_folder(a.images, images, asked.names);
  }
  if (!a.out.empty()) {
    at::Tensor images_u8_BXX3 = at::empty({static_cast<int64_t>(asked.requests.size()), side, side, 3}, at::kByte);
    for (int64_t i = 0; i < images_u8_BXX3.size(0); ++i)
      images.read(i, images_u8_BXX3[i].mutable_data_ptr<uint8_t>());
    if (asked.shown_u8_BXX3.defined()) images_u8_BXX3 = at::cat({asked.shown_u8_BXX3, images_u8_BXX3});
    data::write_png(a.out, data::enlarge(data::grid(images_u8_BXX3, asked.columns), enlarged_by(tokenizer)));
  }
  for (const fs::path& path : captions_of(a)) base::write_file_atomic(path, text_of(caption));
}

ExitCode draw(const Arguments& a, comm::Communicator& world) {
  const base::StopSignals stop;  // before any thread computes
  const data::VipsRuntime vips("var_sample");
  const bool is_first = world.rank() == 0;
  std::optional<tokenizer::Vqvae> tokenizer;
  std::optional<SampleModel> model;
  std::optional<generate::Sampler> sampler;
  std::optional<evaluate::ResNet50> classifier;
  Asked asked;
  comm::agree_on(world, "model", [&] {
    tokenizer.emplace(tokenizer::Vqvae::load(a.tokenizer));
    model.emplace(load_sample_model(a.from, a.tokens, a.tokenizer, *tokenizer));
    sampler.emplace(model->model, tokenizer->quantizer(), a.sampling);
    asked = a.task == Task::kSample ? ask_for_classes(a, *model) : ask_for_edits(a, *model, *tokenizer);
    if (!a.classifier.empty()) classifier.emplace(load_classifier(a, *model));
    if (is_first) refuse_impossible_outputs(a);
  });
  Json caption = caption_of(a, *model, *tokenizer, asked);
  tokenizer->decode_in(a.sampling.compute);  // the last use of its fingerprint was the caption

  generate::SampleJob job({.folder = a.part(),
                           .requests = asked.requests,
                           .group = a.sampling.group,
                           .side = tokenizer->config().image_side,
                           .tokens = tokenizer->quantizer().config().scales.tokens(),
                           .batch = a.batch,
                           .settings = settings_of(caption)},
                          world);
  if (is_first && job.images_before() > 0)
    fmt::print(stderr, "var_sample: {} of {} images are there already\n", job.images_before(), asked.requests.size());
  if (!job.draw(*sampler, *tokenizer, [&] { return stop.requested(); })) {
    if (is_first)
      fmt::print(stderr, "var_sample: stopped after {} of {} images, kept in {}; start it again to go on\n",
                 job.images_done(), asked.requests.size(), a.part().string());
    return ExitCode::kStopped;
  }
  std::vector<int64_t> drawn(asked.requests.size());  // where each output image lies among the drawn ones
  std::iota(drawn.begin(), drawn.end(), 0);
  if (classifier) {
    const Kept kept = keep_by_classifier(*classifier, job, asked.requests, a.per_class, world);
    drawn = kept.candidates;
    asked.keep(drawn);
    add_rejection(caption, a, *classifier, kept);
  }
  comm::agree_on(world, "outputs", [&] {
    if (is_first) write_outputs(a, job, drawn, asked, caption, *tokenizer);
    job.finish();
  });
  if (is_first && a.json) fmt::print("{}", text_of(caption));
  if (is_first && !a.json) {
    for (const fs::path& path : {a.npz, a.images, a.out, a.pyramid})
      if (!path.empty()) fmt::print("{}\n", path.string());
    fmt::print("{}\n", caption["caption"].get<std::string>());
  }
  return ExitCode::kDone;
}

ExitCode run(int argc, char** argv) {
  Arguments a;
  if (!parse_arguments(argc, argv, a)) return ExitCode::kDone;
  const auto world = comm::open_world();
  return comm::end_together(*world, [&] { return draw(a, *world); });
}

}  // namespace
}  // namespace varscale::apps

int main(int argc, char** argv) {
  return varscale::base::run_main("var_sample", [&] { return varscale::apps::run(argc, argv); });
}
