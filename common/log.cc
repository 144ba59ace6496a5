#include "common/log.h"

#include "common/quote.h"
#include "spdlog/sinks/stdout_color_sinks.h"
#include "spdlog/spdlog.h"

namespace bellwether {
namespace {

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

spdlog::logger& Logger() {
  static const auto logger = [] {
    auto made = std::make_shared<spdlog::logger>("", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
    made->set_pattern("%Y-%m-%dT%H:%M:%S.%e %^%-7l%$ %n %v");
    made->set_level(spdlog::level::warn);
    return made;
  }();
  return *logger;
}

}  // namespace

std::string LogText(std::string_view message) {
  while (!message.empty() && message.back() == '\n') message.remove_suffix(1);
  std::string text;
  for (const char c : Printable(message)) {
    if (c == '\n') {
      text += "\n    ";
    } else if (static_cast<unsigned char>(c) < ' ' || c == 127) {
      absl::StrAppend(&text, "\\x", absl::Hex(c, absl::kZeroPad2));
    } else {
      text += c;
    }
  }
  return text;
}

void Log(LogLevel level, std::string_view message) { Logger().log(ToSpdlog(level), LogText(message)); }

void InitLogging(std::string_view program, LogLevel minimum) {
  Logger().set_pattern("%Y-%m-%dT%H:%M:%S.%e %^%-7l%$ " + std::string(program) + "[%P] %v");
  Logger().set_level(ToSpdlog(minimum));
}

LogLevel ParseLogLevel(std::string_view name) {
  if (name == "debug") return LogLevel::kDebug;
  if (name == "warning") return LogLevel::kWarning;
  if (name == "error") return LogLevel::kError;
  return LogLevel::kInfo;
}

}  // namespace bellwether
