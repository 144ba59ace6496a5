#include "cli/convert.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/stop.h"
#include "cli/terminal.h"
#include "common/format_bytes.h"
#include "common/output.h"
#include "common/quote.h"
#include "common/status.h"
#include "model/checkpoint/billa.h"
#include "model/checkpoint/encrypted_file.h"
#include "model/checkpoint/export_safetensors.h"
#include "model/checkpoint/open_contents.h"
#include "model/model_names.h"

namespace bellwether {
namespace {

namespace fs = std::filesystem;

// A line that changes with each percent.
class PercentLine {
 public:
  bool Show(const std::string& what, int64_t done, int64_t all) {
    const int64_t percent = all > 0 ? done * 100 / all : 100;
    if (percent != shown_ || what != what_) {
      line_.Show(absl::StrFormat("%s: %d %% of %s", what, percent, FormatBytes(static_cast<double>(all))));
    }
    shown_ = percent;
    what_ = what;
    return !StopRequested();
  }

 private:
  StatusLine line_;
  int64_t shown_ = -1;
  std::string what_;
};

struct Encrypted {
  std::string path;
  EncryptedName name;
  int64_t bytes = 0;
};

// The encrypted files of a directory, or the one at `input`; small ones first, as they show a wrong base
// soon.
absl::StatusOr<std::vector<Encrypted>> FindEncrypted(const std::string& input) {
  std::error_code error;
  std::vector<fs::path> paths = {input};
  if (fs::is_directory(input, error)) {
    paths.clear();
    for (fs::directory_iterator entry(input, error), end; !error && entry != end; entry.increment(error))
      paths.push_back(entry->path());
  }
  if (error) return absl::NotFoundError(absl::StrCat("cannot read ", input, ": ", error.message()));
  std::vector<Encrypted> files;
  for (const fs::path& path : paths) {
    const auto name = ParseEncryptedName(path.filename().string());
    if (!name.has_value()) continue;
    const uintmax_t bytes = fs::file_size(path, error);
    if (error) return absl::NotFoundError(absl::StrCat("cannot read ", path.string(), ": ", error.message()));
    files.push_back({path.string(), *name, static_cast<int64_t>(bytes)});
  }
  if (files.empty())
    return absl::NotFoundError(absl::StrCat(input, ": no files called NAME.<64 hex digits>.enc"));
  std::sort(files.begin(), files.end(), [](const Encrypted& a, const Encrypted& b) {
    return std::pair(a.bytes, a.path) < std::pair(b.bytes, b.path);
  });
  return files;
}

absl::Status ConvertXor(const ConvertOptions& options) {
  BW_ASSIGN_OR_RETURN(const std::vector<Encrypted> files, FindEncrypted(options.model));
  BW_ASSIGN_OR_RETURN(const XorKey key, XorKey::Open(options.base));
  std::error_code error;
  fs::create_directories(options.output, error);
  if (error) return absl::UnknownError(absl::StrCat("cannot make ", options.output, ": ", error.message()));
  PercentLine line;
  int written = 0, there = 0;
  for (const Encrypted& file : files) {
    const auto progress = [&](int64_t done) {
      return line.Show(Printable(file.name.plain), done, file.bytes);
    };
    const absl::Status status =
        DecryptFile(file.path, key, absl::StrCat(options.output, "/", file.name.plain), progress);
    if (absl::IsAlreadyExists(status)) {
      ++there;
      continue;
    }
    BW_RETURN_IF_ERROR(status);
    ++written;
  }
  return WriteOutput(absl::StrCat(written, " files written to ", Printable(options.output), ", ", there,
                                  " were there already; all hashes are right\n"));
}

absl::Status Export(CheckpointContents contents, const ConvertOptions& options, const std::string& note) {
  PercentLine line;
  BW_RETURN_IF_ERROR(ExportSafetensors(std::move(contents), {.directory = options.output,
                                                             .note = note,
                                                             .dequantize = options.dequantize,
                                                             .progress = [&](int64_t done, int64_t all) {
                                                               return line.Show("writing", done, all);
                                                             }}));
  return WriteOutput(absl::StrCat("written to ", Printable(options.output), "\n"));
}

absl::Status ConvertBilla(const ConvertOptions& options) {
  ReadOptions read{.billa_base = options.base, .billa_force = options.force};
  BW_ASSIGN_OR_RETURN(CheckpointContents contents, OpenContents(options.model, read));
  BW_ASSIGN_OR_RETURN(const double sum, EmbeddingSum(contents.tensors.at(TensorKey{TensorRole::kEmbedding})));
  const bool published = std::abs(sum - kBillaSftSum) <= kBillaSftTolerance;
  const std::vector<std::string> names = ModelNames(options.model);
  const bool is_sft = std::any_of(names.begin(), names.end(), [](const std::string& name) {
    return NameWords(name).Have({"billa", "7b", "sft"});
  });
  const std::string words =
      absl::StrFormat("the embedding's sum is %.6f, that published of BiLLa-7B-SFT %.6f", sum, kBillaSftSum);
  if (is_sft && !published && !options.force) {
    return absl::InvalidArgumentError(absl::StrCat(
        words, ": the base is another model's, or a file is damaged; --force converts it anyway"));
  }
  BW_RETURN_IF_ERROR(WriteOutput(absl::StrCat(words, published ? ": right\n" : "\n")));
  return Export(std::move(contents), options, /*note=*/"");
}

absl::Status CheckFlags(const ConvertOptions& options) {
  const bool needs_base = options.kind != "safetensors";
  if (options.model.empty()) return absl::InvalidArgumentError("--model is missing: what is to be converted");
  if (options.output.empty()) return absl::InvalidArgumentError("--output is missing: a directory");
  if (needs_base && options.base.empty())
    return absl::InvalidArgumentError("--base is missing: consolidated.00.pth of Meta's LLaMA");
  if (!needs_base && !options.base.empty()) return absl::InvalidArgumentError("--base is for xor and billa");
  if (options.force && options.kind != "billa") return absl::InvalidArgumentError("--force is for billa");
  std::vector<std::string> others = FlagsOf(options.read);
  if (options.dequantize.has_value()) others.push_back("--dequantize");
  if (needs_base && !others.empty())
    return absl::InvalidArgumentError(absl::StrCat(others.front(), " is for convert safetensors"));
  std::error_code error;
  if (fs::equivalent(options.model, options.output, error))
    return absl::InvalidArgumentError("--output is what is converted: give another directory");
  return absl::OkStatus();
}

}  // namespace

absl::Status RunConvert(const ConvertOptions& options) {
  BW_RETURN_IF_ERROR(CheckFlags(options));
  WatchStopSignals();
  if (options.kind == "xor") return ConvertXor(options);
  if (options.kind == "billa") return ConvertBilla(options);
  BW_ASSIGN_OR_RETURN(CheckpointContents contents, OpenContents(options.model, options.read));
  const std::string note = options.dequantize.has_value() ? "dequantised from " + contents.container : "";
  return Export(std::move(contents), options, note);
}

}  // namespace bellwether
