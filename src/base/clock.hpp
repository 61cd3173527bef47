// The time of day, for records that say when they were written.
#pragma once

#include <string>

namespace varscale::base {

std::string utc_now();  // "2026-11-24T05:40:00Z"

}  // namespace varscale::base
