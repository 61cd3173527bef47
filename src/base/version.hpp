// Which program this is: "0.1.0 (d472f1d)", with the commit of the sources where CMake found them in a Git clone. Changes
// that are not committed are not in it.
#pragma once

#include <string>

namespace varscale::base {

std::string program_version();

}  // namespace varscale::base
