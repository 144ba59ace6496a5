#include "model/checkpoint/weight_files.h"

#include <dirent.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <map>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/quote.h"
#include "common/status.h"
#include "model/checkpoint/file_mapping.h"
#include "model/checkpoint/foreign_file.h"
#include "model/json_object.h"

namespace bellwether {
namespace {

constexpr size_t kDirectoryEntriesMax = 100'000;
constexpr size_t kShardsMax = 4096;
constexpr size_t kIndexedTensorsMax = size_t{1} << 17;
constexpr size_t kNamedMax = 16;  // missing files, in a message
constexpr char kSuffix[] = ".safetensors";

// How transformers names the files of a container.
struct Convention {
  const char* suffix;
  const char* stem;  // of a single file, an index and numbered shards
};
constexpr Convention kSafetensors = {kSuffix, "model"};
constexpr Convention kTorch = {".bin", "pytorch_model"};
constexpr const char* kTorchSuffixes[] = {".bin", ".pt", ".pth", ".ckpt"};

// What trainers and adapters leave beside the weights, in the same containers.
constexpr std::string_view kNoWeights[] = {"adapter_model", "training_args", "optimizer",
                                           "scheduler",     "rng_state",     "consolidated"};

struct Container {
  const char* suffix;
  const char* means;
};
// Other containers will be read here; until then each is named.
constexpr Container kOthers[] = {
    {".enc",
     "as BELLE encrypts its LLaMA models: run bellwether convert xor --base consolidated.00.pth (of Meta's "
     "LLaMA) "
     "--model this directory --output a new one"},
    {".gguf", "a GGUF file: give its path instead of the directory's"},
    {".pth", "Meta's LLaMA weights: they are read with params.json beside them, and without config.json"},
    {".h5", "TensorFlow weights: convert them to safetensors"},
    {".msgpack", "Flax weights: convert them to safetensors"},
    {".onnx", "an ONNX graph: take the checkpoint it was made from"},
};

// Names of the files in a directory but hidden ones, sorted.
absl::StatusOr<std::vector<std::string>> ListFiles(const std::string& dir) {
  std::vector<std::string> names;
  DIR* stream = opendir(dir.c_str());
  if (stream == nullptr) return absl::ErrnoToStatus(errno, absl::StrCat("cannot list ", dir));
  while (const dirent* entry = readdir(stream)) {
    if (entry->d_name[0] != '.' && names.size() < kDirectoryEntriesMax) names.push_back(entry->d_name);
  }
  closedir(stream);
  std::sort(names.begin(), names.end());
  return names;
}

// Tensors by the file that holds them.
using Index = std::map<std::string, std::vector<std::string>>;

absl::StatusOr<Index> ReadIndex(const std::string& path) {
  BW_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path, kJsonBytesMax));
  const absl::StatusOr<Json> object = ParseJsonObject(text);
  if (!object.ok()) return Annotate(object.status(), path);
  const Json& map = (*object)["weight_map"];
  const auto wrong = [&](const std::string& what) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", what));
  };
  if (!map.is_object()) return wrong("no 'weight_map'");
  if (map.empty()) return wrong("an empty 'weight_map'");
  if (map.size() > kIndexedTensorsMax)
    return wrong(absl::StrCat("more than ", kIndexedTensorsMax, " tensors"));
  Index index;
  for (const auto& [tensor, file] : map.items()) {
    if (!file.is_string()) return wrong(absl::StrCat("no file for ", Quoted(tensor)));
    const std::string& name = file.text();
    if (name.empty() || name[0] == '.' || name.find('/') != std::string::npos ||
        name.find('\0') != std::string::npos) {
      return wrong(absl::StrCat(Quoted(name), " is not a file of this directory"));
    }
    index[name].push_back(tensor);
    if (index.size() > kShardsMax) return wrong(absl::StrCat("more than ", kShardsMax, " files"));
  }
  return index;
}

// Whether the Hugging Face hub's cache has it: a download may have been ended.
bool IsSnapshot(const std::string& dir) {
  std::error_code error;
  const std::string path = std::filesystem::absolute(dir, error).lexically_normal().string();
  return path.find("/snapshots/") != std::string::npos;
}

// Files that an index names are in its directory, all of them.
absl::Status CheckAreThere(const std::string& dir, const std::string& path, const Index& index) {
  std::vector<std::string> missing;
  for (const auto& [name, tensors] : index) {
    if (!FileExists(absl::StrCat(dir, "/", name))) missing.push_back(Quoted(name));
  }
  if (missing.empty()) return absl::OkStatus();
  const size_t count = missing.size();
  missing.resize(std::min(count, kNamedMax));
  return absl::NotFoundError(
      absl::StrCat(path, " names ", absl::StrJoin(missing, ", "),
                   count > kNamedMax ? absl::StrCat(" and ", count - kNamedMax, " more") : "", ", which ",
                   count > 1 ? "are" : "is", " not there; ",
                   IsSnapshot(dir) ? "the download of this snapshot is not complete"
                                   : "if other weights are meant, give their path"));
}

// Takes "-12" from the end of `text`; nothing if no such number is there.
std::optional<size_t> TakeNumber(std::string_view before, std::string_view& text) {
  const size_t start = text.find_last_not_of("0123456789") + 1;
  size_t number = 0;
  const auto [end, error] = std::from_chars(text.data() + start, text.data() + text.size(), number);
  if (error != std::errc() || start < before.size()) return std::nullopt;
  if (text.substr(start - before.size(), before.size()) != before) return std::nullopt;
  text.remove_suffix(text.size() - start + before.size());
  return number;
}

// One numbering: what precedes the numbers, and how many shards there should be.
using SetName = std::pair<std::string, size_t>;
// By number, from 1.
using Shards = std::map<size_t, std::string>;

std::string Describe(const SetName& set, const Convention& convention) {
  return absl::StrCat(set.first, "-*-of-", set.second, convention.suffix);
}

std::map<SetName, Shards> NumberedSets(const std::vector<std::string>& files, const Convention& convention) {
  std::map<SetName, Shards> sets;
  for (const std::string& file : files) {
    std::string_view name = file;
    if (!name.ends_with(convention.suffix)) continue;
    name.remove_suffix(std::string_view(convention.suffix).size());
    const std::optional<size_t> count = TakeNumber("-of-", name);
    const std::optional<size_t> number = count.has_value() ? TakeNumber("-", name) : std::nullopt;
    if (!number.has_value() || *number < 1 || *number > *count || *count > kShardsMax) continue;
    sets[{std::string(name), *count}].emplace(*number, file);
  }
  return sets;
}

// The one complete set of numbered shards; empty if no file is numbered.
absl::StatusOr<std::vector<std::string>> CompleteSet(const std::string& dir,
                                                     const std::vector<std::string>& files,
                                                     const Convention& convention) {
  const std::map<SetName, Shards> sets = NumberedSets(files, convention);
  if (sets.empty()) return std::vector<std::string>();
  std::vector<const std::pair<const SetName, Shards>*> complete, usual;
  for (const auto& set : sets) {
    if (set.second.size() != set.first.second) continue;
    complete.push_back(&set);
    if (set.first.first == convention.stem) usual.push_back(&set);
  }
  if (complete.empty()) {
    const auto& [name, shards] = *sets.begin();
    size_t missing = 1;
    while (shards.contains(missing)) ++missing;
    return absl::NotFoundError(
        absl::StrCat(dir, ": number ", missing, " of ", Describe(name, convention), " is missing"));
  }
  if (complete.size() > 1 && usual.size() != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat(dir, " holds both ", Describe(complete[0]->first, convention), " and ",
                     Describe(complete[1]->first, convention), ": leave one of them"));
  }
  std::vector<std::string> names;
  for (const auto& [number, name] : (usual.size() == 1 ? usual : complete)[0]->second) names.push_back(name);
  return names;
}

// The files of one container by transformers' names or their numbers; none are chosen if there are none.
absl::StatusOr<WeightFiles> ByConvention(const std::string& dir, const std::vector<std::string>& files,
                                         const Convention& convention) {
  const auto has = [&](const std::string& name) {
    return std::binary_search(files.begin(), files.end(), name);
  };
  const std::string single = absl::StrCat(convention.stem, convention.suffix);
  const std::string index = absl::StrCat(single, ".index.json");
  WeightFiles result;
  if (has(single)) {
    result.chosen = {single};
  } else if (has(index)) {
    const std::string path = absl::StrCat(dir, "/", index);
    BW_ASSIGN_OR_RETURN(result.tensors, ReadIndex(path));
    BW_RETURN_IF_ERROR(CheckAreThere(dir, path, result.tensors));
    for (const auto& [name, tensors] : result.tensors) result.chosen.push_back(name);
  } else {
    BW_ASSIGN_OR_RETURN(result.chosen, CompleteSet(dir, files, convention));
  }
  return result;
}

bool IsNoWeights(const std::string& file) {
  const auto begins = [&](std::string_view name) { return file.starts_with(name); };
  return std::any_of(std::begin(kNoWeights), std::end(kNoWeights), begins);
}

bool IsTorch(const std::string& file) {
  const auto ends = [&](const char* suffix) { return file.ends_with(suffix); };
  return std::any_of(std::begin(kTorchSuffixes), std::end(kTorchSuffixes), ends);
}

// Under other names: all files of safetensors, or the only one of torch.
absl::StatusOr<std::vector<std::string>> ByContainer(const std::string& dir,
                                                     const std::vector<std::string>& files) {
  std::vector<std::string> safetensors, torch;
  for (const std::string& file : files) {
    if (file.ends_with(kSuffix) && !file.starts_with("adapter_model")) safetensors.push_back(file);
    if (IsTorch(file) && !IsNoWeights(file)) torch.push_back(file);
  }
  if (safetensors.size() > kShardsMax) {
    return absl::InvalidArgumentError(absl::StrCat(dir, ": too many files"));
  }
  if (!safetensors.empty()) return safetensors;
  if (torch.size() == 1) return torch;
  if (torch.empty()) return RefuseOtherContainers(dir);
  return absl::InvalidArgumentError(absl::StrCat(dir, " holds both ", Quoted(torch[0]), " and ",
                                                 Quoted(torch[1]),
                                                 ": give the path of the one that is meant"));
}

absl::StatusOr<WeightFiles> Choose(const std::string& dir, const std::vector<std::string>& files) {
  for (const Convention& convention : {kSafetensors, kTorch}) {
    BW_ASSIGN_OR_RETURN(WeightFiles result, ByConvention(dir, files, convention));
    if (!result.chosen.empty()) return result;
  }
  WeightFiles result;
  BW_ASSIGN_OR_RETURN(result.chosen, ByContainer(dir, files));
  return result;
}

bool HoldsWeights(const std::string& file) {
  const auto is = [&](const Container& other) { return file.ends_with(other.suffix); };
  return file.ends_with(kSuffix) || IsTorch(file) || std::any_of(std::begin(kOthers), std::end(kOthers), is);
}

}  // namespace

absl::StatusOr<WeightFiles> FindWeightFiles(const std::string& dir) {
  BW_ASSIGN_OR_RETURN(const std::vector<std::string> files, ListFiles(dir));
  BW_ASSIGN_OR_RETURN(WeightFiles result, Choose(dir, files));
  std::sort(result.chosen.begin(), result.chosen.end());
  for (const std::string& file : files) {
    const bool chosen = std::binary_search(result.chosen.begin(), result.chosen.end(), file);
    if (!chosen && HoldsWeights(file)) result.passed_over.push_back(file);
  }
  return result;
}

absl::Status RefuseOtherContainers(const std::string& dir) {
  BW_ASSIGN_OR_RETURN(const std::vector<std::string> files, ListFiles(dir));
  for (const std::string& file : files) {
    if (!HoldsWeights(file)) continue;
    const auto mapping = FileMapping::Open(absl::StrCat(dir, "/", file));
    const std::string other = mapping.ok() ? DescribeForeignFile((*mapping)->bytes()) : "";
    if (!other.empty())
      return absl::UnimplementedError(absl::StrCat(dir, " holds ", Quoted(file), ", ", other));
  }
  for (const Container& other : kOthers) {
    for (const std::string& file : files) {
      if (!file.ends_with(other.suffix)) continue;
      return absl::UnimplementedError(
          absl::StrCat(dir, " holds ", Quoted(file), ", ", other.means,
                       ". Readable are directories with files of safetensors or torch, and .gguf files"));
    }
  }
  return absl::NotFoundError(absl::StrCat(
      dir, ": no weights; readable are directories with files of safetensors or torch, and .gguf files"));
}

}  // namespace bellwether
