// GPTQ's checkpoints on many layouts: groups of inputs in the order of activations, which no slice and no
// head respects, must come out the same on each.

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "kernels/kernels.h"
#include "model/checkpoint/testing_files.h"
#include "model/shard_size.h"
#include "tests/layouts/engine_driver.h"
#include "tests/layouts/local_cluster.h"
#include "worker/device/cpu_device.h"
#include "worker/device/testing/far_device.h"
#include "worker/weights/loaded_shard.h"
#include "worker/weights/shard_loader.h"

namespace bellwether {
namespace {

using testing_files::Bytes;
using testing_files::SafetensorsWriter;
using testing_files::TemporaryDirectory;

constexpr int kHidden = 96, kHeads = 16, kHeadDim = 8, kFfn = 544, kVocab = 64, kLayers = 2, kGroup = 32;
constexpr int kBits = 4;

struct Subject {
  std::string name;
  bool act_order = false;
  bool symmetric = false;
};
void PrintTo(const Subject& subject, std::ostream* out) { *out << subject.name; }

// A LLaMA of random integers, zeros, scales and, with act-order, groups.
class RandomGptq {
 public:
  explicit RandomGptq(const Subject& subject) : subject_(subject) {}

  void Write(const TemporaryDirectory& dir) {
    dir.Write(
        "config.json",
        absl::StrCat(R"({"model_type": "llama", "hidden_size": )", kHidden, R"(, "intermediate_size": )",
                     kFfn, R"(, "num_hidden_layers": )", kLayers, R"(, "num_attention_heads": )", kHeads,
                     R"(, "num_key_value_heads": 4, "head_dim": )", kHeadDim, R"(, "vocab_size": )", kVocab,
                     R"(, "quantization_config": {"quant_method": "gptq", "bits": 4,)",
                     R"( "group_size": 32, "desc_act": true, "sym": )", subject_.symmetric ? "true" : "false",
                     "}}"));
    AddPlain("model.embed_tokens.weight", {kVocab, kHidden}, 0, 1);
    for (int layer = 0; layer < kLayers; ++layer) AddLayer(absl::StrCat("model.layers.", layer, "."));
    AddPlain("model.norm.weight", {kHidden}, 1, 0.1f);
    AddPlain("lm_head.weight", {kVocab, kHidden}, 0, 0.3f);
    dir.Write("model.safetensors", writer_.file());
  }

 private:
  void AddLayer(const std::string& layer) {
    for (const char* norm : {"input_layernorm", "post_attention_layernorm"})
      AddPlain(absl::StrCat(layer, norm, ".weight"), {kHidden}, 1, 0.1f);
    const std::vector<int32_t> attention = Groups(kHidden), mlp = Groups(kHidden);
    AddLinear(layer + "self_attn.q_proj", kHeads * kHeadDim, attention);
    AddLinear(layer + "self_attn.k_proj", 4 * kHeadDim, attention);
    AddLinear(layer + "self_attn.v_proj", 4 * kHeadDim, attention);
    AddLinear(layer + "self_attn.o_proj", kHidden, Groups(kHeads * kHeadDim));
    AddLinear(layer + "mlp.gate_proj", kFfn, mlp);
    AddLinear(layer + "mlp.up_proj", kFfn, mlp);
    AddLinear(layer + "mlp.down_proj", kHidden, Groups(kFfn));
  }

  std::vector<int32_t> Groups(int64_t inputs) {
    std::vector<int32_t> groups(inputs);
    for (int64_t i = 0; i < inputs; ++i) groups[i] = static_cast<int32_t>(i / kGroup);
    if (subject_.act_order) std::shuffle(groups.begin(), groups.end(), random_);
    return groups;
  }

  void AddPlain(const std::string& name, const std::vector<int64_t>& shape, float mean, float deviation) {
    const int64_t count = std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
    std::vector<float> values(count);
    for (float& value : values) value = mean + deviation * Uniform();
    writer_.Add(name, "F32", shape, Bytes(values));
  }

  void AddLinear(const std::string& name, int64_t outputs, const std::vector<int32_t>& groups) {
    const auto inputs = static_cast<int64_t>(groups.size());
    const int64_t count = inputs / kGroup;
    std::vector<uint32_t> weights(inputs * kBits / 32 * outputs), zeros(count * outputs * kBits / 32);
    std::vector<uint16_t> scales(count * outputs);
    for (uint32_t& word : weights) word = static_cast<uint32_t>(random_());
    for (uint32_t& word : zeros)
      word = subject_.symmetric ? 0x77777777 : (static_cast<uint32_t>(random_()) & 0x33333333) | 0x44444444;
    for (uint16_t& scale : scales)
      scale = F16FromF32((0.04f + 0.02f * Uniform()) * 8 / static_cast<float>(std::sqrt(inputs)));
    writer_.Add(name + ".qweight", "I32", {inputs * kBits / 32, outputs}, Bytes(weights));
    writer_.Add(name + ".qzeros", "I32", {count, outputs * kBits / 32}, Bytes(zeros));
    writer_.Add(name + ".scales", "F16", {count, outputs}, Bytes(scales));
    writer_.Add(name + ".g_idx", "I32", {inputs}, Bytes(groups));
  }

  // From -1 to 1.
  float Uniform() { return static_cast<float>(random_() % 2001) / 1000 - 1; }

  const Subject subject_;
  std::mt19937_64 random_{7};
  SafetensorsWriter writer_;
};

std::vector<EngineRequest> Requests() {
  std::vector<EngineRequest> requests;
  for (int i = 0; i < 5; ++i) {
    EngineRequest request{.id = RequestId{static_cast<uint64_t>(i + 1)}, .max_tokens = 6, .ignore_eos = true};
    for (int k = 0; k < 3 + 17 * i; ++k) request.prompt.push_back((k * 7 + i) % kVocab);
    request.sampling.temperature = i % 2 == 0 ? 0.0 : 0.9;
    request.sampling.logprobs = 2;
    request.seed = static_cast<uint64_t>(i);
    requests.push_back(std::move(request));
  }
  return requests;
}

class QuantizedLayouts : public ::testing::TestWithParam<Subject> {
 protected:
  void SetUp() override {
    RandomGptq(GetParam()).Write(dir_);
    auto opened = Checkpoint::Open(dir_.path());
    ASSERT_TRUE(opened.ok()) << opened.status();
    checkpoint_ = *std::move(opened);
  }

  std::vector<Answer> AnswersOf(int stages, int ranks, bool far = false) {
    const auto device = [far](size_t) -> std::shared_ptr<Device> {
      if (far) return std::make_shared<FarDevice>(1);
      return std::make_shared<CpuDevice>(1);
    };
    auto cluster = LocalCluster::Start(
        *checkpoint_, {.layout = *EvenLayout(checkpoint_->config(), stages, ranks),
                       .numeric = {.kernel_level = std::string(Name(kernels::AvailableKernelLevels().back())),
                                   .kv_type = DType::kBF16},
                       .device_of = device});
    EXPECT_TRUE(cluster.ok()) << cluster.status();
    const auto answers = RunRequests(**cluster, {.stages = stages}, Requests());
    EXPECT_TRUE(answers.ok()) << answers.status();
    return answers.value_or(std::vector<Answer>());
  }

  TemporaryDirectory dir_;
  std::unique_ptr<Checkpoint> checkpoint_;
};

TEST_P(QuantizedLayouts, AnswersAreThoseOfOneWorker) {
  const std::vector<Answer> expected = AnswersOf(1, 1);
  ASSERT_EQ(expected.size(), 5u);
  for (const auto& [stages, ranks] : {std::pair{1, 2}, {1, 3}, {1, 16}, {2, 1}, {2, 3}})
    EXPECT_EQ(AnswersOf(stages, ranks), expected) << stages << " stages x " << ranks << " ranks";
  EXPECT_EQ(AnswersOf(2, 2, /*far=*/true), expected) << "on far devices";
}

// Matrices of a rank against the file, value by value, and their bytes against the plan's.
TEST_P(QuantizedLayouts, RanksHoldPartsOfTheWhole) {
  const ModelConfig& config = checkpoint_->config();
  CpuDevice device(1);
  const auto expect_rows = [&](const TensorKey& key, const DeviceMatrix& matrix, Range rows, Range cols) {
    const auto& packed = PackedOf(matrix);
    std::vector<float> own(cols.size()), stored(cols.size());
    for (int64_t row = 0; row < rows.size(); ++row) {
      packed.GetRow(row, absl::MakeSpan(own));
      const TensorWindow window = {rows.begin + row, rows.begin + row + 1, cols.begin, cols.end};
      ASSERT_TRUE(checkpoint_->ReadFloats(key, window, absl::MakeSpan(stored)).ok());
      ASSERT_EQ(own, stored) << Name(key) << ", row " << row;
    }
  };
  for (const int ranks : {1, 2, 3, 16}) {
    Assignment assignment{.epoch = Epoch{1}, .model_id = "m", .layout = *EvenLayout(config, 1, ranks)};
    for (assignment.rank = 0; assignment.rank < ranks; ++assignment.rank) {
      const auto shard = LoadShard(*checkpoint_, assignment, device, {}, nullptr);
      ASSERT_TRUE(shard.ok()) << shard.status();
      EXPECT_EQ((*shard)->bytes, ShardBytes(config, CheckpointFormats(*checkpoint_), Quantize::kNone,
                                            assignment.stage_layout(), assignment.rank, {true, true}));
      EXPECT_EQ((*shard)->reordered, GetParam().act_order);
      const LayerWeights& layer = *(*shard)->layer_weights[1];
      const SliceRange slices = assignment.rank_layout().slices;
      const Range heads = SliceHeads(config, slices), ffn = SliceFfn(config, slices);
      const Range query = {heads.begin * kHeadDim, heads.end * kHeadDim}, all = {0, kHidden};
      expect_rows({TensorRole::kQuery, 1}, *layer.query, query, all);
      expect_rows({TensorRole::kUp, 1}, *layer.up, ffn, all);
      expect_rows({TensorRole::kDown, 1}, *layer.down, all, ffn);
      expect_rows({TensorRole::kAttentionOutput, 1}, *layer.attention_output, all, query);
    }
  }
}

// `plan` counts what workers will hold before a byte of weights is read: to the byte, of every packing.
class PackedBytes : public ::testing::TestWithParam<std::string> {};

TEST_P(PackedBytes, ThePlansAreTheWorkers) {
  const auto opened = Checkpoint::Open(GetParam());
  ASSERT_TRUE(opened.ok()) << opened.status();
  const Checkpoint& checkpoint = **opened;
  CpuDevice device(1);
  for (const auto& [stages, ranks] : {std::pair{1, 1}, {1, 2}, {2, 1}}) {
    const auto layout = EvenLayout(checkpoint.config(), stages, ranks);
    if (!layout.ok()) continue;  // a model of one layer
    Assignment assignment{.epoch = Epoch{1}, .model_id = "m", .layout = *layout};
    for (assignment.stage = 0; assignment.stage < stages; ++assignment.stage) {
      for (assignment.rank = 0; assignment.rank < ranks; ++assignment.rank) {
        const auto shard = LoadShard(checkpoint, assignment, device, {}, nullptr);
        ASSERT_TRUE(shard.ok()) << shard.status();
        const StageEnds ends = {assignment.stage == 0, assignment.stage + 1 == stages};
        EXPECT_EQ((*shard)->bytes,
                  ShardBytes(checkpoint.config(), CheckpointFormats(checkpoint), Quantize::kNone,
                             assignment.stage_layout(), assignment.rank, ends))
            << stages << " stages x " << ranks << " ranks, rank " << assignment.rank;
      }
    }
  }
}

constexpr char kGoldens[] = "tests/goldens/models";

// Directories, and files that are a model each.
std::vector<std::string> QuantizedGoldens() {
  std::vector<std::string> models;
  for (const auto& directory : std::filesystem::directory_iterator(kGoldens)) {
    const std::string name = directory.path().filename();
    if (!name.starts_with("gptq") && !name.starts_with("awq") && !name.starts_with("gg")) continue;
    std::string model = directory.path();
    for (const auto& file : std::filesystem::directory_iterator(directory)) {
      const std::string suffix = file.path().extension();
      const bool alone = suffix == ".pt" || suffix == ".gguf" || (suffix == ".bin" && name.starts_with("gg"));
      if (alone) model = file.path();
    }
    models.push_back(model);
  }
  std::sort(models.begin(), models.end());
  return models;
}

INSTANTIATE_TEST_SUITE_P(Goldens, PackedBytes, ::testing::ValuesIn(QuantizedGoldens()), [](const auto& info) {
  std::string name = std::filesystem::path(info.param).lexically_relative(kGoldens).begin()->string();
  std::replace_if(
      name.begin(), name.end(), [](char c) { return c == '-'; }, '_');
  return name;
});

INSTANTIATE_TEST_SUITE_P(All, QuantizedLayouts,
                         ::testing::Values(Subject{"in_order"}, Subject{"act_order", true},
                                           Subject{"act_order_symmetric", true, true}),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace bellwether
