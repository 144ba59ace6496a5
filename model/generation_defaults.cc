#include "model/generation_defaults.h"

#include <optional>

#include "common/status.h"
#include "model/json_object.h"

namespace bellwether {
namespace {

void ReadNumber(JsonFields& fields, const char* name, std::optional<double>& out) {
  if (fields.Has(name)) out = fields.Number({name}, 0);
}

void ReadInteger(JsonFields& fields, const char* name, std::optional<int32_t>& out) {
  if (!fields.Has(name)) return;
  const int64_t value = fields.Integer({name}, 0);
  if (value < INT32_MIN || value > INT32_MAX) return fields.Fail(std::string(name) + " is out of range");
  out = static_cast<int32_t>(value);
}

template <typename T>
void FillIn(const std::optional<T>& from, std::optional<T>& field) {
  if (!field.has_value()) field = from;
}

}  // namespace

absl::StatusOr<GenerationOptions> ParseGenerationDefaults(const std::string& json_text) {
  BW_ASSIGN_OR_RETURN(const Json object, ParseJsonObject(json_text));
  JsonFields fields(object);
  GenerationOptions options;
  ReadNumber(fields, "temperature", options.temperature);
  ReadInteger(fields, "top_k", options.top_k);
  ReadNumber(fields, "top_p", options.top_p);
  ReadNumber(fields, "min_p", options.min_p);
  ReadNumber(fields, "repetition_penalty", options.repetition_penalty);
  ReadInteger(fields, "max_new_tokens", options.max_tokens);
  ReadInteger(fields, "min_new_tokens", options.min_tokens);
  // As transformers has it: what narrows the choice means nothing where none is made.
  if (!fields.Bool({"do_sample"}, true)) options.temperature = 0;
  BW_RETURN_IF_ERROR(fields.status());
  return options;
}

void FillIn(const GenerationOptions& defaults, GenerationOptions& options) {
  FillIn(defaults.temperature, options.temperature);
  FillIn(defaults.top_k, options.top_k);
  FillIn(defaults.top_p, options.top_p);
  FillIn(defaults.min_p, options.min_p);
  FillIn(defaults.repetition_penalty, options.repetition_penalty);
  FillIn(defaults.max_tokens, options.max_tokens);
  FillIn(defaults.min_tokens, options.min_tokens);
}

}  // namespace bellwether
