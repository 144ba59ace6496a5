#include "worker/model_source.h"

#include <filesystem>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/log.h"
#include "common/status.h"
#include "model/layout.h"
#include "model/shard_size.h"

namespace bellwether {
namespace {

namespace fs = std::filesystem;

bool LooksLikeModel(const fs::directory_entry& entry) {
  std::error_code ignored;  // what cannot be looked at is none
  if (!entry.is_directory(ignored)) return entry.path().extension() == ".gguf";
  return fs::exists(entry.path() / "config.json", ignored) ||
         fs::exists(entry.path() / "params.json", ignored);
}

}  // namespace

ModelSource::ModelSource(std::string model, std::string model_root, ReadOptions read)
    : model_(std::move(model)), model_root_(std::move(model_root)), read_(std::move(read)) {
  if (model_.empty()) return;
  opening_ = std::async(std::launch::async, [path = model_, read = read_] {
               return std::make_shared<const absl::StatusOr<Opened>>(Open(path, read));
             }).share();
}

absl::StatusOr<ModelSource::Opened> ModelSource::Open(const std::string& path, const ReadOptions& read) {
  Opened opened;
  BW_ASSIGN_OR_RETURN(opened.checkpoint, Checkpoint::Open(path, read));
  BW_ASSIGN_OR_RETURN(opened.id, opened.checkpoint->ModelId());
  return opened;
}

absl::StatusOr<std::string> ModelSource::ModelId() {
  if (model_.empty()) return std::string();
  const absl::StatusOr<Opened>& opened = *opening_.get();
  if (!opened.ok()) return opened.status();
  return opened->id;
}

absl::StatusOr<ReadingText> ModelSource::Reading() {
  if (model_.empty()) return ReadingText();
  const absl::StatusOr<Opened>& opened = *opening_.get();
  if (!opened.ok()) return opened.status();
  return opened->checkpoint->reading();
}

absl::StatusOr<int64_t> ModelSource::WholeBytes() {
  if (model_.empty()) return int64_t{0};
  const absl::StatusOr<Opened>& opened = *opening_.get();
  if (!opened.ok()) return opened.status();
  const Checkpoint& checkpoint = *opened->checkpoint;
  BW_ASSIGN_OR_RETURN(const Layout whole, EvenLayout(checkpoint.config(), /*stages=*/1, /*ranks=*/1));
  return ShardBytes(checkpoint.config(), CheckpointFormats(checkpoint), Quantize::kNone, whole.stages[0],
                    /*rank=*/0, {.first_stage = true, .last_stage = true});
}

absl::StatusOr<const Checkpoint*> ModelSource::Find(const std::string& model_id) {
  if (model_.empty()) return FindUnderRoot(model_id);
  const absl::StatusOr<Opened>& opened = *opening_.get();
  if (!opened.ok()) return opened.status();
  if (opened->id == model_id) return opened->checkpoint.get();
  return absl::FailedPreconditionError(absl::StrCat("the coordinator serves the model with id ", model_id,
                                                    ", but ", model_, " has id ", opened->id));
}

absl::StatusOr<const Checkpoint*> ModelSource::FindUnderRoot(const std::string& model_id) {
  std::error_code error;
  int seen = 0;
  for (fs::directory_iterator entry(model_root_, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string path = entry->path().string();
    if (!LooksLikeModel(*entry)) continue;
    ++seen;
    auto at = under_root_.find(path);
    if (at == under_root_.end()) {
      absl::StatusOr<Opened> opened = Open(path, read_);
      if (!opened.ok()) {
        LogWarning("passed over ", path, ": ", opened.status().message());
        continue;
      }
      at = under_root_.emplace(path, *std::move(opened)).first;
    }
    if (at->second.id == model_id) return at->second.checkpoint.get();
  }
  if (error) return absl::NotFoundError(absl::StrCat("cannot read ", model_root_, ": ", error.message()));
  const std::vector<std::string> flags = FlagsOf(read_);
  return absl::NotFoundError(
      absl::StrCat("none of the ", seen, " checkpoints in ", model_root_,
                   flags.empty() ? "" : absl::StrCat(", read with ", absl::StrJoin(flags, " "), ","),
                   " has the id ", model_id, " that the coordinator serves"));
}

}  // namespace bellwether
