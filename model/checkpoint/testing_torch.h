#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/checkpoint/testing_files.h"

// Files of torch that tests write by hand. Test-only.

namespace bellwether::testing_files {

// Collects the entries of a zip archive, stored and aligned as torch does it.
class ZipWriter {
 public:
  struct Options {
    uint16_t method = 0;
    uint16_t flags = 0;
    bool zip64 = false;  // sizes and place stand in the ZIP64 part
  };
  void Add(const std::string& name, const std::string& data) { Add(name, data, Options()); }
  void Add(const std::string& name, const std::string& data, const Options& options) {
    AddToDirectory(name, data_.size(), data.size(), options);
    const size_t unpadded = data_.size() + 30 + name.size() + 4;
    const std::string padding((64 - unpadded % 64) % 64, 'Z');
    data_ += Bytes(uint32_t{0x04034b50}) + Bytes(uint16_t{0}) + Bytes(options.flags) + Bytes(options.method) +
             std::string(16, '\0') + Bytes(static_cast<uint16_t>(name.size())) +
             Bytes(static_cast<uint16_t>(4 + padding.size())) + name + "FB" +
             Bytes(static_cast<uint16_t>(padding.size())) + padding + data;
  }
  // An entry of the directory without data of its own.
  void AddToDirectory(const std::string& name, uint64_t place, uint64_t size, const Options& options) {
    const std::string extra =
        Bytes(uint16_t{1}) + Bytes(uint16_t{24}) + Bytes(size) + Bytes(size) + Bytes(place);
    const uint32_t size32 = options.zip64 ? 0xffffffff : static_cast<uint32_t>(size);
    const uint32_t place32 = options.zip64 ? 0xffffffff : static_cast<uint32_t>(place);
    directory_ += Bytes(uint32_t{0x02014b50}) + std::string(4, '\0') + Bytes(options.flags) +
                  Bytes(options.method) + std::string(8, '\0') + Bytes(size32) + Bytes(size32) +
                  Bytes(static_cast<uint16_t>(name.size())) +
                  Bytes(static_cast<uint16_t>(options.zip64 ? extra.size() : 0)) + std::string(10, '\0') +
                  Bytes(place32) + name + (options.zip64 ? extra : "");
    ++count_;
  }
  // `zip64`: the end record leaves its numbers to a ZIP64 one.
  std::string file(bool zip64 = false) const {
    const uint64_t size = directory_.size(), place = data_.size();
    std::string end;
    if (zip64) {
      const uint64_t record = place + size;
      end = Bytes(uint32_t{0x06064b50}) + Bytes(uint64_t{44}) + std::string(12, '\0') +
            Bytes(uint64_t{count_}) + Bytes(uint64_t{count_}) + Bytes(size) + Bytes(place) +
            Bytes(uint32_t{0x07064b50}) + std::string(4, '\0') + Bytes(record) + Bytes(uint32_t{1});
    }
    const auto count = static_cast<uint16_t>(zip64 ? 0xffff : count_);
    end += Bytes(uint32_t{0x06054b50}) + std::string(4, '\0') + Bytes(count) + Bytes(count) +
           Bytes(static_cast<uint32_t>(zip64 ? 0xffffffff : size)) +
           Bytes(static_cast<uint32_t>(zip64 ? 0xffffffff : place)) + std::string(2, '\0');
    return data_ + directory_ + end;
  }

 private:
  std::string data_, directory_;
  uint64_t count_ = 0;
};

// Parts of a pickle.
namespace pickle {

inline std::string Text(const std::string& text) {
  return "X" + Bytes(static_cast<uint32_t>(text.size())) + text;
}
inline std::string Integer(int64_t value) { return "\x8a\x08" + Bytes(value); }
inline std::string Global(const std::string& module, const std::string& name) {
  return absl::StrCat("c", module, "\n", name, "\n");
}
inline std::string Tuple(const std::vector<std::string>& items) {
  std::string tuple = "(";
  for (const std::string& item : items) tuple += item;
  return tuple + "t";
}
inline std::string Integers(const std::vector<int64_t>& values) {
  std::vector<std::string> items;
  for (const int64_t value : values) items.push_back(Integer(value));
  return Tuple(items);
}
inline std::string Call(const std::string& function, const std::vector<std::string>& arguments) {
  return function + Tuple(arguments) + "R";
}
inline std::string Dict(const std::vector<std::pair<std::string, std::string>>& members) {
  std::string dict = "}(";
  for (const auto& [key, value] : members) dict += Text(key) + value;
  return dict + "u";
}
// As torch.save writes a state dict, with the attribute that nobody needs.
inline std::string OrderedDict(const std::vector<std::pair<std::string, std::string>>& members) {
  std::string dict = Call(Global("collections", "OrderedDict"), {}) + "(";
  for (const auto& [key, value] : members) dict += Text(key) + value;
  return dict + "u}" + Text("_metadata") + "}sb";
}
inline std::string Storage(const std::string& type, const std::string& key, int64_t elements) {
  return Tuple({Text("storage"), Global("torch", type), Text(key), Text("cuda:0"), Integer(elements)}) + "Q";
}
inline std::string Tensor(const std::string& storage, int64_t first, const std::vector<int64_t>& shape,
                          const std::vector<int64_t>& strides) {
  return Call(Global("torch._utils", "_rebuild_tensor_v2"),
              {storage, Integer(first), Integers(shape), Integers(strides), "\x89",
               Call(Global("collections", "OrderedDict"), {})});
}
inline std::string Whole(const std::string& value) { return "\x80\x02" + value + "."; }

}  // namespace pickle

// A file of torch.save of this pickle and these storages.
inline std::string TorchFile(const std::string& pickle, const std::map<std::string, std::string>& storages) {
  ZipWriter zip;
  zip.Add("archive/data.pkl", pickle);
  zip.Add("archive/byteorder", "little");
  for (const auto& [key, data] : storages) zip.Add("archive/data/" + key, data);
  zip.Add("archive/version", "3\n");
  return zip.file();
}

}  // namespace bellwether::testing_files
