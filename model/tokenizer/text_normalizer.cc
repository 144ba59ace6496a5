#include "model/tokenizer/text_normalizer.h"

#include <algorithm>

#include "model/tokenizer/unicode_nfc.h"

namespace bellwether {
namespace {

void ApplyStep(const TextNormalizer::Prepend& prepend, std::string* text) {
  if (!text->empty()) text->insert(0, prepend.text);
}

void ApplyStep(const TextNormalizer::Replace& replace, std::string* text) {
  std::string out;
  size_t done = 0;
  for (size_t at; (at = text->find(replace.from, done)) != std::string::npos;
       done = at + replace.from.size()) {
    out.append(*text, done, at - done);
    out += replace.to;
  }
  if (done == 0) return;
  out.append(*text, done, std::string::npos);
  *text = std::move(out);
}

void ApplyStep(const TextNormalizer::ComposeNfc&, std::string* text) { *text = ToNfc(*text); }

ByteEffect EffectOf(const TextNormalizer::Prepend&) { return ByteEffect::kKeeps; }
ByteEffect EffectOf(const TextNormalizer::Replace& replace) {
  return replace.to.size() < replace.from.size() ? ByteEffect::kShrinks : ByteEffect::kRewrites;
}
ByteEffect EffectOf(const TextNormalizer::ComposeNfc&) { return ByteEffect::kShrinks; }

}  // namespace

ByteEffect TextNormalizer::effect() const {
  ByteEffect worst = ByteEffect::kKeeps;
  for (const Step& step : steps_) {
    worst = std::max(worst, std::visit([](const auto& s) { return EffectOf(s); }, step));
  }
  return worst;
}

std::string TextNormalizer::Apply(std::string_view text) const {
  std::string out(text);
  for (const Step& step : steps_) {
    std::visit([&](const auto& s) { ApplyStep(s, &out); }, step);
  }
  return out;
}

}  // namespace bellwether
