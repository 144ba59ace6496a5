#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace bellwether {

// What a step or a request counts in. Nobody ever waits here: who counts and who reads use atomic numbers
// alone, so a scrape cannot hold up a step.

class MetricCounter {
 public:
  MetricCounter() = default;
  MetricCounter(const MetricCounter&) = delete;

  void Add(double by = 1) { value_.fetch_add(by, std::memory_order_relaxed); }  // by >= 0
  double value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<double> value_{0};
};

class MetricHistogram {
 public:
  // `bounds`: ascending, of the table; they outlive this.
  explicit MetricHistogram(absl::Span<const double> bounds) : bounds_(bounds), counts_(bounds.size() + 1) {}
  MetricHistogram(const MetricHistogram&) = delete;

  void Observe(double value) {
    const auto at = std::lower_bound(bounds_.begin(), bounds_.end(), value);
    counts_[at - bounds_.begin()].fetch_add(1, std::memory_order_relaxed);
    sum_.fetch_add(value, std::memory_order_relaxed);
  }

  absl::Span<const double> bounds() const { return bounds_; }
  // Observations above the bound before this one and at most this one; the last are those above all bounds.
  uint64_t count(size_t bucket) const { return counts_[bucket].load(std::memory_order_relaxed); }
  double sum() const { return sum_.load(std::memory_order_relaxed); }

 private:
  const absl::Span<const double> bounds_;
  std::vector<std::atomic<uint64_t>> counts_;
  std::atomic<double> sum_{0};
};

}  // namespace bellwether
