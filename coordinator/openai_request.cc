#include "coordinator/openai_request.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/defaults.h"
#include "common/quote.h"
#include "common/status.h"
#include "coordinator/json_members.h"
#include "coordinator/request_error.h"

namespace bellwether {
namespace {

constexpr int32_t kCompletionTokens = 16;  // OpenAI's default for completions
constexpr int32_t kCompletionLogprobsMax = 5;

// Members that mean something to OpenAI or vLLM and nothing to us, with the values that ask for nothing.
struct Unsupported {
  const char* name;
  Json::Array neutral;
};
const std::vector<Unsupported>& UnsupportedMembers() {
  static const auto* const members = new std::vector<Unsupported>{
      {"tools", {Json::array()}},
      {"tool_choice", {"none", "auto"}},
      {"functions", {Json::array()}},
      {"function_call", {"none", "auto"}},
      {"response_format", {Json::object({{"type", "text"}})}},
      {"store", {false}},
      {"audio", {}},
      {"modalities", {Json::array({"text"}), Json::array()}},
      {"prediction", {}},
      {"web_search_options", {}},
      {"suffix", {""}},
      {"best_of", {1}},
      {"use_beam_search", {false}},
      {"length_penalty", {1}},
      {"prompt_logprobs", {}},
      {"truncate_prompt_tokens", {}},
      {"skip_special_tokens", {true}},
      {"spaces_between_special_tokens", {true}},
      {"include_stop_str_in_output", {false}},
      {"add_generation_prompt", {true}},
      {"continue_final_message", {false}},
      {"chat_template", {}},
      {"chat_template_kwargs", {Json::object()}},
      {"documents", {Json::array()}},
      {"guided_json", {}},
      {"guided_regex", {}},
      {"guided_choice", {}},
      {"guided_grammar", {}},
      {"structured_outputs", {}},
      {"logits_processors", {Json::array()}},
      {"bad_words", {Json::array()}},
      {"allowed_token_ids", {}},
      {"prompt_embeds", {}},
  };
  return *members;
}

absl::Status RefuseUnsupported(const JsonMembers& members) {
  for (const Unsupported& unsupported : UnsupportedMembers()) {
    const Json* value = members.Find(unsupported.name);
    if (value == nullptr) continue;
    const Json::Array& neutral = unsupported.neutral;
    if (std::find(neutral.begin(), neutral.end(), *value) != neutral.end()) continue;
    return WithField(
        absl::InvalidArgumentError(absl::StrCat(unsupported.name, " is not supported",
                                                neutral.empty() ? "" : " with this value", ": leave it out")),
        unsupported.name);
  }
  return absl::OkStatus();
}

absl::Status ReadSeed(const JsonMembers& members, std::optional<uint64_t>* seed) {
  const Json* value = members.Find("seed");
  if (value == nullptr) return absl::OkStatus();
  if (!value->is_number_integer()) return MustBe("seed", "a whole number of 64 bits");
  *seed = value->get<uint64_t>();  // a negative one by its bits
  return absl::OkStatus();
}

absl::Status ReadStop(const JsonMembers& members, std::vector<std::string>* stop) {
  const Json* value = members.Find("stop");
  if (value == nullptr) return absl::OkStatus();
  if (value->is_string()) {
    stop->push_back(value->text());
    return absl::OkStatus();
  }
  const auto is_string = [](const Json& each) { return each.is_string(); };
  if (!value->is_array() || !std::all_of(value->begin(), value->end(), is_string)) {
    return MustBe("stop", "a string or a list of strings");
  }
  for (const Json& each : *value) stop->push_back(each.text());
  return absl::OkStatus();
}

absl::Status ReadLogitBias(const JsonMembers& members, std::vector<std::pair<TokenId, float>>* bias) {
  constexpr double kBiasMax = 100;
  const Json* value = members.Find("logit_bias");
  if (value == nullptr) return absl::OkStatus();
  if (!value->is_object()) return MustBe("logit_bias", "an object of token ids and numbers");
  if (value->size() > static_cast<size_t>(kLogitBiasMax)) {
    return MustBe("logit_bias", absl::StrCat("an object of at most ", kLogitBiasMax, " members"));
  }
  for (const auto& [name, number] : value->items()) {
    TokenId id = 0;
    if (!absl::SimpleAtoi(name, &id)) return MustBe("logit_bias", "an object whose names are token ids");
    const double amount = number.get<double>();
    if (!number.is_number() || amount < -kBiasMax || amount > kBiasMax) {
      return MustBe("logit_bias", absl::StrCat("an object of numbers from ", -kBiasMax, " to ", kBiasMax));
    }
    bias->emplace_back(id, static_cast<float>(amount));
  }
  std::sort(bias->begin(), bias->end());
  const auto same = [](const auto& a, const auto& b) { return a.first == b.first; };
  if (std::adjacent_find(bias->begin(), bias->end(), same) == bias->end()) return absl::OkStatus();
  return MustBe("logit_bias", "an object in which no token id comes twice");
}

absl::Status ReadSampling(const JsonMembers& members, GenerationOptions* options) {
  BW_RETURN_IF_ERROR(members.ReadNumber("temperature", 0, 2, &options->temperature));
  BW_RETURN_IF_ERROR(members.ReadNumber("top_p", 0, 1, &options->top_p));
  // As near to nothing as there is: the most likely token alone.
  if (options->top_p == 0) options->top_p = std::numeric_limits<double>::min();
  BW_RETURN_IF_ERROR(members.ReadNumber("presence_penalty", -2, 2, &options->presence_penalty));
  BW_RETURN_IF_ERROR(members.ReadNumber("frequency_penalty", -2, 2, &options->frequency_penalty));
  BW_RETURN_IF_ERROR(ReadLogitBias(members, &options->logit_bias));
  BW_RETURN_IF_ERROR(ReadSeed(members, &options->seed));
  // vLLM's.
  BW_RETURN_IF_ERROR(members.ReadInteger("top_k", -1, INT32_MAX, &options->top_k));
  if (options->top_k == -1) options->top_k = 0;  // off
  BW_RETURN_IF_ERROR(members.ReadNumber("min_p", 0, 1, &options->min_p));
  return members.ReadNumber("repetition_penalty", 0, 100, &options->repetition_penalty);
}

// What both kinds of request have.
absl::Status ReadCommon(const JsonMembers& members, OpenAiRequest* request) {
  BW_RETURN_IF_ERROR(RefuseUnsupported(members));
  if (members.Find("model") == nullptr) return MustBe("model", "the name of a model");
  BW_RETURN_IF_ERROR(members.Read("model", &request->model));
  GenerationOptions& options = request->options;
  BW_RETURN_IF_ERROR(ReadSampling(members, &options));
  BW_RETURN_IF_ERROR(members.ReadInteger("n", 1, kChoicesMax, &options.n));
  BW_RETURN_IF_ERROR(ReadStop(members, &options.stop));
  BW_RETURN_IF_ERROR(members.Read("stop_token_ids", &options.stop_token_ids));
  BW_RETURN_IF_ERROR(members.Read("ignore_eos", &options.ignore_eos));
  BW_RETURN_IF_ERROR(members.ReadInteger("min_tokens", 0, INT32_MAX, &options.min_tokens));
  BW_RETURN_IF_ERROR(members.Read("stream", &request->stream));
  const Json* stream_options = members.Find("stream_options");
  if (stream_options == nullptr) return absl::OkStatus();
  if (!request->stream) return MustBe("stream_options", "left out unless stream is true");
  if (!stream_options->is_object()) return MustBe("stream_options", "an object");
  return JsonMembers(*stream_options).Read("include_usage", &request->include_usage);
}

// -- Chat

absl::StatusOr<std::string> RoleOf(const Json& message) {
  const std::string& role = message["role"].text();
  if (role == "developer") return std::string("system");
  if (role == "system" || role == "user" || role == "assistant") return role;
  return MustBe("messages",
                absl::StrCat("a list of messages whose role is system, developer, user or assistant; ",
                             Quoted(role), " is none that is supported"));
}

// A text, or a list of parts that are texts.
absl::StatusOr<std::string> ContentOf(const Json& message) {
  const Json& content = message["content"];
  if (content.is_string()) return content.text();
  if (content.is_null() && message["role"].text() == "assistant") return std::string();
  if (!content.is_array()) return MustBe("messages", "a list of messages whose content is text");
  std::string text;
  for (const Json& part : content) {
    if (part["type"].text() != "text" || !part["text"].is_string()) {
      return MustBe("messages", absl::StrCat("a list of messages whose content is text; a part of type ",
                                             Quoted(part["type"].text()), " is not supported"));
    }
    absl::StrAppend(&text, &part == content.begin() ? "" : "\n", part["text"].text());
  }
  return text;
}

absl::Status ReadMessages(const JsonMembers& members, std::vector<ChatMessage>* messages) {
  const Json* list = members.Find("messages");
  if (list == nullptr || !list->is_array() || list->empty()) {
    return MustBe("messages", "a list of at least one message");
  }
  for (const Json& message : *list) {
    if (!message.is_object()) return MustBe("messages", "a list of objects");
    if (!message["tool_calls"].empty() || !message["function_call"].is_null()) {
      return MustBe("messages", "a list of messages without tool calls, which are not supported");
    }
    BW_ASSIGN_OR_RETURN(std::string role, RoleOf(message));
    BW_ASSIGN_OR_RETURN(std::string content, ContentOf(message));
    messages->push_back({.role = std::move(role), .content = std::move(content)});
  }
  return absl::OkStatus();
}

// -- Completions

absl::Status ReadPrompts(const JsonMembers& members, std::vector<PromptInput>* prompts) {
  constexpr char kAllowed[] = "a string, a list of strings, a list of token ids, or a list of such lists";
  const Json* prompt = members.Find("prompt");
  if (prompt == nullptr) return MustBe("prompt", kAllowed);
  bool add_special_tokens = true;
  BW_RETURN_IF_ERROR(members.Read("add_special_tokens", &add_special_tokens));
  const auto add_text = [&](const Json& text) {
    prompts->push_back(
        {.text = text.text(), .parse_special_tokens = true, .no_special_tokens = !add_special_tokens});
  };
  std::vector<TokenId> ids;
  if (prompt->is_string()) {
    add_text(*prompt);
    return absl::OkStatus();
  }
  if (!prompt->is_array() || prompt->empty()) return MustBe("prompt", kAllowed);
  if (prompt->front().is_number()) {
    if (!ReadIds(*prompt, &ids)) return MustBe("prompt", kAllowed);
    prompts->push_back({.token_ids = std::move(ids)});
    return absl::OkStatus();
  }
  if (prompt->size() > kPromptsMax)
    return MustBe("prompt", absl::StrCat("a list of at most ", kPromptsMax, " prompts"));
  for (const Json& each : *prompt) {
    std::vector<TokenId> each_ids;
    if (each.is_string()) {
      add_text(each);
    } else if (ReadIds(each, &each_ids)) {
      prompts->push_back({.token_ids = std::move(each_ids)});
    } else {
      return MustBe("prompt", kAllowed);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<OpenAiRequest> ParseChatRequest(const Json& body) {
  if (!body.is_object()) return absl::InvalidArgumentError("the request must be a JSON object");
  const JsonMembers members(body);
  OpenAiRequest request{.chat = true};
  BW_RETURN_IF_ERROR(ReadCommon(members, &request));
  BW_RETURN_IF_ERROR(ReadMessages(members, &request.messages));
  BW_RETURN_IF_ERROR(members.ReadInteger("max_tokens", 1, INT32_MAX, &request.options.max_tokens));
  BW_RETURN_IF_ERROR(members.ReadInteger("max_completion_tokens", 1, INT32_MAX, &request.options.max_tokens));
  bool logprobs = false;
  std::optional<int32_t> top;
  BW_RETURN_IF_ERROR(members.Read("logprobs", &logprobs));
  BW_RETURN_IF_ERROR(members.ReadInteger("top_logprobs", 0, kLogprobsMax, &top));
  if (top.value_or(0) > 0 && !logprobs) return MustBe("top_logprobs", "left out unless logprobs is true");
  if (logprobs) request.options.logprobs = top.value_or(0);
  return request;
}

absl::StatusOr<OpenAiRequest> ParseCompletionRequest(const Json& body) {
  if (!body.is_object()) return absl::InvalidArgumentError("the request must be a JSON object");
  const JsonMembers members(body);
  OpenAiRequest request;
  BW_RETURN_IF_ERROR(ReadCommon(members, &request));
  BW_RETURN_IF_ERROR(ReadPrompts(members, &request.prompts));
  BW_RETURN_IF_ERROR(members.Read("echo", &request.echo));
  std::optional<int32_t>& max_tokens = request.options.max_tokens;
  max_tokens = kCompletionTokens;
  BW_RETURN_IF_ERROR(members.ReadInteger("max_tokens", request.echo ? 0 : 1, INT32_MAX, &max_tokens));
  if (max_tokens == 0) {
    request.answers = false;
    max_tokens = std::nullopt;
  }
  BW_RETURN_IF_ERROR(members.ReadInteger("logprobs", 0, kCompletionLogprobsMax, &request.options.logprobs));
  if (request.echo && request.options.logprobs && request.stream) {
    return MustBe("stream", "false where logprobs of an echo are asked for");
  }
  return request;
}

}  // namespace bellwether
