#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/packed_matrix.h"
#include "worker/device/device.h"

namespace bellwether {

// Packed matrices in the memory of this machine (kernels/packed_matrix.h): those that a CPU computes with,
// and embeddings of which the host of a GPU looks up the rows. One arena for all matrices, which stay where
// they were filled. ResourceExhausted if there is no memory.
absl::StatusOr<std::shared_ptr<WeightStore>> NewPackedStore(absl::Span<const kernels::MatrixSpec> matrices);
// As Device::image_form, of their images.
std::string PackedImageForm();
// What is inside a matrix that such a store has kept.
const kernels::PackedMatrix& PackedOf(const DeviceMatrix& matrix);

}  // namespace bellwether
