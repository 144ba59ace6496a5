#include "common/json.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/quote.h"
#include "common/status.h"
#include "common/utf8.h"

namespace bellwether {

// Values
// ------

namespace {

const Json& Null() {
  static const Json null;
  return null;
}

}  // namespace

Json Json::object(std::initializer_list<Member> members) { return Json(Object(members)); }

Json Json::array(std::initializer_list<Json> elements) { return Json(Array(elements)); }

bool Json::is_number() const {
  const double* real = std::get_if<double>(&value_);
  return is_number_integer() || (real != nullptr && std::isfinite(*real));
}

bool Json::is_number_integer() const {
  return std::holds_alternative<int64_t>(value_) || std::holds_alternative<uint64_t>(value_);
}

bool Json::is_number_unsigned() const {
  const int64_t* integer = std::get_if<int64_t>(&value_);
  return std::holds_alternative<uint64_t>(value_) || (integer != nullptr && *integer >= 0);
}

bool Json::is_not_finite() const {
  const double* real = std::get_if<double>(&value_);
  return real != nullptr && !std::isfinite(*real);
}

int64_t Json::Integer() const {
  if (const int64_t* integer = std::get_if<int64_t>(&value_)) return *integer;
  if (const uint64_t* large = std::get_if<uint64_t>(&value_)) return static_cast<int64_t>(*large);
  return 0;
}

double Json::Number() const {
  if (const double* real = std::get_if<double>(&value_)) return *real;
  if (const uint64_t* large = std::get_if<uint64_t>(&value_)) return static_cast<double>(*large);
  return static_cast<double>(Integer());
}

const std::string& Json::text() const {
  static const std::string none;
  return is_string() ? std::get<std::string>(value_) : none;
}

const Json::Array& Json::elements() const {
  static const Array none;
  return is_array() ? std::get<Array>(value_) : none;
}

const Json::Object& Json::items() const {
  static const Object none;
  return is_object() ? std::get<Object>(value_) : none;
}

const Json& Json::At(size_t index) const { return index < elements().size() ? elements()[index] : Null(); }

const Json* Json::find(std::string_view name) const {
  const auto found = std::find_if(items().begin(), items().end(),
                                  [name](const Member& member) { return member.first == name; });
  return found == items().end() ? nullptr : &found->second;
}

const Json& Json::operator[](std::string_view name) const {
  const Json* found = find(name);
  return found == nullptr ? Null() : *found;
}

Json& Json::operator[](std::string_view name) {
  if (!is_object()) value_ = Object();
  if (const Json* found = find(name)) return *const_cast<Json*>(found);
  return std::get<Object>(value_).emplace_back(std::string(name), Json()).second;
}

void Json::push_back(Json element) {
  if (!is_array()) value_ = Array();
  std::get<Array>(value_).push_back(std::move(element));
}

bool operator==(const Json& a, const Json& b) {
  const bool numbers = (a.is_number() || a.is_not_finite()) && (b.is_number() || b.is_not_finite());
  if (numbers && !(a.is_number_integer() && b.is_number_integer())) return a.Number() == b.Number();
  return a.value_ == b.value_;
}

// Reading
// -------

namespace {

class Reader {
 public:
  Reader(std::string_view text, JsonEvents& events) : text_(WithoutByteOrderMark(text)), events_(events) {}

  absl::Status Run() {
    BW_RETURN_IF_ERROR(Value(/*depth=*/0));
    SkipBlanks();
    return at_ == text_.size() ? absl::OkStatus() : Refuse("something follows the value");
  }

 private:
  std::string Place() const {
    const std::string_view before = text_.substr(0, at_);
    const size_t line = 1 + static_cast<size_t>(std::count(before.begin(), before.end(), '\n'));
    const size_t column = at_ - (before.rfind('\n') + 1) + 1;  // npos + 1 is 0
    return absl::StrCat("line ", line, ", column ", column);
  }
  absl::Status Refuse(std::string_view what) const {
    return absl::InvalidArgumentError(absl::StrCat("not valid JSON at ", Place(), ": ", std::string(what),
                                                   at_ == text_.size() ? " (is the file cut short?)" : ""));
  }
  absl::Status CheckLimits(int depth) {
    if (depth > kJsonDepthMax) {
      return absl::InvalidArgumentError(
          absl::StrCat("JSON nested deeper than ", kJsonDepthMax, " levels at ", Place()));
    }
    if (++values_ <= kJsonValuesMax) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("JSON of more than ", kJsonValuesMax, " values"));
  }

  void SkipBlanks() {
    while (at_ < text_.size() && std::string_view(" \t\r\n").find(text_[at_]) != std::string_view::npos)
      ++at_;
  }
  char Peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  bool Take(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }

  absl::Status Value(int depth) {
    SkipBlanks();
    BW_RETURN_IF_ERROR(CheckLimits(depth));
    switch (Peek()) {
      case '{':
        return ObjectAt(depth);
      case '[':
        return ArrayAt(depth);
      case '"': {
        std::string text;
        BW_RETURN_IF_ERROR(StringAt(&text));
        return events_.Scalar(std::move(text));
      }
      default:
        return WordOrNumber();
    }
  }

  absl::Status ObjectAt(int depth) {
    Take("{");
    BW_RETURN_IF_ERROR(events_.BeginObject());
    SkipBlanks();
    for (bool first = true; !Take("}"); first = false) {
      if (!first && !Take(",")) return Refuse("expected ',' or '}'");
      SkipBlanks();
      if (Peek() != '"') return Refuse("expected a name in quotes");
      std::string name;
      BW_RETURN_IF_ERROR(StringAt(&name));
      BW_RETURN_IF_ERROR(events_.Key(std::move(name)));
      SkipBlanks();
      if (!Take(":")) return Refuse("expected ':'");
      BW_RETURN_IF_ERROR(Value(depth + 1));
      SkipBlanks();
    }
    return events_.EndObject();
  }

  absl::Status ArrayAt(int depth) {
    Take("[");
    BW_RETURN_IF_ERROR(events_.BeginArray());
    SkipBlanks();
    for (bool first = true; !Take("]"); first = false) {
      if (!first && !Take(",")) return Refuse("expected ',' or ']'");
      BW_RETURN_IF_ERROR(Value(depth + 1));
      SkipBlanks();
    }
    return events_.EndArray();
  }

  absl::Status WordOrNumber() {
    if (Take("null")) return events_.Scalar(nullptr);
    if (Take("true")) return events_.Scalar(true);
    if (Take("false")) return events_.Scalar(false);
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    if (Take("NaN")) return events_.Scalar(std::numeric_limits<double>::quiet_NaN());
    if (Take("Infinity")) return events_.Scalar(kInfinity);
    if (Take("-Infinity")) return events_.Scalar(-kInfinity);
    return NumberAt();
  }

  size_t TakeDigits() {
    const size_t begin = at_;
    while (Peek() >= '0' && Peek() <= '9') ++at_;
    return at_ - begin;
  }

  absl::Status NumberAt() {
    const size_t begin = at_;
    Take("-");
    const bool leading_zero = Peek() == '0';
    const size_t digits = TakeDigits();
    if (digits == 0 || (leading_zero && digits > 1)) return Refuse("expected a value");
    bool integer = true;
    if (Take(".")) {
      integer = false;
      if (TakeDigits() == 0) return Refuse("expected digits");
    }
    if (Take("e") || Take("E")) {
      integer = false;
      if (!Take("+")) Take("-");
      if (TakeDigits() == 0) return Refuse("expected digits");
    }
    const absl::string_view number(text_.data() + begin, at_ - begin);
    int64_t whole = 0;
    uint64_t large = 0;
    if (integer && absl::SimpleAtoi(number, &whole)) return events_.Scalar(whole);
    if (integer && absl::SimpleAtoi(number, &large)) return events_.Scalar(large);
    double real = 0;
    if (!absl::SimpleAtod(number, &real)) return Refuse("expected a number");  // beyond its range: infinite
    return events_.Scalar(real);
  }

  absl::Status StringAt(std::string* out) {
    Take("\"");
    while (true) {
      const size_t end = text_.find_first_of("\"\\", at_);
      if (end == std::string_view::npos) {
        at_ = text_.size();
        return Refuse("a text without an end");
      }
      BW_RETURN_IF_ERROR(PlainText(text_.substr(at_, end - at_), out));
      at_ = end + 1;
      if (text_[end] == '"') return absl::OkStatus();
      BW_RETURN_IF_ERROR(EscapeAt(out));
    }
  }

  absl::Status PlainText(std::string_view text, std::string* out) {
    const auto control =
        std::find_if(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < ' '; });
    if (control != text.end()) {
      at_ += static_cast<size_t>(control - text.begin());
      return Refuse("a control character in a text");
    }
    if (const size_t valid = ValidUtf8Prefix(text); valid != text.size()) {
      at_ += valid;
      return Refuse("not UTF-8");
    }
    out->append(text);
    return absl::OkStatus();
  }

  // Behind the backslash.
  absl::Status EscapeAt(std::string* out) {
    constexpr std::string_view kNames = "\"\\/bfnrt", kMeanings = "\"\\/\b\f\n\r\t";
    const char name = Peek();
    if (const size_t at = kNames.find(name); name != '\0' && at != std::string_view::npos) {
      ++at_;
      out->push_back(kMeanings[at]);
      return absl::OkStatus();
    }
    uint32_t unit = 0, second = 0;
    if (!Take("u") || !CodeUnitAt(&unit)) return Refuse("an unknown escape");
    if (unit < 0xD800 || unit > 0xDFFF) {
      AppendUtf8(unit, out);
      return absl::OkStatus();
    }
    // Half of a pair: nothing without the other half.
    if (unit > 0xDBFF || !Take("\\u") || !CodeUnitAt(&second) || second < 0xDC00 || second > 0xDFFF)
      return Refuse("half of a surrogate pair");
    AppendUtf8(0x10000 + ((unit - 0xD800) << 10) + (second - 0xDC00), out);
    return absl::OkStatus();
  }

  bool CodeUnitAt(uint32_t* unit) {
    const std::string_view digits = text_.substr(at_, 4);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), *unit, 16);
    if (error != std::errc() || end != digits.data() + 4) return false;
    at_ += 4;
    return true;
  }

  const std::string_view text_;
  JsonEvents& events_;
  size_t at_ = 0;
  size_t values_ = 0;
};

// Members with equal names: the last one counts, in its own place.
void DropEarlierNamesakes(Json::Object* members) {
  std::vector<size_t> order(members->size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return (*members)[a].first < (*members)[b].first; });
  std::vector<bool> dropped(members->size());
  bool any = false;
  for (size_t i = 1; i < order.size(); ++i) {
    if ((*members)[order[i - 1]].first != (*members)[order[i]].first) continue;
    dropped[order[i - 1]] = any = true;
  }
  if (!any) return;
  Json::Object kept;
  for (size_t i = 0; i < members->size(); ++i) {
    if (!dropped[i]) kept.push_back(std::move((*members)[i]));
  }
  *members = std::move(kept);
}

class TreeBuilder : public JsonEvents {
 public:
  absl::Status Scalar(Json value) override { return Add(std::move(value)); }
  absl::Status BeginObject() override { return Open(); }
  absl::Status Key(std::string name) override {
    open_.back().members.emplace_back(std::move(name), Json());
    return absl::OkStatus();
  }
  absl::Status EndObject() override {
    Json::Object members = std::move(open_.back().members);
    open_.pop_back();
    DropEarlierNamesakes(&members);
    return Add(Json(std::move(members)));
  }
  absl::Status BeginArray() override { return Open(); }
  absl::Status EndArray() override {
    Json array(std::move(open_.back().elements));
    open_.pop_back();
    return Add(std::move(array));
  }
  Json Take() { return std::move(root_); }

 private:
  // An array or an object that is not complete.
  struct Container {
    Json::Array elements;
    Json::Object members;
  };
  absl::Status Open() {
    open_.emplace_back();
    return absl::OkStatus();
  }
  absl::Status Add(Json value) {
    if (open_.empty()) {
      root_ = std::move(value);
    } else if (!open_.back().members.empty()) {
      open_.back().members.back().second = std::move(value);
    } else {
      open_.back().elements.push_back(std::move(value));
    }
    return absl::OkStatus();
  }

  std::vector<Container> open_;
  Json root_;
};

}  // namespace

absl::Status ReadJson(std::string_view text, JsonEvents& events) { return Reader(text, events).Run(); }

absl::StatusOr<Json> ParseJson(std::string_view text) {
  TreeBuilder builder;
  BW_RETURN_IF_ERROR(ReadJson(text, builder));
  return builder.Take();
}

// Writing
// -------

namespace {

void WriteText(std::string_view text, std::string* out) {
  out->push_back('"');
  for (const char c : Printable(text)) {
    if (c == '"' || c == '\\') {
      out->push_back('\\');
      out->push_back(c);
    } else if (c == '\n') {
      out->append("\\n");
    } else if (c == '\t') {
      out->append("\\t");
    } else if (c == '\r') {
      out->append("\\r");
    } else if (static_cast<unsigned char>(c) < ' ' || c == 127) {
      absl::StrAppend(out, "\\u", absl::Hex(c, absl::kZeroPad4));
    } else {
      out->push_back(c);
    }
  }
  out->push_back('"');
}

// The shortest text that reads back as the same number.
void WriteReal(double value, std::string* out) {
  if (!std::isfinite(value)) {
    out->append("null");
    return;
  }
  char digits[32];
  const auto end = std::to_chars(digits, digits + sizeof(digits), value).ptr;
  const std::string_view text(digits, static_cast<size_t>(end - digits));
  out->append(text);
  if (text.find_first_of(".e") == std::string_view::npos) out->append(".0");
}

void BreakLine(int indent, int level, std::string* out) {
  if (indent == 0) return;
  out->push_back('\n');
  out->append(static_cast<size_t>(indent) * static_cast<size_t>(level), ' ');
}

}  // namespace

void WriteValue(const Json& value, int indent, int level, std::string* out) {
  if (value.is_object() || value.is_array()) {
    out->push_back(value.is_object() ? '{' : '[');
    const char* comma = "";
    const auto separate = [&] {
      out->append(comma);
      comma = ",";
      BreakLine(indent, level + 1, out);
    };
    for (const auto& [name, member] : value.items()) {
      separate();
      WriteText(name, out);
      out->append(indent == 0 ? ":" : ": ");
      WriteValue(member, indent, level + 1, out);
    }
    for (const Json& element : value) {
      separate();
      WriteValue(element, indent, level + 1, out);
    }
    if (!value.empty()) BreakLine(indent, level, out);
    out->push_back(value.is_object() ? '}' : ']');
  } else if (value.is_string()) {
    WriteText(value.text(), out);
  } else if (value.is_boolean()) {
    out->append(value.get<bool>() ? "true" : "false");
  } else if (value.is_null()) {
    out->append("null");
  } else if (const uint64_t* large = std::get_if<uint64_t>(&value.value_)) {
    absl::StrAppend(out, *large);
  } else if (value.is_number_integer()) {
    absl::StrAppend(out, value.get<int64_t>());
  } else {
    WriteReal(value.get<double>(), out);
  }
}

std::string WriteJson(const Json& value, int indent) {
  std::string text;
  WriteValue(value, indent, /*level=*/0, &text);
  return text;
}

}  // namespace bellwether
