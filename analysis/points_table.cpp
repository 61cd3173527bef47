#include "points_table.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/error.hpp"
#include "base/file.hpp"

namespace varscale::analysis {
namespace {

using base::UserError;

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

bool is_name(std::string_view text) {
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; };
  return !text.empty() && letter(text.front()) &&
         std::ranges::all_of(text, [&](char c) { return letter(c) || (c >= '0' && c <= '9'); });
}

sweep::Expression formula(std::string_view text, std::string_view place) {
  try {
    return sweep::Expression::parse(text);
  } catch (const UserError& error) {
    throw UserError("{}: \"{}\" is no formula: {}", place, text, error.what());
  }
}

std::vector<std::string_view> split_outside_brackets(std::string_view text) {
  std::vector<std::string_view> parts;
  size_t begin = 0;
  int depth = 0;
  for (size_t i = 0; i <= text.size(); ++i) {
    if (i == text.size() || (text[i] == ',' && depth == 0)) {
      parts.push_back(trimmed(text.substr(begin, i - begin)));
      begin = i + 1;
    } else if (text[i] == '(' || text[i] == ')') {
      depth += text[i] == '(' ? 1 : -1;
    }
  }
  return parts;
}

// One record from `at` on, which it moves behind it; `line` counts lines.
std::vector<std::string> next_record(std::string_view text, size_t& at, int64_t& line, const std::filesystem::path& file) {
  std::vector<std::string> fields(1);
  const int64_t first = line;
  bool quoted = false;
  for (; at < text.size(); ++at) {
    const char c = text[at];
    if (quoted) {
      if (c == '"' && at + 1 < text.size() && text[at + 1] == '"') {
        fields.back() += '"', ++at;
      } else if (c == '"') {
        quoted = false;
      } else {
        line += c == '\n';
        fields.back() += c;
      }
    } else if (c == '"' && fields.back().empty()) {
      quoted = true;
    } else if (c == ',') {
      fields.emplace_back();
    } else if (c == '\n') {
      ++at;
      break;
    } else if (c != '\r' || (at + 1 < text.size() && text[at + 1] != '\n')) {
      fields.back() += c;
    }
  }
  if (quoted) throw UserError("{}:{}: a quotation mark is not closed", file.string(), first);
  ++line;
  return fields;
}

double number(const std::string& field, const std::string& heading, const std::string& place) {
  std::string_view text = trimmed(field);
  if (text.starts_with('+')) text.remove_prefix(1);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || end != text.data() + text.size() || error == std::errc::invalid_argument)
    throw UserError("{}: {} is \"{}\"; expected a number", place, heading, field);
  if (error != std::errc() || !std::isfinite(value))
    throw UserError("{}: {} is {}; expected a finite number", place, heading, text);
  return value;
}

}  // namespace

Definitions Definitions::parse(std::string_view text, std::string_view option) {
  Definitions definitions;
  definitions.option_ = option;
  for (const std::string_view part : split_outside_brackets(text)) {
    const size_t equals = part.find('=');
    const std::string name(trimmed(part.substr(0, equals)));
    const std::string value(equals == std::string_view::npos ? "" : trimmed(part.substr(equals + 1)));
    if (!is_name(name) || value.empty())
      throw UserError("{}: \"{}\" is not understood; expected NAME=COLUMN or NAME=FORMULA, separated by commas", option, part);
    if (definitions.find(name) != nullptr) throw UserError("{}: {} is said twice", option, name);
    One& one = definitions.all_.emplace_back(One{name, value, std::nullopt, ""});
    try {
      one.formula = sweep::Expression::parse(value);
    } catch (const UserError& error) {
      one.no_formula = error.what();
    }
  }
  return definitions;
}

const Definitions::One* Definitions::find(std::string_view name) const {
  const auto found = std::ranges::find(all_, name, &One::name);
  return found == all_.end() ? nullptr : &*found;
}

Condition Condition::parse(std::string_view text, std::string_view option) {
  Condition condition;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(" and ", begin), text.size());
    const std::string_view part = trimmed(text.substr(begin, end - begin));
    const size_t at = part.find_first_of("<>=!");
    const size_t length = at != std::string_view::npos && at + 1 < part.size() && part[at + 1] == '=' ? 2 : 1;
    const std::string sign(at == std::string_view::npos ? "" : part.substr(at, length));
    if (sign.empty() || sign == "=" || sign == "!")
      throw UserError("{}: \"{}\" is not understood; expected two formulas with < <= > >= == or != between them", option, part);
    condition.comparisons_.push_back(
        {formula(trimmed(part.substr(0, at)), option), formula(trimmed(part.substr(at + length)), option), sign});
    begin = end + std::string_view(" and ").size();
  }
  return condition;
}

bool Condition::holds(const sweep::Variables& values) const {
  return std::ranges::all_of(comparisons_, [&](const Comparison& c) {
    const double left = c.left.exact(values), right = c.right.exact(values);
    if (c.sign == "<") return left < right;
    if (c.sign == "<=") return left <= right;
    if (c.sign == ">") return left > right;
    if (c.sign == ">=") return left >= right;
    return (left == right) == (c.sign == "==");
  });
}

std::set<std::string> Condition::names() const {
  std::set<std::string> names;
  for (const Comparison& c : comparisons_) {
    names.merge(c.left.names());
    names.merge(c.right.names());
  }
  return names;
}

double Evaluation::value(const std::string& name) {
  if (const auto known = known_.find(name); known != known_.end()) return known->second;
  const auto as_given = [&](const std::string& heading) {
    const auto found = given_.find(heading);
    if (found == given_.end()) throw UserError("{}: {} is not known", definitions_.option(), heading);
    return found->second;
  };
  const Definitions::One* one = definitions_.find(name);
  if (one == nullptr) return as_given(name);
  if (const auto column = given_.find(one->text); column != given_.end()) return known_[name] = column->second;
  if (!one->formula) throw UserError("{}: {}={} is not understood: {}", definitions_.option(), name, one->text, one->no_formula);
  if (!under_way_.insert(name).second) throw UserError("{}: {} is defined by itself", definitions_.option(), name);
  sweep::Variables values;
  for (const std::string& part : one->formula->names()) values[part] = part == name ? as_given(part) : value(part);
  under_way_.erase(name);
  return known_[name] = one->formula->exact(values);
}

std::set<std::string> names_in_formulas(const Definitions& definitions) {
  std::set<std::string> names;
  for (const Definitions::One& one : definitions.all()) {
    if (!one.formula) continue;
    std::set<std::string> of_one = one.formula->names();
    of_one.erase(one.name);
    names.merge(of_one);
  }
  return names;
}

namespace {

// Which fields of a row are read, by heading.
struct Fields {
  const std::filesystem::path& file;
  const Definitions& columns;
  std::vector<std::string> headings;
  std::map<std::string, size_t> read = {};
  std::optional<size_t> run = {};

  bool has(const std::string& heading) const { return std::ranges::find(headings, heading) != headings.end(); }

  size_t find(const std::string& heading, const std::string& because) const {
    const auto found = std::ranges::find(headings, heading);
    if (found == headings.end())
      throw UserError("{}:1: has no column {}{}; its columns are {}", file.string(), heading, because, fmt::join(headings, ", "));
    if (std::ranges::count(headings, heading) > 1)
      throw UserError("{}:1: has several columns {}{}; expected one", file.string(), heading, because);
    return static_cast<size_t>(found - headings.begin());
  }

  void want(const Definitions::One& one) {
    const std::string because = fmt::format(" ({} {}={})", columns.option(), one.name, one.text);
    if (one.name == "run") {
      run = find(one.text, because);
    } else if (has(one.text)) {
      read[one.text] = find(one.text, because);
    } else if (!one.formula) {
      throw UserError("{}:1: has no column {}{}, and as a formula it is not understood ({}); its columns are {}", file.string(),
                      one.text, because, one.no_formula, fmt::join(headings, ", "));
    } else {
      for (const std::string& name : one.formula->names())
        if (name == one.name || columns.find(name) == nullptr) read[name] = find(name, because);
    }
  }
  void want(const std::optional<Condition>& condition, const char* option) {
    if (!condition) return;
    for (const std::string& name : condition->names()) {
      const Definitions::One* one = columns.find(name);
      if (one == nullptr || name == "run") {  // a run is compared as a number
        const std::string& heading = one == nullptr ? name : one->text;
        read[heading] = find(heading, fmt::format(" ({})", option));
      }
    }
  }

  // Values of names in a row; only what they need is read, as other fields may hold anything.
  sweep::Variables evaluate(const std::set<std::string>& names, const std::vector<std::string>& row, const std::string& place) const {
    sweep::Variables given, values;
    std::set<std::string> pending = names, seen;
    const auto load = [&](const std::string& heading) { given[heading] = number(row[read.at(heading)], heading, place); };
    while (!pending.empty()) {
      const std::string name = *pending.begin();
      pending.erase(pending.begin());
      if (!seen.insert(name).second) continue;
      const Definitions::One* one = columns.find(name);
      if (one == nullptr) {
        load(name);
      } else if (read.contains(one->text)) {
        load(one->text);
      } else {
        for (const std::string& part : one->formula->names()) {
          if (part == name) load(part);
          if (part != name) pending.insert(part);
        }
      }
    }
    Evaluation evaluation(columns, given);
    for (const std::string& name : names) values[name] = evaluation.value(name);
    return values;
  }
};

// Columns that must have one text in all rows, with where it was first.
class OneText {
 public:
  OneText(const Fields& fields, const std::vector<std::string>& headings) : fields_(fields) {
    for (const std::string& heading : headings) columns_.push_back({fields.find(heading, " (--same)"), "", 0});
  }

  void check(const std::vector<std::string>& record, int64_t line) {
    for (Column& column : columns_) {
      const std::string text(trimmed(record[column.field]));
      if (column.line == 0) column.text = text, column.line = line;
      if (text != column.text)
        throw UserError("{}:{}: {} is \"{}\", and in line {} \"{}\"; one fit takes one (--same), so fit them apart", fields_.file.string(),
                        line, fields_.headings[column.field], text, column.line, column.text);
    }
  }

 private:
  struct Column {
    size_t field;
    std::string text;
    int64_t line;
  };
  const Fields& fields_;
  std::vector<Column> columns_;
};

}  // namespace

PointTable read_points(const std::filesystem::path& file, const Definitions& columns,
                       const std::vector<std::string>& needed, const Selection& selection) {
  const std::string text = base::read_file(file);
  size_t at = std::string_view(text).starts_with("\xEF\xBB\xBF") ? 3 : 0;
  int64_t line = 1;
  if (at >= text.size()) throw UserError("{}: is empty; expected a line of headings and rows", file.string());
  Fields fields{file, columns, next_record(text, at, line, file)};
  for (std::string& heading : fields.headings) heading = trimmed(heading);
  for (const Definitions::One& one : columns.all()) fields.want(one);
  fields.want(selection.where, "--where");
  fields.want(selection.hold_out, "--hold-out");
  OneText one_text(fields, selection.same);

  PointTable table;
  while (at < text.size()) {
    const int64_t here = line;
    const std::vector<std::string> record = next_record(text, at, line, file);
    if (record.size() == 1 && trimmed(record[0]).empty()) continue;
    const std::string place = fmt::format("{}:{}", file.string(), here);
    if (record.size() != fields.headings.size())
      throw UserError("{}: has {} fields; expected {} as in the line of headings", place, record.size(), fields.headings.size());
    ++table.rows;
    const auto holds = [&](const std::optional<Condition>& condition) {
      return condition->holds(fields.evaluate(condition->names(), record, place));
    };
    if (selection.where && !holds(selection.where)) continue;
    one_text.check(record, here);
    PointRow row{here, fields.evaluate({needed.begin(), needed.end()}, record, place), ""};
    for (const auto& [name, value] : row.values)
      if (!(std::isfinite(value) && value > 0))
        throw UserError("{}: {} is {:g}; expected a finite positive number", place, name, value);
    if (fields.run) row.run = trimmed(record[*fields.run]);
    if (fields.run && row.run.empty())
      throw UserError("{}: {} is empty; expected the name of the run", place, fields.headings[*fields.run]);
    const bool held = selection.hold_out && holds(selection.hold_out);
    (held ? table.held_out : table.fitted).push_back(std::move(row));
  }
  return table;
}

}  // namespace varscale::analysis
