#include "model/chat_template/chat_template_hints.h"

#include <filesystem>
#include <string_view>
#include <system_error>

#include "model/option_names.h"

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

void AddNames(const fs::path& path, std::vector<std::string>& names) {
  const fs::path last = path.has_filename() ? path.filename() : path.parent_path().filename();
  names.push_back(last.extension() == ".gguf" ? last.stem().string() : last.string());
  for (const fs::path& part : path) {
    if (const std::string name = HubName(part.string()); !name.empty()) names.push_back(name);
  }
}

}  // namespace

std::vector<std::string> ModelNames(const std::string& path) {
  std::vector<std::string> names;
  std::error_code error;
  const fs::path absolute = fs::absolute(path, error);
  AddNames(error ? fs::path(path).lexically_normal() : absolute.lexically_normal(), names);
  const fs::path real = fs::canonical(path, error);
  if (!error) AddNames(real, names);
  return names;
}

ChatTemplateHints HintsOf(const Checkpoint& checkpoint) {
  const ModelConfig& config = checkpoint.config();
  return {.architecture = std::string(Name(config.architecture)),
          .template_text = checkpoint.chat_template_text(),
          .model_name = checkpoint.model_name(),
          .file_names = ModelNames(checkpoint.path()),
          .vocab_size = config.vocab};
}

}  // namespace bellwether
