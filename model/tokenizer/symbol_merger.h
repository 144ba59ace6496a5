#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <queue>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "common/status.h"
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

// Byte-pair merging, shared by both kinds of BPE. The symbols are a row; again and again the adjacent pair of
// the lowest order is joined, the leftmost among equals, until no pair can be joined. A heap of candidate
// pairs makes this O(n log n). Symbols only grow, so a candidate is out of date exactly when the lengths no
// longer add up.
//
// `candidate(left, right)` returns std::optional<MergeCandidate<Order>>: nothing when the pair cannot be
// joined. Joined symbols stay in `symbols` with length 0. `progress` hears of the work; an error of its
// leaves the row half joined.
template <typename Order, typename CandidateOf>
absl::Status MergeSymbols(std::vector<Symbol>* symbols, CandidateOf candidate, EncodeProgress* progress) {
  struct Entry {
    Order order;
    int32_t left;
    int32_t right;
    int32_t joined_id;
    uint32_t length;  // of both symbols together when this entry was made
  };
  const auto later = [](const Entry& a, const Entry& b) {
    return b.order < a.order || (!(a.order < b.order) && a.left > b.left);
  };
  std::vector<Symbol>& row = *symbols;
  const int32_t count = static_cast<int32_t>(row.size());
  for (int32_t i = 0; i < count; ++i) {
    row[i].previous = i - 1;
    row[i].next = i + 1 < count ? i + 1 : -1;
  }
  const auto propose = [&](int32_t left, int32_t right) -> std::optional<Entry> {
    if (left < 0 || right < 0 || row[left].fixed || row[right].fixed) return std::nullopt;
    const std::optional<MergeCandidate<Order>> found = candidate(row[left], row[right]);
    if (!found) return std::nullopt;
    return Entry{found->order, left, right, found->joined_id, row[left].length + row[right].length};
  };
  std::vector<Entry> first;
  for (int32_t i = 0; i + 1 < count; ++i) {
    BW_RETURN_IF_ERROR(progress->Advance(1));
    if (auto entry = propose(i, i + 1)) first.push_back(*entry);
  }
  std::priority_queue<Entry, std::vector<Entry>, decltype(later)> queue(later, std::move(first));
  while (!queue.empty()) {
    BW_RETURN_IF_ERROR(progress->Advance(1));
    const Entry top = queue.top();
    queue.pop();
    Symbol& left = row[top.left];
    Symbol& right = row[top.right];
    if (left.length == 0 || right.length == 0 || left.length + right.length != top.length) continue;
    left.length = top.length;
    left.id = top.joined_id;
    left.next = right.next;
    if (right.next >= 0) row[right.next].previous = top.left;
    right.length = 0;
    if (auto entry = propose(left.previous, top.left)) queue.push(*entry);
    if (auto entry = propose(top.left, left.next)) queue.push(*entry);
  }
  return absl::OkStatus();
}

}  // namespace bellwether
