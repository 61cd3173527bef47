// Numbers, laws and bytes as the report's HTML writes them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "fit/bootstrap.hpp"
#include "fit/power_law.hpp"

namespace varscale::analysis {

std::string escape(std::string_view text);  // for element content and quoted attributes
std::string base64(std::string_view bytes);
std::string scientific(double value, int significant = 3);  // 4.67 x 10^13, raised; value >= 0
std::string coefficient(
    double value);  // plain digits, or scientific where they would be unreadable
std::string law_html(const fit::PowerLaw& law, std::string_view y, std::string_view x);
std::string typeset(const std::string& sentence);  // the terminal's sentence, its exponent raised
std::string range(const fit::Interval& interval, int significant = 3);
std::string with_range(double value, const std::optional<fit::Interval>& interval, int significant);
std::string grouped(int64_t count);  // 12,345,678; count >= 0
std::string cell_by(double value, const std::string& shown);  // a table's cell that sorts by the value
std::string percent(double level);  // 0.9: "90 %"

}  // namespace varscale::analysis
