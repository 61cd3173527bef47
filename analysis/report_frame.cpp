#include "base/error.hpp"
#include "report.hpp"
#include "report_page.hpp"
#include "report_text.hpp"

namespace varscale::analysis {

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
      "<meta name=\"color-scheme\" content=\"light dark\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; style-src "
      "'unsafe-inline'; script-src 'unsafe-inline'\">\n"
      "<title>{}: scaling law</title>\n<style>{}</style>\n</head>\n<body>\n",
      escape(title), kReportStyle);
}

std::string document_end() { return fmt::format("<script>{}</script>\n</body>\n</html>\n", kReportScript); }

}  // namespace varscale::analysis
