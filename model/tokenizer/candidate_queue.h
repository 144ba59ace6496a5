#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <queue>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace bellwether {

// A pair of adjacent symbols that can be joined.
template <typename Order>
struct MergeEntry {
  Order order;
  int32_t left;
  int32_t right;
  int32_t joined_id;
  uint32_t length;  // of both symbols together when this entry was made
};

// Two queues that give the entry of the lowest order first, the leftmost among equals. This one is for words:
// a heap.
template <typename Order>
class HeapQueue {
 public:
  using Entry = MergeEntry<Order>;
  bool empty() const { return heap_.empty(); }
  const Entry& Top() const { return heap_.top(); }
  void Push(const Entry& entry) { heap_.push(entry); }
  Entry Pop() {
    const Entry top = heap_.top();
    heap_.pop();
    return top;
  }

 private:
  struct Later {
    bool operator()(const Entry& a, const Entry& b) const {
      return b.order < a.order || (!(a.order < b.order) && a.left > b.left);
    }
  };
  std::priority_queue<Entry, std::vector<Entry>, Later> heap_;
};

// And this one for stretches that a heap, which jumps about in its memory, outgrows the caches with, such as
// a megabyte of spaces: a lane for each order. Entries come into a lane nearly always from left to right,
// where they go to its end; the others wait in a heap beside it.
template <typename Order>
class LaneQueue {
 public:
  using Entry = MergeEntry<Order>;
  bool empty() const { return orders_.empty(); }
  void Push(const Entry& entry) {
    Lane& lane = LaneOf(entry.order);
    if (lane.empty()) orders_.push(entry.order);
    lane.DropTaken();
    if (lane.row.empty() || lane.row.back().left < entry.left) {
      lane.row.push_back(entry);
    } else {
      lane.strays.Push(entry);
    }
  }
  Entry Pop() {
    Lane& lane = LaneOf(orders_.top());
    const Entry entry = lane.Pop();
    if (lane.empty()) orders_.pop();
    return entry;
  }

 private:
  struct Lane {
    std::vector<Entry> row;
    size_t taken = 0;  // of the row
    HeapQueue<Order> strays;
    bool empty() const { return taken == row.size() && strays.empty(); }
    void DropTaken() {
      if (taken < row.size()) return;
      row.clear();
      taken = 0;
    }
    Entry Pop() {
      if (taken == row.size() || (!strays.empty() && strays.Top().left < row[taken].left))
        return strays.Pop();
      return row[taken++];
    }
  };
  Lane& LaneOf(Order order) {
    if (!lanes_.empty() && order == last_order_) return lanes_[last_lane_];
    const auto [found, added] = index_.try_emplace(order, lanes_.size());
    if (added) lanes_.emplace_back();
    last_order_ = order;
    last_lane_ = found->second;
    return lanes_[last_lane_];
  }

  std::vector<Lane> lanes_;
  absl::flat_hash_map<Order, size_t> index_;  // into lanes_
  Order last_order_ = {};                     // that was asked for
  size_t last_lane_ = 0;
  std::priority_queue<Order, std::vector<Order>, std::greater<>> orders_;  // of lanes that hold something
};

}  // namespace bellwether
