#include "cli/load/load_prompts.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cli/batch/batch_input.h"
#include "cli/batch/batch_task.h"
#include "common/random.h"
#include "common/status.h"

namespace bellwether {
namespace {

constexpr size_t kFileRequestsMax = 1 << 20;
// Of UniformFromCounter, where its caller has a choice's number: what is drawn.
enum Draw : int32_t { kPromptLength, kOutputLength, kPromptToken };

// Short words, most of them one token in every vocabulary.
constexpr std::string_view kWords[] = {"the",  "time", "of",   "water", "and",  "light", "in",   "hand",
                                       "long", "day",  "over", "house", "with", "small", "road", "year"};

LoadRequest RequestOf(BatchTask task) {
  LoadRequest request;
  request.text = std::move(task.prompt);
  if (request.text.has_value()) return request;
  request.messages = std::move(task.history);
  request.messages.push_back({"user", task.turns.front()});
  return request;
}

}  // namespace

absl::StatusOr<LoadPrompts> LoadPrompts::Create(const Options& options) {
  const auto length = [](const char* flag, const std::string& text) -> absl::StatusOr<LengthDistribution> {
    absl::StatusOr<LengthDistribution> parsed = LengthDistribution::Parse(text);
    return parsed.ok() ? parsed : Annotate(parsed.status(), flag);
  };
  BW_ASSIGN_OR_RETURN(const LengthDistribution prompt, length("--prompt-tokens", options.prompt_tokens));
  BW_ASSIGN_OR_RETURN(const LengthDistribution output, length("--output-tokens", options.output_tokens));
  LoadPrompts prompts(options, prompt, output);
  if (!options.file.empty()) BW_RETURN_IF_ERROR(prompts.ReadFile());
  return prompts;
}

absl::Status LoadPrompts::ReadFile() {
  BW_ASSIGN_OR_RETURN(BatchInput input, BatchInput::Open(options_.file, BatchInput::Order::kAsWritten));
  while (true) {
    BW_ASSIGN_OR_RETURN(const std::vector<BatchLine> lines, input.NextWindow());
    if (lines.empty()) break;
    for (const BatchLine& line : lines) {
      absl::StatusOr<BatchTask> task = ParseBatchTask(line.text);
      if (!task.ok()) return Annotate(task.status(), absl::StrCat(options_.file, ", line ", line.number));
      written_.push_back(RequestOf(*std::move(task)));
      if (written_.size() > kFileRequestsMax)
        return absl::InvalidArgumentError(
            absl::StrCat(options_.file, ": more than ", kFileRequestsMax, " lines"));
    }
  }
  if (written_.empty()) return absl::InvalidArgumentError(absl::StrCat(options_.file, ": no lines"));
  return absl::OkStatus();
}

void LoadPrompts::AddRandomPrompt(int64_t round, int64_t index, LoadRequest& request) const {
  const int length = prompt_.At(UniformFromCounter(options_.seed, kPromptLength, index));
  // No sum of the seed and these: the next seed's prompts would be the same but for the first.
  const int64_t first = (round << 24 | index) << 24;
  const auto draw = [&](int position, int64_t count) {
    const double uniform = UniformFromCounter(options_.seed, kPromptToken, first + position);
    return static_cast<int64_t>(uniform * static_cast<double>(count));
  };
  if (options_.vocabulary.has_value()) {
    for (int i = 0; i < length; ++i)
      request.token_ids.push_back(static_cast<TokenId>(draw(i, *options_.vocabulary)));
    return;
  }
  std::string text;
  for (int i = 0; i < length; ++i)
    absl::StrAppend(&text, i > 0 ? " " : "", std::string(kWords[draw(i, std::size(kWords))]));
  request.text = std::move(text);
}

LoadRequest LoadPrompts::Request(int64_t round, int64_t index) const {
  LoadRequest request;
  if (written_.empty()) {
    AddRandomPrompt(round, index, request);
  } else {
    request = written_[index % static_cast<int64_t>(written_.size())];
  }
  request.max_tokens = output_.At(UniformFromCounter(options_.seed, kOutputLength, index));
  request.seed = options_.seed + static_cast<uint64_t>(index);
  return request;
}

}  // namespace bellwether
