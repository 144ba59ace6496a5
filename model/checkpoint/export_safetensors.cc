#include "model/checkpoint/export_safetensors.h"

#include <filesystem>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/json.h"
#include "common/status.h"
#include "model/checkpoint/dequantize.h"
#include "model/checkpoint/export_config.h"
#include "model/checkpoint/export_tensors.h"
#include "model/checkpoint/export_tokenizer.h"
#include "model/checkpoint/input_order.h"
#include "model/checkpoint/safetensors_writer.h"

namespace bellwether {
namespace {

namespace fs = std::filesystem;

absl::Status WriteConfigs(const Json& config, const std::string& directory) {
  constexpr int kIndent = 2;
  BW_RETURN_IF_ERROR(WriteNewText(directory + "/config.json", WriteJson(config, kIndent) + "\n"));
  const Json& settings = config["quantization_config"];
  if (settings["quant_method"] != "gptq") return absl::OkStatus();
  return WriteNewText(directory + "/quantize_config.json", WriteJson(settings, kIndent) + "\n");
}

}  // namespace

absl::Status ExportSafetensors(CheckpointContents contents, const ExportOptions& options) {
  if (contents.container == "random") {
    return absl::UnimplementedError(
        absl::StrCat(contents.path, ": made-up weights; those of files can be written"));
  }
  UndoInputOrders(contents.tensors);
  if (options.dequantize.has_value()) Dequantize(*options.dequantize, contents);
  const bool dequantized = options.dequantize.has_value();
  BW_ASSIGN_OR_RETURN(const std::vector<OutputTensor> tensors, OutputTensors(contents, dequantized));
  const absl::StatusOr<Json> config = OutputConfig(contents, dequantized);
  if (!config.ok()) return Annotate(config.status(), contents.path);
  std::error_code error;
  fs::create_directories(options.directory, error);
  if (error)
    return absl::UnknownError(absl::StrCat("cannot make ", options.directory, ": ", error.message()));
  BW_RETURN_IF_ERROR(WriteConfigs(*config, options.directory));
  BW_RETURN_IF_ERROR(ExportTokenizer(contents, options.directory));
  AddNote(options.note, contents.note);
  return WriteSafetensors(tensors, {.directory = options.directory,
                                    .note = contents.note,
                                    .shard_bytes = options.shard_bytes,
                                    .progress = options.progress});
}

}  // namespace bellwether
