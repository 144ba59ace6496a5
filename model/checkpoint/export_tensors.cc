#include "model/checkpoint/export_tensors.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/dtype.h"
#include "common/status.h"
#include "model/checkpoint/expected_tensors.h"
#include "model/checkpoint/hugging_face_names.h"
#include "model/checkpoint/stored_tensor.h"
#include "model/layer_tensors.h"

namespace bellwether {
namespace {

constexpr int64_t kValuesPerRead = int64_t{1} << 20;
constexpr size_t kBytesPerWrite = size_t{4} << 20;
constexpr int64_t kWordBits = 32;

const char* DTypeText(WeightFormat format) {
  return format == WeightFormat::kF32 ? "F32" : format == WeightFormat::kBF16 ? "BF16" : "F16";
}

std::vector<std::byte> Encode(WeightFormat format, absl::Span<const float> values) {
  std::vector<std::byte> bytes(values.size() * (format == WeightFormat::kF32 ? 4 : 2));
  if (format == WeightFormat::kF32) {
    std::memcpy(bytes.data(), values.data(), bytes.size());
    return bytes;
  }
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t bits = format == WeightFormat::kBF16 ? BF16FromF32(values[i]) : F16FromF32(values[i]);
    std::memcpy(bytes.data() + 2 * i, &bits, sizeof(bits));
  }
  return bytes;
}

// A tensor of floats: one of ours, or BLOOM's query, key and value as one.
struct FloatTensor {
  std::vector<const StoredTensor*> parts;  // alike; their rows, or elements, alternate
  int64_t run = 0;                         // so many of one part follow each other
  bool vector = false;

  int64_t rows() const { return vector ? 1 : parts[0]->info.rows; }
  int64_t length() const { return vector ? parts[0]->info.cols : parts[0]->info.rows; }
  WeightFormat format() const { return parts[0]->info.format.format; }
};

absl::Status WriteRows(const StoredTensor& tensor, const TensorWindow& window, const ByteSink& sink) {
  std::vector<float> values((window.row_end - window.row_begin) * (window.col_end - window.col_begin));
  BW_RETURN_IF_ERROR(ReadStored(tensor, window, absl::MakeSpan(values)));
  return sink(Encode(tensor.info.format.format, values));
}

absl::Status WriteFloats(const FloatTensor& tensor, const ByteSink& sink) {
  for (int64_t begin = 0; begin < tensor.length(); begin += tensor.run) {
    const int64_t end = std::min(begin + tensor.run, tensor.length());
    for (const StoredTensor* part : tensor.parts) {
      const TensorWindow window =
          tensor.vector ? TensorWindow{0, 1, begin, end} : TensorWindow{begin, end, 0, part->info.cols};
      BW_RETURN_IF_ERROR(WriteRows(*part, window, sink));
    }
  }
  for (const StoredTensor* part : tensor.parts) DropStored(*part);
  return absl::OkStatus();
}

OutputTensor Output(std::string name, FloatTensor tensor) {
  const auto parts = static_cast<int64_t>(tensor.parts.size());
  const int64_t cols = tensor.parts[0]->info.cols;
  OutputTensor output{.name = std::move(name), .dtype = DTypeText(tensor.format())};
  output.shape =
      tensor.vector ? std::vector<int64_t>{parts * cols} : std::vector<int64_t>{parts * tensor.rows(), cols};
  output.bytes = parts * tensor.rows() * cols * (tensor.format() == WeightFormat::kF32 ? 4 : 2);
  output.write = [tensor = std::move(tensor)](const ByteSink& sink) { return WriteFloats(tensor, sink); };
  return output;
}

absl::Status WriteBytes(absl::Span<const std::byte> bytes, const ByteSink& sink) {
  while (!bytes.empty()) {
    const auto piece = bytes.first(std::min(bytes.size(), kBytesPerWrite));
    BW_RETURN_IF_ERROR(sink(piece));
    bytes.remove_prefix(piece.size());
  }
  return absl::OkStatus();
}

// Bytes of a file as they are.
OutputTensor Output(std::string name, const char* dtype, std::vector<int64_t> shape, const FilePiece& piece) {
  OutputTensor output{.name = std::move(name), .dtype = dtype, .shape = std::move(shape)};
  output.bytes = static_cast<int64_t>(piece.bytes);
  output.write = [piece](const ByteSink& sink) {
    BW_RETURN_IF_ERROR(WriteBytes(piece.data(), sink));
    piece.file->DropPages(piece.offset, piece.bytes);
    return absl::OkStatus();
  };
  return output;
}

// The group of each input, which GPTQ's tools ask for also where groups simply follow each other.
OutputTensor GroupIndex(std::string name, const QuantizedLinear& linear) {
  if (linear.index.file != nullptr) return Output(std::move(name), "I32", {linear.inputs}, linear.index);
  std::vector<int32_t> groups(linear.inputs);
  for (int64_t input = 0; input < linear.inputs; ++input)
    groups[input] = static_cast<int32_t>(input / linear.group);
  OutputTensor output{.name = std::move(name), .dtype = "I32", .shape = {linear.inputs}};
  output.bytes = linear.inputs * static_cast<int64_t>(sizeof(int32_t));
  output.write = [groups = std::move(groups)](const ByteSink& sink) {
    return sink({reinterpret_cast<const std::byte*>(groups.data()), groups.size() * sizeof(int32_t)});
  };
  return output;
}

// The parts of a quantised matrix (quantized_linear.h) as they lie in the source.
void AddParts(const std::string& module, const QuantizedLinear& linear, std::vector<OutputTensor>& outputs) {
  const bool awq = linear.packing == LinearPacking::kAwq;
  const int64_t groups = (linear.inputs + linear.group - 1) / linear.group;
  const int64_t output_words = linear.outputs * linear.bits / kWordBits;
  const std::vector<int64_t> weights =
      awq ? std::vector<int64_t>{linear.inputs, output_words}
          : std::vector<int64_t>{linear.inputs * linear.bits / kWordBits, linear.outputs};
  outputs.push_back(Output(module + ".qweight", "I32", weights, linear.weights));
  outputs.push_back(Output(module + ".qzeros", "I32", {groups, output_words}, linear.zeros));
  outputs.push_back(Output(module + ".scales", DTypeText(FormatOf(linear.scale_type).format),
                           {groups, linear.outputs}, linear.scales));
  if (!awq) outputs.push_back(GroupIndex(module + ".g_idx", linear));
}

}  // namespace

absl::StatusOr<std::vector<OutputTensor>> OutputTensors(const CheckpointContents& contents,
                                                        bool dequantized) {
  const ModelConfig& config = contents.config;
  const bool fused = config.architecture == Architecture::kBloom;
  std::vector<OutputTensor> outputs;
  for (const auto& [key, rows, cols] : ExpectedTensors(config)) {
    if (fused && (key.role == TensorRole::kKey || key.role == TensorRole::kValue)) continue;
    const StoredTensor& stored = contents.tensors.at(key);
    const std::string name = HuggingFaceNameOf(config.architecture, key);
    if (stored.linear != nullptr && !dequantized) {
      AddParts(std::string(absl::StripSuffix(name, ".weight")), *stored.linear, outputs);
      continue;
    }
    if (IsQuantized(stored.info.format.format)) {
      return absl::UnimplementedError(absl::StrCat(
          stored.info.source, " is of the type ", std::string(Name(stored.storage)),
          ", for which safetensors have no form: --dequantize fp16, bf16 or fp32 writes its values"));
    }
    FloatTensor tensor{.parts = {&stored}, .vector = key.bias || IsNorm(key.role)};
    tensor.run = tensor.vector ? cols : std::max<int64_t>(1, kValuesPerRead / cols);
    if (fused && key.role == TensorRole::kQuery) {
      for (const TensorRole role : {TensorRole::kKey, TensorRole::kValue})
        tensor.parts.push_back(&contents.tensors.at({role, key.layer, key.bias}));
      tensor.run = config.head_dim;
    }
    outputs.push_back(Output(name, std::move(tensor)));
  }
  return outputs;
}

}  // namespace bellwether
