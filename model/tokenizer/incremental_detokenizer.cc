#include "model/tokenizer/incremental_detokenizer.h"

#include "common/utf8.h"

namespace bellwether {

IncrementalDetokenizer::IncrementalDetokenizer(const Tokenizer* tokenizer, Options options)
    : tokenizer_(tokenizer),
      strip_space_(options.at_text_start && tokenizer->strips_leading_space()),
      skip_special_(options.skip_special) {}

std::string IncrementalDetokenizer::Push(TokenId id) {
  std::string_view bytes = tokenizer_->TokenBytes(id);
  if (!skip_special_ && tokenizer_->IsSpecial(id)) bytes = tokenizer_->TokenPiece(id);
  if (bytes.empty()) return "";
  if (strip_space_) {
    strip_space_ = false;
    if (bytes.front() == ' ') bytes.remove_prefix(1);
  }
  const std::string joined = held_ + std::string(bytes);
  held_.clear();
  std::string certain;
  for (std::string_view rest = joined; !rest.empty();) {
    const Utf8Step step = ReadUtf8(rest);
    if (step.kind == Utf8Step::Kind::kIncomplete) {
      held_ = rest;
      break;
    }
    certain.append(step.kind == Utf8Step::Kind::kCharacter ? rest.substr(0, step.length)
                                                           : kReplacementCharacter);
    rest.remove_prefix(step.length);
  }
  return certain;
}

std::string IncrementalDetokenizer::Flush() {
  std::string rest = ToValidUtf8(held_);
  held_.clear();
  return rest;
}

}  // namespace bellwether
