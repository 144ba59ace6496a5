#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"

namespace bellwether {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

// What a line is about, for whoever searches for it: "request", "worker", "epoch" ...
struct LogField {
  std::string name;  // one of ours: lower case, one word
  std::string value;
};
using LogFields = std::vector<LogField>;

// Lines on stderr: time, level, program, message, fields. Never prompts or answers, unless --log-prompts asks
// for them. Safe from every thread.
void Log(LogLevel level, std::string_view message, const LogFields& fields = {});
// A message as it is written, whoever had a part in it: further lines are indented, so that none looks like
// one of ours, and other control characters and bytes that are not UTF-8 are escaped.
std::string LogText(std::string_view message);

// What all later lines of this process are about, after their own fields. Those of before are forgotten. Any
// thread.
void SetLogFields(LogFields fields);

struct LogOptions {
  std::string level = "info";  // or debug, warning, error: lines of lower rank are dropped
  // text: fields follow the message, [request=r-1 epoch=4]. json: an object a line, with time (UTC), level,
  // program, pid, message, and a member for each field.
  std::string format = "text";
};
// Called once by main. `program` is put in every line.
void InitLogging(std::string_view program, const LogOptions& options);

template <typename... Args>
void LogDebug(const Args&... args) {
  Log(LogLevel::kDebug, absl::StrCat(args...));
}
template <typename... Args>
void LogInfo(const Args&... args) {
  Log(LogLevel::kInfo, absl::StrCat(args...));
}
template <typename... Args>
void LogWarning(const Args&... args) {
  Log(LogLevel::kWarning, absl::StrCat(args...));
}
template <typename... Args>
void LogError(const Args&... args) {
  Log(LogLevel::kError, absl::StrCat(args...));
}

}  // namespace bellwether
