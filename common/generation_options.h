#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/ids.h"

namespace bellwether {

// What a client asks for, before anybody has checked it (inference.proto's GenerationOptions says what is
// allowed). Absent means: the default, which asks for nothing unusual.
struct GenerationOptions {
  std::optional<int32_t> max_tokens;
  std::optional<int32_t> min_tokens;
  std::optional<double> temperature;
  std::optional<int32_t> top_k;
  std::optional<double> top_p;
  std::optional<double> min_p;
  std::optional<double> repetition_penalty;
  std::optional<double> presence_penalty;
  std::optional<double> frequency_penalty;
  std::vector<std::pair<TokenId, float>> logit_bias;  // unique ids, ascending
  std::optional<uint64_t> seed;
  std::vector<std::string> stop;
  std::vector<TokenId> stop_token_ids;
  bool ignore_eos = false;
  std::optional<int32_t> logprobs;
  std::optional<int32_t> n;
};

// A prompt as the client gives it: one of `text` and `token_ids`.
struct PromptInput {
  std::optional<std::string> text;
  std::optional<std::vector<TokenId>> token_ids;
  bool parse_special_tokens = false;  // text only: "</s>" is that token
  bool no_special_tokens = false;     // text only: leave out BOS
};

}  // namespace bellwether
