#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "model/checkpoint/checkpoint.h"

namespace bellwether {

struct StoredTensor;

// What is added to a tensor's values as they are read, in fp32, before they are rounded to its type.
// Immutable and used by several threads.
class Adjustment {
 public:
  virtual ~Adjustment() = default;
  // Adds to `values`, those of `window`, row by row.
  virtual void Apply(const TensorWindow& window, absl::Span<float> values) const = 0;
  // What it reads: part of the model id, as the words of Describe() are, which say everything else.
  virtual std::vector<const StoredTensor*> inputs() const = 0;
  virtual std::string Describe() const = 0;
};

}  // namespace bellwether
