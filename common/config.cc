#include "common/config.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/read_file.h"
#include "common/status.h"
#include "common/utf8.h"

namespace bellwether {
namespace {

constexpr char kConfig[] = "config";
constexpr char kPrefix[] = "BELLWETHER_";
constexpr size_t kConfigBytesMax = size_t{16} << 20;

// The file that the flags or the environment name; empty if none.
std::string ConfigFile(const std::vector<std::string>& arguments,
                       const std::function<const char*(const std::string&)>& environment) {
  std::string file;
  if (const char* value = environment(EnvironmentName(kConfig))) file = value;
  for (size_t i = 0; i < arguments.size(); ++i) {
    absl::string_view value = arguments[i];
    if (value == "--config" && i + 1 < arguments.size()) file = arguments[i + 1];
    if (absl::ConsumePrefix(&value, "--config=")) file = std::string(value);
  }
  return file;
}

bool HasFlag(const std::vector<std::string>& arguments, absl::string_view name) {
  const std::string flag = absl::StrCat("--", name);
  return std::any_of(arguments.begin(), arguments.end(), [&flag](const std::string& argument) {
    return argument == flag || absl::StartsWith(argument, flag + "=");
  });
}

// Whether `above` gives `name` or what displaces it.
bool Decided(const std::vector<std::string>& above, const std::string& name,
             const Displacements& displacements) {
  return HasFlag(above, name) ||
         std::any_of(displacements.begin(), displacements.end(), [&](const Displacements::value_type& entry) {
           const auto& [other, displaced] = entry;
           return std::find(displaced.begin(), displaced.end(), name) != displaced.end() &&
                  HasFlag(above, other);
         });
}

// Appends a flag for each line, unless `above` decides it.
absl::Status AddFile(const std::string& path, const std::vector<std::string>& names,
                     const Displacements& displacements, const std::vector<std::string>& above,
                     std::vector<std::string>* out) {
  const absl::StatusOr<std::string> file = ReadFile(path, kConfigBytesMax);
  if (!file.ok()) return Annotate(file.status(), "config");
  const std::string_view lines = WithoutByteOrderMark(*file);
  int number = 0;
  for (const absl::string_view line : absl::StrSplit(absl::string_view(lines.data(), lines.size()), '\n')) {
    ++number;
    const absl::string_view text = absl::StripAsciiWhitespace(line);
    if (text.empty() || text[0] == '#') continue;
    const size_t equals = text.find('=');
    const std::string key(absl::StripAsciiWhitespace(text.substr(0, equals)));
    if (equals == absl::string_view::npos || key.empty() || key == kConfig) {
      return absl::InvalidArgumentError(absl::StrCat(
          path, ":", number, ": expected \"key = value\" with a flag's name as key, got \"", text, "\""));
    }
    if (std::find(names.begin(), names.end(), key) == names.end()) {
      return absl::InvalidArgumentError(absl::StrCat(path, ":", number, ": there is no flag \"", key, "\""));
    }
    std::string value(absl::StripAsciiWhitespace(text.substr(equals + 1)));
    if (value.empty()) continue;
    if (value.size() >= 2 && value.front() == '"' && value.back() == '"') {
      std::string error;
      const std::string quoted = value.substr(1, value.size() - 2);
      if (!absl::CUnescape(quoted, &value, &error))
        return absl::InvalidArgumentError(absl::StrCat(path, ":", number, ": ", key, ": ", error));
    }
    if (Decided(above, key, displacements)) continue;
    // Not "--key=", which CLI11 takes for a flag whose value comes next.
    out->push_back(absl::StrCat("--", key, value.empty() ? "" : "=", value));
    if (value.empty()) out->emplace_back();
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<std::string> EnvironmentWithoutSettings() {
  std::vector<std::string> variables;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const bool ours = absl::StartsWith(*variable, kPrefix) || absl::StartsWith(*variable, "NOTIFY_SOCKET=");
    if (!ours) variables.emplace_back(*variable);
  }
  return variables;
}

std::string ServiceSocket() {
  const char* path = std::getenv("NOTIFY_SOCKET");
  return path == nullptr ? "" : path;
}

std::string ProxyVariable(std::string_view host,
                          const std::function<const char*(const std::string&)>& environment) {
  std::string proxy;
  for (const char* name : {"grpc_proxy", "https_proxy", "http_proxy"}) {
    const char* value = environment(name);
    if (value == nullptr) continue;
    if (*value != '\0') proxy = name;
    break;  // one that is empty switches off those behind it
  }
  const char* exempt = environment("no_grpc_proxy");
  if (exempt == nullptr) exempt = environment("no_proxy");
  if (exempt == nullptr) return proxy;
  for (const absl::string_view ending : absl::StrSplit(exempt, ',', absl::SkipWhitespace())) {
    if (absl::EndsWithIgnoreCase(absl::string_view(host.data(), host.size()),
                                 absl::StripAsciiWhitespace(ending)))
      return "";
  }
  return proxy;
}

std::string ProxyVariable(std::string_view host) {
  return ProxyVariable(host, [](const std::string& name) { return std::getenv(name.c_str()); });
}

const char* EnvironmentVariable(const std::string& name) { return std::getenv(name.c_str()); }

std::string EnvironmentName(std::string_view name) {
  std::string upper = absl::AsciiStrToUpper(absl::string_view(name.data(), name.size()));
  for (char& c : upper) {
    if (c == '-') c = '_';
  }
  return kPrefix + upper;
}

absl::StatusOr<std::vector<std::string>> LayeredArguments(
    const std::vector<std::string>& arguments, const std::vector<std::string>& names,
    const Displacements& displacements, const std::function<const char*(const std::string&)>& environment) {
  std::vector<std::string> above;
  for (const std::string& name : names) {
    const char* value = environment(EnvironmentName(name));
    if (name != kConfig && value != nullptr && *value != '\0' && !Decided(arguments, name, displacements))
      above.push_back(absl::StrCat("--", name, "=", value));
  }
  above.insert(above.end(), arguments.begin(), arguments.end());
  std::vector<std::string> layered;
  if (const std::string file = ConfigFile(arguments, environment); !file.empty()) {
    BW_RETURN_IF_ERROR(AddFile(file, names, displacements, above, &layered));
  }
  layered.insert(layered.end(), above.begin(), above.end());
  return layered;
}

std::string ConfigLine(std::string_view name, std::string_view value) {
  const absl::string_view text(value.data(), value.size());
  const std::string escaped = absl::Utf8SafeCEscape(text);
  const bool plain = !text.empty() && escaped == text && absl::StripAsciiWhitespace(text) == text;
  return absl::StrCat(std::string(name), " = ", plain ? std::string(text) : absl::StrCat("\"", escaped, "\""),
                      "\n");
}

absl::StatusOr<std::vector<std::string>> LayeredArguments(const std::vector<std::string>& arguments,
                                                          const std::vector<std::string>& names,
                                                          const Displacements& displacements) {
  return LayeredArguments(arguments, names, displacements,
                          [](const std::string& name) { return std::getenv(name.c_str()); });
}

}  // namespace bellwether
