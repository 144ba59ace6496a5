#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "common/generation_options.h"
#include "common/mutex.h"
#include "common/tls_options.h"
#include "model/chat_template/chat_template.h"

namespace bellwether {

// A coordinator as its clients see it: plain structs, gRPC inside. Errors are those of the coordinator (their
// codes and words), or Unavailable if nobody answers at the address.

struct AnswerLogprob {
  TokenId token = -1;
  float logprob = 0;
  std::string bytes;  // may be part of a character
};
struct AnswerLogprobs {
  AnswerLogprob sampled;
  std::vector<AnswerLogprob> top;  // most likely first
};
struct AnswerUsage {
  int32_t prompt_tokens = 0;
  int32_t cached_prompt_tokens = 0;
  int32_t generated_tokens = 0;  // over all choices
  double queue_seconds = 0;
  double time_to_first_token_seconds = 0;
  double total_seconds = 0;
  int32_t interruptions = 0;  // workers that were lost meanwhile, or left
};

// One message of a stream.
struct AnswerChunk {
  // A worker was lost, as this says: nothing comes until service is back, then the answer goes on. Not empty:
  // the message is no part of a choice.
  std::string interruption;
  int32_t choice = 0;
  int32_t index = 0;  // of tokens[0] among the choice's tokens
  std::vector<TokenId> tokens;
  std::string text;                      // valid UTF-8
  std::vector<AnswerLogprobs> logprobs;  // one a token, if asked for
  std::string finish_reason;             // "stop", "length", "cancelled", "deadline" or "error"; else empty
  // On the first message.
  std::vector<TokenId> prompt_tokens;
  std::string request_id;
  // On the last message.
  std::optional<AnswerUsage> usage;
  uint64_t seed = 0;
};

struct ScoreAnswer {
  std::vector<TokenId> tokens;
  std::vector<float> logprobs;  // of tokens[1], tokens[2] ...
  AnswerUsage usage;
};

struct TokenizeAnswer {
  std::vector<TokenId> tokens;
  std::vector<std::string> bytes;  // what each token stands for
};

struct ServedModel {
  std::string name;
  std::string model_id;
  std::string architecture;
  int32_t vocab_size = 0;
  int32_t context_tokens = 0;
  std::string chat_template;  // empty if Chat is not available
  bool has_tokenizer = false;
  bool serving = false;
  std::string layout;
  std::string kernel_level;
  std::string weights;
  int32_t kv_blocks = 0;
  std::string not_serving_reason;
  bool refused = false;  // waiting does not help: the planner says no, or a worker cannot load its part
  GenerationOptions authors_options;  // how the model's authors sample
  uint64_t loading_progress = 0;      // while not serving: grows as the workers load
};

// Ends calls from another thread, also those that have not begun.
class Cancellation {
 public:
  void Cancel();
  bool cancelled() const;
  // Until Cancel or for as long as `limit`; returns cancelled().
  bool WaitFor(absl::Duration limit) const;

 private:
  friend class InferenceClient;
  mutable Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<void*> calls_ ABSL_GUARDED_BY(mutex_);  // under way: grpc::ClientContext
};

struct CallOptions {
  absl::Duration timeout = absl::InfiniteDuration();
  std::string request_id;                // empty: the coordinator makes one up
  Cancellation* cancellation = nullptr;  // outlives the call
};

// Methods may be called from several threads at once; each waits for its answer.
class InferenceClient {
 public:
  struct Transport {
    bool by_proxy = false;  // as the environment says (common/config.h, ProxyVariable), else straight there
    TlsOptions tls;         // none: nothing is encrypted
    std::string api_key;    // sent with every call, as a bearer token; empty: none
  };
  // `address`: a valid HOST:PORT. Nothing is sent yet. With files that CheckTls refuses all calls fail.
  InferenceClient(const std::string& address, const Transport& transport);
  explicit InferenceClient(const std::string& address) : InferenceClient(address, Transport()) {}
  // InvalidArgument: what is wrong with the files.
  static absl::Status CheckTls(const TlsOptions& tls);
  ~InferenceClient();

  // Called for each message in order; false cancels the call.
  using OnChunk = absl::FunctionRef<bool(const AnswerChunk&)>;
  absl::Status Generate(const PromptInput& prompt, const GenerationOptions& options, const CallOptions& call,
                        OnChunk on_chunk);
  absl::Status Chat(absl::Span<const ChatMessage> messages, const GenerationOptions& options,
                    const CallOptions& call, OnChunk on_chunk);
  absl::StatusOr<ScoreAnswer> Score(const PromptInput& prompt, const CallOptions& call);
  absl::StatusOr<TokenizeAnswer> Tokenize(const std::string& text, bool parse_special_tokens,
                                          bool add_special_tokens);
  absl::StatusOr<std::string> Detokenize(absl::Span<const TokenId> tokens, bool keep_special_tokens);
  absl::StatusOr<ServedModel> GetModel(const CallOptions& call = {.timeout = absl::Seconds(10)});

  // Asks until the model is served. DeadlineExceeded, with the reason last given, after `timeout`.
  absl::StatusOr<ServedModel> WaitUntilServing(absl::Duration timeout,
                                               const Cancellation* cancellation = nullptr);

 private:
  struct Connection;
  std::unique_ptr<Connection> connection_;
};

}  // namespace bellwether
