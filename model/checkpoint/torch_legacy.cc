#include "model/checkpoint/torch_legacy.h"

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "common/quote.h"
#include "common/status.h"
#include "model/checkpoint/torch_pickle.h"
#include "model/checkpoint/torch_view.h"

namespace bellwether {
namespace {

// A pickle of the number 0x1950a86a20f9469cfc6c.
constexpr std::string_view kMagic("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15);
constexpr int64_t kVersion = 1001;

using StorageMap = absl::flat_hash_map<std::string_view, TorchStorage>;

// Reads what stands before each storage, from the byte `at` of the file on.
absl::StatusOr<StorageMap> PlaceStorages(absl::Span<const std::byte> file, uint64_t at,
                                         const std::vector<std::string_view>& keys,
                                         const std::vector<PickledStorage>& pickled) {
  absl::flat_hash_map<std::string_view, const PickledStorage*> known;
  for (const PickledStorage& storage : pickled) known.emplace(storage.key, &storage);
  StorageMap storages;
  for (const std::string_view key : keys) {
    const auto found = known.find(key);
    if (found == known.end())
      return absl::InvalidArgumentError(absl::StrCat("the storage ", Quoted(key), " is of no known type"));
    const uint64_t each = ElementBytes(found->second->dtype);
    int64_t elements = 0;
    if (file.size() - at < sizeof(elements))
      return absl::InvalidArgumentError(absl::StrCat("cut short before the storage ", Quoted(key)));
    std::memcpy(&elements, file.data() + at, sizeof(elements));
    at += sizeof(elements);
    if (elements < 0 || static_cast<uint64_t>(elements) > (file.size() - at) / each) {
      return absl::InvalidArgumentError(absl::StrCat("the storage ", Quoted(key), " of ", elements,
                                                     " elements reaches beyond the end of the file"));
    }
    const uint64_t bytes = static_cast<uint64_t>(elements) * each;
    if (!storages.emplace(key, TorchStorage{std::string(key), at, bytes}).second)
      return absl::InvalidArgumentError(absl::StrCat("the storage ", Quoted(key), " is there twice"));
    at += bytes;
  }
  return storages;
}

}  // namespace

bool IsTorchLegacy(absl::Span<const std::byte> file) {
  return std::string_view(reinterpret_cast<const char*>(file.data()), file.size()).starts_with(kMagic);
}

absl::StatusOr<std::vector<FileTensor>> ParseTorchLegacy(absl::Span<const std::byte> file) {
  if (!IsTorchLegacy(file)) return absl::InvalidArgumentError("no file of torch from before version 1.6");
  uint64_t at = kMagic.size();
  BW_ASSIGN_OR_RETURN(const PickledLegacyHeader header, ReadLegacyHeader(file.subspan(at)));
  if (header.version != kVersion || !header.little_endian) {
    return absl::UnimplementedError(
        absl::StrCat("torch's format ", header.version, header.little_endian ? "" : ", not little-endian,",
                     " cannot be read; format ", kVersion, " of little-endian machines can"));
  }
  at += header.bytes;
  BW_ASSIGN_OR_RETURN(const PickledState state, ReadTorchPickle(file.subspan(at)));
  at += state.bytes;
  BW_ASSIGN_OR_RETURN(const PickledKeys keys, ReadPickledKeys(file.subspan(at)));
  at += keys.bytes;
  BW_ASSIGN_OR_RETURN(const StorageMap storages, PlaceStorages(file, at, keys.keys, state.storages));
  std::vector<FileTensor> tensors;
  tensors.reserve(state.tensors.size());
  for (const NamedPickledTensor& named : state.tensors) {
    const auto storage = storages.find(named.tensor.storage);
    if (storage == storages.end()) return NoStorage(named);
    BW_ASSIGN_OR_RETURN(FileTensor tensor, PlaceView(named, storage->second));
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

}  // namespace bellwether
