#include <algorithm>
#include <cmath>
#include <map>

#include "base/error.hpp"
#include "base/file.hpp"
#include "report_page.hpp"
#include "report_text.hpp"

namespace varscale::analysis {
namespace {

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
}

double to_linear(double s) { return s <= 0.04045 ? s / 12.92 : std::pow((s + 0.055) / 1.055, 2.4); }
double to_srgb(double l) { return l <= 0.0031308 ? 12.92 * l : 1.055 * std::pow(l, 1 / 2.4) - 0.055; }

// The colour for dark paper: lightness turned over in Oklab (B. Ottosson, 2020), so that what stands out on white still
// does; hue and chroma stay. From and to "#rrggbb".
std::string on_dark_paper(const std::string& colour) {
  const auto channel = [&](size_t at) { return to_linear(std::stoi(colour.substr(at, 2), nullptr, 16) / 255.0); };
  const double r = channel(1), g = channel(3), b = channel(5);
  const double l = std::cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b);
  const double m = std::cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b);
  const double s = std::cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b);
  const double lightness = 0.2104542553 * l + 0.7936177850 * m - 0.0040720468 * s;
  const double a_axis = 1.9779984951 * l - 2.4285922050 * m + 0.4505937099 * s;
  const double b_axis = 0.0259040371 * l + 0.7827717662 * m - 0.8086757660 * s;
  const bool coloured = std::hypot(a_axis, b_axis) > 0.04;  // grids and bands may be faint, marks may not
  const double turned = std::clamp(1.18 - 0.97 * lightness, coloured ? 0.5 : 0.0, 1.0);
  const double L = std::pow(turned + 0.3963377774 * a_axis + 0.2158037573 * b_axis, 3);
  const double M = std::pow(turned - 0.1055613458 * a_axis - 0.0638541728 * b_axis, 3);
  const double S = std::pow(turned - 0.0894841775 * a_axis - 1.2914855480 * b_axis, 3);
  const auto byte = [](double linear) {
    return static_cast<int>(std::lround(255 * to_srgb(std::clamp(linear, 0.0, 1.0))));
  };
  return fmt::format("#{:02x}{:02x}{:02x}", byte(4.0767416621 * L - 3.3077115913 * M + 0.2309699292 * S),
                     byte(-1.2684380046 * L + 2.6097574011 * M - 0.3413193965 * S),
                     byte(-0.0041960863 * L - 0.7034186147 * M + 1.7076147010 * S));
}

bool is_colour(std::string_view text) {
  return text.size() == 7 && text[0] == '#' && std::all_of(text.begin() + 1, text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

// Colours in style attributes become variables with the colour itself as what they are by default. Returns those of
// dark paper; white is the paper.
std::map<std::string, std::string> name_colours(std::string& svg) {
  static constexpr std::string_view kStyle = "style=\"";
  std::map<std::string, std::string> dark;
  for (size_t at = svg.find(kStyle); at != std::string::npos; at = svg.find(kStyle, at)) {
    at += kStyle.size();
    for (; svg.at(at) != '"'; ++at) {
      const std::string colour = svg.substr(at, 7);
      if (!is_colour(colour)) continue;
      std::string variable = "var(--paper)";
      if (colour != "#ffffff") {
        variable = fmt::format("var(--c{},{})", colour.substr(1), colour);
        dark.emplace(colour.substr(1), on_dark_paper(colour));
      }
      svg.replace(at, colour.size(), variable);
      at += variable.size() - 1;
    }
  }
  return dark;
}

// A drawing of matplotlib's as part of a page: ids of its own, colours that follow the page, no size of its own.
std::string inline_svg(const std::filesystem::path& path, const std::string& id, const std::string& label) {
  std::string svg = base::read_file(path);
  const size_t head = svg.find("<svg "), view = svg.find("viewBox=\"", head), body = svg.find('>', head);
  VARSCALE_CHECK(body != std::string::npos && view < body, "a drawing without a viewBox");
  const std::string box = svg.substr(view, svg.find('"', view + 9) + 1 - view);
  svg.erase(0, body + 1);
  if (const size_t from = svg.find("<metadata>"), to = svg.find("</metadata>"); to != std::string::npos)
    svg.erase(from, to + 11 - from);
  replace_all(svg, " id=\"", fmt::format(" id=\"{}-", id));
  replace_all(svg, "xlink:href=\"#", fmt::format("href=\"#{}-", id));
  replace_all(svg, "url(#", fmt::format("url(#{}-", id));
  replace_all(svg, "<style type=\"text/css\">*{", fmt::format("<style>#{} *{{", id));
  std::string dark;
  for (const auto& [name, colour] : name_colours(svg)) dark += fmt::format("--c{}:{};", name, colour);
  return fmt::format(
      "<svg id=\"{0}\" class=\"plot\" role=\"img\" aria-label=\"{1}\" {2}>\n"
      "<style>@media screen and (prefers-color-scheme:dark){{#{0}{{{3}}}}}</style>{4}",
      id, escape(label), box, dark, svg);
}

// Letters, digits and those of `kept` as they are, every other byte as `mark` and two digits: for ids and links.
std::string encoded(const std::string& text, std::string_view kept, char mark) {
  std::string result;
  for (const char c : text) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
    if (plain || kept.find(c) != std::string_view::npos)
      result += c;
    else
      result += fmt::format("{}{:02X}", mark, static_cast<unsigned char>(c));
  }
  return result;
}

}  // namespace

std::string figure_html(const Page& page, const std::string& name, const std::string& caption) {
  const std::filesystem::path wide = page.out / (name + ".svg"), narrow = page.out / (name + "_narrow.svg");
  if (!std::filesystem::exists(wide)) return {};
  const std::string& folder = page.results.folder;
  const std::string id = fmt::format("f-{}{}", folder.empty() ? "" : encoded(folder, "-", '_') + "-", name);
  const std::string beside = folder.empty() ? "" : encoded(folder, "-._~", '%') + "/";
  const std::string label = fmt::format("Figure {}; its values are in {}.csv", name, name);
  const bool both = std::filesystem::exists(narrow);
  std::string text = "<figure>\n";
  text += fmt::format("<div{}>{}</div>\n", both ? " class=\"wide\"" : "", inline_svg(wide, id, label));
  if (both) text += fmt::format("<div class=\"narrow\">{}</div>\n", inline_svg(narrow, id + "-n", label));
  text += fmt::format("<figcaption>{} <span class=\"files\">", caption);
  for (const char* end : {"csv", "svg", "pdf", "png"})
    text += fmt::format("<a href=\"{0}{1}.{2}\">{3}{2}</a> ", beside, name, end,
                        std::string_view(end) == "csv" ? name + "." : ".");
  return text + "</span></figcaption></figure>\n";
}

}  // namespace varscale::analysis
