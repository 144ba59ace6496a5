#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "common/dtype.h"
#include "kernels/gpu/runtime.h"

namespace bellwether {

// One product of so many rows with a square matrix, done so often, and again until the card is warm.
struct ProductSample {
  WeightFormat format = WeightFormat::kBF16;  // one that tensor cores take
  int64_t rows = 512;
  int64_t width = 4096;
  int times = 20;
};

// Operations a second (a multiply and an add are two) of a prompt's products, preparation of the activations
// included, at their best: what a plan may count on, where a card's data sheet says several times as much. By
// the host's clock. ResourceExhausted if the card has no room for the sample.
absl::StatusOr<double> MeasureProductRate(const std::shared_ptr<gpu::Runtime>& runtime,
                                          const ProductSample& sample);

}  // namespace bellwether
