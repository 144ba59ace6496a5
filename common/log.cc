#include "common/log.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/json.h"
#include "common/mutex.h"
#include "common/quote.h"
#include "spdlog/sinks/stdout_color_sinks.h"
#include "spdlog/spdlog.h"

namespace bellwether {
namespace {

// U+0080 to U+009F, which some terminals obey, are C2 80 to C2 9F in UTF-8.
constexpr unsigned char kC1Lead = 0xC2;
constexpr unsigned char kC1End = 0xA0;

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

const char* Name(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kError:
      return "error";
  }
  return "info";
}

LogLevel ParseLevel(std::string_view name) {
  for (const LogLevel level : {LogLevel::kDebug, LogLevel::kWarning, LogLevel::kError}) {
    if (name == Name(level)) return level;
  }
  return LogLevel::kInfo;
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

// What all lines of the process have in common.
struct Common {
  Mutex mutex;
  std::string program ABSL_GUARDED_BY(mutex);
  bool json ABSL_GUARDED_BY(mutex) = false;
  LogFields fields ABSL_GUARDED_BY(mutex);
};
Common& TheCommon() {
  static auto* common = new Common;  // threads may write until the end
  return *common;
}

// " [request=r-1 of="a b"]"; nothing without fields. Whoever had a part in a value cannot end it.
std::string FieldsText(const LogFields& fields) {
  if (fields.empty()) return {};
  const auto plain = [](unsigned char c) { return c > ' ' && c < 127 && c != '"' && c != ']' && c != '\\'; };
  return absl::StrCat(
      " [",
      absl::StrJoin(fields, " ",
                    [plain](std::string* out, const LogField& field) {
                      const bool as_it_is = std::all_of(field.value.begin(), field.value.end(), plain);
                      absl::StrAppend(out, field.name, "=", as_it_is ? field.value : Quoted(field.value));
                    }),
      "]");
}

std::string JsonLine(std::string_view program, LogLevel level, std::string_view message,
                     const LogFields& fields) {
  while (!message.empty() && message.back() == '\n') message.remove_suffix(1);
  Json::Object line = {{"time", absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(), absl::UTCTimeZone())},
                       {"level", Name(level)},
                       {"program", program},
                       {"pid", getpid()},
                       {"message", Printable(message)}};
  for (const LogField& field : fields) line.emplace_back(field.name, Printable(field.value));
  return WriteJson(Json(std::move(line)));
}

}  // namespace

std::string LogText(std::string_view message) {
  while (!message.empty() && message.back() == '\n') message.remove_suffix(1);
  const auto bytes = [](unsigned char c) { return absl::StrCat("\\x", absl::Hex(c, absl::kZeroPad2)); };
  const std::string printable = Printable(message);
  std::string text;
  for (size_t i = 0; i < printable.size(); ++i) {
    const auto c = static_cast<unsigned char>(printable[i]);
    if (c == '\n') {
      text += "\n    ";
    } else if (c < ' ' || c == 127) {
      text += bytes(c);
    } else if (c == kC1Lead && static_cast<unsigned char>(printable[i + 1]) < kC1End) {
      text += bytes(c) + bytes(printable[++i]);
    } else {
      text += printable[i];
    }
  }
  return text;
}

void Log(LogLevel level, std::string_view message, const LogFields& fields) {
  if (!Logger().should_log(ToSpdlog(level))) return;
  LogFields all = fields;
  std::string program;
  bool json = false;
  {
    Common& common = TheCommon();
    MutexLock lock(&common.mutex);
    all.insert(all.end(), common.fields.begin(), common.fields.end());
    program = common.program;
    json = common.json;
  }
  Logger().log(ToSpdlog(level), json ? JsonLine(program, level, message, all)
                                     : absl::StrCat(LogText(message), FieldsText(all)));
}

void SetLogFields(LogFields fields) {
  Common& common = TheCommon();
  MutexLock lock(&common.mutex);
  common.fields = std::move(fields);
}

void InitLogging(std::string_view program, const LogOptions& options) {
  Common& common = TheCommon();
  MutexLock lock(&common.mutex);
  common.program = program;
  common.json = options.format == "json";
  Logger().set_pattern(common.json ? "%v"
                                   : "%Y-%m-%dT%H:%M:%S.%e %^%-7l%$ " + std::string(program) + "[%P] %v");
  Logger().set_level(ToSpdlog(ParseLevel(options.level)));
}

}  // namespace bellwether
