#include "coordinator/stop_checker.h"

#include <algorithm>
#include <utility>

#include "common/check.h"

namespace bellwether {

StopMatcher::StopMatcher(const std::vector<std::string>& stops) {
  for (const std::string& stop : stops) {
    if (stop.empty()) continue;
    Pattern pattern{stop, std::vector<size_t>(stop.size() + 1, 0), 0};
    for (size_t i = 1, border = 0; i < stop.size(); ++i) {
      while (border > 0 && stop[i] != stop[border]) border = pattern.border[border];
      if (stop[i] == stop[border]) ++border;
      pattern.border[i + 1] = border;
    }
    patterns_.push_back(std::move(pattern));
  }
}

bool StopMatcher::Push(std::string_view text, std::string* out) {
  size_t held_back = 0;  // bytes at the end of held_ that begin a stop string
  for (const char byte : text) {
    held_ += byte;
    held_back = 0;
    size_t complete = 0;
    for (Pattern& pattern : patterns_) {
      while (pattern.matched > 0 && pattern.text[pattern.matched] != byte) {
        pattern.matched = pattern.border[pattern.matched];
      }
      if (pattern.text[pattern.matched] == byte) ++pattern.matched;
      if (pattern.matched == pattern.text.size()) complete = std::max(complete, pattern.matched);
      held_back = std::max(held_back, pattern.matched);
    }
    if (complete > 0) {
      out->append(held_, 0, held_.size() - complete);
      held_.clear();
      return true;
    }
  }
  if (text.empty()) return false;
  out->append(held_, 0, held_.size() - held_back);
  held_.erase(0, held_.size() - held_back);
  return false;
}

std::string StopMatcher::Flush() { return std::exchange(held_, {}); }

StopChecker::StopChecker(const Tokenizer* tokenizer, Options options)
    : options_(std::move(options)), matcher_(options_.stop) {
  BW_CHECK_GE(options_.tokens_max, 1);
  // After a prompt: the leading space of the answer belongs to it.
  if (tokenizer != nullptr) detokenizer_.emplace(tokenizer, IncrementalDetokenizer::Options{});
}

StopChecker::Verdict StopChecker::Push(TokenId token) {
  BW_CHECK_LT(tokens_, options_.tokens_max);
  ++tokens_;
  const std::vector<TokenId>& ending = options_.ending_tokens;
  if (std::find(ending.begin(), ending.end(), token) != ending.end())
    return {.text = Flush(), .finish = FinishReason::kStop, .ending_token = true};
  std::string certain;
  if (detokenizer_) {
    const std::string text = detokenizer_->Push(token);
    if (tokens_ < options_.tokens_min) {
      certain = text;
    } else if (matcher_.Push(text, &certain)) {
      return {std::move(certain), FinishReason::kStop};
    }
  }
  if (tokens_ == options_.tokens_max) return {std::move(certain) + Flush(), FinishReason::kLength};
  return {std::move(certain), std::nullopt};
}

std::string StopChecker::Flush() {
  std::string text = matcher_.Flush();
  if (detokenizer_) text += detokenizer_->Flush();
  return text;
}

}  // namespace bellwether
