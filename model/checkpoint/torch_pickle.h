#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace bellwether {

// Limits on what a pickle may claim.
inline constexpr size_t kPickleValuesMax = size_t{1} << 21;
inline constexpr size_t kPickleStepsMax = size_t{1} << 24;
inline constexpr size_t kPickleDepthMax = 64;  // of containers within each other, as tensors are looked for

// A tensor that a pickle describes: a view of one of the files beside it.
struct PickledTensor {
  std::string_view storage;  // its key
  std::string_view dtype;    // "F32" ..., in the words of safetensors
  int64_t storage_elements = 0;
  int64_t first = 0;  // element of the storage
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;  // in elements, as many as `shape` has
};

struct NamedPickledTensor {
  std::string_view name;
  PickledTensor tensor;
};

struct PickledStorage {
  std::string_view key;
  std::string_view dtype;
  int64_t elements = 0;
};

struct PickledState {
  std::vector<NamedPickledTensor> tensors;
  std::vector<PickledStorage> storages;  // all that the pickle speaks of, each once
  size_t bytes = 0;                      // of the pickle
};

// The tensors of a state dict that torch pickled, in its order. Nothing is ever called: the few globals that
// state dicts need stand for steps of our own, every other global and opcode is refused by its name. Values
// that hold no tensor are passed over. Where trainers wrap the dict ("state_dict", "model", "module"), the
// wrapped one is meant. Names and keys are views of `pickle`. InvalidArgument and Unimplemented say what is
// wrong and at which byte.
absl::StatusOr<PickledState> ReadTorchPickle(absl::Span<const std::byte> pickle);

// The two pickles behind the magic one of torch before 1.6: its version and what it says of its machine.
struct PickledLegacyHeader {
  int64_t version = 0;
  bool little_endian = false;
  size_t bytes = 0;  // of both
};
absl::StatusOr<PickledLegacyHeader> ReadLegacyHeader(absl::Span<const std::byte> pickles);

// A pickle that is a list of keys.
struct PickledKeys {
  std::vector<std::string_view> keys;
  size_t bytes = 0;
};
absl::StatusOr<PickledKeys> ReadPickledKeys(absl::Span<const std::byte> pickle);

}  // namespace bellwether
