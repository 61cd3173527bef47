// report.html: one self-contained page with the law, its evidence and its limits.
//
// Figures (<out>/<name>.svg, and <name>_narrow.svg for phones) and pictures (samples.png and reconstructions.png of the
// sweep, samples.png of runs, with captions in the .json of the same name) are embedded; what is missing is left out.
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

// The page's style sheet and its script, which work without a network.
extern const char* const kReportStyle;
extern const char* const kReportScript;

}  // namespace varscale::analysis
