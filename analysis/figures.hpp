// The figures of a fit, drawn by figures.py (matplotlib) from the CSV files of the fit folder.
//
// Python is looked for in VARSCALE_PYTHON, then in the project's .deps/venv, then as python3. Without it,
// or without matplotlib, there are no figures and everything else is made.
#pragma once

#include <filesystem>
#include <string>

namespace varscale::analysis {

// Draws <name>.png, .pdf and .svg for every <name>.csv in `out`. Returns an empty text, or in one sentence
// why there are none.
std::string draw_figures(const std::filesystem::path& out);

}  // namespace varscale::analysis
