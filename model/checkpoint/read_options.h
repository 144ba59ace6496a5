#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/dtype.h"

namespace bellwether {

// What a GPTQ file without settings does not say of itself. Shapes tell it too, but for a last group that is
// shorter; where both are known they must agree.
struct GptqOptions {
  std::optional<int> bits;       // 2, 3, 4 or 8
  std::optional<int64_t> group;  // inputs that share a scale; -1: all
};

struct LoraOption {
  std::string path;  // a directory in PEFT's form
  double scale = 1;  // on top of its own
};

// Everything that a program is told and that changes what is read from a checkpoint. All programs of a
// cluster are told the same (model/checkpoint/read_flags.h has the flags); what differs shows in the model
// id.
struct ReadOptions {
  // Float weights are rounded to it, norms and biases too; absent: they stay as they are stored.
  std::optional<DType> dtype;
  GptqOptions gptq;
  std::vector<LoraOption> lora;  // merged in this order
  std::string billa_base;        // BiLLa: Meta's weights, whose embedding is subtracted; empty: nothing is
  bool billa_force = false;      // although the numbers speak against it; no flag of those that serve
};

// "auto" (absent), "fp32", "bf16", "fp16". InvalidArgument for anything else.
absl::StatusOr<std::optional<DType>> ParseLoadDType(const std::string& name);
std::string LoadDTypeName(std::optional<DType> dtype);

// "4" and "128": InvalidArgument for bits and groups that GPTQ's tools do not have.
absl::StatusOr<int> ParseGptqBits(const std::string& text);
absl::StatusOr<int64_t> ParseGptqGroup(const std::string& text);

// "PATH" or "PATH:SCALE". InvalidArgument: an empty path, or a scale that is not finite.
absl::StatusOr<LoraOption> ParseLora(const std::string& text);

// The options as flags, for a program that starts others.
std::vector<std::string> FlagsOf(const ReadOptions& options);

// The options that were given, by flag ("dtype" -> "fp16"): equal where the same was read, so files stand in
// it by what they hold, not by their paths.
using ReadingText = std::map<std::string, std::string>;

// "with --dtype fp16, this coordinator without --dtype" for the first option in which two programs differ;
// empty if there is none.
std::string DifferenceOf(const ReadingText& theirs, const ReadingText& ours, const std::string& us);

}  // namespace bellwether
