#include <algorithm>
#include <cmath>

#include "report_page.hpp"
#include "report_text.hpp"
#include "scales.hpp"

namespace varscale::analysis {

namespace {

std::string map_name(const ScaleGain& each) {
  return each.side.empty() ? std::to_string(each.scale + 1) : fmt::format("{0} × {0}", escape(each.side));
}

}  // namespace

std::string scales_section(const Page& page) {
  const ScaleGains gains = scale_gains(page.sweep);
  if (gains.scales.empty()) return {};
  Html html;
  const auto gain_of = [](const ScaleGain& each) { return each.loss - each.largest_loss; };
  const auto [least, most] = std::ranges::minmax(gains.scales, {}, gain_of);
  html.add("<h2>Which token maps gain from size</h2>");
  if (gain_of(most) - gain_of(least) < 0.01 * std::abs(gain_of(most)))
    html.add("<p>From d{} to d{} the final loss falls by {} nats on every map alike.</p>", gains.smallest,
             gains.largest, digits(gain_of(most), 3));
  else
    html.add(
        "<p>From d{} to d{} the final loss falls by {} nats on map {}, the most of all maps, and by {} on map {}, the "
        "least.</p>",
        gains.smallest, gains.largest, digits(gain_of(most), 3), map_name(most), digits(gain_of(least), 3),
        map_name(least));
  html.text += figure_html(page, "scales",
                           "Final validation loss and error rate of each token map, coarse to fine; means over seeds.");
  html.add(
      "<div class=\"scroll\"><table class=\"sortable\"><thead><tr><th>token map</th><th>loss of d{0}</th><th>loss of "
      "d{1}</th><th>gain</th><th>error of d{0}</th><th>error of d{1}</th><th>gain</th></tr></thead><tbody>",
      gains.smallest, gains.largest);
  for (const ScaleGain& each : gains.scales)
    html.add(
        "<tr><td "
        "data-value=\"{}\">{}</td><td>{:.4f}</td><td>{:.4f}</td><td>{:.4f}</td><td>{:.4f}</td><td>{:.4f}</"
        "td><td>{:.4f}</td></tr>",
        each.scale, map_name(each), each.loss, each.largest_loss, gain_of(each), each.err, each.largest_err,
        each.err - each.largest_err);
  html.add("</tbody></table></div>");
  return std::move(html.text);
}

}  // namespace varscale::analysis
