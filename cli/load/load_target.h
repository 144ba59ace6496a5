#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "cli/session.h"
#include "common/ids.h"
#include "model/chat_template/chat_template.h"

namespace bellwether {

// One of `token_ids`, `text` (both are continued) and `messages` (answered).
struct LoadRequest {
  std::vector<TokenId> token_ids;
  std::optional<std::string> text;
  std::vector<ChatMessage> messages;
  int max_tokens = 1;
  uint64_t seed = 0;
};

// What a server says of an answer.
struct LoadAnswer {
  std::string error;  // its kind, in few words that many requests share; empty: none
  std::string why;    // what the server says of it, if it does
  int64_t prompt_tokens = 0, generated_tokens = 0;
};

// A connection to what is loaded; one request at a time.
class LoadConnection {
 public:
  virtual ~LoadConnection() = default;
  // Waits for the answer. `on_piece` is called as each piece of it comes, with the number of tokens that it
  // is known to have (1 if it is not known). ^C ends it with an error.
  virtual LoadAnswer Send(const LoadRequest& request, absl::FunctionRef<void(int tokens)> on_piece) = 0;
};

class LoadTarget {
 public:
  virtual ~LoadTarget() = default;
  virtual std::string Describe() const = 0;
  // Of the vocabulary, if it takes prompts as token ids.
  virtual std::optional<int32_t> vocabulary() const = 0;
  virtual std::unique_ptr<LoadConnection> NewConnection() = 0;
};

struct LoadSampling {
  double temperature = 0;
  bool stop_at_eos = false;  // else answers are as long as they are asked to be
};

// A coordinator, over gRPC. `session` outlives it.
std::unique_ptr<LoadTarget> NewGrpcTarget(const Session& session, const LoadSampling& sampling);

struct HttpTargetOptions {
  std::string url;    // http://HOST:PORT, with or without /v1
  std::string model;  // empty: the first that the server lists
  std::string api_key;
  TlsOptions tls;  // with https:// without an authority the system's count
  LoadSampling sampling;
};
// A server that speaks OpenAI's HTTP: ours or another.
// Unavailable, with the address, if it does not answer. Before other threads begin.
absl::StatusOr<std::unique_ptr<LoadTarget>> NewHttpTarget(HttpTargetOptions options);

}  // namespace bellwether
