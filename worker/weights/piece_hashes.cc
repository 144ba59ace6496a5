#include "worker/weights/piece_hashes.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/fast_hash.h"

namespace bellwether {
namespace {

template <typename T>
uint64_t HashValues(absl::Span<const T> values, uint64_t seed) {
  return FastHash(
      absl::MakeConstSpan(reinterpret_cast<const std::byte*>(values.data()), values.size() * sizeof(T)),
      seed);
}

}  // namespace

PieceHashes::PieceHashes(const TensorKey& key, Cut cut, std::vector<int64_t> bounds)
    : key_(key), cut_(cut), bounds_(std::move(bounds)), sums_(bounds_.size() - 1, 0) {}

size_t PieceHashes::PieceOf(int64_t row) const {
  return std::upper_bound(bounds_.begin(), bounds_.end(), row) - bounds_.begin() - 1;
}

void PieceHashes::Add(const Part& part) {
  MutexLock lock(&mutex_);
  for (size_t i = 0; i < sums_.size(); ++i) sums_[i] += part.sums_[i];
}

void PieceHashes::AppendTo(std::vector<WeightHash>* hashes) const {
  MutexLock lock(&mutex_);
  for (size_t i = 0; i < sums_.size(); ++i) {
    if (bounds_[i] == bounds_[i + 1]) continue;
    hashes->push_back({absl::StrCat(Name(key_), cut_ == Cut::kRows ? ", rows " : ", columns ", bounds_[i],
                                    "-", bounds_[i + 1] - 1),
                       sums_[i]});
  }
}

uint64_t HashFloats(absl::Span<const float> values, uint64_t seed) { return HashValues(values, seed); }

uint64_t HashQuantized(const QuantizedRows& rows, int64_t row, int64_t cols, int group, Range part,
                       uint64_t seed) {
  const int64_t groups = (cols + group - 1) / group;
  const int64_t first_group = part.begin / group, end_group = (part.end + group - 1) / group;
  const auto of_groups = [&](const std::vector<float>& values) {
    return absl::MakeConstSpan(values).subspan(row * groups + first_group, end_group - first_group);
  };
  seed = HashValues(absl::MakeConstSpan(rows.q).subspan(row * cols + part.begin, part.size()), seed);
  seed = HashValues(of_groups(rows.scales), seed);
  return rows.offsets.empty() ? seed : HashValues(of_groups(rows.offsets), seed);
}

}  // namespace bellwether
