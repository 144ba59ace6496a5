#include "model/checkpoint/open_contents.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "common/status.h"
#include "model/checkpoint/billa.h"
#include "model/checkpoint/dequantize.h"
#include "model/checkpoint/ggml_checkpoint.h"
#include "model/checkpoint/gguf_checkpoint.h"
#include "model/checkpoint/hub_cache.h"
#include "model/checkpoint/hugging_face.h"
#include "model/checkpoint/lora.h"
#include "model/checkpoint/meta_llama.h"
#include "model/checkpoint/tensor_table_file.h"
#include "model/random_checkpoint.h"

namespace bellwether {
namespace {

absl::StatusOr<CheckpointContents> OpenPath(const std::string& path, const GptqOptions& gptq) {
  if (absl::StartsWith(path, kRandomPrefix)) return MakeRandomContents(path);
  struct stat info;
  if (stat(path.c_str(), &info) != 0)
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot open model ", path));
  if (S_ISDIR(info.st_mode))
    return IsMetaLlama(path) ? OpenMetaLlama(path) : OpenHuggingFaceDirectory(path, gptq);
  BW_ASSIGN_OR_RETURN(const bool has_table, HasTensorTable(path));
  const std::filesystem::path file_path = path;
  const std::string dir = file_path.has_parent_path() ? file_path.parent_path().string() : ".";
  // One shard of Meta's stands for all.
  if (has_table && file_path.filename().string().starts_with("consolidated.") && IsMetaLlama(dir))
    return OpenMetaLlama(dir);
  if (has_table) return OpenHuggingFaceFile(path, gptq);
  BW_ASSIGN_OR_RETURN(const std::shared_ptr<const FileMapping> file, FileMapping::Open(path));
  return IsGgml(file->bytes()) ? OpenGgmlCheckpoint(path) : OpenGgufCheckpoint(path);
}

// The flags of GPTQ ask for a model that it quantised.
absl::Status SettleGptq(const GptqOptions& gptq, CheckpointContents& contents) {
  if (gptq.bits.has_value()) contents.reading["gptq-bits"] = absl::StrCat(*gptq.bits);
  if (gptq.group.has_value()) contents.reading["gptq-group"] = absl::StrCat(*gptq.group);
  const bool quantized = std::any_of(contents.tensors.begin(), contents.tensors.end(),
                                     [](const auto& entry) { return entry.second.linear != nullptr; });
  if (quantized || (!gptq.bits.has_value() && !gptq.group.has_value())) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(contents.path, " has no matrices of GPTQ, which --gptq-bits and --gptq-group are for"));
}

}  // namespace

absl::StatusOr<CheckpointContents> OpenContents(const std::string& model, const ReadOptions& options) {
  BW_ASSIGN_OR_RETURN(const std::string path, ResolveModel(model));
  BW_ASSIGN_OR_RETURN(CheckpointContents contents, OpenPath(path, options.gptq));
  BW_RETURN_IF_ERROR(SettleGptq(options.gptq, contents));
  BW_RETURN_IF_ERROR(options.billa_base.empty()
                         ? CheckNeedsNoBase(contents)
                         : SubtractBase(options.billa_base, options.billa_force, contents));
  for (LoraOption lora : options.lora) {
    BW_ASSIGN_OR_RETURN(lora.path, ResolveModel(lora.path));
    BW_RETURN_IF_ERROR(MergeLora(lora, contents));
  }
  if (options.dtype.has_value()) {
    RoundFloatTensors(*options.dtype, contents);
    contents.reading["dtype"] = LoadDTypeName(*options.dtype);
  }
  for (const std::string& warning : contents.warnings) LogWarning(warning);
  return contents;
}

void AddNote(const std::string& note, std::string& notes) {
  if (note.empty() || absl::StrContains(notes, note)) return;
  absl::StrAppend(&notes, notes.empty() ? "" : "; ", note);
}

}  // namespace bellwether
