// GPUs that talk by NCCL give the bits of one GPU, whatever the layout: emulated ones and a test double of
// NCCL that really moves the data.

#include "common/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/gpu/runtime.h"
#include "tests/layouts/engine_driver.h"
#include "worker/device/gpu_device.h"
#include "worker/link/testing/fake_nccl.h"

namespace bellwether {
namespace {

constexpr char kModel[] =
    "random:llama?hidden=120,layers=3,heads=5,kv_heads=1,head_dim=24,ffn=200,vocab=173:bf16";

struct Variant {
  int stages = 1;
  int ranks = 1;
  NcclUse nccl;
};

absl::StatusOr<std::vector<Answer>> AnswersOf(const Variant& variant) {
  BW_ASSIGN_OR_RETURN(const auto checkpoint, Checkpoint::Open(kModel));
  BW_ASSIGN_OR_RETURN(Layout layout, EvenLayout(checkpoint->config(), variant.stages, variant.ranks));
  const auto gpu = [](size_t i) {
    return std::make_shared<GpuDevice>(gpu::MakeEmulatedRuntime({.seed = 1 + i}), /*threads=*/1);
  };
  BW_ASSIGN_OR_RETURN(
      auto cluster,
      LocalCluster::Start(*checkpoint, {.layout = std::move(layout),
                                        .numeric = {.kernel_level = "cuda_sm90", .kv_type = DType::kBF16},
                                        .kv_blocks = 32,
                                        .device_of = gpu,
                                        .nccl = variant.nccl}));
  DriverOptions driver{.kv_blocks = 32, .stages = variant.stages};
  driver.engine.step_tokens_max = 40;
  driver.engine.context_tokens_max = 256;
  std::vector<EngineRequest> requests;
  for (const int length : {50, 3, 9}) {
    EngineRequest request{.id = RequestId{static_cast<uint64_t>(length)}, .max_tokens = 3};
    for (int i = 0; i < length; ++i) request.prompt.push_back((i * 31 + length) % checkpoint->config().vocab);
    request.sampling.temperature = length == 3 ? 0.9 : 0.0;
    request.sampling.logprobs = 3;
    requests.push_back(std::move(request));
  }
  return RunRequests(*cluster, driver, requests);
}

TEST(NcclEquality, OneAnswerForEveryLayout) {
  const FakeNccl fake(FAKE_NCCL);
  const auto expected = AnswersOf({});
  ASSERT_TRUE(expected.ok()) << expected.status();
  for (const Variant& variant : {Variant{1, 2}, {1, 3}, {2, 3}, {3, 1}}) {
    const auto answers =
        AnswersOf({variant.stages, variant.ranks, {.library = fake.library(), .required = true}});
    const std::string what = absl::StrCat(variant.stages, " stages x ", variant.ranks, " ranks");
    ASSERT_TRUE(answers.ok()) << what << ": " << answers.status();
    ASSERT_EQ(answers->size(), expected->size());
    for (size_t i = 0; i < expected->size(); ++i) {
      EXPECT_EQ((*answers)[i].tokens, (*expected)[i].tokens) << what << ", answer " << i;
      EXPECT_EQ((*answers)[i].logprobs, (*expected)[i].logprobs) << what << ", answer " << i;
    }
    EXPECT_EQ(fake.Get("live"), 0);
  }
  EXPECT_GT(fake.Get("copies"), 0);
  EXPECT_EQ(fake.Get("foreign_calls"), 0) << "a thread that is not the executor's calls NCCL";
}

TEST(NcclEquality, AnEpochWhoseCommunicatorBreaksEndsWithItsError) {
  const FakeNccl fake(FAKE_NCCL);
  fake.Set("async_error", nccl::kRemoteError);
  const auto answers = AnswersOf({1, 2, {.library = fake.library(), .required = true}});
  fake.Set("async_error", 0);
  EXPECT_EQ(answers.status().code(), absl::StatusCode::kUnavailable) << answers.status();
  EXPECT_THAT(std::string(answers.status().message()), ::testing::HasSubstr("NCCL"));
}

}  // namespace
}  // namespace bellwether
