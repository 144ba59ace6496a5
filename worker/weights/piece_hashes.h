#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/mutex.h"
#include "model/checkpoint/checkpoint.h"
#include "model/layout.h"
#include "model/weight_hash.h"

namespace bellwether {

// Hashes of the pieces of a matrix, made while it is read by several threads in any order: a piece's is the
// sum of its rows'.
class PieceHashes {
 public:
  enum class Cut : uint8_t { kRows, kColumns };
  // Pieces [bounds[i], bounds[i + 1]) of the rows or columns of the whole tensor, ascending.
  PieceHashes(const TensorKey& key, Cut cut, std::vector<int64_t> bounds);

  // One thread's part of the sums.
  class Part {
   public:
    explicit Part(const PieceHashes* whole) : whole_(*whole), sums_(whole->bounds_.size() - 1, 0) {}
    // `hash(begin, end, seed)` is that of columns [begin, end) of the row; of [begin, end) as a whole if
    // pieces are rows.
    template <typename Hash>
    void AddRow(int64_t row, int64_t begin, int64_t end, const Hash& hash);

   private:
    friend class PieceHashes;
    const PieceHashes& whole_;
    std::vector<uint64_t> sums_;
  };
  void Add(const Part& part);

  // Of all pieces that are not empty; once all rows have been added.
  void AppendTo(std::vector<WeightHash>* hashes) const;

 private:
  size_t PieceOf(int64_t row) const;

  const TensorKey key_;
  const Cut cut_;
  const std::vector<int64_t> bounds_;
  mutable Mutex mutex_;
  std::vector<uint64_t> sums_ ABSL_GUARDED_BY(mutex_);
};

// Of a part of a row.
uint64_t HashFloats(absl::Span<const float> values, uint64_t seed);
// Columns [begin, end) of row `row` of `rows`, whose first column is a group's first and which has `cols` of
// them.
uint64_t HashQuantized(const QuantizedRows& rows, int64_t row, int64_t cols, int group, Range part,
                       uint64_t seed);

template <typename Hash>
void PieceHashes::Part::AddRow(int64_t row, int64_t begin, int64_t end, const Hash& hash) {
  const auto seed = static_cast<uint64_t>(row);
  if (whole_.cut_ == Cut::kRows) {
    sums_[whole_.PieceOf(row)] += hash(begin, end, seed);
    return;
  }
  for (size_t i = 0; i < sums_.size(); ++i) {
    if (whole_.bounds_[i] < whole_.bounds_[i + 1])
      sums_[i] += hash(whole_.bounds_[i], whole_.bounds_[i + 1], seed);
  }
}

}  // namespace bellwether
