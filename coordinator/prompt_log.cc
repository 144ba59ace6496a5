#include "coordinator/prompt_log.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/quote.h"

namespace bellwether {
namespace {

constexpr size_t kTextBytesMax = 64 << 10;

std::string TextOf(absl::Span<const TokenId> ids, const Tokenizer* tokenizer) {
  return tokenizer == nullptr ? absl::StrCat("token ids ", absl::StrJoin(ids, ","))
                              : tokenizer->Decode(ids, /*skip_special=*/false);
}

// On the engine's thread, but for its making.
class PromptLog : public RequestObserver {
 public:
  PromptLog(const EngineRequest& request, const Tokenizer* tokenizer, LogFields fields,
            std::shared_ptr<RequestObserver> next)
      : tokenizer_(tokenizer),
        fields_(std::move(fields)),
        next_(std::move(next)),
        prompt_(CutText(TextOf(request.prompt, tokenizer), kTextBytesMax)),
        answers_(request.score ? 0 : request.choices) {}

  void OnAccepted() override {
    Log(LogLevel::kInfo, absl::StrCat("prompt: ", std::exchange(prompt_, "")), fields_);
    next_->OnAccepted();
  }

  void OnTokens(TokenChunk chunk) override {
    std::string& answer = answers_.at(chunk.choice);
    if (answer.size() < kTextBytesMax) {
      absl::StrAppend(&answer, tokenizer_ == nullptr ? TextOf(chunk.tokens, nullptr) : chunk.text);
    }
    if (chunk.finish) WriteAnswer(std::exchange(answer, ""), chunk.choice);
    next_->OnTokens(std::move(chunk));
  }

  void OnInterrupted(const std::string& reason) override { next_->OnInterrupted(reason); }
  void OnScores(std::vector<float> logprobs, std::vector<TokenLogprob> best) override {
    next_->OnScores(std::move(logprobs), std::move(best));
  }
  void OnDone(const absl::Status& status, const Usage& usage, uint64_t seed) override {
    next_->OnDone(status, usage, seed);
  }

 private:
  void WriteAnswer(std::string_view text, int32_t choice) const {
    LogFields fields = fields_;
    fields.push_back({"choice", absl::StrCat(choice)});
    Log(LogLevel::kInfo, absl::StrCat("answer: ", std::string(CutText(text, kTextBytesMax))), fields);
  }

  const Tokenizer* const tokenizer_;
  const LogFields fields_;
  const std::shared_ptr<RequestObserver> next_;
  std::string prompt_;                // until it is taken: refusals are as many as clients like
  std::vector<std::string> answers_;  // by choice, as far as they have come
};

}  // namespace

std::shared_ptr<RequestObserver> LogPrompts(const EngineRequest& request, const Tokenizer* tokenizer,
                                            LogFields fields, std::shared_ptr<RequestObserver> observer) {
  return std::make_shared<PromptLog>(request, tokenizer, std::move(fields), std::move(observer));
}

}  // namespace bellwether
