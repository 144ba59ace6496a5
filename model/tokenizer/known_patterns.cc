#include "model/tokenizer/known_patterns.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "common/quote.h"

namespace bellwether {

const char* const kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

namespace {

constexpr const char* kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kBloomPattern = " ?[^(\\s|.,!?…。，、।۔،)]+";
constexpr const char* kPunctuationPattern = R"([\p{P}\$\+<=>\^~\|]+)";

}  // namespace

absl::StatusOr<KnownPreTokenizer> FindKnownPreTokenizer(std::string_view name) {
  if (name == "gpt-2") return KnownPreTokenizer{{kGpt2Pattern}};
  if (name == "llama-bpe" || name == "llama3" || name == "llama-v3") {
    return KnownPreTokenizer{{kLlama3Pattern}, /*ignore_merges=*/true, /*add_bos=*/true};
  }
  if (name == "smollm") return KnownPreTokenizer{{R"(\p{N})", kGpt2Pattern}};
  if (name == "qwen2") return KnownPreTokenizer{{kQwen2Pattern}};
  if (name == "bloom") return KnownPreTokenizer{{kBloomPattern}};
  // Files older than the key, too.
  if (name == "default" || name.empty()) {
    return KnownPreTokenizer{{kPunctuationPattern, kGpt2Pattern, R"(\p{N}+)", "[0-9][0-9][0-9]"}};
  }
  return absl::UnimplementedError(absl::StrCat(
      "tokenizer.ggml.pre ", Quoted(name),
      " is not supported; supported are gpt-2, llama-bpe, llama3, smollm, qwen2, bloom and default"));
}

}  // namespace bellwether
