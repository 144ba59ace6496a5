#include "cli/answers.h"

#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <map>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "cli/stop.h"
#include "cli/terminal.h"
#include "cli/wait_notice.h"
#include "common/json.h"
#include "common/output.h"
#include "common/quote.h"
#include "common/status.h"
#include "common/utf8.h"

namespace bellwether {
namespace {

absl::Status PrintJson(const Json& json) { return WriteOutput(WriteJson(json, /*indent=*/2) + "\n"); }

// The shortest text that reads back as the same float.
Json ExactFloat(float value) {
  double exact = 0;
  if (!std::isfinite(value) || !absl::SimpleAtod(absl::StrFormat("%.9g", value), &exact)) return nullptr;
  return exact;
}

Json ToJson(const AnswerUsage& usage) {
  return Json::object({{"prompt_tokens", usage.prompt_tokens},
                       {"generated_tokens", usage.generated_tokens},
                       {"queue_seconds", usage.queue_seconds},
                       {"time_to_first_token_seconds", usage.time_to_first_token_seconds},
                       {"total_seconds", usage.total_seconds},
                       {"interruptions", usage.interruptions},
                       {"cached_prompt_tokens", usage.cached_prompt_tokens}});
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
          top.push_back(Json::object({{"token_id", candidate.token},
                                      {"logprob", ExactFloat(candidate.logprob)},
                                      {"token", candidate.bytes}}));
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
    if (chunk.interruption.empty()) choices[chunk.choice].Add(chunk);
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
    Json json = Json::object({{"prompt_token_ids", prompt_tokens}});
    if (!choices.empty()) choices.begin()->second.AddTo(json);
    if (choices.size() > 1) {
      for (const auto& [index, choice] : choices) {
        Json entry = Json::object({{"choice", index}});
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

// Pieces are printed as they come; several choices one after the other would mix, so they wait for the end.
std::string Piece(const AnswerChunk& chunk, bool has_tokenizer) {
  if (has_tokenizer) return chunk.text;
  return chunk.tokens.empty() ? "" : absl::StrJoin(chunk.tokens, " ") + " ";
}

Json ScoresJson(const ScoreAnswer& answer, double sum) {
  Json logprobs = Json::array({nullptr});
  for (const float logprob : answer.logprobs) logprobs.push_back(ExactFloat(logprob));
  const double count = static_cast<double>(answer.logprobs.size());
  return Json::object({{"token_ids", answer.tokens},
                       {"logprobs", std::move(logprobs)},
                       {"sum_logprob", sum},
                       {"perplexity", count > 0 ? Json(std::exp(-sum / count)) : Json()},
                       {"usage", ToJson(answer.usage)}});
}

absl::Status PrintScores(const ScoreAnswer& answer, bool json_wanted) {
  double sum = 0;
  for (const float logprob : answer.logprobs) sum += logprob;
  if (json_wanted) return PrintJson(ScoresJson(answer, sum));
  std::string text;
  for (size_t i = 0; i < answer.tokens.size(); ++i) {
    if (i == 0) {
      absl::StrAppendFormat(&text, "%8d          -\n", answer.tokens[i]);
    } else {
      absl::StrAppendFormat(&text, "%8d %10.4f\n", answer.tokens[i], answer.logprobs[i - 1]);
    }
  }
  if (const double count = static_cast<double>(answer.logprobs.size()); count > 0) {
    absl::StrAppendFormat(&text, "log-probability %.4f, perplexity %.4f\n", sum, std::exp(-sum / count));
  }
  return WriteOutput(text);
}

// JSON always has the log-probabilities of the tokens.
GenerationOptions WithLogprobs(GenerationOptions generation, bool json) {
  if (json && !generation.logprobs.has_value()) generation.logprobs = 0;
  return generation;
}

absl::Status CheckStops(const GenerationOptions& generation) {
  for (const std::string& stop : generation.stop) BW_RETURN_IF_ERROR(CheckUtf8("a stop string", stop));
  return absl::OkStatus();
}

constexpr char kNoAnswerYet[] = "no answer yet: the request waits for its turn, or its prompt is being read";

// Collects an answer, and prints what `piece` makes of each chunk as it comes. What cannot be printed ends
// the call. Notices of interruptions leave the line that the answer has begun.
absl::StatusOr<Answer> Collect(Session& session,
                               absl::FunctionRef<absl::Status(InferenceClient::OnChunk)> call,
                               absl::FunctionRef<std::string(const AnswerChunk&)> piece) {
  Answer answer;
  absl::Status printed;
  const bool notices_meet_it = OutputsMeet();
  bool line_begun = false;
  WaitNotice notice(kNoAnswerYet);
  const absl::Status status = call([&](const AnswerChunk& chunk) {
    notice.End();
    answer.Add(chunk);
    if (!chunk.interruption.empty()) {
      std::fprintf(stderr, "%s[%s; the answer goes on when service is back]\n",
                   std::exchange(line_begun, false) ? "\n" : "", chunk.interruption.c_str());
      return true;
    }
    const std::string text = piece(chunk);
    if (!text.empty()) line_begun = notices_meet_it && !text.ends_with('\n');
    printed = WriteOutput(text);
    return printed.ok();
  });
  notice.End();
  BW_RETURN_IF_ERROR(printed);
  BW_RETURN_IF_ERROR(session.Explain(status));
  return answer;
}

// One answer in a conversation, streamed.
absl::StatusOr<Answer> Ask(Session& session, const std::vector<ChatMessage>& messages,
                           const ChatOptions& options) {
  BW_ASSIGN_OR_RETURN(
      Answer answer, Collect(
                         session,
                         [&](InferenceClient::OnChunk on_chunk) {
                           return session.client().Chat(
                               messages, WithLogprobs(session.WithDefaults(options.generation), options.json),
                               {.cancellation = StopCancellation()}, on_chunk);
                         },
                         [&](const AnswerChunk& chunk) {
                           return options.json ? "" : Piece(chunk, /*has_tokenizer=*/true);
                         }));
  if (!options.json) BW_RETURN_IF_ERROR(WriteOutput("\n"));
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
    if (const absl::Status text = CheckUtf8("the line", line); !text.ok()) {
      std::fprintf(stderr, "%s: write it again\n", std::string(text.message()).c_str());
      continue;
    }
    messages.push_back({"user", line});
    const absl::StatusOr<Answer> answer = Ask(session, messages, options);
    // A person may write another line; whoever pipes lines wants to know.
    if (terminal && absl::IsInvalidArgument(answer.status())) {
      std::fprintf(stderr, "%s\n", std::string(answer.status().message()).c_str());
      messages.pop_back();
      continue;
    }
    BW_RETURN_IF_ERROR(answer.status());
    PrintSpeed(*answer);
    if (!answer->choices.empty()) messages.push_back({"assistant", answer->choices.begin()->second.text});
  }
  return lines.status();
}

// The texts of several choices, once all are there.
std::string ChoicesText(const Answer& answer, bool has_tokenizer) {
  std::string text;
  for (const auto& [index, choice] : answer.choices) {
    absl::StrAppend(&text, "[", index, "] ", has_tokenizer ? choice.text : absl::StrJoin(choice.tokens, " "),
                    "\n");
  }
  return text;
}

}  // namespace

absl::Status RunGenerate(const GenerateOptions& options) {
  WatchStopSignals();
  BW_RETURN_IF_ERROR(CheckUtf8("the prompt", options.prompt.text.value_or("")));
  const GenerationOptions generation = WithLogprobs(options.generation, options.json);
  BW_RETURN_IF_ERROR(CheckStops(generation));
  BW_ASSIGN_OR_RETURN(Session session, Session::Open(options.session));
  const bool stream = !options.json && options.generation.n.value_or(1) == 1;
  const bool has_tokenizer = session.model().has_tokenizer;
  BW_ASSIGN_OR_RETURN(
      const Answer answer,
      Collect(
          session,
          [&](InferenceClient::OnChunk on_chunk) {
            return session.client().Generate(options.prompt, session.WithDefaults(generation),
                                             {.cancellation = StopCancellation()}, on_chunk);
          },
          [&](const AnswerChunk& chunk) { return stream ? Piece(chunk, has_tokenizer) : ""; }));
  if (options.json) {
    BW_RETURN_IF_ERROR(PrintJson(answer.ToJson()));
  } else {
    BW_RETURN_IF_ERROR(WriteOutput(stream ? "\n" : ChoicesText(answer, has_tokenizer) + "\n"));
    PrintSpeed(answer);
  }
  return session.Close();
}

absl::Status RunScore(const ScoreOptions& options) {
  WatchStopSignals();
  BW_RETURN_IF_ERROR(CheckUtf8("the text", options.prompt.text.value_or("")));
  BW_ASSIGN_OR_RETURN(Session session, Session::Open(options.session));
  WaitNotice notice(kNoAnswerYet);
  const absl::StatusOr<ScoreAnswer> answer =
      session.client().Score(options.prompt, {.cancellation = StopCancellation()});
  notice.End();
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
  BW_RETURN_IF_ERROR(CheckStops(options.generation));
  BW_ASSIGN_OR_RETURN(Session session, Session::Open(options.session));
  if (session.model().chat_template.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat(session.model().name, " has no chat template: choose one with --chat-template"));
  }
  if (session.model().chat_template == "none") {
    std::fprintf(stderr,
                 "No chat template is known for %s: it gets the message as it is. See `bellwether inspect`; "
                 "--chat-template of who serves it chooses one.\n",
                 session.model().name.c_str());
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
    BW_RETURN_IF_ERROR(PrintJson(answer.ToJson()));
  } else {
    PrintSpeed(answer);
  }
  return session.Close();
}

}  // namespace bellwether
