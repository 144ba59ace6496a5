#include "cli/cache.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "common/format_bytes.h"
#include "common/json.h"
#include "common/output.h"
#include "common/parse_bytes.h"
#include "common/quote.h"
#include "common/status.h"
#include "worker/weights/shard_cache.h"

namespace bellwether {
namespace {

int64_t BytesOf(const std::vector<CachedLayer>& layers) {
  int64_t bytes = 0;
  for (const CachedLayer& layer : layers) bytes += layer.bytes;
  return bytes;
}

// The lines of a key that people want: which part of which model.
std::string LineOf(const std::string& key, absl::string_view word) {
  for (const absl::string_view line : absl::StrSplit(key, '\n')) {
    if (line.substr(0, word.size()) == word) return std::string(line.substr(0, word.size() + 12));
  }
  return "";
}

std::string Text(const std::vector<CachedLayer>& layers, absl::string_view what) {
  std::string text;
  for (const CachedLayer& layer : layers) {
    const std::string part = layer.key.empty()
                                 ? "damaged"
                                 : absl::StrCat(LineOf(layer.key, "model "), " ", LineOf(layer.key, "layer "),
                                                LineOf(layer.key, "outside"));
    absl::StrAppendFormat(&text, "%10s  used %s  %s  %s\n", FormatBytes(static_cast<double>(layer.bytes)),
                          absl::FormatTime("%Y-%m-%d %H:%M", layer.used, absl::LocalTimeZone()), part,
                          Printable(layer.path));
  }
  absl::StrAppend(&text, layers.size(), " files, ", FormatBytes(static_cast<double>(BytesOf(layers))), " ",
                  what, "\n");
  return text;
}

Json ToJson(const std::vector<CachedLayer>& layers) {
  Json json = Json::array();
  for (const CachedLayer& layer : layers) {
    json.push_back(Json::object({{"path", layer.path},
                                 {"key", layer.key},
                                 {"bytes", layer.bytes},
                                 {"used_unix_seconds", absl::ToUnixSeconds(layer.used)}}));
  }
  return json;
}

}  // namespace

absl::Status RunCache(const CacheOptions& options) {
  const std::string directory =
      options.directory.empty() ? ShardCache::DefaultDirectory() : options.directory;
  if (directory.empty())
    return absl::InvalidArgumentError("there is no home directory: name the cache's with --directory");
  const bool prune = options.action == "prune";
  if (prune && options.max_bytes.empty())
    return absl::InvalidArgumentError(
        "--max-bytes is missing: what may stay, such as 20GB; 0 takes all away");
  BW_ASSIGN_OR_RETURN(const double bytes_max, ParseBytes(prune ? options.max_bytes : "0", /*least=*/0));
  BW_ASSIGN_OR_RETURN(
      const std::vector<CachedLayer> layers,
      prune ? PruneShardCache(directory, static_cast<int64_t>(bytes_max)) : ListShardCache(directory));
  if (options.json) return WriteOutput(WriteJson(ToJson(layers), /*indent=*/2) + "\n");
  return WriteOutput(Text(layers, prune ? "taken away" : "kept"));
}

}  // namespace bellwether
