#include "model/checkpoint/tensor_table_file.h"

#include <memory>
#include <string_view>
#include <utility>

#include "common/status.h"
#include "model/checkpoint/file_mapping.h"
#include "model/checkpoint/foreign_file.h"
#include "model/checkpoint/safetensors.h"
#include "model/checkpoint/torch_archive.h"
#include "model/checkpoint/torch_legacy.h"
#include "model/checkpoint/zip.h"

namespace bellwether {
namespace {

// Of torch before 0.1.10.
constexpr std::string_view kTar = "ustar";
constexpr size_t kTarPlace = 257;

std::string_view Text(absl::Span<const std::byte> file) {
  return {reinterpret_cast<const char*>(file.data()), file.size()};
}

bool IsTar(absl::Span<const std::byte> file) {
  return file.size() > kTarPlace && Text(file).substr(kTarPlace).starts_with(kTar);
}

}  // namespace

std::string Name(TensorContainer container) {
  return container == TensorContainer::kTorch ? "torch" : "safetensors";
}

absl::StatusOr<TensorTableFile> ReadTensorTable(absl::Span<const std::byte> file) {
  if (IsTar(file)) {
    return absl::UnimplementedError(
        "a tar archive, as torch wrote before version 0.1.10: load and save it again with a newer one");
  }
  TensorTableFile result;
  if (IsZip(file)) {
    result.container = TensorContainer::kTorch;
    BW_ASSIGN_OR_RETURN(result.tensors, ParseTorchArchive(file));
  } else if (IsTorchLegacy(file)) {
    result.container = TensorContainer::kTorch;
    BW_ASSIGN_OR_RETURN(result.tensors, ParseTorchLegacy(file));
  } else if (const std::string other = DescribeForeignFile(file); !other.empty()) {
    return absl::InvalidArgumentError(other);
  } else {
    BW_ASSIGN_OR_RETURN(result.tensors, ParseSafetensors(file, &result.note));
  }
  return result;
}

absl::StatusOr<bool> HasTensorTable(const std::string& path) {
  BW_ASSIGN_OR_RETURN(const std::shared_ptr<const FileMapping> mapping, FileMapping::Open(path));
  const absl::Span<const std::byte> file = mapping->bytes();
  return IsZip(file) || IsTorchLegacy(file) || IsTar(file) || IsSafetensors(file);
}

}  // namespace bellwether
