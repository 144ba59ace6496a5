#include "cli/answers.h"

#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <iostream>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "cli/stop.h"
#include "cli/terminal.h"
#include "common/status.h"
#include "common/utf8.h"
#include "nlohmann/json.hpp"

namespace bellwether {
namespace {

using Json = nlohmann::ordered_json;

// Bytes that are not UTF-8 become U+FFFD.
void PrintJson(const Json& json) {
  std::cout << json.dump(2, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace) << std::endl;
}

// The shortest text that reads back as the same float.
Json ExactFloat(float value) {
  if (!std::isfinite(value)) return nullptr;
  return Json::parse(absl::StrFormat("%.9g", value));
}

Json ToJson(const AnswerUsage& usage) {
  return Json{{"prompt_tokens", usage.prompt_tokens},
              {"generated_tokens", usage.generated_tokens},
              {"queue_seconds", usage.queue_seconds},
              {"time_to_first_token_seconds", usage.time_to_first_token_seconds},
              {"total_seconds", usage.total_seconds}};
}

// Everything that came for one choice.
struct Choice {
  std::vector<TokenId> tokens;
  std::string text;
  std::vector<AnswerLogprobs> logprobs;
  std::string finish_reason;

  void Add(const AnswerChunk& chunk) {
    tokens.insert(tokens.end(), chunk.tokens.begin(), chunk.tokens.end());
    text += chunk.text;
    logprobs.insert(logprobs.end(), chunk.logprobs.begin(), chunk.logprobs.end());
    if (!chunk.finish_reason.empty()) finish_reason = chunk.finish_reason;
  }

  void AddTo(Json& json) const {
    json["token_ids"] = tokens;
    json["text"] = text;
    json["logprobs"] = nullptr;
    if (!logprobs.empty()) {
      json["logprobs"] = Json::array();
      json["top_logprobs"] = Json::array();
      for (const AnswerLogprobs& entry : logprobs) {
        json["logprobs"].push_back(ExactFloat(entry.sampled.logprob));
        Json top = Json::array();
        for (const AnswerLogprob& candidate : entry.top) {
          top.push_back({{"token_id", candidate.token},
                         {"logprob", ExactFloat(candidate.logprob)},
                         {"token", candidate.bytes}});
        }
        json["top_logprobs"].push_back(std::move(top));
      }
    }
    json["finish_reason"] = finish_reason;
  }
};

struct Answer {
  std::vector<TokenId> prompt_tokens;
  std::map<int32_t, Choice> choices;
  AnswerUsage usage;
  uint64_t seed = 0;
  std::string request_id;

  void Add(const AnswerChunk& chunk) {
    choices[chunk.choice].Add(chunk);
    if (!chunk.request_id.empty()) {
      request_id = chunk.request_id;
      prompt_tokens = chunk.prompt_tokens;
    }
    if (chunk.usage.has_value()) {
      usage = *chunk.usage;
      seed = chunk.seed;
    }
  }

  // The first choice's fields stand at the top; with several, all of them under "choices" too.
  Json ToJson() const {
    Json json{{"prompt_token_ids", prompt_tokens}};
    if (!choices.empty()) choices.begin()->second.AddTo(json);
    if (choices.size() > 1) {
      for (const auto& [index, choice] : choices) {
        Json entry{{"choice", index}};
        choice.AddTo(entry);
        json["choices"].push_back(std::move(entry));
      }
    }
    json["usage"] = bellwether::ToJson(usage);
    json["seed"] = seed;
    json["request_id"] = request_id;
    return json;
  }
};

// Generation itself, from the first token on.
double TokensPerSecond(const AnswerUsage& usage) {
  const double seconds = usage.total_seconds - usage.time_to_first_token_seconds;
  return seconds > 0 && usage.generated_tokens > 1 ? (usage.generated_tokens - 1) / seconds : 0;
}

void PrintSpeed(const Answer& answer) {
  const AnswerUsage& usage = answer.usage;
  std::fprintf(stderr, "[%d prompt tokens, first token after %.2f s, %d tokens at %.1f tokens/s, %s]\n",
               usage.prompt_tokens, usage.time_to_first_token_seconds, usage.generated_tokens,
               TokensPerSecond(usage),
               answer.choices.empty() ? "nothing" : answer.choices.begin()->second.finish_reason.c_str());
}

// Prints pieces as they come; several choices one after the other would mix, so they wait for the end.
void PrintPiece(const AnswerChunk& chunk, bool has_tokenizer) {
  if (has_tokenizer) {
    std::cout << chunk.text << std::flush;
  } else if (!chunk.tokens.empty()) {
    std::cout << absl::StrJoin(chunk.tokens, " ") << ' ' << std::flush;
  }
}

absl::Status PrintScores(const ScoreAnswer& answer, bool json_wanted) {
  double sum = 0;
  Json logprobs = Json::array({nullptr});
  for (float logprob : answer.logprobs) {
    sum += logprob;
    logprobs.push_back(ExactFloat(logprob));
  }
  const double count = static_cast<double>(answer.logprobs.size());
  if (json_wanted) {
    Json json{{"token_ids", answer.tokens}, {"logprobs", std::move(logprobs)}, {"sum_logprob", sum}};
    json["perplexity"] = count > 0 ? Json(std::exp(-sum / count)) : Json(nullptr);
    json["usage"] = ToJson(answer.usage);
    PrintJson(json);
    return absl::OkStatus();
  }
  for (size_t i = 0; i < answer.tokens.size(); ++i) {
    if (i == 0) {
      std::printf("%8d          -\n", answer.tokens[i]);
    } else {
      std::printf("%8d %10.4f\n", answer.tokens[i], answer.logprobs[i - 1]);
    }
  }
  if (count > 0) std::printf("log-probability %.4f, perplexity %.4f\n", sum, std::exp(-sum / count));
  return absl::OkStatus();
}

// JSON always has the log-probabilities of the tokens.
GenerationOptions WithLogprobs(GenerationOptions generation, bool json) {
  if (json && !generation.logprobs.has_value()) generation.logprobs = 0;
  return generation;
}

// The wire carries text as UTF-8 and nothing else.
absl::Status CheckUtf8(absl::string_view what, const std::string& text) {
  const size_t valid = ValidUtf8Prefix(text);
  if (valid == text.size()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(what, " is not valid UTF-8 at byte ", valid));
}

// One answer in a conversation, streamed.
absl::StatusOr<Answer> Ask(Session& session, const std::vector<ChatMessage>& messages,
                           const ChatOptions& options) {
  Answer answer;
  const absl::Status status =
      session.client().Chat(messages, WithLogprobs(options.generation, options.json),
                            {.cancellation = StopCancellation()}, [&](const AnswerChunk& chunk) {
                              answer.Add(chunk);
                              if (!options.json) PrintPiece(chunk, /*has_tokenizer=*/true);
                              return true;
                            });
  BW_RETURN_IF_ERROR(session.Explain(status));
  if (!options.json) std::cout << std::endl;
  return answer;
}

absl::Status Converse(Session& session, std::vector<ChatMessage> messages, const ChatOptions& options) {
  const bool terminal = isatty(STDIN_FILENO) == 1;
  if (terminal)
    std::fprintf(stderr, "Talking to %s. An empty line or ^D ends.\n", session.model().name.c_str());
  InputLines lines;
  for (std::string line;;) {
    if (terminal) std::fprintf(stderr, "> ");
    if (!lines.Next(&line) || line.empty()) break;
    messages.push_back({"user", line});
    BW_ASSIGN_OR_RETURN(const Answer answer, Ask(session, messages, options));
    PrintSpeed(answer);
    if (!answer.choices.empty()) messages.push_back({"assistant", answer.choices.begin()->second.text});
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status RunGenerate(const GenerateOptions& options) {
  WatchStopSignals();
  BW_RETURN_IF_ERROR(CheckUtf8("the prompt", options.prompt.text.value_or("")));
  const GenerationOptions generation = WithLogprobs(options.generation, options.json);
  for (const std::string& stop : generation.stop) BW_RETURN_IF_ERROR(CheckUtf8("a stop string", stop));
  BW_ASSIGN_OR_RETURN(Session session, Session::Open(options.session));
  Answer answer;
  const bool stream = !options.json && options.generation.n.value_or(1) == 1;
  const absl::Status status = session.client().Generate(
      options.prompt, generation, {.cancellation = StopCancellation()}, [&](const AnswerChunk& chunk) {
        answer.Add(chunk);
        if (stream) PrintPiece(chunk, session.model().has_tokenizer);
        return true;
      });
  BW_RETURN_IF_ERROR(session.Explain(status));
  if (options.json) {
    PrintJson(answer.ToJson());
  } else {
    if (!stream) {
      for (const auto& [index, choice] : answer.choices) {
        const std::string ids = absl::StrJoin(choice.tokens, " ");
        std::cout << "[" << index << "] " << (session.model().has_tokenizer ? choice.text : ids) << "\n";
      }
    }
    std::cout << std::endl;
    PrintSpeed(answer);
  }
  return session.Close();
}

absl::Status RunScore(const ScoreOptions& options) {
  WatchStopSignals();
  BW_RETURN_IF_ERROR(CheckUtf8("the text", options.prompt.text.value_or("")));
  BW_ASSIGN_OR_RETURN(Session session, Session::Open(options.session));
  const absl::StatusOr<ScoreAnswer> answer =
      session.client().Score(options.prompt, {.cancellation = StopCancellation()});
  BW_RETURN_IF_ERROR(session.Explain(answer.status()));
  BW_RETURN_IF_ERROR(PrintScores(*answer, options.json));
  return session.Close();
}

absl::Status RunChat(const ChatOptions& options) {
  WatchStopSignals();
  if (options.json && options.question.empty()) {
    return absl::InvalidArgumentError("--json answers one question: give --question too");
  }
  BW_RETURN_IF_ERROR(CheckUtf8("the question", options.question));
  BW_RETURN_IF_ERROR(CheckUtf8("the system message", options.system));
  BW_ASSIGN_OR_RETURN(Session session, Session::Open(options.session));
  if (session.model().chat_template.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat(session.model().name, " has no chat template: choose one with --chat-template"));
  }
  std::vector<ChatMessage> messages;
  if (!options.system.empty()) messages.push_back({"system", options.system});
  if (options.question.empty()) {
    BW_RETURN_IF_ERROR(Converse(session, std::move(messages), options));
    return session.Close();
  }
  messages.push_back({"user", options.question});
  BW_ASSIGN_OR_RETURN(const Answer answer, Ask(session, messages, options));
  if (options.json) {
    PrintJson(answer.ToJson());
  } else {
    PrintSpeed(answer);
  }
  return session.Close();
}

}  // namespace bellwether
