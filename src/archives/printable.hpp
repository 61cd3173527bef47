// Text from a foreign file as it may stand in a sentence.
#pragma once

#include <string>
#include <string_view>

namespace varscale::archives {

// Bytes outside printable ASCII as \x.., and no more than 120 of them.
std::string printable(std::string_view text);

}  // namespace varscale::archives
