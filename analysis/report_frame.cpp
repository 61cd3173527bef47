#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/file.hpp"
#include "base/json.hpp"
#include "report.hpp"
#include "report_page.hpp"
#include "report_text.hpp"

namespace varscale::analysis {
namespace {

// A picture of the sweep with its caption; empty where there is none.
std::string picture_html(const std::filesystem::path& folder, const std::string& name, const std::string& title,
                         const std::string& otherwise) {
  const std::filesystem::path path = folder / (name + ".png"), words = folder / (name + ".json");
  if (!std::filesystem::exists(path)) return {};
  std::string caption = otherwise;
  if (std::filesystem::exists(words)) {
    try {
      caption = base::parse_json(base::read_file(words)).value("caption", otherwise);
    } catch (const nlohmann::ordered_json::exception& error) {
      throw base::UserError("{}: expected an object with a text \"caption\" ({})", words.string(), error.what());
    }
  }
  return fmt::format(
      "<h2>{}</h2>\n<figure><img class=\"pixels\" alt=\"{}\" src=\"data:image/png;base64,{}\">\n"
      "<figcaption>{}</figcaption></figure>\n",
      title, name, base64(base::read_file(path)), escape(caption));
}

}  // namespace

Page page_of(const Results& results, const std::filesystem::path& out) {
  Page page{.results = results,
            .sweep = results.sweep,
            .analysis = results.analysis,
            .out = out,
            .main = results.sweep.main_runs(),
            .law = results.analysis.find("L(N)", "total", Metric::kLossMean, "free")};
  VARSCALE_CHECK(page.law != nullptr, "a report without its headline fit");
  return page;
}

std::string document_begin(const std::string& title) {
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<title>{}: scaling law</title>\n<style>{}</style>\n</head>\n<body>\n",
      escape(title), kReportStyle);
}

std::string document_end() { return "</body>\n</html>\n"; }

std::string pictures_html(const std::filesystem::path& folder) {
  return picture_html(folder, "samples", "Samples", "Samples of the sweep's models, one row or column a class.") +
         picture_html(folder, "reconstructions", "Tokenizer",
                      "Images and what the tokenizer makes of them: the ceiling of every sample above.");
}

std::string figure_html(const Page& page, const std::string& name, const std::string& caption) {
  const std::filesystem::path path = page.out / (name + ".svg");
  if (!std::filesystem::exists(path)) return {};
  const std::string& folder = page.results.folder;
  return fmt::format(
      "<figure><img class=\"plot\" alt=\"{}\" src=\"data:image/svg+xml;base64,{}\">\n"
      "<figcaption>{} Data: <code>{}{}.csv</code></figcaption></figure>\n",
      escape(name), base64(base::read_file(path)), caption, folder.empty() ? "" : folder + "/", name);
}

}  // namespace varscale::analysis
