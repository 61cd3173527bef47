#include "report_text.hpp"

#include <fmt/format.h>

#include <string>

#include "laws.hpp"

namespace varscale::analysis {

std::string escape(std::string_view text) {
  std::string result;
  for (char c : text) {
    if (c == '&')
      result += "&amp;";
    else if (c == '<')
      result += "&lt;";
    else if (c == '>')
      result += "&gt;";
    else if (c == '"')
      result += "&quot;";
    else
      result += c;
  }
  return result;
}

std::string base64(std::string_view bytes) {
  static constexpr char kLetters[] =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t word = 0;
    for (size_t k = 0; k < 3; ++k)
      word = word << 8 | (i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0);
    for (size_t k = 0; k < 4; ++k)
      text += i + k <= bytes.size() ? kLetters[word >> (18 - 6 * k) & 63] : '=';
  }
  return text;
}

// 4.67 × 10¹³ where plain digits would be unreadable.
std::string scientific(double value, int significant) {
  if (value == 0 || !std::isfinite(value)) return digits(value);
  const std::string text = fmt::format("{:.{}e}", value, significant - 1);  // rounds 9.99 up to 1.0e+01
  const size_t e = text.find('e');
  return fmt::format("{} × 10<sup>{}</sup>", text.substr(0, e), std::stoi(text.substr(e + 1)));
}

std::string coefficient(double value) {
  return value >= 1e5 || value < 1e-3 ? scientific(value) : digits(value, 3);
}

std::string law_html(const fit::PowerLaw& law, std::string_view y, std::string_view x) {
  std::string text = fmt::format("<span class=\"math\"><i>{}</i> = ", y);
  if (law.E > 0 || law.B == 0) text += digits(law.E);
  if (law.E > 0 && law.B > 0) text += " + ";
  if (law.B > 0)
    text += fmt::format("{} <i>{}</i><sup>−{}</sup>", coefficient(law.B), x, digits(law.alpha, 3));
  return text + "</span>";
}

// The sentence of the terminal with its exponent raised.
std::string typeset(const std::string& sentence) {
  const size_t caret = sentence.find("^-");
  if (caret == std::string::npos) return escape(sentence);
  const size_t end = sentence.find(' ', caret);
  return escape(sentence.substr(0, caret)) + "<sup>−" +
         sentence.substr(caret + 2, end - caret - 2) + "</sup>" + escape(sentence.substr(end));
}

std::string range(const fit::Interval& interval, int significant) {
  return fmt::format("{} – {}", digits(interval.low, significant),
                     digits(interval.high, significant));
}

std::string with_range(double value, const std::optional<fit::Interval>& interval,
                       int significant) {
  std::string text = digits(value, significant);
  if (interval)
    text += fmt::format(" <span class=\"range\">[{}]</span>", range(*interval, significant));
  return text;
}

std::string grouped(int64_t count) {
  const std::string plain = std::to_string(count);
  std::string text;
  for (size_t i = 0; i < plain.size(); ++i) {
    if (i > 0 && (plain.size() - i) % 3 == 0) text += ',';
    text += plain[i];
  }
  return text;
}

std::string cell_by(double value, const std::string& shown) {
  return fmt::format("<td data-value=\"{:.10g}\">{}</td>", value, shown);
}

std::string percent(double level) { return fmt::format("{:.0f} %", 100 * level); }

}  // namespace varscale::analysis
