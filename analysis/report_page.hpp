// The sections of report.html. Each is a function from what is known of a fit to HTML, in a file of its topic;
// report.cpp has their order.
//
//   std::string law_section(const Page& page) {
//     Html html;
//     html.add("<h2>The law</h2>\n<p>{} sizes</p>", page.law->fit.distinct_sizes);
//     html.text += figure_html(page, "law_n", "What one sees there.");
//     return std::move(html.text);
//   }
//
// A section that has nothing to say is empty. Texts of others (ids, names, reasons) go through escape().
#pragma once

#include <fmt/format.h>

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "outputs.hpp"

namespace varscale::analysis {

struct Page {
  const Results& results;
  const SweepRuns& sweep;            // results.sweep
  const Analysis& analysis;          // results.analysis
  const std::filesystem::path& out;  // of this fit's files
  std::vector<const Run*> main;      // the points of L(N)
  const LawFit* law = nullptr;       // the headline: L(N), total, loss_mean, E free
};
Page page_of(const Results& results, const std::filesystem::path& out);

struct Html {
  std::string text;
  template <class... Args>
  void add(fmt::format_string<Args...> format, Args&&... args) {
    text += fmt::format(format, std::forward<Args>(args)...);
    text += '\n';
  }
};

// A drawing of this fit with its caption, which is HTML; empty where it was not drawn. Its colours follow the page, and
// its marks show their values (sheet.py, report_script.cpp).
std::string figure_html(const Page& page, const std::string& name, const std::string& caption);

// What frames every page, and the pictures of a sweep folder.
std::string document_begin(const std::string& title);
std::string document_end();
std::string pictures_html(const std::filesystem::path& folder);

std::string summary_section(const Page& page);
std::string law_section(const Page& page);
std::string prediction_section(const Page& page);
std::string curves_section(const Page& page);
std::string other_laws_section(const Page& page);
std::string frontier_section(const Page& page);
std::string scales_section(const Page& page);
std::string scores_section(const Page& page);
std::string learning_rate_section(const Page& page);
std::string residuals_section(const Page& page);
std::string paper_section(const Page& page);
std::string samples_by_depth_section(const Page& page);
std::string runs_section(const Page& page);
std::string limits_section(const Page& page);
std::string definitions_section(const Page& page);
std::string origin_section(const Page& page);
std::string files_section(const Page& page);

// The largest model's gain over the one below it: the registered prediction where there is one, else that of the
// refit without the largest size.
struct Gain {
  int64_t depth, previous_depth;
  double predicted;
  std::optional<fit::Interval> interval;
  std::optional<fit::Verdict> verdict;
  bool registered;
};
std::optional<Gain> headline_gain(const Page& page);

}  // namespace varscale::analysis
