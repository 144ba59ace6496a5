#pragma once

#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"

namespace bellwether {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

// Lines on stderr: time, level, program, message. Never prompts or answers. Safe from every thread.
void Log(LogLevel level, std::string_view message);
// A message as it is written, whoever had a part in it: further lines are indented, so that none looks like
// one of ours, and other control characters and bytes that are not UTF-8 are escaped.
std::string LogText(std::string_view message);

// Called once by main. `program` is put in every line; messages below `minimum` are dropped.
void InitLogging(std::string_view program, LogLevel minimum);
// "debug", "info", "warning", "error"; anything else is info.
LogLevel ParseLogLevel(std::string_view name);

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
