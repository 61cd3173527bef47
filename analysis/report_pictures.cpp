#include <nlohmann/json.hpp>
#include <set>

#include "base/error.hpp"
#include "base/file.hpp"
#include "base/json.hpp"
#include "report_page.hpp"
#include "report_text.hpp"

namespace varscale::analysis {
namespace {

std::string caption_of(const std::filesystem::path& folder, const std::string& name, const std::string& otherwise) {
  const std::filesystem::path words = folder / (name + ".json");
  if (!std::filesystem::exists(words)) return otherwise;
  try {
    return base::parse_json(base::read_file(words)).value("caption", otherwise);
  } catch (const nlohmann::ordered_json::exception& error) {
    throw base::UserError("{}: expected an object with a text \"caption\" ({})", words.string(), error.what());
  }
}

std::string picture_html(const std::filesystem::path& folder, const std::string& name, const std::string& alt,
                         const std::string& caption) {
  return fmt::format(
      "<figure><img class=\"pixels\" alt=\"{}\" src=\"data:image/png;base64,{}\">\n"
      "<figcaption>{}</figcaption></figure>\n",
      escape(alt), base64(base::read_file(folder / (name + ".png"))), caption);
}

// A picture of the sweep under a heading; empty where there is none.
std::string titled_picture(const std::filesystem::path& folder, const std::string& name, const std::string& title,
                           const std::string& otherwise) {
  if (!std::filesystem::exists(folder / (name + ".png"))) return {};
  return fmt::format("<h2>{}</h2>\n", title) +
         picture_html(folder, name, name, escape(caption_of(folder, name, otherwise)));
}

}  // namespace

std::string pictures_html(const std::filesystem::path& folder) {
  return titled_picture(folder, "samples", "Samples", "Samples of the sweep's models, one row or column a class.") +
         titled_picture(folder, "reconstructions", "Tokenizer",
                        "Images and what the tokenizer makes of them: the ceiling of every sample above.");
}

std::string samples_by_depth_section(const Page& page) {
  std::set<int64_t> shown;
  std::string pictures;
  for (const Run& run : page.sweep.runs) {
    const std::filesystem::path folder = run.file.parent_path();
    if (run.role != "main" || shown.contains(run.depth) || !std::filesystem::exists(folder / "samples.png")) continue;
    shown.insert(run.depth);
    const std::string title = fmt::format("d{}", run.depth);
    const std::string caption = caption_of(folder, "samples", "");
    pictures += picture_html(folder, "samples", "samples of " + run.id,
                             fmt::format("<strong>{}</strong>, {:.4f} nats per token{}", title, run.final.loss_mean,
                                         caption.empty() ? "." : ". " + escape(caption)));
  }
  if (pictures.empty()) return {};
  return "<h2>Samples by depth</h2>\n<div class=\"pictures\">\n" + pictures + "</div>\n";
}

}  // namespace varscale::analysis
