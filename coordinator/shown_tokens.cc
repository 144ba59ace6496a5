#include "coordinator/shown_tokens.h"

#include <algorithm>
#include <utility>

namespace bellwether {

ShownTokens::ShownTokens(const Tokenizer* tokenizer, Special special)
    : tokenizer_(tokenizer), special_(special), detokenizer_(tokenizer, IncrementalDetokenizer::Options{}) {}

std::vector<ShownToken> ShownTokens::Push(const TokenChunk& chunk) {
  for (const StepOutput& output : chunk.logprobs)
    Add(output, /*has_text=*/!chunk.ending_token || &output != &chunk.logprobs.back());
  if (chunk.finish) {
    if (!group_.empty()) BreakGroup(detokenizer_.Flush());
    Settle(group_.size());
  }
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

void ShownTokens::Add(const StepOutput& output, bool has_text) {
  const std::string_view own_bytes = has_text ? tokenizer_->TokenBytes(output.token) : "";
  if (own_bytes.empty() && special_ == Special::kLeftOut) return;
  group_.push_back({{output, std::string(own_bytes)}, has_text ? detokenizer_.Push(output.token) : ""});
  const std::string_view held = detokenizer_.held();
  std::string bytes, text;
  for (const Member& member : group_) {
    bytes += member.token.bytes;
    text += member.text;
  }
  const bool broken = bytes != text.append(held);
  if (broken) BreakGroup(held);
  // Whoever has bytes of an unfinished character stays.
  Settle(held.empty() ? group_.size() : broken ? group_.size() - 1 : 0);
}

void ShownTokens::BreakGroup(std::string_view rest) {
  const auto has_bytes = [](const Member& member) { return !member.token.bytes.empty(); };
  const auto last = std::find_if(group_.rbegin(), group_.rend(), has_bytes);
  for (Member& member : group_) member.token.bytes = member.text;
  last->token.bytes += rest;
}

void ShownTokens::Settle(size_t members) {
  for (size_t i = 0; i < members; ++i) waiting_.push_back(std::move(group_[i].token));
  group_.erase(group_.begin(), group_.begin() + members);
}

}  // namespace bellwether
