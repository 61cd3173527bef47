// report.html: one self-contained page with the law, its evidence and its limits.
//
// Figures (<out>/<name>.svg) and the sweep's pictures (samples.png, reconstructions.png, with captions in
// samples.json and reconstructions.json) are embedded; what is missing is left out of the page.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "kinds.hpp"
#include "outputs.hpp"

namespace varscale::analysis {

std::string report_html(const Results& results, const std::filesystem::path& out);

// The page of a folder with runs of several kinds of tokens: why they are apart, and each fit under its name. Each has
// its files in `out`/<results.folder>.
std::string kinds_html(const SweepKinds& sweep, const std::vector<Results>& fits, const std::filesystem::path& out);

// The page's style sheet.
extern const char* const kReportStyle;

}  // namespace varscale::analysis
