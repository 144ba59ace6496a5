#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/load/length_distribution.h"
#include "cli/load/load_target.h"

namespace bellwether {

// The requests of a load: request i of a round is the same for the same options, whoever asks for it and
// when. Rounds have the same lengths and other random prompts, so that no server finds what it has read in an
// earlier one.
class LoadPrompts {
 public:
  struct Options {
    std::string file;                          // of JSON lines, taken in turn; empty: random prompts
    std::string prompt_tokens, output_tokens;  // length_distribution.h
    std::optional<int32_t> vocabulary;         // random prompts are token ids of it, else words
    uint64_t seed = 0;
  };
  // InvalidArgument: a length or a line that is none, naming which.
  static absl::StatusOr<LoadPrompts> Create(const Options& options);

  LoadRequest Request(int64_t round, int64_t index) const;

 private:
  LoadPrompts(Options options, LengthDistribution prompt, LengthDistribution output)
      : options_(std::move(options)), prompt_(prompt), output_(output) {}
  absl::Status ReadFile();
  void AddRandomPrompt(int64_t round, int64_t index, LoadRequest& request) const;

  Options options_;
  LengthDistribution prompt_, output_;
  std::vector<LoadRequest> written_;  // of the file
};

}  // namespace bellwether
