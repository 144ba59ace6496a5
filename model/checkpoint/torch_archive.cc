#include "model/checkpoint/torch_archive.h"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "common/quote.h"
#include "common/status.h"
#include "model/checkpoint/torch_pickle.h"
#include "model/checkpoint/zip.h"

namespace bellwether {
namespace {

constexpr std::string_view kPickleName = "/data.pkl";
constexpr std::string_view kByteOrderName = "/byteorder";

using EntryMap = absl::flat_hash_map<std::string, const ZipEntry*>;

uint64_t BytesOf(std::string_view dtype) {
  if (dtype == "F64" || dtype == "I64") return 8;
  if (dtype == "F32" || dtype == "I32") return 4;
  return dtype == "F16" || dtype == "BF16" || dtype == "I16" ? 2 : 1;
}

// The archive's one folder, named as whoever saved it liked.
absl::StatusOr<std::string> FindFolder(const std::vector<ZipEntry>& entries) {
  for (const ZipEntry& entry : entries) {
    const size_t slash = entry.name.find('/');
    if (slash != std::string::npos && entry.name.substr(slash) == kPickleName) {
      return entry.name.substr(0, slash);
    }
  }
  return absl::InvalidArgumentError("a zip archive without a data.pkl, so torch did not save it");
}

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

absl::StatusOr<FileTensor> Place(const NamedPickledTensor& named, const std::string& folder,
                                 const EntryMap& entries) {
  const PickledTensor& tensor = named.tensor;
  const auto wrong = [&](const std::string& what) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", Quoted(named.name), " ", what));
  };
  const auto entry = entries.find(absl::StrCat(folder, "/data/", std::string(tensor.storage)));
  if (entry == entries.end())
    return wrong(absl::StrCat("lies in ", Quoted(tensor.storage), ", which is not there"));
  const uint64_t each = BytesOf(tensor.dtype);
  const ZipEntry& storage = *entry->second;
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

absl::Status CheckByteOrder(absl::Span<const std::byte> file, const ZipEntry& entry) {
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + entry.offset, entry.bytes);
  if (text == "little") return absl::OkStatus();
  return absl::UnimplementedError(absl::StrCat("the byte order ", Quoted(text), "; \"little\" can be read"));
}

}  // namespace

absl::StatusOr<std::vector<FileTensor>> ParseTorchArchive(absl::Span<const std::byte> file) {
  BW_ASSIGN_OR_RETURN(const std::vector<ZipEntry> entries, ParseZip(file));
  BW_ASSIGN_OR_RETURN(const std::string folder, FindFolder(entries));
  EntryMap by_name;
  for (const ZipEntry& entry : entries) by_name.emplace(entry.name, &entry);
  if (const auto order = by_name.find(absl::StrCat(folder, std::string(kByteOrderName)));
      order != by_name.end()) {
    BW_RETURN_IF_ERROR(CheckByteOrder(file, *order->second));
  }
  const ZipEntry& pickle = *by_name.at(absl::StrCat(folder, std::string(kPickleName)));
  BW_ASSIGN_OR_RETURN(const std::vector<NamedPickledTensor> pickled,
                      ReadTorchPickle(file.subspan(pickle.offset, pickle.bytes)));
  std::vector<FileTensor> tensors;
  tensors.reserve(pickled.size());
  for (const NamedPickledTensor& named : pickled) {
    BW_ASSIGN_OR_RETURN(FileTensor tensor, Place(named, folder, by_name));
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

}  // namespace bellwether
