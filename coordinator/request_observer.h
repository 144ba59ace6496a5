#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "coordinator/engine.h"

namespace bellwether {

// Who wants to hear about one request. Called from the engine's thread, so none of these may wait.
class RequestObserver {
 public:
  virtual ~RequestObserver() = default;
  // The request waits or runs, so that it will not be refused any more. Before anything else, and not at all
  // where it is refused or done at once.
  virtual void OnAccepted() = 0;
  virtual void OnTokens(TokenChunk chunk) = 0;
  // Nothing comes until the workers are back; `reason` names the one that was lost. May happen again.
  virtual void OnInterrupted(const std::string& reason) = 0;
  // As EmitScores has it.
  virtual void OnScores(std::vector<float> logprobs, std::vector<TokenLogprob> best) = 0;
  // The last call.
  virtual void OnDone(const absl::Status& status, const Usage& usage, uint64_t seed) = 0;
};

}  // namespace bellwether
