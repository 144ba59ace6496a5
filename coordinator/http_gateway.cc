#include "coordinator/http_gateway.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/json.h"
#include "common/quote.h"
#include "common/status.h"
#include "coordinator/chat_page.h"
#include "coordinator/http_completion.h"
#include "coordinator/http_error.h"
#include "coordinator/http_text_calls.h"
#include "coordinator/request_error.h"

namespace bellwether {
namespace {

constexpr char kModelPath[] = "/v1/models/";

}  // namespace

HttpGateway::HttpGateway(Options options)
    : options_(std::move(options)), created_(absl::ToUnixSeconds(absl::Now())) {}

std::vector<HttpRoute> HttpGateway::Routes() {
  using ExchangePtr = std::shared_ptr<HttpExchange>;
  const auto completion = [this](bool chat) {
    return [this, chat](HttpRequest request, ExchangePtr exchange) {
      std::make_shared<HttpCompletion>(this, chat, std::move(request), std::move(exchange))->Begin();
    };
  };
  const auto at_once = [this](void (HttpGateway::*answer)(HttpExchange&) const) {
    return [this, answer](const HttpRequest&, const ExchangePtr& exchange) { (this->*answer)(*exchange); };
  };
  return {{"POST", "/v1/chat/completions", completion(/*chat=*/true)},
          {"POST", "/v1/completions", completion(/*chat=*/false)},
          {"GET", "/v1/models",
           [this](const HttpRequest& request, const ExchangePtr& exchange) {
             if (Allows(request, *exchange)) ListModels(*exchange);
           }},
          {"GET", absl::StrCat(kModelPath, "*"),
           [this](const HttpRequest& request, const ExchangePtr& exchange) {
             if (Allows(request, *exchange)) GetModel(request.path.substr(sizeof(kModelPath) - 1), *exchange);
           }},
          {"GET", "/tokenizer_info",
           [this](const HttpRequest& request, const ExchangePtr& exchange) {
             if (Allows(request, *exchange)) TokenizerInfo(*exchange);
           }},
          {"GET", "/health", at_once(&HttpGateway::Health)},
          {"GET", "/version", at_once(&HttpGateway::Version)},
          {"GET", "/", at_once(&HttpGateway::Page)},
          {"POST", "/tokenize",
           [this](HttpRequest request, ExchangePtr exchange) {
             std::make_shared<HttpTokenize>(this, std::move(request), std::move(exchange))->Begin();
           }},
          {"POST", "/detokenize", [this](HttpRequest request, ExchangePtr exchange) {
             std::make_shared<HttpDetokenize>(this, std::move(request), std::move(exchange))->Begin();
           }}};
}

absl::Status HttpGateway::CheckModel(const std::string& name) const {
  const std::vector<std::string>& names = options_.model_names;
  if (std::find(names.begin(), names.end(), name) != names.end()) return absl::OkStatus();
  const absl::Status status =
      absl::NotFoundError(absl::StrCat("there is no model ", Quoted(name), ", only ", Quoted(names.front())));
  return WithField(WithCode(status, "model_not_found"), "model");
}

std::string HttpGateway::Fingerprint() const {
  return absl::StrCat(options_.cluster_status().kernel_level, "-", options_.weights);
}

std::string HttpGateway::ModelJson(const std::string& name) const {
  return WriteJson(Json::object({{"id", name},
                                 {"object", "model"},
                                 {"created", created_},
                                 {"owned_by", "bellwether"},
                                 {"max_model_len", requests().limits().context_tokens}}));
}

bool HttpGateway::Allows(const HttpRequest& request, HttpExchange& exchange) const {
  const auto client = requests().ClientOf(HeaderText(request.headers, "Authorization"));
  if (!client.ok()) exchange.Respond(ErrorResponse(client.status()));
  return client.ok();
}

void HttpGateway::ListModels(HttpExchange& exchange) const {
  std::string models;
  for (const std::string& name : options_.model_names) {
    absl::StrAppend(&models, models.empty() ? "" : ",", ModelJson(name));
  }
  exchange.Respond(JsonResponse(absl::StrCat("{\"object\":\"list\",\"data\":[", models, "]}")));
}

void HttpGateway::GetModel(const std::string& name, HttpExchange& exchange) const {
  const absl::Status known = CheckModel(name);
  exchange.Respond(known.ok() ? JsonResponse(ModelJson(name)) : ErrorResponse(known));
}

// What vLLM says there of a tokenizer and is the same for ours.
void HttpGateway::TokenizerInfo(HttpExchange& exchange) const {
  const Tokenizer* const tokenizer = requests().tokenizer();
  if (tokenizer == nullptr) {
    return exchange.Respond(ErrorResponse(absl::FailedPreconditionError("the model has no tokenizer")));
  }
  const auto piece = [tokenizer](std::optional<TokenId> id) {
    return id ? Json(Printable(tokenizer->TokenPiece(*id))) : Json();
  };
  const std::vector<TokenId>& ends = tokenizer->eos_ids();
  const std::optional<TokenId> end = ends.empty() ? std::nullopt : std::optional(ends.front());
  exchange.Respond(
      JsonResponse(WriteJson(Json::object({{"bos_token", piece(tokenizer->bos_id())},
                                           {"eos_token", piece(end)},
                                           {"model_max_length", requests().limits().context_tokens}}))));
}

void HttpGateway::Health(HttpExchange& exchange) const {
  const ClusterService::Status cluster = options_.cluster_status();
  if (!cluster.serving)
    return exchange.Respond(ErrorResponse(absl::UnavailableError(cluster.not_serving_reason)));
  exchange.Respond(JsonResponse(WriteJson(Json::object({{"status", "ok"},
                                                        {"layout", cluster.layout},
                                                        {"kernel_level", cluster.kernel_level},
                                                        {"weights", options_.weights}}))));
}

void HttpGateway::Version(HttpExchange& exchange) const {
  exchange.Respond(JsonResponse(WriteJson(Json::object({{"version", options_.version}}))));
}

void HttpGateway::Page(HttpExchange& exchange) const {
  // It holds its script and style, speaks to this server alone, and answers of the model are never read as
  // HTML.
  constexpr char kPolicy[] =
      "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; "
      "frame-ancestors 'none'";
  exchange.Respond({.headers = {{"Content-Type", "text/html; charset=utf-8"},
                                {"Content-Security-Policy", kPolicy},
                                {"Cache-Control", "no-cache"}},
                    .body = std::string(ChatPage())});
}

}  // namespace bellwether
