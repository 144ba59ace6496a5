#include "model/checkpoint/torch_view.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/quote.h"

namespace bellwether {
namespace {

// Whether the view's elements follow each other row after row. Strides of dimensions of size 1 mean nothing.
bool IsContiguous(const PickledTensor& tensor) {
  int64_t expected = 1;
  for (size_t i = tensor.shape.size(); i > 0; --i) {
    if (tensor.shape[i - 1] != 1 && tensor.strides[i - 1] != expected) return false;
    expected *= tensor.shape[i - 1];
  }
  return true;
}

// Elements from the first of a view to its last, or nothing if that overflows. 0 for a view of none. The
// number of elements is bounded too: the sizes of a view over one element may be anything.
std::optional<int64_t> Extent(const PickledTensor& tensor) {
  int64_t last = 0, elements = 1;
  for (size_t i = 0; i < tensor.shape.size(); ++i) {
    if (tensor.shape[i] == 0) return 0;
    int64_t step = 0;
    if (__builtin_mul_overflow(elements, tensor.shape[i], &elements) ||
        __builtin_mul_overflow(tensor.shape[i] - 1, tensor.strides[i], &step) ||
        __builtin_add_overflow(last, step, &last)) {
      return std::nullopt;
    }
  }
  if (__builtin_add_overflow(last, 1, &last)) return std::nullopt;
  return last;
}

}  // namespace

uint64_t ElementBytes(std::string_view dtype) {
  if (dtype == "F64" || dtype == "I64") return 8;
  if (dtype == "F32" || dtype == "I32") return 4;
  return dtype == "F16" || dtype == "BF16" || dtype == "I16" ? 2 : 1;
}

absl::StatusOr<FileTensor> PlaceView(const NamedPickledTensor& named, const TorchStorage& storage) {
  const PickledTensor& tensor = named.tensor;
  const auto wrong = [&](const std::string& what) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", Quoted(named.name), " ", what));
  };
  const uint64_t each = ElementBytes(tensor.dtype);
  if (storage.bytes % each != 0 || storage.bytes / each != static_cast<uint64_t>(tensor.storage_elements)) {
    return wrong(absl::StrCat("lies in ", Quoted(storage.name), " of ", storage.bytes, " bytes where ",
                              tensor.storage_elements, " elements of type ", std::string(tensor.dtype),
                              " should be"));
  }
  const std::optional<int64_t> extent = Extent(tensor);
  int64_t end = 0;
  if (!extent.has_value() || __builtin_add_overflow(tensor.first, *extent, &end) ||
      end > tensor.storage_elements) {
    return wrong(absl::StrCat("reaches beyond the ", tensor.storage_elements, " elements of its storage"));
  }
  FileTensor placed{.name = std::string(named.name),
                    .dtype = std::string(tensor.dtype),
                    .shape = tensor.shape,
                    .offset = storage.offset + static_cast<uint64_t>(tensor.first) * each,
                    .bytes = static_cast<uint64_t>(*extent) * each};
  if (!IsContiguous(tensor)) placed.strides = tensor.strides;
  return placed;
}

absl::Status NoStorage(const NamedPickledTensor& tensor) {
  return absl::InvalidArgumentError(absl::StrCat("tensor ", Quoted(tensor.name), " lies in ",
                                                 Quoted(tensor.tensor.storage), ", which is not there"));
}

}  // namespace bellwether
