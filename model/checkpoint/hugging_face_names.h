#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "model/checkpoint/checkpoint.h"
#include "model/config.h"

namespace bellwether {

// What a tensor holds of a matrix that GPTQ quantised (quantized_linear.h).
enum class LinearPart : uint8_t { kNone, kWeights, kZeros, kScales, kGroupIndex };
inline constexpr size_t kLinearParts = 5;

// What BLOOM's fused tensor consists of, in its order.
inline constexpr TensorRole kQueryKeyValue[] = {TensorRole::kQuery, TensorRole::kKey, TensorRole::kValue};

// What a tensor of a Hugging Face checkpoint is.
struct HuggingFaceName {
  TensorKey key;
  LinearPart part = LinearPart::kNone;
  bool fused_qkv = false;  // BLOOM: query, key and value of each head; `key` says kQuery
  bool ignored = false;    // a table that can be computed; files of 2023 hold it
};

// Names come with or without the prefix `model.` (LLaMA) or `transformer.` (BLOOM). Nothing if the family has
// no such tensor.
std::optional<HuggingFaceName> ParseHuggingFaceName(Architecture architecture, std::string_view name);

// The name that transformers' models give a tensor; of BLOOM's query, key and value that of the fused one.
std::string HuggingFaceNameOf(Architecture architecture, const TensorKey& key);

// Takes "<prefix><number>." off the front of a name and gives the number, at most six digits.
std::optional<int32_t> TakeLayer(std::string_view prefix, std::string_view& name);
// Takes ".weight" or ".bias" off the end of a name; true for a bias.
std::optional<bool> TakeWeightOrBias(std::string_view& name);

}  // namespace bellwether
