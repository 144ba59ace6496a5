#include "cli/cluster_numbers.h"

#include <curl/curl.h>

#include <memory>
#include <numeric>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/json.h"
#include "common/status.h"

namespace bellwether {
namespace {

constexpr size_t kTextBytesMax = size_t{16} << 20;
constexpr long kSeconds = 30;

size_t Append(char* data, size_t, size_t bytes, void* context) {
  auto& text = *static_cast<std::string*>(context);
  if (text.size() + bytes > kTextBytesMax) return CURL_WRITEFUNC_ERROR;
  text.append(data, bytes);
  return bytes;
}

absl::StatusOr<std::string> Get(const std::string& address, const char* path) {
  const std::string url = absl::StrCat("http://", address, path);
  const std::unique_ptr<CURL, void (*)(CURL*)> handle(curl_easy_init(), curl_easy_cleanup);
  std::string body;
  curl_easy_setopt(handle.get(), CURLOPT_URL, url.c_str());
  curl_easy_setopt(handle.get(), CURLOPT_NOPROXY, "*");
  curl_easy_setopt(handle.get(), CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(handle.get(), CURLOPT_TIMEOUT, kSeconds);
  curl_easy_setopt(handle.get(), CURLOPT_FAILONERROR, 1L);
  curl_easy_setopt(handle.get(), CURLOPT_WRITEFUNCTION, Append);
  curl_easy_setopt(handle.get(), CURLOPT_WRITEDATA, &body);
  if (const CURLcode code = curl_easy_perform(handle.get()); code != CURLE_OK)
    return absl::UnavailableError(absl::StrCat(url, ": ", curl_easy_strerror(code)));
  return body;
}

}  // namespace

absl::StatusOr<ClusterNumbers> ClusterNumbers::Read(const std::string& metrics_address) {
  BW_ASSIGN_OR_RETURN(const std::string found, Get(metrics_address, "/http_sd"));
  BW_ASSIGN_OR_RETURN(const Json groups, ParseJson(found));
  std::vector<std::string> texts;
  for (const Json& group : groups) {
    for (const Json& target : group["targets"]) {
      BW_ASSIGN_OR_RETURN(texts.emplace_back(), Get(target.text(), "/metrics"));
    }
  }
  return ClusterNumbers(std::move(texts));
}

std::vector<double> ClusterNumbers::Of(Metric metric, absl::string_view label) const {
  std::vector<double> values;
  for (const std::string& text : texts_) {
    for (absl::string_view line : absl::StrSplit(text, '\n')) {
      if (!absl::ConsumePrefix(&line, SpecOf(metric).name)) continue;
      const size_t space = line.rfind(' ');
      const absl::string_view labels = line.substr(0, space);
      const bool is_it = labels.empty() || labels.front() == '{';  // no longer name that begins like it
      double value = 0;
      if (is_it && labels.find(label) != absl::string_view::npos && space != absl::string_view::npos &&
          absl::SimpleAtod(line.substr(space + 1), &value)) {
        values.push_back(value);
      }
    }
  }
  return values;
}

double ClusterNumbers::Sum(Metric metric, absl::string_view label) const {
  const std::vector<double> values = Of(metric, label);
  return std::accumulate(values.begin(), values.end(), 0.0);
}

}  // namespace bellwether
