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
#include <optional>
#include <string>
#include <vector>

#include "base/command_line.hpp"
#include "base/config.hpp"
#include "base/error.hpp"
#include "base/file.hpp"
#include "base/signals.hpp"
#include "comm/communicator.hpp"
#include "data/png.hpp"
#include "generate/edit.hpp"
#include "generate/outputs.hpp"
#include "generate/pyramid.hpp"
#include "generate/sample_job.hpp"
#include "generate/sampler.hpp"
#include "sample_model.hpp"
#include "tokenizer/vqvae.hpp"

namespace varscale::apps {
namespace {

namespace fs = std::filesystem;
using base::ExitCode;
using base::UserError;
using Json = nlohmann::ordered_json;

constexpr const char* kAbout =
    "Draws images of the classes that a model was trained on, as one picture with a row a class, as a folder of PNG\n"
    "files or as one .npz archive, and writes a JSON file beside each that says how they were made. An image depends\n"
    "on the model, the settings, the seed, its class and its number alone: other classes or more images leave it as\n"
    "it is.";

constexpr const char* kExamples = R"(
Other commands, each with its own --help:
  var_sample inpaint   the model fills in what --mask or --box marks
  var_sample outpaint  the model makes all but what --mask or --box marks
  var_sample edit      as inpaint, with a class of its own: --class
  var_sample super     the first token maps of a picture are given, the model adds the others

Examples:
  var_sample results/quickstart/runs/d5-s0-1f3a9c --tokenizer results/quickstart/tokenizer.safetensors
  var_sample d16.safetensors --tokenizer vae.safetensors --classes 207,360,387 --cfg 4 --top-k 900 --top-p 0.95
  launch/mpirun.sh -n 8 var_sample RUN --tokenizer TOK --classes all --per-class 50 --npz samples.npz
  var_sample RUN --tokenizer TOK --classes 3 --pyramid pyramid.png
  var_sample inpaint RUN --tokenizer TOK --image cat.png --box 64,64,192,192 --out cat-filled.png

Exit codes: 0 done, 2 bad input, 75 stopped by a signal and to be started again, others failure.)";

enum class Task { kSample, kInpaint, kOutpaint, kEdit, kSuper };
struct Command {
  const char* name;
  Task task;
  const char* about;
};
constexpr Command kCommands[] = {
    {"inpaint", Task::kInpaint,
     "Gives an image to the model without what --mask or --box marks, which the model fills in. The\n"
     "picture shows the image, what the tokenizer makes of it, and the results."},
    {"outpaint", Task::kOutpaint,
     "Gives the model only the part of an image that --mask or --box marks; it makes the rest. The\n"
     "picture shows the image, what the tokenizer makes of it, and the results."},
    {"edit", Task::kEdit,
     "Fills what --mask or --box marks in an image with something of another class. The picture shows\n"
     "the image, what the tokenizer makes of it, and the results."},
    {"super", Task::kSuper,
     "Gives the first token maps of an image to the model, which adds the finer ones. The picture shows\n"
     "the image, what the tokenizer makes of it, and the results."},
};

const char* name_of(Task task) {
  return std::ranges::find(kCommands, task, &Command::task)->name;
}

constexpr int64_t kClassesByDefault = 16;
constexpr int64_t kPixelsShown = 96;  // smaller images are enlarged by a whole factor

struct Arguments {
  Task task = Task::kSample;
  fs::path from, tokenizer, tokens, out, npz, images;
  std::string precision = "fp32";
  generate::SamplingOptions sampling;
  int64_t batch = 64;
  bool json = false;
  // kSample
  std::string classes;
  int64_t per_class = 8;
  uint64_t order_seed = 0;
  fs::path pyramid;
  // the others
  fs::path image, mask;
  std::string box, label;
  int64_t count = 4, first_scales = 0;

  // Where a launch keeps what it has drawn so far; and in it, a file that says that the folder of images was begun.
  fs::path part() const {
    return (!npz.empty() ? npz : !images.empty() ? images : !out.empty() ? out : pyramid).string() + ".part";
  }
  bool pyramid_alone() const { return !pyramid.empty() && npz.empty() && images.empty() && out.empty(); }
  fs::path images_begun() const { return part() / "images-begun"; }
};

void add_common(CLI::App& app, Arguments& a) {
  app.add_option("MODEL", a.from, "folder of a run, <sweep>/runs/<id>, or a weights file")->required();
  app.add_option("--tokenizer", a.tokenizer, "the tokenizer that made the model's tokens")->required();
  app.add_option("--tokens", a.tokens, "the run's token file, if it was moved");
  app.add_option("--cfg", a.sampling.cfg, "end of the guidance ramp; 0: no guidance (default 1.5)");
  app.add_option("--top-k", a.sampling.top_k, "keep the k likeliest tokens; 0: all (default 0)");
  app.add_option("--top-p", a.sampling.top_p,
                 "keep the likeliest tokens of this total; 0: all (default 0)");
  app.add_option("--temperature", a.sampling.temperature, "divides the logits (default 1)");
  app.add_flag("--smooth", a.sampling.smooth, "mixtures of codes by Gumbel softmax: smoother, for pictures alone");
  app.add_option("--seed", a.sampling.seed, "of the draws (default 0)");
  app.add_option("--group", a.sampling.group,
                 "images computed together; changes roundings (default 8)");
  app.add_option("--batch", a.batch, "images a rank draws between two writes, in whole groups (default 64)")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30));
  app.add_option("--precision", a.precision, "of model and decoder: fp32 or bf16 (default fp32)")
      ->check(CLI::IsMember({"fp32", "bf16"}));
  app.add_option("--out", a.out, "the picture; its caption has the same name and .json (default samples.png)");
  app.add_option("--images", a.images, "folder to make, with one PNG an image");
  app.add_flag("--json", a.json, "print the caption as JSON instead of words");
}

void add_sample(CLI::App& app, Arguments& a) {
  app.add_option("--classes", a.classes,
                 fmt::format("all, or numbers and names, as 0,3,7 (default: all, at most the first {})",
                             kClassesByDefault));
  app.add_option("--per-class", a.per_class, "images of each class (default 8)")
      ->check(CLI::Range(int64_t{1}, kImagesPerClass));
  CLI::Option* npz = app.add_option("--npz", a.npz, "archive for evaluators: arr_0 uint8 [N,H,W,3], arr_1 the classes");
  app.add_option("--order-seed", a.order_seed, "of the order of the images in the archive (default 0)")->needs(npz);
  app.add_option("--pyramid", a.pyramid,
                 "picture of how the first image comes about: its token maps, and below the image after each");
}

void add_edit(CLI::App& app, Arguments& a) {
  app.add_option("--image", a.image, "a PNG, JPEG or WebP file; its central square is used")->required();
  CLI::Option* label = app.add_option("--class", a.label, "number or name (default: none, the null class)");
  if (a.task == Task::kEdit) label->required();
  app.add_option("--count", a.count, "results to make (default 4)")->check(CLI::Range(int64_t{1}, kImagesPerClass));
  if (a.task == Task::kSuper) {
    app.add_option("--first-scales", a.first_scales, "token maps that are given, at least 1")->required();
    return;
  }
  CLI::Option* mask = app.add_option("--mask", a.mask, "image of the same size, white where it marks");
  CLI::Option* box = app.add_option("--box", a.box, "x0,y0,x1,y1: marks columns x0 to x1 - 1, rows y0 to y1 - 1");
  mask->excludes(box);
}

// Returns false where only help was asked for.
bool parse(int argc, char** argv, Arguments& a) {
  std::string name = "var_sample", about = kAbout;
  for (const Command& command : kCommands) {
    if (argc < 2 || std::string_view(argv[1]) != command.name) continue;
    a.task = command.task;
    name += fmt::format(" {}", command.name), about = command.about;
    --argc, ++argv;
    break;
  }
  CLI::App app(about, name);
  add_common(app, a);
  if (a.task == Task::kSample) {
    app.footer(kExamples);
    add_sample(app, a);
  } else {
    add_edit(app, a);
  }
  if (!base::parse_command_line(app, argc, argv)) return false;

  const bool marks = a.task == Task::kInpaint || a.task == Task::kOutpaint || a.task == Task::kEdit;
  if (marks && a.mask.empty() && a.box.empty()) throw UserError("{}: expected one of --mask and --box", name);
  if (a.task != Task::kSample && a.label.empty()) {
    // Guidance away from the null class leads nowhere from the null class itself.
    if (app.count("--cfg") > 0) throw UserError("--cfg: has no effect without --class");
    a.sampling.cfg = 0;
  }
  if (!a.images.empty() && !a.images.has_filename()) a.images = a.images.parent_path();  // "folder/"
  if (a.out.empty() && a.npz.empty() && a.images.empty() && a.pyramid.empty()) a.out = "samples.png";
  if (!a.out.empty() && a.out.extension() != ".png")
    throw UserError("--out {}: expected a name that ends in .png", a.out.string());
  if (!a.pyramid.empty() && a.pyramid.extension() != ".png")
    throw UserError("--pyramid {}: expected a name that ends in .png", a.pyramid.string());
  if (!a.pyramid.empty() && a.sampling.smooth)
    throw UserError("--pyramid {}: shows tokens, and with --smooth an image is a mixture of codes instead",
                    a.pyramid.string());
  if (!a.npz.empty() && a.npz.extension() != ".npz")
    throw UserError("--npz {}: expected a name that ends in .npz", a.npz.string());
  a.sampling.compute = a.precision == "bf16" ? at::kBFloat16 : at::kFloat;
  return true;
}

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
};

Asked ask_for_classes(const Arguments& a, const SampleModel& model) {
  Asked asked;
  const std::vector<int64_t> classes = classes_of(a.classes, model);
  Json names = Json::array();
  for (const int64_t c : classes) {
    names.push_back(name_of(c, model));
    for (int64_t j = 0; j < a.per_class; ++j) {
      asked.requests.push_back({.image = c * kImagesPerClass + j, .label = c});
      asked.names.push_back(fmt::format("{:04}-{:06}", c, j));
    }
  }
  if (a.pyramid_alone()) asked.requests.resize(1), asked.names.resize(1);  // the others would not be seen
  asked.columns = a.per_class;
  asked.facts = {{"classes", classes},
                 {"class_names", std::move(names)},
                 {"per_class", a.per_class},
                 {"images_per_class_index", kImagesPerClass}};
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
  asked.columns = a.count + 2;
  asked.shown_u8_BXX3 =
      at::cat({picture.pixels_u8_XX3().unsqueeze(0), data::to_u8_BHWC(tokenizer.decode_tokens(tokens_1L))});
  asked.words = fmt::format("{}, what the tokenizer makes of it, and results of {} by {} (class {})",
                            a.image.filename().string(), name_of(a.task), model.words,
                            name_of(label, model));
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
  caption["caption"] = fmt::format("{}: guidance {:g} at the last map{}, seed {}; not selected.", asked.words, s.cfg,
                                   choice, s.seed);
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
  return caption;
}

std::string text_of(const Json& caption) {
  return caption.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";  // names of files need not be UTF-8
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
                          "order_seed", "order_rule", "pyramid"})
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

// Draws the first image once more, for its tokens.
void write_pyramid(const fs::path& path, const generate::Sampler& sampler, const generate::Request& request,
                   const tokenizer::Vqvae& tokenizer) {
  const at::Tensor pictures_BXX3 = generate::pyramid(tokenizer, sampler.sample({request}).tokens_BL);
  data::write_png(path, data::enlarge(data::grid(pictures_BXX3, pictures_BXX3.size(0) / 2), enlarged_by(tokenizer)));
}

void write_outputs(const Arguments& a, const generate::SampleJob& job, const Asked& asked, const Json& caption,
                   const generate::Sampler& sampler, const tokenizer::Vqvae& tokenizer) {
  if (!a.pyramid.empty()) write_pyramid(a.pyramid, sampler, asked.requests.front(), tokenizer);
  const int64_t side = tokenizer.config().image_side;
  generate::ImageSupply images{
      .side = side, .labels = {}, .read = [&](int64_t i, uint8_t* out) { job.read(i, out); }};
  for (const generate::Request& request : asked.requests) images.labels.push_back(request.label);
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
  Asked asked;
  comm::agree_on(world, "model", [&] {
    tokenizer.emplace(tokenizer::Vqvae::load(a.tokenizer));
    model.emplace(load_sample_model(a.from, a.tokens, a.tokenizer, *tokenizer));
    sampler.emplace(model->model, tokenizer->quantizer(), a.sampling);
    asked = a.task == Task::kSample ? ask_for_classes(a, *model) : ask_for_edits(a, *model, *tokenizer);
    if (is_first) refuse_impossible_outputs(a);
  });
  const Json caption = caption_of(a, *model, *tokenizer, asked);
  tokenizer->decode_in(a.sampling.compute);  // the last use of its fingerprint was the caption

  generate::SampleJob job({.folder = a.part(),
                           .requests = asked.requests,
                           .group = a.sampling.group,
                           .side = tokenizer->config().image_side,
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
  comm::agree_on(world, "outputs", [&] {
    if (is_first) write_outputs(a, job, asked, caption, *sampler, *tokenizer);
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
  if (!parse(argc, argv, a)) return ExitCode::kDone;
  const auto world = comm::open_world();
  return comm::end_together(*world, [&] { return draw(a, *world); });
}

}  // namespace
}  // namespace varscale::apps

int main(int argc, char** argv) {
  return varscale::base::run_main("var_sample", [&] { return varscale::apps::run(argc, argv); });
}
