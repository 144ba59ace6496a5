#pragma once

#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

// Files that tests write by hand. Test-only.

namespace bellwether::testing_files {

// A directory that is removed at the end of a test.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::error_code ignored;
    std::string name = (std::filesystem::temp_directory_path(ignored) / "bellwether-XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  const std::string& path() const { return path_; }
  std::string Write(const std::string& name, const std::string& bytes) const {
    const std::string path = path_ + "/" + name;
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }

 private:
  std::string path_;
};

template <typename T>
std::string Bytes(const T& value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof(value));
}

template <typename T>
std::string Bytes(const std::vector<T>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

// A safetensors file of this header and data.
inline std::string Safetensors(const std::string& header, const std::string& data) {
  return Bytes(uint64_t{header.size()}) + header + data;
}

// Collects tensors one after the other.
class SafetensorsWriter {
 public:
  void Add(const std::string& name, const std::string& dtype, const std::vector<int64_t>& shape,
           const std::string& data) {
    if (!header_.empty()) header_ += ",";
    absl::StrAppend(&header_, "\"", name, "\":{\"dtype\":\"", dtype, "\",\"shape\":[",
                    absl::StrJoin(shape, ","), "],\"data_offsets\":[", data_.size(), ",",
                    data_.size() + data.size(), "]}");
    data_ += data;
  }
  std::string file() const { return Safetensors("{" + header_ + "}", data_); }

 private:
  std::string header_, data_;
};

// Collects the parts of a GGUF file.
class GgufWriter {
 public:
  static std::string Text(const std::string& text) { return Bytes(uint64_t{text.size()}) + text; }

  // `value` as it stands in the file.
  void AddRaw(const std::string& key, uint32_t type, const std::string& value) {
    metadata_ += Text(key) + Bytes(type) + value;
    ++metadata_count_;
  }
  void Add(const std::string& key, uint32_t value) { AddRaw(key, 4, Bytes(value)); }
  void Add(const std::string& key, float value) { AddRaw(key, 6, Bytes(value)); }
  void Add(const std::string& key, bool value) { AddRaw(key, 7, Bytes(uint8_t{value})); }
  void Add(const std::string& key, const std::string& value) { AddRaw(key, 8, Text(value)); }
  void Add(const std::string& key, const std::vector<std::string>& values) {
    std::string text = Bytes(uint32_t{8}) + Bytes(uint64_t{values.size()});
    for (const std::string& value : values) text += Text(value);
    AddRaw(key, 9, text);
  }
  void Add(const std::string& key, const std::vector<float>& values) {
    AddRaw(key, 9, Bytes(uint32_t{6}) + Bytes(uint64_t{values.size()}) + Bytes(values));
  }
  void Add(const std::string& key, const std::vector<int32_t>& values) {
    AddRaw(key, 9, Bytes(uint32_t{5}) + Bytes(uint64_t{values.size()}) + Bytes(values));
  }

  // Sizes with columns first.
  void AddTensor(const std::string& name, uint32_t type, const std::vector<uint64_t>& sizes,
                 const std::string& data) {
    AddTensorAt(name, type, sizes, data_.size());
    data_ += data;
    data_.resize((data_.size() + 31) / 32 * 32);
  }
  void AddTensorAt(const std::string& name, uint32_t type, const std::vector<uint64_t>& sizes,
                   uint64_t offset) {
    tensors_ +=
        Text(name) + Bytes(static_cast<uint32_t>(sizes.size())) + Bytes(sizes) + Bytes(type) + Bytes(offset);
    ++tensor_count_;
  }

  std::string file(uint32_t version = 3) const {
    std::string header =
        "GGUF" + Bytes(version) + Bytes(tensor_count_) + Bytes(metadata_count_) + metadata_ + tensors_;
    header.resize((header.size() + 31) / 32 * 32);
    return header + data_;
  }

 private:
  uint64_t metadata_count_ = 0, tensor_count_ = 0;
  std::string metadata_, tensors_, data_;
};

}  // namespace bellwether::testing_files
