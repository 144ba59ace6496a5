#include "model/tokenizer/tokenizer_json_steps.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "model/json_object.h"
#include "model/tokenizer/known_patterns.h"

namespace bellwether {
namespace {

constexpr int kMaxNesting = 8;  // of Sequence in Sequence

absl::Status Unsupported(const std::string& where, const std::string& what) {
  return absl::UnimplementedError(absl::StrCat(where, ": ", what, " is not supported"));
}

// Calls `visit(type, component)` for a component, or for each one within a Sequence (whose list is called
// `list_key`).
template <typename Visit>
absl::Status ForEach(const Json& component, const char* list_key, const std::string& where,
                     const Visit& visit, int nesting = 0) {
  if (component.is_null()) return absl::OkStatus();
  if (!component.is_object()) return absl::InvalidArgumentError(where + ": no object");
  JsonFields fields(component);
  const std::string type = fields.Text({"type"}, "");
  BW_RETURN_IF_ERROR(Annotate(fields.status(), where));
  if (type != "Sequence") return visit(type, component);
  const Json& list = component[list_key];
  if (!list.is_array())
    return absl::InvalidArgumentError(absl::StrCat(where, ": a Sequence without ", list_key));
  if (nesting == kMaxNesting) return absl::InvalidArgumentError(where + ": nested too deep");
  for (const Json& member : list) BW_RETURN_IF_ERROR(ForEach(member, list_key, where, visit, nesting + 1));
  return absl::OkStatus();
}

// The text of {"String": "..."} or {"Regex": "..."}.
struct Pattern {
  std::string text;
  bool is_regex = false;
};

absl::StatusOr<Pattern> ReadPattern(const Json& component, const std::string& where) {
  const Json& pattern = component["pattern"];
  for (const char* kind : {"String", "Regex"}) {
    if (!pattern.is_object() || !pattern.contains(kind)) continue;
    JsonFields fields(pattern);
    Pattern result{fields.Text({kind}, ""), kind == std::string("Regex")};
    BW_RETURN_IF_ERROR(Annotate(fields.status(), where));
    if (!result.text.empty()) return result;
  }
  return absl::InvalidArgumentError(where + ": no pattern");
}

absl::StatusOr<TextNormalizer::Replace> ReadReplace(const Json& component, const std::string& where) {
  BW_ASSIGN_OR_RETURN(const Pattern pattern, ReadPattern(component, where));
  if (pattern.is_regex) return Unsupported(where, "Replace with a Regex");
  JsonFields fields(component);
  TextNormalizer::Replace replace{pattern.text, fields.Text({"content"}, "")};
  BW_RETURN_IF_ERROR(Annotate(fields.status(), where));
  return replace;
}

std::string EscapeForRegex(const std::string& text) {
  std::string out;
  for (const char c : text) {
    const bool is_word =
        (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c & 0x80);
    if (!is_word) out += '\\';
    out += c;
  }
  return out;
}

absl::Status AddPattern(const std::string& pattern, PreTokenizer* pre_tokenizer) {
  BW_ASSIGN_OR_RETURN(Regex regex, Regex::Compile(pattern));
  pre_tokenizer->Add(PreTokenizer::Split{std::move(regex)});
  return absl::OkStatus();
}

absl::Status ReadSplit(const Json& component, PreTokenizer* pre_tokenizer) {
  const std::string where = "pre_tokenizer Split";
  BW_ASSIGN_OR_RETURN(const Pattern pattern, ReadPattern(component, where));
  JsonFields fields(component);
  const std::string behaviour = fields.Text({"behavior"}, "");
  const bool invert = fields.Bool({"invert"}, false);
  BW_RETURN_IF_ERROR(Annotate(fields.status(), where));
  if (behaviour != "Isolated" && behaviour != "Removed") return Unsupported(where, "behavior " + behaviour);
  BW_ASSIGN_OR_RETURN(Regex regex,
                      Regex::Compile(pattern.is_regex ? pattern.text : EscapeForRegex(pattern.text)));
  using Behaviour = PreTokenizer::Split::Behaviour;
  pre_tokenizer->Add(PreTokenizer::Split{
      std::move(regex), behaviour == "Removed" ? Behaviour::kRemoved : Behaviour::kIsolated, invert});
  return absl::OkStatus();
}

absl::Status ReadByteLevel(const Json& component, RankedBpeSpec* spec) {
  JsonFields fields(component);
  const bool prefix_space = fields.Bool({"add_prefix_space"}, true);
  const bool use_regex = fields.Bool({"use_regex"}, true);
  BW_RETURN_IF_ERROR(Annotate(fields.status(), "pre_tokenizer ByteLevel"));
  if (prefix_space) spec->pre_tokenizer.Add(PreTokenizer::PrefixSpace{});
  spec->byte_level = true;
  return use_regex ? AddPattern(kGpt2Pattern, &spec->pre_tokenizer) : absl::OkStatus();
}

// Newer files say prepend_scheme, older ones add_prefix_space.
absl::StatusOr<PreTokenizer::Metaspace> ReadMetaspace(const Json& component, const std::string& where) {
  using Prepend = PreTokenizer::Metaspace::Prepend;
  JsonFields fields(component);
  PreTokenizer::Metaspace metaspace;
  metaspace.mark = fields.Text({"replacement"}, metaspace.mark);
  metaspace.split = fields.Bool({"split"}, true);
  const bool prefix_space = fields.Bool({"add_prefix_space"}, true);
  const std::string scheme = fields.Text({"prepend_scheme"}, prefix_space ? "always" : "never");
  BW_RETURN_IF_ERROR(Annotate(fields.status(), where));
  if (metaspace.mark.empty()) return absl::InvalidArgumentError(where + ": empty replacement");
  if (scheme != "always" && scheme != "first" && scheme != "never") {
    return Unsupported(where, "prepend_scheme " + scheme);
  }
  metaspace.prepend = scheme == "always"  ? Prepend::kAlways
                      : scheme == "first" ? Prepend::kFirst
                                          : Prepend::kNever;
  return metaspace;
}

absl::Status ReadStrip(const Json& component, DecoderRule* rule) {
  const std::string where = "decoder Strip";
  JsonFields fields(component);
  const std::string content = fields.Text({"content"}, "");
  const int64_t start = fields.Integer({"start"}, 0);
  const int64_t stop = fields.Integer({"stop"}, 0);
  BW_RETURN_IF_ERROR(Annotate(fields.status(), where));
  if (content != " " || start != 1 || stop != 0) return Unsupported(where, "anything but one leading space");
  rule->strips_leading_space = true;
  return absl::OkStatus();
}

absl::Status AppendTemplatePiece(const Json& piece, const Json& tokens, bool* text_seen,
                                 TokenizerParts* parts) {
  const std::string where = "post_processor TemplateProcessing";
  if (piece.is_object() && piece.contains("Sequence")) {
    if (*text_seen) return Unsupported(where, "a template with two texts");
    *text_seen = true;
    return absl::OkStatus();
  }
  const Json& name = piece["SpecialToken"]["id"];
  if (!name.is_string() || !tokens.is_object())
    return absl::InvalidArgumentError(where + ": a piece of no known kind");
  const Json& ids = tokens[name.text().c_str()]["ids"];
  if (!ids.is_array()) return absl::InvalidArgumentError(where + ": a special token without ids");
  for (const Json& id : ids) {
    const bool known = id.is_number_unsigned() && id.get<uint64_t>() < parts->entries.size();
    if (!known) return absl::InvalidArgumentError(where + ": an id that is not in the vocabulary");
    (*text_seen ? parts->suffix : parts->prefix).push_back(id.get<TokenId>());
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadNormalizer(const Json& component, TextNormalizer* normalizer) {
  return ForEach(component, "normalizers", "normalizer", [&](const std::string& type, const Json& step) {
    if (type == "Prepend") {
      JsonFields fields(step);
      normalizer->Add(TextNormalizer::Prepend{fields.Text({"prepend"}, "")});
      return Annotate(fields.status(), "normalizer Prepend");
    }
    if (type == "Replace") {
      BW_ASSIGN_OR_RETURN(TextNormalizer::Replace replace, ReadReplace(step, "normalizer Replace"));
      normalizer->Add(std::move(replace));
      return absl::OkStatus();
    }
    if (type == "NFC") {
      normalizer->Add(TextNormalizer::ComposeNfc{});
      return absl::OkStatus();
    }
    return Unsupported("normalizer", "type " + type);
  });
}

absl::Status ReadPreTokenizer(const Json& component, RankedBpeSpec* spec) {
  return ForEach(component, "pretokenizers", "pre_tokenizer", [&](const std::string& type, const Json& step) {
    if (spec->byte_level) return Unsupported("pre_tokenizer", type + " after ByteLevel");
    if (type == "Split") return ReadSplit(step, &spec->pre_tokenizer);
    if (type == "ByteLevel") return ReadByteLevel(step, spec);
    if (type == "Digits") {
      JsonFields fields(step);
      const bool individual = fields.Bool({"individual_digits"}, false);
      BW_RETURN_IF_ERROR(Annotate(fields.status(), "pre_tokenizer Digits"));
      return AddPattern(individual ? R"(\p{N})" : R"(\p{N}+)", &spec->pre_tokenizer);
    }
    if (type == "Metaspace") {
      BW_ASSIGN_OR_RETURN(PreTokenizer::Metaspace metaspace, ReadMetaspace(step, "pre_tokenizer Metaspace"));
      spec->pre_tokenizer.Add(std::move(metaspace));
      return absl::OkStatus();
    }
    return Unsupported("pre_tokenizer", "type " + type);
  });
}

absl::StatusOr<DecoderRule> ReadDecoder(const Json& component) {
  if (component.is_null())
    return absl::UnimplementedError("decoder: none; ByteLevel, Metaspace or a Sequence is needed");
  DecoderRule rule;
  bool fused = false;
  BW_RETURN_IF_ERROR(
      ForEach(component, "decoders", "decoder", [&](const std::string& type, const Json& step) {
        if (type == "ByteLevel") {
          rule.byte_level = true;
        } else if (type == "ByteFallback") {
          rule.byte_fallback = true;
        } else if (type == "Fuse") {
          fused = true;
        } else if (type == "Strip") {
          // Before Fuse it would strip every piece.
          return fused ? ReadStrip(step, &rule) : Unsupported("decoder", "Strip before Fuse");
        } else if (type == "Replace") {
          BW_ASSIGN_OR_RETURN(TextNormalizer::Replace replace, ReadReplace(step, "decoder Replace"));
          rule.replace.Add(std::move(replace));
        } else if (type == "Metaspace") {
          BW_ASSIGN_OR_RETURN(const PreTokenizer::Metaspace metaspace,
                              ReadMetaspace(step, "decoder Metaspace"));
          rule.replace.Add(TextNormalizer::Replace{metaspace.mark, " "});
          rule.strips_leading_space = metaspace.prepend != PreTokenizer::Metaspace::Prepend::kNever;
        } else {
          return Unsupported("decoder", "type " + type);
        }
        return absl::OkStatus();
      }));
  return rule;
}

absl::Status ReadPostProcessor(const Json& component, TokenizerParts* parts) {
  return ForEach(component, "processors", "post_processor", [&](const std::string& type, const Json& step) {
    if (type == "ByteLevel") return absl::OkStatus();  // moves offsets, adds no token
    if (type != "TemplateProcessing") return Unsupported("post_processor", "type " + type);
    const Json& single = step["single"];
    if (!single.is_array())
      return absl::InvalidArgumentError("post_processor TemplateProcessing: no \"single\" list");
    bool text_seen = false;
    for (const Json& piece : single) {
      BW_RETURN_IF_ERROR(AppendTemplatePiece(piece, step["special_tokens"], &text_seen, parts));
    }
    return absl::OkStatus();
  });
}

}  // namespace bellwether
