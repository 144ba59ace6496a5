#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace bellwether {

// A JSON value, the project's one reader of JSON and its one writer. Nothing here throws: a value that is
// asked for what it is not gives an empty one, and a text that is not JSON gives a Status.
class Json {
 public:
  using Array = std::vector<Json>;
  using Member = std::pair<std::string, Json>;
  using Object = std::vector<Member>;  // in the order in which they were read or added; names differ

  Json() = default;
  Json(std::nullptr_t) {}
  Json(bool value) : value_(value) {}
  template <typename T, std::enable_if_t<std::is_integral_v<T>, int> = 0>
  Json(T value) {
    if (value > 0 && static_cast<uint64_t>(value) > uint64_t{INT64_MAX}) {
      value_ = static_cast<uint64_t>(value);
    } else {
      value_ = static_cast<int64_t>(value);
    }
  }
  Json(double value) : value_(value) {}
  Json(std::string value) : value_(std::move(value)) {}
  Json(std::string_view value) : value_(std::string(value)) {}
  Json(const char* value) : value_(std::string(value)) {}
  Json(Array elements) : value_(std::move(elements)) {}
  Json(Object members) : value_(std::move(members)) {}
  template <typename T>
  Json(const std::vector<T>& elements) : value_(Array(elements.begin(), elements.end())) {}

  // Json::object({{"name", 1}, {"other", "text"}})
  static Json object(std::initializer_list<Member> members = {});
  static Json array(std::initializer_list<Json> elements = {});

  bool is_null() const { return value_.index() == 0; }
  bool is_boolean() const { return std::holds_alternative<bool>(value_); }
  bool is_number() const;           // a finite one
  bool is_number_integer() const;   // written without a point, and within 64 bits
  bool is_number_unsigned() const;  // an integer that is not negative
  bool is_not_finite() const;       // NaN, Infinity, or beyond what a double holds
  bool is_string() const { return std::holds_alternative<std::string>(value_); }
  bool is_array() const { return std::holds_alternative<Array>(value_); }
  bool is_object() const { return std::holds_alternative<Object>(value_); }
  bool is_structured() const { return is_array() || is_object(); }

  // bool, an integer, a floating-point number, or std::string. False, 0 and "" for a value of another kind;
  // an integer that T does not hold is cut: ask before whether it is in range.
  template <typename T>
  T get() const {
    if constexpr (std::is_same_v<T, std::string>) {
      return text();
    } else if constexpr (std::is_same_v<T, bool>) {
      return is_boolean() && std::get<bool>(value_);
    } else if constexpr (std::is_integral_v<T>) {
      return static_cast<T>(Integer());
    } else {
      return static_cast<T>(Number());
    }
  }
  const std::string& text() const;  // without a copy
  const Array& elements() const;    // none unless an array
  const Object& items() const;      // none unless an object
  size_t size() const { return elements().size() + items().size(); }
  bool empty() const { return size() == 0; }

  // Of an array; an index beyond it gives null, and an object has no elements to walk: see items().
  template <typename T, std::enable_if_t<std::is_integral_v<T>, int> = 0>
  const Json& operator[](T index) const {
    return At(static_cast<size_t>(index));
  }
  const Json& front() const { return At(0); }
  const Json* begin() const { return elements().data(); }
  const Json* end() const { return elements().data() + elements().size(); }

  // Of an object. `find` gives a null pointer where there is no such member, [] gives null.
  const Json* find(std::string_view name) const;
  bool contains(std::string_view name) const { return find(name) != nullptr; }
  const Json& operator[](std::string_view name) const;
  const Json& operator[](const char* name) const { return (*this)[std::string_view(name)]; }

  // For writing: null becomes an object or an array; what is neither loses its value.
  Json& operator[](std::string_view name);
  Json& operator[](const char* name) { return (*this)[std::string_view(name)]; }
  void push_back(Json element);

  // Numbers are compared by value: 1 equals 1.0.
  friend bool operator==(const Json& a, const Json& b);

 private:
  const Json& At(size_t index) const;
  int64_t Integer() const;
  double Number() const;
  friend void WriteValue(const Json&, int, int, std::string*);

  std::variant<std::monostate, bool, int64_t, uint64_t, double, std::string, Array, Object> value_;
};

inline constexpr int kJsonDepthMax = 64;
inline constexpr size_t kJsonValuesMax = size_t{1} << 24;

// What a text consists of, in its order, for readers that need no tree. An error ends the reading.
class JsonEvents {
 public:
  virtual ~JsonEvents() = default;
  virtual absl::Status Scalar(Json value) = 0;  // neither array nor object
  virtual absl::Status BeginObject() = 0;
  virtual absl::Status Key(std::string name) = 0;
  virtual absl::Status EndObject() = 0;
  virtual absl::Status BeginArray() = 0;
  virtual absl::Status EndArray() = 0;
};

// Reads a text of JSON. A byte-order mark before it is passed over, and Python's NaN, Infinity and -Infinity
// are values. InvalidArgument with line and column: not JSON, not UTF-8, nested deeper than kJsonDepthMax, or
// more than kJsonValuesMax values. Other errors are those of `events`.
absl::Status ReadJson(std::string_view text, JsonEvents& events);

// The value of the text. Of members with the same name the last one counts.
absl::StatusOr<Json> ParseJson(std::string_view text);

// The text of a value, in lines with steps of `indent` blanks, or in one line without. Always valid UTF-8:
// other bytes are shown as Printable() has them. Numbers that JSON cannot say become null.
std::string WriteJson(const Json& value, int indent = 0);

}  // namespace bellwether
