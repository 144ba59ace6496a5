#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "common/status.h"
#include "model/tokenizer/candidate_queue.h"
#include "model/tokenizer/encode_limits.h"

namespace bellwether {

// A stretch of text on its way to becoming a token.
struct Symbol {
  uint32_t begin = 0;   // byte in the text
  uint32_t length = 0;  // bytes; 0 once joined to its left neighbour
  int32_t id = -1;      // token, or -1 when not known
  int32_t previous = -1;
  int32_t next = -1;
  bool fixed = false;  // never joined
};

template <typename Order>
struct MergeCandidate {
  Order order;  // lower is joined earlier
  int32_t joined_id;
};

// The symbols of one stretch of text while their pairs are joined.
//
// `candidate(left, right)` returns std::optional<MergeCandidate<Order>>: nothing when the pair cannot be
// joined.
template <typename Order, typename Queue, typename CandidateOf>
class SymbolRow {
 public:
  SymbolRow(std::vector<Symbol>* symbols, const CandidateOf& candidate)
      : row_(*symbols), candidate_(candidate), count_(static_cast<int32_t>(symbols->size())) {
    for (int32_t i = 0; i < count_; ++i) {
      row_[i].previous = i - 1;
      row_[i].next = i + 1 < count_ ? i + 1 : -1;
    }
  }

  absl::Status Merge(EncodeProgress* progress) {
    for (int32_t i = 0; i + 1 < count_; ++i) {
      BW_RETURN_IF_ERROR(progress->Advance(1));
      Propose(i, i + 1);
    }
    while (!queue_.empty()) {
      BW_RETURN_IF_ERROR(progress->Advance(1));
      Join(queue_.Pop());
    }
    return absl::OkStatus();
  }

 private:
  void Propose(int32_t left, int32_t right) {
    if (left < 0 || right < 0 || row_[left].fixed || row_[right].fixed) return;
    const std::optional<MergeCandidate<Order>> found = candidate_(row_[left], row_[right]);
    if (!found) return;
    queue_.Push({found->order, left, right, found->joined_id, row_[left].length + row_[right].length});
  }

  // Unless the entry is out of date.
  void Join(const MergeEntry<Order>& entry) {
    Symbol& left = row_[entry.left];
    Symbol& right = row_[entry.right];
    if (left.length == 0 || right.length == 0 || left.length + right.length != entry.length) return;
    left.length = entry.length;
    left.id = entry.joined_id;
    left.next = right.next;
    if (right.next >= 0) row_[right.next].previous = entry.left;
    right.length = 0;
    Propose(left.previous, entry.left);
    Propose(entry.left, left.next);
  }

  std::vector<Symbol>& row_;
  const CandidateOf& candidate_;
  const int32_t count_;
  Queue queue_;
};

// Byte-pair merging, shared by both kinds of BPE. The symbols are a row; again and again the adjacent pair of
// the lowest order is joined, the leftmost among equals, until no pair can be joined. A queue of candidate
// pairs makes this O(n log n), and nearly O(n) where few kinds of pairs make a long row. Symbols only grow,
// so a candidate is out of date exactly when the lengths no longer add up.
//
// `candidate` is SymbolRow's. Joined symbols stay in `symbols` with length 0. `progress` hears of the work;
// an error of its leaves the row half joined.
template <typename Order, typename CandidateOf>
absl::Status MergeSymbols(std::vector<Symbol>* symbols, const CandidateOf& candidate,
                          EncodeProgress* progress) {
  constexpr size_t kWordSymbols = 1024;
  if (symbols->size() <= kWordSymbols) {
    return SymbolRow<Order, HeapQueue<Order>, CandidateOf>(symbols, candidate).Merge(progress);
  }
  return SymbolRow<Order, LaneQueue<Order>, CandidateOf>(symbols, candidate).Merge(progress);
}

}  // namespace bellwether
