#include <curl/curl.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cli/load/load_target.h"
#include "cli/load/openai_stream.h"
#include "cli/stop.h"
#include "common/json.h"
#include "common/status.h"

namespace bellwether {
namespace {

constexpr size_t kErrorBytesMax = size_t{64} << 10;
constexpr size_t kListBytesMax = size_t{4} << 20;
constexpr long kConnectSeconds = 10, kListSeconds = 30;
constexpr long kSilenceSeconds = 600;  // a queue can be long

struct EndHandle {
  void operator()(CURL* handle) const { curl_easy_cleanup(handle); }
};
struct EndHeaders {
  void operator()(curl_slist* headers) const { curl_slist_free_all(headers); }
};
using Handle = std::unique_ptr<CURL, EndHandle>;
using Headers = std::unique_ptr<curl_slist, EndHeaders>;

int StopIfAsked(void*, curl_off_t, curl_off_t, curl_off_t, curl_off_t) { return StopRequested() ? 1 : 0; }

Headers NewHeaders(const HttpTargetOptions& options) {
  curl_slist* headers = curl_slist_append(nullptr, "Content-Type: application/json");
  if (!options.api_key.empty())
    headers = curl_slist_append(headers, absl::StrCat("Authorization: Bearer ", options.api_key).c_str());
  return Headers(headers);
}

Handle NewHandle(const std::string& url, const TlsOptions& tls, curl_slist* headers) {
  Handle handle(curl_easy_init());
  curl_easy_setopt(handle.get(), CURLOPT_URL, url.c_str());
  curl_easy_setopt(handle.get(), CURLOPT_HTTPHEADER, headers);
  curl_easy_setopt(handle.get(), CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(handle.get(), CURLOPT_NOPROXY, "localhost,127.0.0.1,::1");  // as gRPC's calls of ours
  curl_easy_setopt(handle.get(), CURLOPT_NOSIGNAL, 1L);                        // there are other threads
  curl_easy_setopt(handle.get(), CURLOPT_CONNECTTIMEOUT, kConnectSeconds);
  curl_easy_setopt(handle.get(), CURLOPT_LOW_SPEED_LIMIT, 1L);  // bytes a second
  curl_easy_setopt(handle.get(), CURLOPT_LOW_SPEED_TIME, kSilenceSeconds);
  const std::pair<CURLoption, const std::string*> files[] = {
      {CURLOPT_CAINFO, &tls.authority}, {CURLOPT_SSLCERT, &tls.certificate}, {CURLOPT_SSLKEY, &tls.key}};
  for (const auto& [option, path] : files) {
    if (!path->empty()) curl_easy_setopt(handle.get(), option, path->c_str());
  }
  curl_easy_setopt(handle.get(), CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(handle.get(), CURLOPT_XFERINFOFUNCTION, StopIfAsked);
  return handle;
}

long HttpCode(CURL* handle) {
  long code = 0;
  curl_easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &code);
  return code;
}

// One answer on its way.
struct Transfer {
  CURL* handle = nullptr;
  absl::FunctionRef<void(int)> on_piece;
  OpenAiStream stream;
  std::string error_body;
  absl::Status status;
};

size_t Receive(char* data, size_t, size_t bytes, void* context) {
  auto& transfer = *static_cast<Transfer*>(context);
  const std::string_view piece(data, bytes);
  if (HttpCode(transfer.handle) != 200) {
    transfer.error_body.append(
        piece.substr(0, kErrorBytesMax - std::min(kErrorBytesMax, transfer.error_body.size())));
    return bytes;
  }
  transfer.status = transfer.stream.Add(piece, [&] { transfer.on_piece(1); });
  return transfer.status.ok() ? bytes : CURL_WRITEFUNC_ERROR;
}

class HttpConnection : public LoadConnection {
 public:
  explicit HttpConnection(const HttpTargetOptions& options)
      : options_(options), headers_(NewHeaders(options)) {}

  LoadAnswer Send(const LoadRequest& request, absl::FunctionRef<void(int tokens)> on_piece) override;

 private:
  std::string BodyOf(const LoadRequest& request) const;
  LoadAnswer Outcome(CURLcode code, const Transfer& transfer) const;

  const HttpTargetOptions& options_;
  const Headers headers_;
  Handle completions_, chat_;  // each keeps its connection
};

std::string HttpConnection::BodyOf(const LoadRequest& request) const {
  Json body = Json::object({{"model", options_.model},
                            {"max_tokens", request.max_tokens},
                            {"temperature", options_.sampling.temperature},
                            {"seed", static_cast<int64_t>(request.seed & INT32_MAX)},
                            {"stream", true},
                            {"stream_options", Json::object({{"include_usage", true}})}});
  if (!options_.sampling.stop_at_eos) body["ignore_eos"] = true;
  if (request.messages.empty()) {
    body["prompt"] = request.text.value_or("");
  } else {
    Json::Array messages;
    for (const ChatMessage& message : request.messages)
      messages.push_back(Json::object({{"role", message.role}, {"content", message.content}}));
    body["messages"] = Json(std::move(messages));
  }
  return WriteJson(body);
}

LoadAnswer HttpConnection::Outcome(CURLcode code, const Transfer& transfer) const {
  LoadAnswer answer{.prompt_tokens = transfer.stream.prompt_tokens(),
                    .generated_tokens = transfer.stream.generated_tokens()};
  const long http = HttpCode(transfer.handle);
  if (!transfer.status.ok()) {
    answer.error = std::string(transfer.status.message());
  } else if (code != CURLE_OK) {
    answer.error = curl_easy_strerror(code);
  } else if (http != 200) {
    answer.error = absl::StrCat("HTTP ", http, " ", OpenAiErrorKind(transfer.error_body));
    answer.why = OpenAiErrorMessage(transfer.error_body);
  } else if (!transfer.stream.error().empty()) {
    answer.error = transfer.stream.error();
  } else if (!transfer.stream.done()) {
    answer.error = "the stream ended early";
  } else if (!transfer.stream.has_usage()) {
    answer.error = "the server tells no usage";  // and events are no tokens
  }
  return answer;
}

LoadAnswer HttpConnection::Send(const LoadRequest& request, absl::FunctionRef<void(int tokens)> on_piece) {
  const bool chat = !request.messages.empty();
  Handle& handle = chat ? chat_ : completions_;
  if (handle == nullptr) {
    handle = NewHandle(absl::StrCat(options_.url, chat ? "/v1/chat/completions" : "/v1/completions"),
                       options_.tls, headers_.get());
    curl_easy_setopt(handle.get(), CURLOPT_WRITEFUNCTION, Receive);
  }
  const std::string body = BodyOf(request);
  Transfer transfer{.handle = handle.get(), .on_piece = on_piece};
  curl_easy_setopt(handle.get(), CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body.size()));
  curl_easy_setopt(handle.get(), CURLOPT_POSTFIELDS, body.c_str());
  curl_easy_setopt(handle.get(), CURLOPT_WRITEDATA, &transfer);
  return Outcome(curl_easy_perform(handle.get()), transfer);
}

size_t Append(char* data, size_t, size_t bytes, void* context) {
  auto& text = *static_cast<std::string*>(context);
  if (text.size() + bytes > kListBytesMax) return CURL_WRITEFUNC_ERROR;
  text.append(data, bytes);
  return bytes;
}

// The first model that the server lists.
absl::StatusOr<std::string> FirstModel(const HttpTargetOptions& options) {
  const Headers headers = NewHeaders(options);
  const std::string url = absl::StrCat(options.url, "/v1/models");
  const Handle handle = NewHandle(url, options.tls, headers.get());
  std::string body;
  curl_easy_setopt(handle.get(), CURLOPT_WRITEFUNCTION, Append);
  curl_easy_setopt(handle.get(), CURLOPT_WRITEDATA, &body);
  curl_easy_setopt(handle.get(), CURLOPT_TIMEOUT, kListSeconds);
  if (const CURLcode code = curl_easy_perform(handle.get()); code != CURLE_OK)
    return absl::UnavailableError(absl::StrCat(url, ": ", curl_easy_strerror(code)));
  if (const long http = HttpCode(handle.get()); http != 200)
    return absl::UnavailableError(absl::StrCat(url, ": HTTP ", http, " ", OpenAiErrorKind(body)));
  const absl::StatusOr<Json> list = ParseJson(body);
  if (!list.ok()) return Annotate(list.status(), url);
  const std::string& name = (*list)["data"][0]["id"].text();
  if (name.empty())
    return absl::NotFoundError(absl::StrCat(url, " lists no model: say which by --served-model"));
  return name;
}

class HttpTarget : public LoadTarget {
 public:
  explicit HttpTarget(HttpTargetOptions options) : options_(std::move(options)) {}

  std::string Describe() const override { return absl::StrCat(options_.url, ", ", options_.model); }
  std::optional<int32_t> vocabulary() const override { return std::nullopt; }
  std::unique_ptr<LoadConnection> NewConnection() override {
    return std::make_unique<HttpConnection>(options_);
  }

 private:
  const HttpTargetOptions options_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<LoadTarget>> NewHttpTarget(HttpTargetOptions options) {
  if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) return absl::InternalError("libcurl does not start");
  while (options.url.ends_with('/')) options.url.pop_back();
  if (options.url.ends_with("/v1")) options.url.resize(options.url.size() - 3);
  if (options.model.empty()) {
    BW_ASSIGN_OR_RETURN(options.model, FirstModel(options));
  }
  return std::make_unique<HttpTarget>(std::move(options));
}

}  // namespace bellwether
