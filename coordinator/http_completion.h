#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/mutex.h"
#include "coordinator/http_call.h"
#include "coordinator/http_gateway.h"
#include "coordinator/openai_answer.h"
#include "coordinator/openai_request.h"
#include "coordinator/shown_tokens.h"

namespace bellwether {

// A call of /v1/chat/completions or /v1/completions: one request of the engine for each prompt, whose choices
// become one answer, whole or as a stream of events; and another one where the log-probabilities of the
// prompt are asked for.
class HttpCompletion : public HttpCall {
 public:
  HttpCompletion(const HttpGateway* gateway, bool chat, HttpRequest request,
                 std::shared_ptr<HttpExchange> exchange)
      : HttpCall(&gateway->requests(), std::move(request), std::move(exchange)),
        gateway_(gateway),
        chat_(chat) {}

 private:
  class Observer;
  struct Choice {
    OpenAiChoice shown;                  // of a whole answer all of it, of a stream what has not been sent
    std::optional<ShownTokens> aligner;  // where log-probabilities are asked for
    bool news = false;                   // there is something to send
  };
  struct Prompt {
    std::vector<TokenId> ids;
    size_t unfinished = 0;           // choices
    std::optional<uint64_t> seed;    // once its request is done
    std::vector<ShownToken> echoed;  // with log-probabilities, where those are asked for
  };

  absl::Status ReadBody(const Json& body) override;
  // One for each prompt, and what of its text is echoed.
  absl::Status MakeRequests(const OpenAiRequest& asked, std::vector<EngineRequest>* requests,
                            std::vector<std::string>* echoes) const;
  void Prepare(const OpenAiRequest& asked, const std::vector<EngineRequest>& requests,
               const std::vector<std::string>& echoes);
  void SubmitAll(const OpenAiRequest& asked, std::vector<EngineRequest> requests);

  // What the engine says of the request for a prompt.
  void OnAccepted();
  void OnTokens(size_t prompt, const TokenChunk& chunk);
  void OnInterrupted(const std::string& reason);
  void OnScores(size_t prompt, const std::vector<float>& logprobs, const std::vector<TokenLogprob>& best);
  void OnDone(size_t prompt, bool score, const absl::Status& status, const Usage& usage, uint64_t seed);
  void AllDone();

  // Ends the call and what the engine still does for it.
  void Fail(const absl::Status& status);
  void BeginStream() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SendNews(size_t prompt) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SendPiece(Choice* choice, std::optional<uint64_t> seed) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SendEvent(std::string_view data) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void FinishStream() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RespondWhole();

  const HttpGateway* const gateway_;
  const bool chat_;

  // Set before the engine hears of the call.
  bool stream_ = false, include_usage_ = false;
  size_t choices_each_ = 1;  // of a prompt
  size_t requests_ = 0;      // of the engine
  std::unique_ptr<OpenAiAnswer> answer_;

  Mutex mutex_;
  std::vector<Prompt> prompts_ ABSL_GUARDED_BY(mutex_);
  std::vector<Choice> choices_ ABSL_GUARDED_BY(mutex_);  // by prompt
  Usage usage_ ABSL_GUARDED_BY(mutex_);                  // of all prompts
  size_t accepted_ ABSL_GUARDED_BY(mutex_) = 0, done_ ABSL_GUARDED_BY(mutex_) = 0;
  bool streaming_ ABSL_GUARDED_BY(mutex_) = false;  // the stream's head has been sent
  bool failed_ ABSL_GUARDED_BY(mutex_) = false;     // the client knows, and nothing follows
  size_t heard_ ABSL_GUARDED_BY(mutex_) = 0;        // requests, of an interruption that others are to hear of
};

}  // namespace bellwether
