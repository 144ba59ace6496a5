#include "coordinator/api_keys.h"

#include <openssl/crypto.h>
#include <sys/stat.h>

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/json.h"
#include "common/log.h"
#include "common/quote.h"
#include "common/read_file.h"
#include "common/status.h"
#include "model/checkpoint/sha256.h"

namespace bellwether {
namespace {

constexpr size_t kFileBytesMax = 4 << 20;
constexpr size_t kNameBytesMax = 64;
constexpr size_t kDigestDigits = 64;
constexpr absl::Duration kLookInterval = absl::Seconds(1);

bool IsName(const std::string& name) {
  const auto fits = [](char c) { return absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.'; };
  return !name.empty() && name.size() <= kNameBytesMax && std::all_of(name.begin(), name.end(), fits);
}

bool IsDigest(const std::string& text) {
  return text.size() == kDigestDigits &&
         std::all_of(text.begin(), text.end(), [](char c) { return absl::ascii_isxdigit(c); });
}

// The key of "Bearer KEY", whose first word is of any case, with one space or more between them, as RFC 9110
// has it; empty if there is none.
std::string_view KeyIn(std::string_view authorization) {
  constexpr absl::string_view kBearer = "Bearer ";
  if (!absl::StartsWithIgnoreCase(absl::string_view(authorization.data(), authorization.size()), kBearer))
    return {};
  authorization.remove_prefix(kBearer.size());
  return authorization.substr(std::min(authorization.find_first_not_of(' '), authorization.size()));
}

}  // namespace

absl::StatusOr<std::unique_ptr<ApiKeys>> ApiKeys::Load(std::string path, const Clock* clock) {
  std::unique_ptr<ApiKeys> keys(new ApiKeys(std::move(path), clock));
  MutexLock lock(&keys->mutex_);
  keys->stamp_ = StampOf(keys->path_);
  keys->looked_at_ = clock->Now();
  BW_ASSIGN_OR_RETURN(keys->keys_, Read(keys->path_));
  return keys;
}

absl::StatusOr<std::vector<ApiKeys::Key>> ApiKeys::Read(const std::string& path) {
  BW_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kFileBytesMax));
  std::vector<Key> keys;
  int number = 0;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    if (absl::StripAsciiWhitespace(line).empty()) continue;
    absl::StatusOr<Key> key = ReadLine({line.data(), line.size()});
    if (!key.ok()) return Annotate(key.status(), absl::StrCat(path, ":", number));
    keys.push_back(*std::move(key));
  }
  if (keys.empty()) return absl::InvalidArgumentError(absl::StrCat(path, " holds no key"));
  return keys;
}

absl::StatusOr<ApiKeys::Key> ApiKeys::ReadLine(std::string_view line) {
  BW_ASSIGN_OR_RETURN(const Json record, ParseJson(line));
  Key key{.name = record["name"].text(), .sha256 = absl::AsciiStrToLower(record["sha256"].text())};
  if (!IsName(key.name)) {
    return absl::InvalidArgumentError(
        absl::StrCat("name must be 1 to ", kNameBytesMax, " letters, digits and any of \"-_.\""));
  }
  if (!IsDigest(key.sha256)) {
    return absl::InvalidArgumentError("sha256 must be 64 hexadecimal digits: printf %s KEY | sha256sum");
  }
  return key;
}

std::string ApiKeys::StampOf(const std::string& path) {
  struct stat now {};
  if (stat(path.c_str(), &now) != 0) return {};
  return absl::StrCat(now.st_ino, " ", now.st_size, " ", now.st_mtim.tv_sec, " ", now.st_mtim.tv_nsec);
}

void ApiKeys::ReloadIfChanged() {
  const absl::Duration now = clock_->Now();
  if (now < looked_at_ + kLookInterval) return;
  looked_at_ = now;
  std::string stamp = StampOf(path_);
  if (stamp == stamp_) return;
  stamp_ = std::move(stamp);
  absl::StatusOr<std::vector<Key>> keys = Read(path_);
  if (!keys.ok()) return LogWarning("the API keys stay as they were: ", keys.status().message());
  keys_ = *std::move(keys);
  LogInfo(path_, " has changed: ", keys_.size(), " API keys");
}

absl::StatusOr<std::string> ApiKeys::NameOf(std::string_view authorization) {
  const std::string_view key = KeyIn(authorization);
  if (key.empty()) return absl::UnauthenticatedError("an API key is needed: authorization: Bearer KEY");
  Sha256 hash;
  hash.Add(key.data(), key.size());
  BW_ASSIGN_OR_RETURN(const std::string digest, hash.HexDigest());
  MutexLock lock(&mutex_);
  ReloadIfChanged();
  std::string name;
  for (const Key& each : keys_) {  // all of them
    if (CRYPTO_memcmp(each.sha256.data(), digest.data(), kDigestDigits) == 0) name = each.name;
  }
  if (name.empty()) return absl::UnauthenticatedError("nobody has this API key");
  return name;
}

}  // namespace bellwether
