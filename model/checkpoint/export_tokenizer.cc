#include "model/checkpoint/export_tokenizer.h"

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "model/checkpoint/file_mapping.h"
#include "model/checkpoint/safetensors_writer.h"
#include "model/tokenizer/write_vocabulary.h"

namespace bellwether {
namespace {

namespace fs = std::filesystem;

constexpr const char* kTokenizerFiles[] = {"tokenizer.json",        "tokenizer.model",
                                           "tokenizer_config.json", "special_tokens_map.json",
                                           "added_tokens.json",     "chat_template.jinja"};

absl::Status CopyIfThere(const std::string& name, const std::string& from, const std::string& to) {
  const std::string source = absl::StrCat(from, "/", name), copy = absl::StrCat(to, "/", name);
  if (from.empty() || !FileExists(source)) return absl::OkStatus();
  std::error_code error;
  fs::copy_file(source, copy, fs::copy_options::none, error);
  if (!error) return absl::OkStatus();
  return absl::UnknownError(absl::StrCat("cannot copy ", source, " to ", copy, ": ", error.message()));
}

absl::Status WriteMade(const CheckpointContents& contents, const std::string& directory) {
  absl::StatusOr<GgufVocabulary> vocabulary = contents.tokenizer.vocabulary();
  if (absl::IsNotFound(vocabulary.status())) return absl::OkStatus();
  BW_RETURN_IF_ERROR(vocabulary.status());
  const auto files = WriteVocabulary(*std::move(vocabulary), contents.chat_template_text);
  BW_RETURN_IF_ERROR(files.status());
  for (const TokenizerFile& file : *files)
    BW_RETURN_IF_ERROR(WriteNewText(absl::StrCat(directory, "/", file.name), file.text));
  return absl::OkStatus();
}

}  // namespace

absl::Status ExportTokenizer(const CheckpointContents& contents, const std::string& directory) {
  BW_RETURN_IF_ERROR(CopyIfThere("generation_config.json", contents.config_directory, directory));
  if (contents.tokenizer.vocabulary != nullptr)
    return Annotate(WriteMade(contents, directory), contents.path);
  for (const char* name : kTokenizerFiles)
    BW_RETURN_IF_ERROR(CopyIfThere(name, contents.tokenizer.directory, directory));
  return absl::OkStatus();
}

}  // namespace bellwether
