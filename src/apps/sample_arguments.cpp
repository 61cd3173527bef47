#include "sample_arguments.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <string_view>

#include "base/command_line.hpp"
#include "base/error.hpp"
#include "sample_model.hpp"

namespace varscale::apps {

using base::UserError;

namespace {

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

struct Command {
  const char* name;
  Task task;
  const char* about;
};
constexpr Command kCommands[] = {
    {"inpaint", Task::kInpaint,
     "Gives an image to the model without what --mask or --box marks, which the model fills in. The\n"
     "picture shows the image, what the tokenizer makes of it, what is given, and the results."},
    {"outpaint", Task::kOutpaint,
     "Gives the model only the part of an image that --mask or --box marks; it makes the rest. The\n"
     "picture shows the image, what the tokenizer makes of it, what is given, and the results."},
    {"edit", Task::kEdit,
     "Fills what --mask or --box marks in an image with something of another class. The picture shows\n"
     "the image, what the tokenizer makes of it, what is given, and the results."},
    {"super", Task::kSuper,
     "Gives the first token maps of an image to the model, which adds the finer ones. The picture shows\n"
     "the image, what the tokenizer makes of it, what is given, and the results."},
};

void add_common(CLI::App& app, Arguments& a) {
  app.add_option("MODEL", a.from, "folder of a run, <sweep>/runs/<id>, or a weights file")->required();
  app.add_option("--tokenizer", a.tokenizer, "the tokenizer that made the model's tokens")->required();
  app.add_option("--tokens", a.tokens, "the run's token file, if it was moved");
  app.add_option("--cfg", a.sampling.cfg, "end of the guidance ramp; 0: no guidance (default 1.5)");
  app.add_option("--top-k", a.sampling.top_k, "keep the k likeliest tokens; 0: all (default 0)");
  app.add_option("--top-p", a.sampling.top_p, "keep the likeliest tokens of this total; 0: all (default 0)");
  app.add_option("--temperature", a.sampling.temperature, "divides the logits (default 1)");
  app.add_flag("--smooth", a.sampling.smooth, "mixtures of codes by Gumbel softmax: smoother, for pictures alone");
  app.add_option("--seed", a.sampling.seed, "of the draws (default 0)");
  app.add_option("--group", a.sampling.group, "images computed together; changes roundings (default 8)");
  app.add_option("--batch", a.batch, "images a rank draws between two writes, in whole groups (default 64)")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30));
  app.add_option("--precision", a.precision, "of model and decoder: fp32 or bf16 (default fp32)")
      ->check(CLI::IsMember({"fp32", "bf16"}));
  app.add_option("--out", a.out, "the picture; its caption has the same name and .json (default samples.png)");
  app.add_option("--images", a.images, "folder to make, with one PNG an image");
  app.add_flag("--json", a.json, "print the caption as JSON instead of words");
}

void add_sample(CLI::App& app, Arguments& a) {
  app.add_option(
      "--classes", a.classes,
      fmt::format("all, or numbers and names, as 0,3,7 (default: all, at most the first {})", kClassesByDefault));
  app.add_option("--per-class", a.per_class, "images of each class (default 8)")
      ->check(CLI::Range(int64_t{1}, kImagesPerClass));
  CLI::Option* npz = app.add_option("--npz", a.npz, "archive for evaluators: arr_0 uint8 [N,H,W,3], arr_1 the classes");
  app.add_option("--order-seed", a.order_seed, "of the order of the images in the archive (default 0)")->needs(npz);
  app.add_flag("--npz-tokens", a.npz_tokens, "adds arr_2 to the archive: the tokens of each image, map after map")
      ->needs(npz);
  CLI::Option* classifier = app.add_option(
      "--classifier", a.classifier, "ResNet-50 weights under torchvision's names (.pth, .safetensors): rejects images");
  CLI::Option* share = app.add_option("--keep-share", a.keep_share,
                                      "share of the drawn images of a class that stays, those likeliest of it");
  classifier->needs(share), share->needs(classifier);
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

}  // namespace

const char* name_of(Task task) { return std::ranges::find(kCommands, task, &Command::task)->name; }

bool parse_arguments(int argc, char** argv, Arguments& a) {
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
  if (a.npz_tokens && a.sampling.smooth)
    throw UserError("--npz-tokens: expected images of tokens, and with --smooth an image is a mixture of codes instead");
  if (!a.npz.empty() && a.npz.extension() != ".npz")
    throw UserError("--npz {}: expected a name that ends in .npz", a.npz.string());
  if (a.keep_share && !(*a.keep_share > 0 && *a.keep_share < 1))
    throw UserError("--keep-share {:g}: expected more than 0 and less than 1", *a.keep_share);
  if (a.keep_share && a.pyramid_alone())
    throw UserError("--classifier {}: has no effect on --pyramid alone", a.classifier.string());
  a.sampling.compute = a.precision == "bf16" ? at::kBFloat16 : at::kFloat;
  return true;
}

}  // namespace varscale::apps
