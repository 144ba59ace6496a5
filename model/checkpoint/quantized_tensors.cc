#include "model/checkpoint/quantized_tensors.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <memory>
#include <string_view>
#include <utility>

#include "absl/container/btree_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/status.h"
#include "model/layer_tensors.h"

namespace bellwether {
namespace {

constexpr int64_t kWordBits = 32;
constexpr int64_t kGroupMultiple = 16;  // the packed form has no shorter groups

// The parts of one matrix, by LinearPart.
using Parts = std::array<const NamedTensor*, kLinearParts>;

const NamedTensor* Get(const Parts& parts, LinearPart part) { return parts[static_cast<size_t>(part)]; }

const NamedTensor& AnyOf(const Parts& parts) {
  return **std::find_if(parts.begin(), parts.end(), [](const auto* part) { return part != nullptr; });
}

absl::Status Malformed(const NamedTensor& tensor, const std::string& why) {
  return absl::InvalidArgumentError(absl::StrCat(tensor.source, " has type ", tensor.entry.dtype,
                                                 " and shape [", absl::StrJoin(tensor.entry.shape, ", "),
                                                 "]: ", why));
}

absl::StatusOr<FilePiece> PieceOf(const NamedTensor& tensor, bool integers) {
  const std::string& dtype = tensor.entry.dtype;
  const bool right_type = integers ? dtype == "I32" : dtype == "F32" || dtype == "F16" || dtype == "BF16";
  if (!right_type || tensor.entry.shape.size() != 2 || !tensor.entry.strides.empty()) {
    return Malformed(tensor, absl::StrCat("a matrix of ", integers ? "I32" : "F32, F16 or BF16",
                                          " without gaps is needed"));
  }
  return FilePiece{tensor.file, tensor.entry.offset, tensor.entry.bytes};
}

StorageType ScaleType(const NamedTensor& scales) {
  if (scales.entry.dtype == "F32") return StorageType::kF32;
  return scales.entry.dtype == "F16" ? StorageType::kF16 : StorageType::kBF16;
}

int64_t GroupsOf(int64_t inputs, int64_t group) { return (inputs + group - 1) / group; }

// Inputs to a group, of which there are `groups`: equal ones, unless a power of two, as tools take it, with a
// shorter last one makes as many. Where they do not divide the inputs, only one multiple of 32 may fit.
absl::StatusOr<int64_t> GroupOf(const NamedTensor& scales, int64_t inputs, int64_t groups) {
  const auto not_clear = [&](int64_t one, int64_t other) {
    return Malformed(scales, absl::StrCat("are these groups of ", one, " or of ", other,
                                          " inputs? It is not clear: give --gptq-group"));
  };
  if (groups >= 1 && inputs % groups == 0) {
    const int64_t even = inputs / groups;
    for (int64_t group = kGroupMultiple; group < inputs; group *= 2) {
      if (group != even && GroupsOf(inputs, group) == groups) return not_clear(even, group);
    }
    return even;
  }
  int64_t found = 0;
  for (int64_t group = kWordBits; groups >= 1 && group < inputs; group += kWordBits) {
    if (GroupsOf(inputs, group) != groups) continue;
    if (found != 0) return not_clear(found, group);
    found = group;
  }
  if (found == 0) return Malformed(scales, absl::StrCat("no groups of ", inputs, " inputs"));
  return found;
}

// "model.layers.0.mlp.down_proj" of "module.model.layers.0.mlp.down_proj.qweight".
std::string ModuleOf(const NamedTensor& part) {
  std::string_view name = part.entry.name;
  while (name.starts_with("module.")) name.remove_prefix(7);
  return std::string(name.substr(0, name.rfind('.')));
}

// Puts one matrix together.
class Assembler {
 public:
  // `config` is that of the matrix.
  Assembler(QuantizationConfig config, const TensorTable& table, std::shared_ptr<std::atomic<bool>> warned)
      : config_(std::move(config)), table_(table), warned_(std::move(warned)) {}

  absl::StatusOr<AssembledTensor> Assemble(const Parts& parts) const;

 private:
  // Bits, outputs and group, from the shapes.
  absl::Status SetBits(const NamedTensor& weights, QuantizedLinear& linear) const;
  absl::Status SetAwq(const NamedTensor& weights, QuantizedLinear& linear) const;
  absl::Status SetGroup(const NamedTensor& scales, QuantizedLinear& linear) const;
  absl::Status CheckShapes(const Parts& parts, const QuantizedLinear& linear) const;
  absl::Status SetGroupIndex(const NamedTensor* index, QuantizedLinear& linear) const;

  const QuantizationConfig config_;
  const TensorTable& table_;
  const std::shared_ptr<std::atomic<bool>> warned_;
};

absl::Status Assembler::SetAwq(const NamedTensor& weights, QuantizedLinear& linear) const {
  constexpr int64_t kOutputsPerWord = 8;
  linear.packing = LinearPacking::kAwq;
  linear.bits = 4;
  linear.outputs = weights.entry.shape[1] * kOutputsPerWord;
  if (weights.entry.shape[0] == linear.inputs && config_.bits.value_or(linear.bits) == linear.bits)
    return absl::OkStatus();
  return Malformed(weights,
                   absl::StrCat("AWQ's matrices are of 4 bits and as many rows as inputs, ", linear.inputs));
}

absl::Status Assembler::SetBits(const NamedTensor& weights, QuantizedLinear& linear) const {
  if (config_.method == QuantizationConfig::Method::kAwq) return SetAwq(weights, linear);
  const int64_t words = weights.entry.shape[0];
  linear.outputs = weights.entry.shape[1];
  bool found = false;
  for (const int bits : {2, 3, 4, 8}) {
    if (linear.inputs * bits != words * kWordBits) continue;
    linear.bits = bits;
    found = true;
  }
  if (!found) {
    return Malformed(weights, absl::StrCat("the ", linear.inputs,
                                           " inputs that the config asks for take other numbers of words "
                                           "with 2, 3, 4 and 8 bits"));
  }
  if (const int said = config_.bits.value_or(linear.bits); said != linear.bits) {
    return Malformed(weights, absl::StrCat("these are ", linear.bits,
                                           " bits, but --gptq-bits or its settings say ", said));
  }
  return absl::OkStatus();
}

absl::Status Assembler::SetGroup(const NamedTensor& scales, QuantizedLinear& linear) const {
  const int64_t groups = scales.entry.shape[0];
  const int64_t given = config_.group.value_or(0);
  const int64_t said = given == -1 ? linear.inputs : std::min(given, linear.inputs);
  if (said != 0 && GroupsOf(linear.inputs, said) == groups) {
    linear.group = said;
  } else if (said == 0) {
    BW_ASSIGN_OR_RETURN(linear.group, GroupOf(scales, linear.inputs, groups));
  } else {
    return Malformed(scales, absl::StrCat("--gptq-group or its settings say groups of ", given, ", which ",
                                          linear.inputs, " inputs do not make"));
  }
  if (linear.group < linear.inputs && linear.group % kGroupMultiple != 0) {
    return absl::UnimplementedError(absl::StrCat(scales.source, ": groups of ", linear.group,
                                                 " inputs; multiples of ", kGroupMultiple, " can be read"));
  }
  return absl::OkStatus();
}

absl::Status Assembler::CheckShapes(const Parts& parts, const QuantizedLinear& linear) const {
  const NamedTensor &zeros = *Get(parts, LinearPart::kZeros), &scales = *Get(parts, LinearPart::kScales);
  if (linear.outputs * linear.bits % kWordBits != 0) {
    return Malformed(*Get(parts, LinearPart::kWeights),
                     absl::StrCat(linear.bits, " bits of so many outputs fill no words of 32"));
  }
  const std::vector<int64_t> right = {scales.entry.shape[0], linear.outputs * linear.bits / kWordBits};
  if (zeros.entry.shape != right)
    return Malformed(zeros, absl::StrCat("it should be [", absl::StrJoin(right, ", "), "]"));
  if (scales.entry.shape[1] != linear.outputs)
    return Malformed(scales, absl::StrCat("it should have ", linear.outputs, " columns"));
  return absl::OkStatus();
}

// Kept only where the groups are not of inputs that follow each other.
absl::Status Assembler::SetGroupIndex(const NamedTensor* index, QuantizedLinear& linear) const {
  if (index == nullptr) {
    if (!config_.act_order.value_or(false) || linear.group >= linear.inputs) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat(linear.source,
                     ": the matrix has no 'g_idx' beside it, which must say of which group each input is, as "
                     "'desc_act' is true"));
  }
  const FileTensor& entry = index->entry;
  if (entry.dtype != "I32" || entry.shape != std::vector<int64_t>{linear.inputs} || !entry.strides.empty())
    return Malformed(*index, absl::StrCat("it should be ", linear.inputs, " numbers of I32"));
  std::vector<int32_t> groups(linear.inputs);
  std::memcpy(groups.data(), index->file->bytes().data() + entry.offset, groups.size() * sizeof(int32_t));
  std::vector<int64_t> sizes(GroupsOf(linear.inputs, linear.group), 0);
  bool mixed = false;
  for (int64_t input = 0; input < linear.inputs; ++input) {
    const int32_t group = groups[input];
    if (group < 0 || static_cast<size_t>(group) >= sizes.size()) {
      return absl::InvalidArgumentError(absl::StrCat(index->source, ": input ", input, " is of group ", group,
                                                     ", and there are ", sizes.size()));
    }
    ++sizes[group];
    mixed |= group != input / linear.group;
  }
  if (!mixed) return absl::OkStatus();
  const auto short_group =
      std::find_if(sizes.begin(), sizes.end(), [&](int64_t size) { return size != linear.group; });
  if (short_group != sizes.end() && short_group + 1 != sizes.end()) {
    return absl::UnimplementedError(absl::StrCat(index->source, ": group ", short_group - sizes.begin(),
                                                 " has ", *short_group, " inputs, not ", linear.group));
  }
  linear.group_index = std::move(groups);
  linear.index = {index->file, entry.offset, entry.bytes};
  return absl::OkStatus();
}

absl::StatusOr<AssembledTensor> Assembler::Assemble(const Parts& parts) const {
  constexpr std::pair<LinearPart, const char*> kNeeded[] = {
      {LinearPart::kWeights, "qweight"}, {LinearPart::kZeros, "qzeros"}, {LinearPart::kScales, "scales"}};
  for (const auto& [part, name] : kNeeded) {
    if (Get(parts, part) == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat(AnyOf(parts).source, ": the matrix has no '", name, "' beside it"));
    }
  }
  const NamedTensor &weights = *Get(parts, LinearPart::kWeights), &scales = *Get(parts, LinearPart::kScales);
  const ExpectedTensor* expected = table_.Expected(weights.name.key);
  if (expected == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(weights.source, ": the config has no ", Name(weights.name.key)));
  }
  auto linear = std::make_shared<QuantizedLinear>();
  linear->source = weights.source;
  linear->warned = warned_;
  linear->inputs = expected->cols;
  linear->zero_shift = config_.true_zeros ? 0 : 1;
  linear->symmetric = config_.symmetric;
  BW_ASSIGN_OR_RETURN(linear->weights, PieceOf(weights, /*integers=*/true));
  BW_ASSIGN_OR_RETURN(linear->zeros, PieceOf(*Get(parts, LinearPart::kZeros), /*integers=*/true));
  BW_ASSIGN_OR_RETURN(linear->scales, PieceOf(scales, /*integers=*/false));
  linear->scale_type = ScaleType(scales);
  BW_RETURN_IF_ERROR(SetBits(weights, *linear));
  BW_RETURN_IF_ERROR(SetGroup(scales, *linear));
  BW_RETURN_IF_ERROR(CheckShapes(parts, *linear));
  BW_RETURN_IF_ERROR(SetGroupIndex(Get(parts, LinearPart::kGroupIndex), *linear));
  AssembledTensor result{.name = weights.name};
  result.tensor.info = {linear->outputs, linear->inputs, FormatOf(*linear), linear->source};
  result.tensor.linear = std::move(linear);
  return result;
}

// Of layers; what stands outside has one only in norms, which no tool quantises.
bool HasBias(const ModelConfig& config, TensorRole role) {
  if (IsOutsideLayers(role)) return config.layer_norm;
  const std::vector<LayerTensor> tensors = LayerTensors(config);
  return std::any_of(tensors.begin(), tensors.end(),
                     [&](const LayerTensor& tensor) { return tensor.role == role && tensor.bias; });
}

bool IsZero(const NamedTensor& tensor) {
  const absl::Span<const std::byte> data =
      tensor.file->bytes().subspan(tensor.entry.offset, tensor.entry.bytes);
  return std::all_of(data.begin(), data.end(), [](std::byte byte) { return byte == std::byte{0}; });
}

// Ordered, so that of several errors always the same is told.
using Matrices = absl::btree_map<std::pair<int32_t, TensorRole>, Parts>;

absl::StatusOr<Matrices> SortParts(absl::Span<const NamedTensor> tensors) {
  Matrices matrices;
  for (const NamedTensor& tensor : tensors) {
    if (tensor.name.part == LinearPart::kNone) continue;
    Parts& parts = matrices[{tensor.name.key.layer, tensor.name.key.role}];
    const NamedTensor*& place = parts[static_cast<size_t>(tensor.name.part)];
    if (place != nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat(tensor.source, " is there twice; the other is ", place->source));
    }
    place = &tensor;
  }
  return matrices;
}

// Where no settings say whether groups follow each other, a matrix without g_idx among others that have one
// has lost it.
absl::Status CheckGroupIndexes(const Matrices& matrices) {
  const Parts* with = nullptr;
  const Parts* without = nullptr;
  for (const auto& [key, parts] : matrices)
    (Get(parts, LinearPart::kGroupIndex) != nullptr ? with : without) = &parts;
  if (with == nullptr || without == nullptr) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(AnyOf(*without).source, ": the matrix has no 'g_idx' beside it, where ",
                   Get(*with, LinearPart::kGroupIndex)->source,
                   " is there and no settings say what is right: give the model's quantize_config.json"));
}

}  // namespace

absl::StatusOr<std::vector<AssembledTensor>> AssembleQuantized(absl::Span<const NamedTensor> tensors,
                                                               const QuantizationConfig& config,
                                                               const TensorTable& table) {
  BW_ASSIGN_OR_RETURN(const Matrices matrices, SortParts(tensors));
  if (!config.act_order.has_value()) BW_RETURN_IF_ERROR(CheckGroupIndexes(matrices));
  BW_ASSIGN_OR_RETURN(const MatrixSettings settings, MatrixSettings::Compile(config));
  const auto warned = std::make_shared<std::atomic<bool>>(false);
  std::vector<AssembledTensor> assembled;
  for (const auto& [key, parts] : matrices) {
    BW_ASSIGN_OR_RETURN(QuantizationConfig own, settings.Of(ModuleOf(AnyOf(parts))));
    BW_ASSIGN_OR_RETURN(AssembledTensor tensor, Assembler(std::move(own), table, warned).Assemble(parts));
    assembled.push_back(std::move(tensor));
  }
  return assembled;
}

absl::Status RemoveZeroBiases(const ModelConfig& config, std::vector<NamedTensor>& tensors) {
  const auto superfluous = [&](const NamedTensor& tensor) {
    return tensor.name.key.bias && !HasBias(config, tensor.name.key.role);
  };
  for (const NamedTensor& tensor : tensors) {
    if (!superfluous(tensor) || IsZero(tensor)) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        tensor.source, ": a bias that is not zero, where the config has none (attention_bias, mlp_bias)"));
  }
  tensors.erase(std::remove_if(tensors.begin(), tensors.end(), superfluous), tensors.end());
  return absl::OkStatus();
}

}  // namespace bellwether
