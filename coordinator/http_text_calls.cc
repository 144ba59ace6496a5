#include "coordinator/http_text_calls.h"

#include <string>
#include <vector>

#include "common/quote.h"
#include "common/status.h"
#include "coordinator/http_error.h"
#include "coordinator/json_members.h"

namespace bellwether {
namespace {

absl::Status CheckModel(const HttpGateway& gateway, const JsonMembers& members) {
  if (members.Find("model") == nullptr) return absl::OkStatus();
  std::string model;
  BW_RETURN_IF_ERROR(members.Read("model", &model));
  return gateway.CheckModel(model);
}

}  // namespace

absl::Status HttpTokenize::ReadBody(const Json& body) {
  const JsonMembers members(body);
  BW_RETURN_IF_ERROR(CheckModel(*gateway_, members));
  std::string prompt;
  bool add_special_tokens = true, return_texts = false;
  if (members.Find("prompt") == nullptr) return MustBe("prompt", "a string");
  BW_RETURN_IF_ERROR(members.Read("prompt", &prompt));
  BW_RETURN_IF_ERROR(members.Read("add_special_tokens", &add_special_tokens));
  BW_RETURN_IF_ERROR(members.Read("return_token_strs", &return_texts));
  BW_ASSIGN_OR_RETURN(
      const std::vector<TokenId> ids,
      service().Tokenize(prompt, {.add_special_tokens = add_special_tokens, .parse_special_tokens = true},
                         [this] { return GivenUp(); }));
  Json texts;
  if (return_texts) {
    texts = Json::array();
    for (const TokenId id : ids) texts.push_back(Printable(service().tokenizer()->TokenPiece(id)));
  }
  Respond(JsonResponse(WriteJson(Json::object({{"count", ids.size()},
                                               {"max_model_len", service().limits().context_tokens},
                                               {"tokens", ids},
                                               {"token_strs", std::move(texts)}}))));
  return absl::OkStatus();
}

absl::Status HttpDetokenize::ReadBody(const Json& body) {
  const JsonMembers members(body);
  BW_RETURN_IF_ERROR(CheckModel(*gateway_, members));
  std::vector<TokenId> ids;
  if (members.Find("tokens") == nullptr) return MustBe("tokens", "a list of token ids");
  BW_RETURN_IF_ERROR(members.Read("tokens", &ids));
  BW_ASSIGN_OR_RETURN(const std::string text, service().Detokenize(ids, /*skip_special=*/false));
  Respond(JsonResponse(WriteJson(Json::object({{"prompt", text}}))));
  return absl::OkStatus();
}

}  // namespace bellwether
