#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/metrics/metric_table.h"

namespace bellwether {

// The metrics of a cluster at one time, as its monitoring ports tell them.
class ClusterNumbers {
 public:
  // From the coordinator's port and, as it knows them, the workers'. Unavailable if one does not answer.
  static absl::StatusOr<ClusterNumbers> Read(const std::string& metrics_address);
  // Of texts in Prometheus' format, one a program.
  explicit ClusterNumbers(std::vector<std::string> texts) : texts_(std::move(texts)) {}

  // The values of its series, program by program, whose labels hold `label` ("concurrency=\"one_sequence\"").
  std::vector<double> Of(Metric metric, absl::string_view label = "") const;
  double Sum(Metric metric, absl::string_view label = "") const;

 private:
  std::vector<std::string> texts_;
};

}  // namespace bellwether
