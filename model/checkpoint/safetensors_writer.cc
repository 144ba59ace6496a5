#include "model/checkpoint/safetensors_writer.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/json.h"
#include "common/new_file.h"
#include "common/status.h"
#include "model/checkpoint/safetensors.h"

namespace bellwether {
namespace {

using Tensors = absl::Span<const OutputTensor>;

// As many as fit a shard, and at least one.
Tensors TakeShard(int64_t shard_bytes, Tensors& tensors) {
  int64_t bytes = 0;
  size_t count = 0;
  for (; count < tensors.size(); ++count) {
    bytes += tensors[count].bytes;
    if (count > 0 && bytes > shard_bytes) break;
  }
  const Tensors shard = tensors.first(count);
  tensors.remove_prefix(count);
  return shard;
}

std::string Header(Tensors tensors, const std::string& note) {
  Json::Object header = {{"__metadata__", Json::object({{"format", "pt"}})}};
  if (!note.empty()) header[0].second[kSafetensorsNote] = note;
  int64_t at = 0;
  for (const OutputTensor& tensor : tensors) {
    header.emplace_back(tensor.name, Json::object({{"dtype", tensor.dtype},
                                                   {"shape", Json(tensor.shape)},
                                                   {"data_offsets", Json::array({at, at + tensor.bytes})}}));
    at += tensor.bytes;
  }
  std::string text = WriteJson(Json(std::move(header)));
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const auto length = static_cast<uint64_t>(text.size());
  return std::string(reinterpret_cast<const char*>(&length), sizeof(length)) + text;
}

absl::Status AppendText(const std::string& text, NewFile& file) {
  return file.Append({reinterpret_cast<const std::byte*>(text.data()), text.size()});
}

class Writer {
 public:
  Writer(const SafetensorsOptions& options, int64_t all) : options_(options), all_(all) {}

  absl::Status WriteFile(const std::string& name, Tensors tensors) {
    BW_ASSIGN_OR_RETURN(NewFile file, NewFile::Create(absl::StrCat(options_.directory, "/", name)));
    BW_RETURN_IF_ERROR(AppendText(Header(tensors, options_.note), file));
    const ByteSink sink = [&](absl::Span<const std::byte> bytes) { return Append(bytes, file); };
    for (const OutputTensor& tensor : tensors) BW_RETURN_IF_ERROR(tensor.write(sink));
    return file.Finish();
  }

 private:
  absl::Status Append(absl::Span<const std::byte> bytes, NewFile& file) {
    BW_RETURN_IF_ERROR(file.Append(bytes));
    done_ += static_cast<int64_t>(bytes.size());
    if (options_.progress && !options_.progress(done_, all_)) return absl::CancelledError("stopped");
    return absl::OkStatus();
  }

  const SafetensorsOptions& options_;
  const int64_t all_;
  int64_t done_ = 0;
};

}  // namespace

absl::Status WriteNewText(const std::string& path, const std::string& text) {
  BW_ASSIGN_OR_RETURN(NewFile file, NewFile::Create(path));
  BW_RETURN_IF_ERROR(AppendText(text, file));
  return file.Finish();
}

absl::Status WriteSafetensors(const std::vector<OutputTensor>& tensors, const SafetensorsOptions& options) {
  int64_t all = 0;
  for (const OutputTensor& tensor : tensors) all += tensor.bytes;
  std::vector<Tensors> shards;
  for (Tensors rest = tensors; !rest.empty();) shards.push_back(TakeShard(options.shard_bytes, rest));
  Writer writer(options, all);
  if (shards.size() == 1) return writer.WriteFile("model.safetensors", shards[0]);
  Json::Object places;
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = absl::StrFormat("model-%05d-of-%05d.safetensors", i + 1, shards.size());
    for (const OutputTensor& tensor : shards[i]) places.emplace_back(tensor.name, name);
    BW_RETURN_IF_ERROR(writer.WriteFile(name, shards[i]));
  }
  const Json index = Json::object(
      {{"metadata", Json::object({{"total_size", all}})}, {"weight_map", Json(std::move(places))}});
  return WriteNewText(options.directory + "/model.safetensors.index.json",
                      WriteJson(index, /*indent=*/2) + "\n");
}

}  // namespace bellwether
