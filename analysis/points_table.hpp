// Points of a fit from a CSV file of anyone's.
//
//   Definitions columns = Definitions::parse("N=Model Size,C=Training FLOP,D=C/(6*N),loss=loss", "--columns");
//   PointTable table = read_points("points.csv", columns, {"N", "D", "loss"}, {.where = Condition::parse("C < 1e21", "--where")});
//   table.fitted[0].values.at("D")
//
// Columns     NAME=TEXT, separated by commas outside brackets. TEXT is the heading of a column, exactly, or a formula
//             (sweep/expression.hpp) in other NAMEs and in headings that are names. Within its own formula, NAME is the
//             column of that heading.
// Conditions  comparisons of two such formulas by < <= > >= == !=, joined by "and".
// File        a line of headings, then rows of as many fields, separated by commas; fields may be quoted, lines may end
//             with CR, empty lines are skipped.
// Errors      UserError with file and line: a missing column, a row of another length, a field that is no number, a
//             needed value that is not finite and positive, two texts in a column that must have one; for the text of an option: what is not understood in it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "sweep/expression.hpp"

namespace varscale::analysis {

// NAME=TEXT pairs of an option, in their order.
class Definitions {
 public:
  struct One {
    std::string name, text;
    std::optional<sweep::Expression> formula;  // nothing where the text can only be a heading
    std::string no_formula;                    // and why
  };

  static Definitions parse(std::string_view text, std::string_view option);
  const std::vector<One>& all() const noexcept { return all_; }
  const One* find(std::string_view name) const;
  const std::string& option() const noexcept { return option_; }

 private:
  std::vector<One> all_;
  std::string option_;
};

class Condition {
 public:
  static Condition parse(std::string_view text, std::string_view option);
  bool holds(const sweep::Variables& values) const;
  std::set<std::string> names() const;

 private:
  struct Comparison {
    sweep::Expression left, right;
    std::string sign;
  };
  std::vector<Comparison> comparisons_;
};

// Values by name, each from its definition, from other names, or from `given` (the fields of a row).
class Evaluation {
 public:
  Evaluation(const Definitions& definitions, const sweep::Variables& given)
      : definitions_(definitions), given_(given) {}
  double value(const std::string& name);  // UserError: unknown, or defined by itself

 private:
  const Definitions& definitions_;
  const sweep::Variables& given_;
  std::map<std::string, double> known_;
  std::set<std::string> under_way_;
};

struct PointRow {
  int64_t line = 0;
  sweep::Variables values;  // of the needed names
  std::string run;          // empty where no column says it
};

struct Selection {
  std::optional<Condition> where = {};     // rows to read
  std::optional<Condition> hold_out = {};  // rows of those to predict instead of fitting them
  std::vector<std::string> same = {};      // headings whose text must be one in all rows read, such as a unit
};

struct PointTable {
  std::vector<PointRow> fitted, held_out;
  int64_t rows = 0;  // of the file
};

PointTable read_points(const std::filesystem::path& file, const Definitions& columns,
                       const std::vector<std::string>& needed, const Selection& selection);

// The names that formulas of the definitions refer to; that of a definition itself does not count.
std::set<std::string> names_in_formulas(const Definitions& definitions);

}  // namespace varscale::analysis
