#include "sweep/expression.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <utility>

#include "base/error.hpp"

namespace varscale::sweep {

using base::UserError;

constexpr size_t kLongest = 200;  // also bounds the parser's recursion

struct Expression::Term {
  enum class Kind { kNumber, kName, kMinus, kAdd, kSubtract, kMultiply, kDivide, kPower, kCall };
  Kind kind;
  double number = 0;
  std::string name;  // of a variable or a function
  std::vector<std::shared_ptr<const Term>> parts;

  double evaluate(const Variables& variables) const {
    const auto part = [&](size_t i) { return parts[i]->evaluate(variables); };
    switch (kind) {
      case Kind::kNumber:
        return number;
      case Kind::kMinus:
        return -part(0);
      case Kind::kAdd:
        return part(0) + part(1);
      case Kind::kSubtract:
        return part(0) - part(1);
      case Kind::kMultiply:
        return part(0) * part(1);
      case Kind::kDivide:
        return part(0) / part(1);
      case Kind::kPower:
        return std::pow(part(0), part(1));
      case Kind::kName: {
        const auto found = variables.find(name);
        if (found == variables.end()) {
          std::vector<std::string> known;
          for (const auto& [variable, value] : variables) known.push_back(variable);
          throw UserError("{} is not a name that this formula may use; known here: {}", name,
                          known.empty() ? "none" : fmt::format("{}", fmt::join(known, ", ")));
        }
        return found->second;
      }
      case Kind::kCall:
        break;
    }
    double value = part(0);
    if (name == "sqrt") return std::sqrt(value);
    for (size_t i = 1; i < parts.size(); ++i)
      value = name == "min" ? std::min(value, part(i)) : std::max(value, part(i));
    return value;
  }

  void collect(std::set<std::string>& names) const {
    if (kind == Kind::kName) names.insert(name);
    for (const auto& part : parts) part->collect(names);
  }
};

// Recursive descent, one function per level of precedence.
class ExpressionParser {
 public:
  using Term = Expression::Term;
  using Pointer = std::shared_ptr<const Term>;
  using Kind = Term::Kind;

  explicit ExpressionParser(std::string_view text) : text_(text) {}

  Pointer parse() {
    Pointer root = sum();
    skip_space();
    if (at_ < text_.size()) refuse(fmt::format("\"{}\" is not expected", text_.substr(at_)));
    return root;
  }

 private:
  [[noreturn]] static void refuse(const std::string& why) { throw UserError(why); }
  void skip_space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t')) ++at_;
  }
  bool take(char symbol) {
    skip_space();
    if (at_ >= text_.size() || text_[at_] != symbol) return false;
    ++at_;
    return true;
  }
  static Pointer make(Kind kind, std::vector<Pointer> parts) {
    return std::make_shared<const Term>(Term{kind, 0, {}, std::move(parts)});
  }
  // A braced list of terms, one of which throws while it is parsed, is destroyed twice by g++ 12 inside a conditional
  // expression: so both sides are there before the list is.
  static Pointer pair(Kind kind, const Pointer& left, const Pointer& right) { return make(kind, {left, right}); }

  Pointer sum() {
    Pointer left = product();
    for (;;) {
      if (take('+')) {
        left = pair(Kind::kAdd, left, product());
      } else if (take('-')) {
        left = pair(Kind::kSubtract, left, product());
      } else {
        return left;
      }
    }
  }
  Pointer product() {
    Pointer left = sign();
    for (;;) {
      if (take('*')) {
        left = pair(Kind::kMultiply, left, sign());
      } else if (take('/')) {
        left = pair(Kind::kDivide, left, sign());
      } else {
        return left;
      }
    }
  }
  Pointer sign() {
    if (take('-')) return make(Kind::kMinus, {sign()});
    if (take('+')) return sign();
    Pointer base = atom();
    if (!take('^')) return base;
    return pair(Kind::kPower, base, sign());
  }
  Pointer atom() {
    skip_space();
    if (take('(')) {
      Pointer inner = sum();
      if (!take(')')) refuse("a closing bracket is missing");
      return inner;
    }
    if (at_ >= text_.size()) refuse("it ends too early");
    if (is_letter(text_[at_])) return name_or_call();
    double number = 0;
    const char* begin = text_.data() + at_;
    const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), number);
    if (error != std::errc() || !std::isfinite(number))
      refuse(fmt::format("\"{}\" is not expected", text_.substr(at_)));
    at_ += static_cast<size_t>(end - begin);
    return std::make_shared<const Term>(Term{Kind::kNumber, number, {}, {}});
  }
  static bool is_letter(char symbol) {
    return (symbol >= 'a' && symbol <= 'z') || (symbol >= 'A' && symbol <= 'Z') || symbol == '_';
  }
  Pointer name_or_call() {
    const size_t begin = at_;
    while (at_ < text_.size() &&
           (is_letter(text_[at_]) || (text_[at_] >= '0' && text_[at_] <= '9')))
      ++at_;
    std::string name(text_.substr(begin, at_ - begin));
    if (!take('(')) return std::make_shared<const Term>(Term{Kind::kName, 0, std::move(name), {}});
    if (name != "sqrt" && name != "min" && name != "max")
      refuse(fmt::format("unknown function {}; known: sqrt, min, max", name));
    std::vector<Pointer> parts{sum()};
    while (take(',')) parts.push_back(sum());
    if (!take(')')) refuse("a closing bracket is missing");
    if (name == "sqrt" && parts.size() != 1) refuse("sqrt takes one number");
    return std::make_shared<const Term>(Term{Kind::kCall, 0, std::move(name), std::move(parts)});
  }

  std::string_view text_;
  size_t at_ = 0;
};

Expression Expression::parse(std::string_view text) {
  if (text.size() > kLongest)
    throw UserError("it has {} characters; a formula has at most {}", text.size(), kLongest);
  Expression expression;
  expression.text_ = text;
  expression.root_ = ExpressionParser(expression.text_).parse();
  return expression;
}

double Expression::exact(const Variables& variables) const { return root_->evaluate(variables); }

double Expression::evaluate(const Variables& variables) const {
  const double value = exact(variables);
  if (!std::isfinite(value)) throw UserError("it gives {}, not a finite number", value);
  return std::strtod(fmt::format("{:.12g}", value).c_str(), nullptr);
}

std::set<std::string> Expression::names() const {
  std::set<std::string> names;
  root_->collect(names);
  return names;
}

}  // namespace varscale::sweep
