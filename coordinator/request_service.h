#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/clock.h"
#include "common/generation_options.h"
#include "common/log.h"
#include "common/log_limiter.h"
#include "coordinator/api_keys.h"
#include "coordinator/engine_loop.h"
#include "coordinator/request_observer.h"
#include "coordinator/request_validation.h"
#include "coordinator/text_pool.h"
#include "model/chat_template/chat_template.h"
#include "model/tokenizer/tokenizer.h"

namespace bellwether {

// What clients ask for, through whichever door, before anybody has checked it.
struct GenerateInput {
  PromptInput prompt;
  GenerationOptions options;
};
struct ChatInput {
  std::vector<ChatMessage> messages;
  GenerationOptions options;
};

// Asked now and then while a text is read: an error ends the reading.
using StopReading = std::function<absl::Status()>;

// The service behind the doors (gRPC, HTTP): checks what is asked for, reads its texts, and has a small pool
// on which all doors do that. Any thread.
class RequestService {
 public:
  struct Options {
    RequestLimits limits;
    const Tokenizer* tokenizer = nullptr;         // may be null; outlives the service
    const ChatTemplate* chat_template = nullptr;  // null without a tokenizer
    bool template_stop = true;                    // a chat ends at the template's own stop strings too
    EngineLoop* engine = nullptr;                 // outlives the service
    ApiKeys* api_keys = nullptr;                  // likewise; null: nobody is asked who he is
    const Clock* clock = Clock::Real();
    int tokenizer_threads = 2;
    bool log_prompts = false;  // prompts and answers go into the log
    // A request has ended before the engine heard of it; from any thread, may not wait.
    std::function<void(const absl::Status&)> refused = [](const absl::Status&) {};
  };
  explicit RequestService(Options options);

  const RequestLimits& limits() const { return options_.limits; }
  const Tokenizer* tokenizer() const { return options_.tokenizer; }
  const ChatTemplate* chat_template() const { return options_.chat_template; }
  EngineLoop& engine() const { return *options_.engine; }
  const Clock& clock() const { return *options_.clock; }

  // Who asks with these words ("Bearer KEY"); "" where nobody is asked. Unauthenticated, as ApiKeys has it.
  absl::StatusOr<std::string> ClientOf(std::string_view authorization) const;

  // -- Reading, which may take seconds: for the pool. InvalidArgument names the field, FailedPrecondition
  // says that the model has no tokenizer; other errors are those of `stop`.

  absl::StatusOr<EngineRequest> MakeRequest(const GenerateInput& input, const StopReading& stop) const;
  absl::StatusOr<EngineRequest> MakeRequest(const ChatInput& input, const StopReading& stop) const;
  // The log-probability of every token of the prompt.
  absl::StatusOr<EngineRequest> MakeScoreRequest(PromptInput prompt, const StopReading& stop) const;
  absl::StatusOr<std::vector<TokenId>> Tokenize(std::string_view text, const EncodeOptions& options,
                                                const StopReading& stop) const;
  absl::StatusOr<std::string> Detokenize(absl::Span<const TokenId> ids, bool skip_special) const;

  // -- The pool

  // `text_bytes`: of the texts that `task` reads. False if too many are waiting.
  [[nodiscard]] bool TryPost(size_t text_bytes, std::function<void()> task);
  // What reading a prompt costs, in bytes: nothing where a look tells that it is too long.
  size_t ReadingBytes(std::string_view text) const;

  void CountRefused(const absl::Status& status) const { options_.refused(status); }
  // How a request has ended, for the log.
  void LogEnd(const LogFields& fields, const absl::Status& status);
  // Who listens to a request besides `observer`, which is returned, or what passes all on to it.
  std::shared_ptr<RequestObserver> Overhear(const EngineRequest& request, LogFields fields,
                                            std::shared_ptr<RequestObserver> observer) const;

 private:
  absl::Status NeedTokenizer() const;
  // Asks `stop`, and lets shorter texts go ahead.
  StopReading Pausing(const StopReading& stop) const;
  EncodeLimits PromptLimits(bool score, const StopReading& stop) const;
  absl::StatusOr<std::vector<TokenId>> PromptTokens(PromptInput prompt, bool score,
                                                    const StopReading& stop) const;

  const Options options_;
  // Refusals are as many as clients like.
  LogLimiter ends_{20, absl::Seconds(1)};
  mutable TextPool pool_;
};

}  // namespace bellwether
