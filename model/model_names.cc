#include "model/model_names.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"

namespace bellwether {
namespace {

namespace fs = std::filesystem;

// NAME of a directory models--ORG--NAME or models--NAME; empty for others.
std::string HubName(const std::string& directory) {
  constexpr std::string_view kPrefix = "models--", kBorder = "--";
  if (!directory.starts_with(kPrefix)) return "";
  const size_t border = directory.rfind(kBorder);
  return directory.substr(border + kBorder.size());
}

// Without "." and "..".
fs::path Plain(const std::string& path) {
  std::error_code error;
  const fs::path absolute = fs::absolute(path, error);
  return error ? fs::path(path).lexically_normal() : absolute.lexically_normal();
}

fs::path LastOf(const fs::path& path) {
  return path.has_filename() ? path.filename() : path.parent_path().filename();
}

void AddNames(const fs::path& path, std::vector<std::string>& names) {
  const fs::path last = LastOf(path);
  names.push_back(last.extension() == ".gguf" ? last.stem().string() : last.string());
  for (const fs::path& part : path) {
    if (const std::string name = HubName(part.string()); !name.empty()) names.push_back(name);
  }
}

unsigned char Byte(char c) { return static_cast<unsigned char>(c); }

}  // namespace

std::string OwnName(const std::string& path) { return LastOf(Plain(path)).string(); }

std::vector<std::string> ModelNames(const std::string& path) {
  std::vector<std::string> names;
  std::error_code error;
  AddNames(Plain(path), names);
  const fs::path real = fs::canonical(path, error);
  if (!error) AddNames(real, names);
  return names;
}

NameWords::NameWords(std::string_view name) {
  const auto digit = [&](size_t i) { return i < name.size() && absl::ascii_isdigit(Byte(name[i])); };
  std::string word;
  for (size_t i = 0; i <= name.size(); ++i) {
    const bool inner_point = i > 0 && i < name.size() && name[i] == '.' && digit(i - 1) && digit(i + 1);
    if (i < name.size() && (absl::ascii_isalnum(Byte(name[i])) || inner_point)) {
      word += static_cast<char>(absl::ascii_tolower(Byte(name[i])));
    } else if (!word.empty()) {
      words_.push_back(std::move(word));
      word.clear();
    }
  }
}

bool NameWords::Have(std::initializer_list<std::string_view> run) const {
  return std::search(words_.begin(), words_.end(), run.begin(), run.end()) != words_.end();
}

bool NameWords::HaveVersion(std::string_view family, std::string_view version) const {
  return Have({family, version}) || Have({std::string(family) + std::string(version)});
}

bool NameWords::HaveMinorVersion(std::string_view family, std::string_view version) const {
  const std::string point = std::string(version) + ".";
  for (size_t i = 0; i < words_.size(); ++i) {
    if (words_[i].starts_with(std::string(family) + point)) return true;
    if (i > 0 && words_[i - 1] == family && words_[i].starts_with(point)) return true;
  }
  return false;
}

}  // namespace bellwether
