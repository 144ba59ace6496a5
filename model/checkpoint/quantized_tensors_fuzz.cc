#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "common/check.h"
#include "model/checkpoint/input_order.h"
#include "model/checkpoint/quantized_tensors.h"
#include "model/checkpoint/testing_files.h"

// Matrices of a small LLaMA whose parts have any types, shapes and contents: refused, or read without a byte
// beyond the file. A part ends where the file ends, so that reading on is a fault.

namespace bellwether {
namespace {

constexpr size_t kFileBytes = 1 << 16;

struct Input {
  const uint8_t* data;
  size_t size;
  uint8_t Byte() {
    if (size == 0) return 0;
    --size;
    return *data++;
  }
};

std::shared_ptr<const FileMapping> FileOf(Input& input) {
  static const testing_files::TemporaryDirectory dir;
  std::string bytes(kFileBytes, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(input.Byte());
  auto file = FileMapping::Open(dir.Write("parts", bytes));
  BW_CHECK(file.ok());
  return *file;
}

// Mostly what fits: a shape that is wrong is soon refused.
int64_t SizeNear(int64_t right, Input& input) {
  const uint8_t choice = input.Byte();
  return choice < 224 ? right : choice % 65;
}

void AddPart(TensorRole role, LinearPart part, std::vector<int64_t> shape, Input& input,
             std::vector<NamedTensor>& tensors) {
  constexpr const char* kTypes[] = {"I32", "F16", "BF16", "F32", "I64"};
  constexpr int64_t kBytes[] = {4, 2, 2, 4, 8};
  int64_t count = 1;
  for (int64_t& size : shape) {
    size = SizeNear(size, input);
    count *= size;
  }
  const size_t type = part == LinearPart::kScales ? 1 + input.Byte() % 3 : input.Byte() > 250 ? 4 : 0;
  NamedTensor tensor{.name = {.key = {role}, .part = part}, .source = "part"};
  tensor.entry = {.name = "part", .dtype = kTypes[type], .shape = shape};
  tensor.entry.bytes = static_cast<uint64_t>(count * kBytes[type]);
  if (tensor.entry.bytes > kFileBytes) return;
  tensor.entry.offset = kFileBytes - tensor.entry.bytes;
  tensors.push_back(std::move(tensor));
}

void AddLinear(TensorRole role, int64_t outputs, int64_t inputs, int bits, Input& input,
               std::vector<NamedTensor>& tensors) {
  const int64_t groups = 1 << input.Byte() % 3;
  if (input.Byte() % 4 == 0) {
    AddPart(role, LinearPart::kWeights, {inputs, outputs / 8}, input, tensors);
  } else {
    AddPart(role, LinearPart::kWeights, {inputs * bits / 32, outputs}, input, tensors);
  }
  AddPart(role, LinearPart::kZeros, {groups, outputs * bits / 32}, input, tensors);
  AddPart(role, LinearPart::kScales, {groups, outputs}, input, tensors);
  if (input.Byte() % 2 == 0) AddPart(role, LinearPart::kGroupIndex, {inputs}, input, tensors);
}

void ReadAll(const StoredTensor& tensor) {
  const TensorWindow whole = {0, tensor.info.rows, 0, tensor.info.cols};
  std::vector<float> values(tensor.info.rows * tensor.info.cols);
  (void)ReadFloats(*tensor.linear, tensor.rows, whole, absl::MakeSpan(values)).ok();
  if (IsQuantized(tensor.info.format.format)) (void)ReadQuantized(*tensor.linear, tensor.rows, whole).ok();
}

void Run(Input input) {
  constexpr int kBits[] = {2, 3, 4, 8};
  const ModelConfig model{.layers = 1,
                          .hidden = 64,
                          .heads = 4,
                          .kv_heads = 4,
                          .head_dim = 16,
                          .ffn = 96,
                          .vocab = 32,
                          .max_positions = 8};
  QuantizationConfig config;
  if (input.Byte() % 2 == 0) {
    config = QuantizationConfig{.method = static_cast<QuantizationConfig::Method>(input.Byte() % 2),
                                .bits = kBits[input.Byte() % 4],
                                .group = input.Byte() % 2 == 0 ? -1 : int64_t{input.Byte()},
                                .symmetric = input.Byte() % 2 == 0,
                                .true_zeros = input.Byte() % 2 == 0};
    if (input.Byte() % 2 == 0) config.rules = {{.pattern = "pa", .group = 32, .act_order = true}};
    if (config.group == 0) return;
  }
  std::vector<NamedTensor> tensors;
  const int bits = config.bits.has_value() ? *config.bits : kBits[input.Byte() % 4];
  AddLinear(TensorRole::kQuery, 64, 64, bits, input, tensors);
  AddLinear(TensorRole::kKey, 64, 64, bits, input, tensors);
  AddLinear(TensorRole::kUp, 96, 64, bits, input, tensors);
  AddLinear(TensorRole::kDown, 64, 96, bits, input, tensors);
  const std::shared_ptr<const FileMapping> file = FileOf(input);
  for (NamedTensor& tensor : tensors) tensor.file = file;
  const TensorTable table(model);
  const auto assembled = AssembleQuantized(tensors, config, table);
  if (!assembled.ok()) return;
  absl::flat_hash_map<TensorKey, StoredTensor> stored;
  for (const AssembledTensor& matrix : *assembled) {
    const ExpectedTensor& expected = *table.Expected(matrix.name.key);
    if (matrix.tensor.info.rows == expected.rows) stored.emplace(matrix.name.key, matrix.tensor);
  }
  if (!SettleInputOrders(model, stored).ok()) return;
  for (const auto& [key, tensor] : stored) ReadAll(tensor);
}

}  // namespace
}  // namespace bellwether

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  bellwether::Run({data, size});
  return 0;
}
