#include "model/checkpoint/open_contents.h"

#include <sys/stat.h>

#include <cerrno>
#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "model/checkpoint/ggml_checkpoint.h"
#include "model/checkpoint/gguf_checkpoint.h"
#include "model/checkpoint/hub_cache.h"
#include "model/checkpoint/hugging_face.h"
#include "model/checkpoint/meta_llama.h"
#include "model/checkpoint/tensor_table_file.h"
#include "model/random_checkpoint.h"

namespace bellwether {

absl::StatusOr<CheckpointContents> OpenContents(const std::string& model) {
  BW_ASSIGN_OR_RETURN(const std::string path, ResolveModel(model));
  if (absl::StartsWith(path, kRandomPrefix)) return MakeRandomContents(path);
  struct stat info;
  if (stat(path.c_str(), &info) != 0)
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot open model ", path));
  if (S_ISDIR(info.st_mode)) return IsMetaLlama(path) ? OpenMetaLlama(path) : OpenHuggingFaceDirectory(path);
  BW_ASSIGN_OR_RETURN(const bool has_table, HasTensorTable(path));
  const std::filesystem::path file_path = path;
  const std::string dir = file_path.has_parent_path() ? file_path.parent_path().string() : ".";
  // One shard of Meta's stands for all.
  if (has_table && file_path.filename().string().starts_with("consolidated.") && IsMetaLlama(dir))
    return OpenMetaLlama(dir);
  if (has_table) return OpenHuggingFaceFile(path);
  BW_ASSIGN_OR_RETURN(const std::shared_ptr<const FileMapping> file, FileMapping::Open(path));
  return IsGgml(file->bytes()) ? OpenGgmlCheckpoint(path) : OpenGgufCheckpoint(path);
}

}  // namespace bellwether
