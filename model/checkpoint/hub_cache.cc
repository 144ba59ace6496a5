#include "model/checkpoint/hub_cache.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/config.h"
#include "common/quote.h"
#include "common/status.h"
#include "model/checkpoint/file_mapping.h"
#include "model/random_checkpoint.h"

namespace bellwether {
namespace {

namespace fs = std::filesystem;

constexpr size_t kRefBytesMax = 256;
constexpr size_t kSnapshotFilesMax = 10'000;
constexpr size_t kNamedMax = 16;

struct HubName {
  std::string organisation, name, revision;  // revision "" if none is given
};

bool IsPlain(std::string_view part) {
  return !part.empty() && part != "." && part != ".." && std::all_of(part.begin(), part.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.';
  });
}

// Branches may have slashes.
bool IsRevision(std::string_view text) {
  while (!text.empty()) {
    const size_t slash = text.find('/');
    if (!IsPlain(text.substr(0, slash))) return false;
    if (slash == std::string_view::npos) return true;
    text.remove_prefix(slash + 1);
  }
  return false;
}

std::optional<HubName> ParseHubName(std::string_view text) {
  HubName result;
  if (const size_t at = text.find('@'); at != std::string_view::npos) {
    result.revision = text.substr(at + 1);
    if (!IsRevision(result.revision)) return std::nullopt;
    text = text.substr(0, at);
  }
  const size_t slash = text.find('/');
  if (slash == std::string_view::npos) return std::nullopt;
  result.organisation = text.substr(0, slash);
  result.name = text.substr(slash + 1);
  if (!IsPlain(result.organisation) || !IsPlain(result.name)) return std::nullopt;
  return result;
}

bool IsDirectory(const fs::path& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

std::optional<fs::path> NewestSnapshot(const fs::path& snapshots) {
  std::optional<std::pair<fs::file_time_type, fs::path>> newest;
  std::error_code error, ignored;
  for (fs::directory_iterator entry(snapshots, error), end; !error && entry != end; entry.increment(error)) {
    if (!entry->is_directory(ignored)) continue;
    const std::pair candidate(entry->last_write_time(ignored), entry->path());
    if (!newest.has_value() || candidate > *newest) newest = candidate;
  }
  if (!newest.has_value()) return std::nullopt;
  return newest->second;
}

absl::StatusOr<std::optional<fs::path>> FindSnapshot(const fs::path& repository,
                                                     const std::string& revision) {
  const fs::path snapshots = repository / "snapshots";
  const std::string wanted = revision.empty() ? "main" : revision;
  const absl::StatusOr<std::string> ref =
      ReadSmallFile((repository / "refs" / wanted).string(), kRefBytesMax);
  if (ref.ok()) {
    const std::string commit(absl::StripAsciiWhitespace(*ref));
    if (IsPlain(commit) && IsDirectory(snapshots / commit)) return snapshots / commit;
    return absl::NotFoundError(absl::StrCat((repository / "refs" / wanted).string(), " names the snapshot ",
                                            Quoted(commit), ", which is not there"));
  }
  if (!absl::IsNotFound(ref.status())) return ref.status();
  if (revision.empty()) return NewestSnapshot(snapshots);
  if (IsPlain(revision) && IsDirectory(snapshots / revision)) return snapshots / revision;
  return std::nullopt;
}

// Links to blobs that are not there, as a download that was ended leaves them.
absl::Status CheckComplete(const fs::path& snapshot) {
  std::vector<std::string> missing;
  std::error_code error, ignored;
  size_t seen = 0;
  for (fs::directory_iterator entry(snapshot, error), end; !error && entry != end; entry.increment(error)) {
    if (++seen > kSnapshotFilesMax) break;
    if (!fs::exists(entry->path(), ignored)) missing.push_back(entry->path().filename().string());
  }
  if (missing.empty()) return absl::OkStatus();
  std::sort(missing.begin(), missing.end());
  const size_t more = missing.size() > kNamedMax ? missing.size() - kNamedMax : 0;
  missing.resize(missing.size() - more);
  return absl::NotFoundError(absl::StrCat(
      "the download of ", snapshot.string(), " is not complete: the blobs are missing of ",
      Printable(absl::StrJoin(missing, ", ")), more > 0 ? absl::StrCat(" and ", more, " more") : ""));
}

std::string FromHome(const Environment& environment, const char* variable) {
  const char* value = environment(variable);
  if (value == nullptr || *value == '\0') return "";
  const char* home = environment("HOME");
  std::string text = value;
  if (text.starts_with("~/") && home != nullptr) return home + text.substr(1);
  return text;
}

}  // namespace

std::string HubCacheDirectory(const Environment& environment) {
  for (const auto& [variable, below] : {std::pair{"HF_HUB_CACHE", ""},
                                        {"HUGGINGFACE_HUB_CACHE", ""},
                                        {"HF_HOME", "/hub"},
                                        {"XDG_CACHE_HOME", "/huggingface/hub"},
                                        {"HOME", "/.cache/huggingface/hub"}}) {
    const std::string value = FromHome(environment, variable);
    if (!value.empty()) return value + below;
  }
  return "";
}

absl::StatusOr<std::string> ResolveModel(const std::string& model, const Environment& environment) {
  std::error_code error;
  if (model.starts_with(kRandomPrefix) || fs::exists(model, error)) return model;
  const auto none = [&](const std::string& more) {
    return absl::NotFoundError(
        absl::StrCat("no model at ", Printable(model), more,
                     ": give a Hugging Face directory, a file of weights or a .gguf file"));
  };
  const std::optional<HubName> name = ParseHubName(model);
  if (!name.has_value()) return none("");
  const std::string cache = HubCacheDirectory(environment);
  const fs::path repository =
      fs::path(cache) / absl::StrCat("models--", name->organisation, "--", name->name);
  if (cache.empty())
    return none(", nor is there a hub's cache to look in: none of HF_HUB_CACHE, HF_HOME and HOME is set");
  if (!IsDirectory(repository))
    return none(absl::StrCat(", nor in the hub's cache ", cache, ", where nothing is downloaded to"));
  BW_ASSIGN_OR_RETURN(const std::optional<fs::path> snapshot, FindSnapshot(repository, name->revision));
  if (!snapshot.has_value()) {
    return absl::NotFoundError(absl::StrCat(repository.string(), " has no snapshot",
                                            name->revision.empty() ? "" : " of " + name->revision));
  }
  BW_RETURN_IF_ERROR(CheckComplete(*snapshot));
  return snapshot->string();
}

absl::StatusOr<std::string> ResolveModel(const std::string& model) {
  return ResolveModel(model, EnvironmentVariable);
}

}  // namespace bellwether
