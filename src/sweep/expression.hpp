// Small formulas for numeric settings: a rule such as "6e-3 / depth" instead of one number per run.
//
//   Expression rule = Expression::parse("min(6e-3 / depth, 2e-3)");
//   rule.names();                                  // {"depth"}
//   rule.evaluate({{"depth", 4}});                 // 0.0015
//
// Grammar  numbers, names, + - * / ^ (right-associative, above the sign), ( ), sqrt(x), min(x, ...),
//          max(x, ...). The result is rounded to 12 significant digits, so that 6e-3 / 3 is 0.002.
// Errors   UserError without a place (the caller knows it): what is not understood, a name without
//          a value, a result that is not finite.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace varscale::sweep {

using Variables = std::map<std::string, double, std::less<>>;

class Expression {
 public:
  static Expression parse(std::string_view text);  // at most 200 characters
  double evaluate(const Variables& variables) const;
  double exact(const Variables& variables) const;  // not rounded, and not refused where it is not finite
  std::set<std::string> names() const;
  const std::string& text() const noexcept { return text_; }

 private:
  friend class ExpressionParser;
  struct Term;
  std::shared_ptr<const Term> root_;
  std::string text_;
};

}  // namespace varscale::sweep
