#include "model/checkpoint/torch_archive.h"

#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "common/quote.h"
#include "common/status.h"
#include "model/checkpoint/torch_pickle.h"
#include "model/checkpoint/torch_view.h"
#include "model/checkpoint/zip.h"

namespace bellwether {
namespace {

constexpr std::string_view kPickleName = "/data.pkl";
constexpr std::string_view kByteOrderName = "/byteorder";

using EntryMap = absl::flat_hash_map<std::string, const ZipEntry*>;

// The archive's one folder, named as whoever saved it liked.
absl::StatusOr<std::string> FindFolder(const std::vector<ZipEntry>& entries) {
  std::optional<std::string> found;
  for (const ZipEntry& entry : entries) {
    const size_t slash = entry.name.find('/');
    if (slash == std::string::npos || entry.name.substr(slash) != kPickleName) continue;
    std::string folder = entry.name.substr(0, slash);
    if (found.has_value()) {
      return absl::InvalidArgumentError(absl::StrCat("the folders ", Quoted(*found), " and ", Quoted(folder),
                                                     " hold a data.pkl each; torch writes one"));
    }
    found = std::move(folder);
  }
  if (found.has_value()) return *std::move(found);
  return absl::InvalidArgumentError("a zip archive without a data.pkl, so torch did not save it");
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
  BW_ASSIGN_OR_RETURN(const PickledState state, ReadTorchPickle(file.subspan(pickle.offset, pickle.bytes)));
  std::vector<FileTensor> tensors;
  tensors.reserve(state.tensors.size());
  for (const NamedPickledTensor& named : state.tensors) {
    const auto entry = by_name.find(absl::StrCat(folder, "/data/", std::string(named.tensor.storage)));
    if (entry == by_name.end()) return NoStorage(named);
    const ZipEntry& storage = *entry->second;
    BW_ASSIGN_OR_RETURN(FileTensor tensor, PlaceView(named, {storage.name, storage.offset, storage.bytes}));
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

}  // namespace bellwether
