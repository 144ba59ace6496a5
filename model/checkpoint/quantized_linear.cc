#include "model/checkpoint/quantized_linear.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/log.h"
#include "common/status.h"

namespace bellwether {
namespace {

constexpr int64_t kWordBytes = 4, kWordBits = 32;
// Inputs that are read at a time: `bits` words hold them, whatever the bits.
constexpr int64_t kUnit = 32;

uint32_t Word(const std::byte* at) {
  uint32_t word;
  std::memcpy(&word, at, sizeof(word));
  return word;
}

// What is subtracted from the stored integers to fit the packed form: int8 holds -128 ... 127, and int4
// without offsets -8 ... 7.
int Bias(const QuantizedLinear& linear) {
  return linear.bits == 8 || linear.symmetric ? 1 << (linear.bits - 1) : 0;
}

// Integers of one output from the input `first` on, a multiple of kUnit, less `bias`. Those beyond the last
// input are of no use.
template <int kBits>
void DecodeUnit(const QuantizedLinear& linear, int64_t output, int64_t first, int bias, int8_t* out) {
  const int64_t words = linear.inputs * kBits / kWordBits, begin = first * kBits / kWordBits;
  const std::byte* column = linear.weights.data().data() + output * kWordBytes;
  uint32_t word[kBits + 1] = {};
  for (int64_t i = 0; i < kBits && begin + i < words; ++i)
    word[i] = Word(column + (begin + i) * linear.outputs * kWordBytes);
  for (int i = 0; i < kUnit; ++i) {
    const int bit = i * kBits, at = bit / kWordBits;
    const uint64_t pair = uint64_t{word[at + 1]} << kWordBits | word[at];
    const auto integer = static_cast<int>(pair >> bit % kWordBits & ((1u << kBits) - 1));
    out[i] = static_cast<int8_t>(integer - bias);
  }
}

// Field `index` of a stream of `bits` each.
int Field(const std::byte* words, int64_t index, int bits) {
  const int64_t bit = index * bits, at = bit / kWordBits, shift = bit % kWordBits;
  uint64_t pair = Word(words + at * kWordBytes);
  if (shift + bits > kWordBits) pair |= uint64_t{Word(words + (at + 1) * kWordBytes)} << kWordBits;
  return static_cast<int>(pair >> shift & ((1u << bits) - 1));
}

// The integers of a window, row by row, less their bias. The rows go innermost, because 16 of them share a
// cache line of words.
template <int kBits>
void DecodeIntegers(const QuantizedLinear& linear, const RowMap& rows, const TensorWindow& window,
                    int8_t* out) {
  const int64_t cols = window.col_end - window.col_begin;
  const int bias = Bias(linear);
  int8_t unit[kUnit];
  for (int64_t first = window.col_begin / kUnit * kUnit; first < window.col_end; first += kUnit) {
    const int64_t begin = std::max(first, window.col_begin), end = std::min(first + kUnit, window.col_end);
    for (int64_t row = window.row_begin; row < window.row_end; ++row) {
      DecodeUnit<kBits>(linear, rows.Source(row), first, bias, unit);
      std::memcpy(out + (row - window.row_begin) * cols + (begin - window.col_begin), unit + (begin - first),
                  end - begin);
    }
  }
}

// Of eight outputs, the place of each in AWQ's words.
constexpr int64_t kAwqPlaces[] = {0, 4, 1, 5, 2, 6, 3, 7};
constexpr int64_t kAwqOutputs = 8;

int64_t AwqPlace(int64_t output) {
  return output / kAwqOutputs * kAwqOutputs + kAwqPlaces[output % kAwqOutputs];
}

void DecodeAwq(const QuantizedLinear& linear, const RowMap& rows, const TensorWindow& window, int8_t* out) {
  const int64_t cols = window.col_end - window.col_begin;
  const int64_t row_bytes = linear.outputs / kAwqOutputs * kWordBytes;
  const int bias = Bias(linear);
  for (int64_t row = window.row_begin; row < window.row_end; ++row) {
    const int64_t place = AwqPlace(rows.Source(row));
    for (int64_t col = window.col_begin; col < window.col_end; ++col) {
      const int integer = Field(linear.weights.data().data() + col * row_bytes, place, linear.bits);
      out[(row - window.row_begin) * cols + (col - window.col_begin)] = static_cast<int8_t>(integer - bias);
    }
  }
}

// The same where columns are not in the order of the inputs.
void DecodeReordered(const QuantizedLinear& linear, const RowMap& rows, const TensorWindow& window,
                     int8_t* out) {
  const int64_t cols = window.col_end - window.col_begin, stride = linear.outputs * kWordBytes;
  const int bias = Bias(linear);
  for (int64_t col = window.col_begin; col < window.col_end; ++col) {
    const int64_t bit = int64_t{(*linear.input_order)[col]} * linear.bits, shift = bit % kWordBits;
    const std::byte* words = linear.weights.data().data() + bit / kWordBits * stride;
    for (int64_t row = window.row_begin; row < window.row_end; ++row) {
      const std::byte* at = words + rows.Source(row) * kWordBytes;
      uint64_t pair = Word(at);
      if (shift + linear.bits > kWordBits) pair |= uint64_t{Word(at + stride)} << kWordBits;
      const auto integer = static_cast<int>(pair >> shift & ((1u << linear.bits) - 1));
      out[(row - window.row_begin) * cols + (col - window.col_begin)] = static_cast<int8_t>(integer - bias);
    }
  }
}

void DecodeIntegers(const QuantizedLinear& linear, const RowMap& rows, const TensorWindow& window,
                    int8_t* out) {
  if (linear.packing == LinearPacking::kAwq) return DecodeAwq(linear, rows, window, out);
  if (linear.input_order != nullptr) return DecodeReordered(linear, rows, window, out);
  switch (linear.bits) {
    case 2:
      return DecodeIntegers<2>(linear, rows, window, out);
    case 3:
      return DecodeIntegers<3>(linear, rows, window, out);
    case 4:
      return DecodeIntegers<4>(linear, rows, window, out);
    case 8:
      return DecodeIntegers<8>(linear, rows, window, out);
    default:
      BW_CHECK(false);
  }
}

// Scale and zero of a group, the zero less the bias of the integers.
struct GroupScale {
  float scale = 0;
  int zero = 0;
};

// A true zero of 0 was stored as -1 and so became the largest field. What read it back when these files were
// made adds 1 without cutting it to the bits again, and so do we.
void WarnOfLargestZero(const QuantizedLinear& linear, int64_t output, int zero) {
  if (linear.warned == nullptr || linear.warned->exchange(true)) return;
  LogWarning(linear.source, ": the zero of output ", output, " is stored as ", zero - 1, " and read as ",
             zero, ", as GPTQ-for-LLaMa and BELLE do; other programs may read 0. There may be more of these");
}

struct Groups {
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
};

absl::StatusOr<GroupScale> ReadGroup(const QuantizedLinear& linear, int64_t output, int64_t group) {
  const int64_t zero_row_bytes = linear.outputs * linear.bits / kWordBits * kWordBytes;
  const std::byte* zeros = linear.zeros.data().data() + group * zero_row_bytes;
  const int64_t place = linear.packing == LinearPacking::kAwq ? AwqPlace(output) : output;
  const int zero = Field(zeros, place, linear.bits) + linear.zero_shift;
  if (zero >= 1 << linear.bits) WarnOfLargestZero(linear, output, zero);
  GroupScale result{.zero = zero - Bias(linear)};
  if (linear.symmetric && result.zero != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(linear.source, ": output ", output, " has a zero of ", zero,
                     " where its configuration says that all are symmetric; say \"sym\": false there"));
  }
  const std::byte* scales = linear.scales.data().data() + group * RowBytes(linear.scale_type, linear.outputs);
  DecodeFloats(linear.scale_type, scales, output, absl::MakeSpan(&result.scale, 1));
  return result;
}

// Whether columns do not come group by group: as inputs are stored, though their groups are mixed.
bool IsMixed(const QuantizedLinear& linear) {
  return !linear.group_index.empty() && linear.input_order == nullptr;
}

// The groups that a window touches: all of them where they are mixed.
Groups GroupsOf(const QuantizedLinear& linear, const TensorWindow& window) {
  const int64_t all = (linear.inputs + linear.group - 1) / linear.group;
  if (IsMixed(linear)) return {0, all};
  return {window.col_begin / linear.group, (window.col_end + linear.group - 1) / linear.group};
}

int64_t GroupOfColumn(const QuantizedLinear& linear, int64_t col) {
  return IsMixed(linear) ? linear.group_index[col] : col / linear.group;
}

// Scales and zeros of a window's groups, row by row.
absl::StatusOr<std::vector<GroupScale>> ReadGroups(const QuantizedLinear& linear, const RowMap& rows,
                                                   const TensorWindow& window) {
  const Groups groups = GroupsOf(linear, window);
  std::vector<GroupScale> result;
  result.reserve((window.row_end - window.row_begin) * groups.size());
  for (int64_t row = window.row_begin; row < window.row_end; ++row) {
    for (int64_t group = groups.begin; group < groups.end; ++group) {
      BW_ASSIGN_OR_RETURN(const GroupScale read, ReadGroup(linear, rows.Source(row), group));
      result.push_back(read);
    }
  }
  return result;
}

}  // namespace

std::vector<int32_t> OrderByGroup(const QuantizedLinear& linear) {
  std::vector<int32_t> order(linear.group_index.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return linear.group_index[a] < linear.group_index[b]; });
  return order;
}

TensorFormat FormatOf(const QuantizedLinear& linear) {
  if (IsMixed(linear)) return TensorFormat{.format = WeightFormat::kF32};
  TensorFormat format{.format = linear.bits == 8 ? WeightFormat::kInt8 : WeightFormat::kInt4,
                      .group = 128,
                      .has_offset = !linear.symmetric,
                      // An offset has more digits than its scale.
                      .half_scales = linear.symmetric && linear.scale_type == StorageType::kF16};
  while (linear.group < linear.inputs && linear.group % format.group != 0) format.group /= 2;
  return format;
}

std::string Describe(const QuantizedLinear& linear) {
  return absl::StrCat(linear.packing == LinearPacking::kAwq ? "AWQ " : "GPTQ ", linear.bits,
                      " bits, groups of ", linear.group, ", scales ", std::string(Name(linear.scale_type)),
                      ", zeros + ", linear.zero_shift, linear.symmetric ? ", symmetric" : "",
                      linear.group_index.empty() ? "" : ", mixed");
}

bool AllZerosAre(const QuantizedLinear& linear, int value) {
  const absl::Span<const std::byte> words = linear.zeros.data();
  const auto fields = static_cast<int64_t>(words.size()) * 8 / linear.bits;
  for (int64_t i = 0; i < fields; ++i) {
    if (Field(words.data(), i, linear.bits) != value) return false;
  }
  return fields > 0;
}

absl::Status ReadFloats(const QuantizedLinear& linear, const RowMap& rows, const TensorWindow& window,
                        absl::Span<float> out) {
  std::vector<int8_t> integers(out.size());
  DecodeIntegers(linear, rows, window, integers.data());
  BW_ASSIGN_OR_RETURN(const std::vector<GroupScale> groups, ReadGroups(linear, rows, window));
  const int64_t cols = window.col_end - window.col_begin;
  const Groups touched = GroupsOf(linear, window);
  for (int64_t row = 0; row < window.row_end - window.row_begin; ++row) {
    for (int64_t col = 0; col < cols; ++col) {
      const int64_t group = GroupOfColumn(linear, window.col_begin + col) - touched.begin;
      const GroupScale& read = groups[row * touched.size() + group];
      out[row * cols + col] = read.scale * static_cast<float>(integers[row * cols + col] - read.zero);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<QuantizedRows> ReadQuantized(const QuantizedLinear& linear, const RowMap& rows,
                                            const TensorWindow& window) {
  const TensorFormat format = FormatOf(linear);
  const int64_t count = window.row_end - window.row_begin, cols = window.col_end - window.col_begin;
  const Groups touched = GroupsOf(linear, window);
  const int64_t packed_groups = (cols + format.group - 1) / format.group;
  BW_ASSIGN_OR_RETURN(const std::vector<GroupScale> groups, ReadGroups(linear, rows, window));
  QuantizedRows result;
  result.q.resize(count * cols);
  DecodeIntegers(linear, rows, window, result.q.data());
  result.scales.reserve(count * packed_groups);
  if (format.has_offset) result.offsets.reserve(count * packed_groups);
  for (int64_t row = 0; row < count; ++row) {
    for (int64_t packed = 0; packed < packed_groups; ++packed) {
      const int64_t group = GroupOfColumn(linear, window.col_begin + packed * format.group) - touched.begin;
      const GroupScale& read = groups[row * touched.size() + group];
      result.scales.push_back(read.scale);
      if (format.has_offset) result.offsets.push_back(-(read.scale * static_cast<float>(read.zero)));
    }
  }
  return result;
}

}  // namespace bellwether
