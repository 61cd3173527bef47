// var_fit points: a law through the points of a CSV file of anyone's.
#pragma once

#include "base/error.hpp"

namespace varscale::analysis {

// The arguments behind `points`; argv[0] is that word.
base::ExitCode run_points(int argc, char** argv);

}  // namespace varscale::analysis
