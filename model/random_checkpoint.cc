#include "model/random_checkpoint.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/status.h"
#include "model/checkpoint/expected_tensors.h"
#include "model/layer_tensors.h"
#include "model/shapes.h"

namespace bellwether {
namespace {

constexpr int kGroup = 32;
constexpr int64_t kColumnsPerWord = 8;  // one byte of 64 random bits for each column
constexpr uint64_t kGolden = 0x9E3779B97F4A7C15;

// The finaliser of SplitMix64: cheap enough for billions of weights.
uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

uint64_t RowSeed(uint64_t seed, int64_t row) { return Mix(seed + static_cast<uint64_t>(row + 1) * kGolden); }

// Calls visit(index, q) for the columns of a row, index counted from first_col; q in [-128, 127], or in [-8,
// 7] for int4.
template <typename Visit>
void ForEachInteger(const StoredTensor& tensor, int64_t row, int64_t first_col, int64_t cols, Visit visit) {
  const uint64_t seed = RowSeed(tensor.random.seed, row);
  const int shift = tensor.info.format.format == WeightFormat::kInt4 ? 4 : 0;
  for (int64_t done = 0; done < cols;) {
    const int64_t col = first_col + done;
    uint64_t word = Mix(seed + static_cast<uint64_t>(col / kColumnsPerWord + 1) * kGolden);
    word >>= col % kColumnsPerWord * 8;
    const int64_t count = std::min(kColumnsPerWord - col % kColumnsPerWord, cols - done);
    for (int64_t i = 0; i < count; ++i, word >>= 8) {
      visit(done + i, static_cast<int8_t>(static_cast<int8_t>(word & 0xff) >> shift));
    }
    done += count;
  }
}

// Scales of neighbouring groups differ a little and are exact in fp16.
float GroupScale(const StoredTensor& tensor, int64_t row, int64_t group) {
  const uint64_t bits = Mix(~RowSeed(tensor.random.seed, row) + static_cast<uint64_t>(group) * kGolden);
  return tensor.random.scale * (1.0f + static_cast<float>(bits & 7) / 16.0f);
}

// A power of two, so that products with integers of 8 bits are exact in bf16 and fp16: products of `cols`
// weights and values of order 1 stay of order 1.
float MatrixScale(int64_t cols, WeightFormat format) {
  // Mean squares of the integers: 74^2 for 8 bits, 4.6^2 for 4.
  const double wanted = static_cast<double>(cols) * (format == WeightFormat::kInt4 ? 21.0 : 5476.0);
  float scale = 1;
  for (double reached = 1; reached < wanted; reached *= 4) scale /= 2;
  // fp32 weights get full mantissas.
  return format == WeightFormat::kF32 ? scale * 1.2345678f : scale;
}

StoredTensor MakeTensor(const ExpectedTensor& expected, WeightFormat format, uint64_t seed) {
  const TensorKey& key = expected.key;
  StoredTensor tensor;
  tensor.info.rows = expected.rows;
  tensor.info.cols = expected.cols;
  tensor.info.source = absl::StrCat("random ", Name(key));
  const uint64_t number = static_cast<uint64_t>(key.layer) << 8 | static_cast<uint64_t>(key.role) << 1 |
                          static_cast<uint64_t>(key.bias);
  tensor.random.seed = Mix(Mix(seed + kGolden) + number * kGolden);
  if (key.bias || IsNorm(key.role)) {
    tensor.random.center = key.bias ? 0.0f : 1.0f;
    tensor.random.scale = 0x1p-10f;
    return tensor;
  }
  tensor.info.format.format = format;
  if (IsQuantized(format)) tensor.info.format = {.format = format, .group = kGroup, .half_scales = true};
  tensor.random.scale = MatrixScale(expected.cols, format);
  return tensor;
}

std::optional<WeightFormat> ParseFormat(const std::string& name) {
  for (const WeightFormat format : {WeightFormat::kF32, WeightFormat::kBF16, WeightFormat::kF16,
                                    WeightFormat::kInt8, WeightFormat::kInt4}) {
    if (name == Name(format)) return format;
  }
  return std::nullopt;
}

}  // namespace

CheckpointContents MakeRandomContents(const ModelConfig& config, WeightFormat format, uint64_t seed) {
  CheckpointContents contents;
  contents.container = "random";
  contents.config = config;
  for (const ExpectedTensor& expected : ExpectedTensors(config)) {
    contents.tensors.emplace(expected.key, MakeTensor(expected, format, seed));
  }
  return contents;
}

absl::StatusOr<CheckpointContents> MakeRandomContents(const std::string& name) {
  const std::vector<std::string> parts = absl::StrSplit(absl::StripPrefix(name, kRandomPrefix), ':');
  const std::optional<WeightFormat> format = ParseFormat(parts.size() > 1 ? parts[1] : "bf16");
  uint64_t seed = 0;
  if (parts.size() > 3 || !format.has_value() || (parts.size() == 3 && !absl::SimpleAtoi(parts[2], &seed))) {
    return absl::InvalidArgumentError(absl::StrCat(
        "model ", name,
        ": a random model is random:SHAPE[:FORMAT[:SEED]] with format fp32, bf16, fp16, int8 or int4"));
  }
  absl::StatusOr<ModelConfig> config = ParseShape(parts[0]);
  if (!config.ok()) return Annotate(config.status(), absl::StrCat("model ", name));
  CheckpointContents contents = MakeRandomContents(*config, *format, seed);
  contents.path = name;
  return contents;
}

void RandomFloats(const StoredTensor& tensor, int64_t row, int64_t first_col, absl::Span<float> out) {
  const auto cols = static_cast<int64_t>(out.size());
  const float center = tensor.random.center;
  float scale = tensor.random.scale;
  if (!IsQuantized(tensor.info.format.format)) {
    ForEachInteger(tensor, row, first_col, cols,
                   [&](int64_t i, int8_t q) { out[i] = center + scale * static_cast<float>(q); });
    return;
  }
  int64_t group = -1;
  ForEachInteger(tensor, row, first_col, cols, [&](int64_t i, int8_t q) {
    if ((first_col + i) / kGroup != group) {
      group = (first_col + i) / kGroup;
      scale = GroupScale(tensor, row, group);
    }
    out[i] = scale * static_cast<float>(q);
  });
}

void RandomQuantized(const StoredTensor& tensor, int64_t row, int64_t first_col, absl::Span<int8_t> q,
                     float* scales) {
  const auto cols = static_cast<int64_t>(q.size());
  ForEachInteger(tensor, row, first_col, cols, [&](int64_t i, int8_t value) { q[i] = value; });
  for (int64_t col = 0; col < cols; col += kGroup) {
    scales[col / kGroup] = GroupScale(tensor, row, (first_col + col) / kGroup);
  }
}

}  // namespace bellwether
