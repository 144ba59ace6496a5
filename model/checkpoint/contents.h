#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "common/generation_options.h"
#include "model/checkpoint/adjustment.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/file_mapping.h"
#include "model/checkpoint/quantized_linear.h"
#include "model/checkpoint/read_options.h"
#include "model/checkpoint/row_map.h"
#include "model/checkpoint/storage_type.h"
#include "model/tokenizer/tokenizer.h"

namespace bellwether {

// Pseudo-random values: center + scale * (an integer drawn from seed, row and column); see
// model/random_checkpoint.h.
struct RandomValues {
  uint64_t seed = 0;
  float center = 0;
  float scale = 0;
};

// Elements from one row, and from one column, to the next.
struct Strides {
  int64_t row = 0;
  int64_t col = 0;
};

// Where a tensor is and how to read it. A new container only fills these in.
struct StoredTensor {
  TensorInfo info;
  // In a file ...
  std::shared_ptr<const FileMapping> file;
  StorageType storage = StorageType::kF32;
  uint64_t offset = 0;  // of the file's tensor, which may hold the rows of others too (fused query-key-value)
  uint64_t bytes = 0;   // of the file's tensor
  RowMap rows;
  std::optional<Strides> strides;  // of plain numbers that do not follow each other without gaps
  bool vector_mapped = false;      // a vector whose elements, not rows, are placed by `rows`; never quantised
  // What is added to floats as they are read; then they are rounded.
  std::vector<std::shared_ptr<const Adjustment>> adjustments;
  bool rounded = false;  // floats that are rounded to info.format as they are read
  // ... or in pieces of files, whose outputs `rows` places; may be shared by tensors ...
  std::shared_ptr<const QuantizedLinear> linear;
  // ... or, instead of a file of its own, in equal parts of its rows or its columns, in order, whose type
  // `storage` is and among whose rows `rows` finds its own ...
  std::vector<StoredTensor> parts;
  bool parts_are_columns = false;
  // ... or made up.
  RandomValues random;

  bool made_up() const { return file == nullptr && linear == nullptr && parts.empty(); }
};

// Where the tokenizer is found: in the files of a directory, or in what the model's own file says of it.
struct TokenizerSource {
  std::string directory;
  std::function<absl::StatusOr<GgufVocabulary>()> vocabulary;  // instead, unless null
};

// What an opened checkpoint consists of.
struct CheckpointContents {
  std::string path;
  std::string config_directory;  // of config.json and its like; empty where there is none
  std::string container;
  ModelConfig config;
  absl::flat_hash_map<TensorKey, StoredTensor> tensors;  // exactly those of ExpectedTensors(config)
  ReadingText reading;                                   // what else than the files decided on the tensors
  std::string chat_template_text;
  std::string model_name;
  GenerationOptions generation_defaults;
  TokenizerSource tokenizer;  // empty if there is none
  std::string note;           // what `bellwether convert` has done to the weights, as its files say
  // What looks wrong and cannot be told for certain: logged once, when it is opened.
  std::vector<std::string> warnings;
};

// Adds to what was done to the weights.
void AddNote(const std::string& note, std::string& notes);

}  // namespace bellwether
