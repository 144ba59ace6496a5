#include "coordinator/shown_tokens.h"

#include <algorithm>
#include <utility>

namespace bellwether {

ShownTokens::ShownTokens(const Tokenizer* tokenizer, Special special)
    : tokenizer_(tokenizer), special_(special), detokenizer_(tokenizer, IncrementalDetokenizer::Options{}) {}

std::vector<ShownToken> ShownTokens::Push(const TokenChunk& chunk) {
  for (const StepOutput& output : chunk.logprobs) Add(output);
  if (chunk.finish && !group_.empty()) CloseGroup(group_text_ + detokenizer_.Flush());
  text_bytes_ += chunk.text.size();
  std::vector<ShownToken> shown;
  while (NextIsCertain(chunk.finish.has_value())) {
    ShownToken& next = waiting_.front();
    next.bytes.resize(std::min(next.bytes.size(), text_bytes_));
    text_bytes_ -= next.bytes.size();
    shown.push_back(std::move(next));
    waiting_.pop_front();
  }
  return shown;
}

// Without text only a listed special token is.
bool ShownTokens::NextIsCertain(bool finished) const {
  if (waiting_.empty()) return false;
  const std::string& bytes = waiting_.front().bytes;
  if (text_bytes_ == 0) return special_ == Special::kListed && bytes.empty();
  return finished || bytes.size() <= text_bytes_;
}

void ShownTokens::Add(const StepOutput& output) {
  const std::string_view bytes = tokenizer_->TokenBytes(output.token);
  if (bytes.empty() && special_ == Special::kLeftOut) return;
  group_.push_back({output, std::string(bytes)});
  group_bytes_ += bytes;
  group_text_ += detokenizer_.Push(output.token);
  // As long as the text is only short of bytes, they may become a character.
  const bool whole = group_text_ == group_bytes_;
  if (whole || !group_bytes_.starts_with(group_text_)) CloseGroup(std::string(group_text_));
}

void ShownTokens::CloseGroup(const std::string& text) {
  if (text != group_bytes_) {
    for (ShownToken& token : group_) token.bytes.clear();
    group_.back().bytes = text;
  }
  for (ShownToken& token : group_) waiting_.push_back(std::move(token));
  group_.clear();
  group_bytes_.clear();
  group_text_.clear();
}

}  // namespace bellwether
