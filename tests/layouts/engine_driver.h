#pragma once

#include <map>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/engine.h"
#include "tests/layouts/local_cluster.h"

namespace bellwether {

// What came back for one choice of a request, or for a score request.
struct Answer {
  std::vector<TokenId> tokens;
  std::vector<float> logprobs;  // of the tokens, or the scores
  friend bool operator==(const Answer&, const Answer&) = default;
};

// Runs requests through a real engine on a local cluster until all are done. Answers come in the order of
// requests, choices in theirs. Fails if a request does.
struct DriverOptions {
  EngineOptions engine;
  int32_t kv_blocks = 64;
  int32_t stages = 1;
  bool one_by_one = false;  // a request arrives when the one before is done
};
// `end`: the engine's state then.
absl::StatusOr<std::vector<Answer>> RunRequests(LocalCluster& cluster, const DriverOptions& options,
                                                std::vector<EngineRequest> requests,
                                                EngineSnapshot* end = nullptr);

// The requests, which have one choice each and are no scores, and for each of them one that goes on where its
// answer has ended: with its prompt, `answers`' tokens and some more.
std::vector<EngineRequest> WithSecondTurns(std::vector<EngineRequest> requests,
                                           const std::vector<Answer>& answers);

}  // namespace bellwether
