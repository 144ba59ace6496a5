#include "proto/step_codec.h"

#include <limits>
#include <utility>
#include <vector>

#include "common/defaults.h"
#include "common/step_bytes.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/config.h"

namespace bellwether {
namespace {

using ::testing::HasSubstr;

Step MakeStep() {
  Admission admission{.sequence = {7}, .choice = 2, .tokens = {1, 2, 3}, .prompt_length = 2, .score = true};
  admission.sampling = {.temperature = 0.5,
                        .top_k = 40,
                        .top_p = 0.9,
                        .min_p = 0.1,
                        .repetition_penalty = 1.1,
                        .presence_penalty = -0.5,
                        .frequency_penalty = 0.25,
                        .logit_bias = {{3, 1.5f}, {9, -2.0f}},
                        .min_tokens = 4,
                        .ending_tokens = {2},
                        .seed = std::numeric_limits<uint64_t>::max(),
                        .logprobs = 5};
  StepEntry entry{
      .sequence = {7}, .position = 64, .count = 3, .new_tokens = {5}, .new_blocks = {0, 9}, .sample = true};
  return {.epoch = {3}, .id = {11}, .admissions = {admission}, .retired = {{4}, {5}}, .entries = {entry}};
}

v1::Step Encoded(const Step& step) {
  v1::Step message;
  Encode(step, &message);
  return message;
}

TEST(StepCodec, StepSurvivesTheWire) {
  const Step step = MakeStep();
  v1::Step parsed;
  ASSERT_TRUE(parsed.ParseFromString(Encoded(step).SerializeAsString()));
  const absl::StatusOr<Step> decoded = Decode(parsed);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  // Encoding is injective on what it writes, so equal messages mean equal steps.
  EXPECT_EQ(Encoded(*decoded).SerializeAsString(), Encoded(step).SerializeAsString());
  EXPECT_EQ(decoded->epoch.value, 3u);
  EXPECT_EQ(decoded->retired, step.retired);
  EXPECT_EQ(decoded->admissions[0].tokens, step.admissions[0].tokens);
  EXPECT_EQ(decoded->admissions[0].sampling.logit_bias, step.admissions[0].sampling.logit_bias);
  EXPECT_EQ(decoded->admissions[0].sampling.seed, step.admissions[0].sampling.seed);
  EXPECT_EQ(decoded->entries[0].new_blocks, step.entries[0].new_blocks);
  EXPECT_TRUE(decoded->entries[0].sample);
}

// What the scheduler counts on when it puts a step together (common/step_bytes.h), with every number at its
// longest.
TEST(StepCodec, NoStepTakesMoreBytesThanForeseen) {
  constexpr uint64_t kLong = std::numeric_limits<uint64_t>::max();
  constexpr int32_t kInt = std::numeric_limits<int32_t>::max();
  constexpr TokenId kToken = kVocabMax - 1;
  constexpr KvBlockId kBlock = (1 << 28) - 1;
  const double real = std::numeric_limits<double>::denorm_min();
  for (const int32_t tokens : {1, 32, 33, 5000}) {
    Admission admission{.sequence = {kLong},
                        .choice = kInt,
                        .tokens = std::vector<TokenId>(tokens, kToken),
                        .prompt_length = kInt,
                        .score = true};
    admission.sampling = {.temperature = real,
                          .top_k = kInt,
                          .top_p = real,
                          .min_p = real,
                          .repetition_penalty = real,
                          .presence_penalty = real,
                          .frequency_penalty = real,
                          .logit_bias = std::vector<std::pair<TokenId, float>>(kLogitBiasMax, {kToken, 1.5f}),
                          .min_tokens = kInt,
                          .ending_tokens = std::vector<TokenId>(100, kToken),
                          .seed = kLong,
                          .logprobs = -1};
    const StepEntry first{.sequence = {kLong},
                          .position = kInt,
                          .count = kInt,
                          .new_blocks = std::vector<KvBlockId>((tokens + 31) / 32, kBlock),
                          .sample = true};
    const StepEntry later{.sequence = {kLong},
                          .position = kInt,
                          .count = kInt,
                          .new_tokens = {kToken},
                          .new_blocks = {kBlock},
                          .sample = true};
    const Step step{.epoch = {kLong},
                    .id = {kLong},
                    .admissions = std::vector<Admission>(3, admission),
                    .retired = std::vector<SequenceId>(7, {kLong}),
                    .entries = {first, first, first, later, later, later, later, later, later, later}};
    v1::CoordinatorMessage message;
    Encode(step, message.mutable_step());
    const int64_t foreseen = 3 * AdmissionBytesMax(tokens, admission.sampling);
    const auto bytes = static_cast<int64_t>(message.ByteSizeLong());
    EXPECT_GE(AdmissionsBytesMax(bytes, 7), 0);
    EXPECT_LE(AdmissionsBytesMax(bytes, 7), foreseen) << tokens << " tokens";
  }
}

TEST(StepCodec, ResultSurvivesTheWireBitForBit) {
  StepResult result{.epoch = {3}, .id = {11}};
  result.outputs.push_back(
      {.sequence = {7}, .token = 5, .logprob = -0.1f, .top = {{5, -0.1f}, {6, -3e-45f}}});
  result.outputs.push_back({.sequence = {8}, .token = -1, .scores = {-1.5f, -0.0f}});
  result.outputs.push_back({.sequence = {9}, .token = -1, .error = "a logit is NaN"});
  v1::StepResult message;
  Encode(result, &message);
  const absl::StatusOr<StepResult> decoded = Decode(message);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  ASSERT_EQ(decoded->outputs.size(), 3u);
  EXPECT_EQ(decoded->outputs[0].logprob, -0.1f);
  EXPECT_EQ(decoded->outputs[0].top[1].logprob, -3e-45f);
  EXPECT_EQ(decoded->outputs[1].token, -1);
  EXPECT_EQ(decoded->outputs[1].scores, result.outputs[1].scores);
  EXPECT_EQ(decoded->outputs[2].error, "a logit is NaN");
}

void ExpectRefused(const v1::Step& message, const std::string& field) {
  const absl::StatusOr<Step> decoded = Decode(message);
  ASSERT_FALSE(decoded.ok()) << field;
  EXPECT_EQ(decoded.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(decoded.status().message()), HasSubstr(field));
}

TEST(StepCodec, HostileStepsAreRefusedByField) {
  const v1::Step good = Encoded(MakeStep());
  v1::Step bad = good;
  bad.mutable_admissions(0)->set_prompt_length(4);
  ExpectRefused(bad, "prompt_length");
  bad = good;
  bad.mutable_admissions(0)->set_prompt_length(-1);
  ExpectRefused(bad, "prompt_length");
  bad = good;
  bad.mutable_admissions(0)->set_tokens(0, -5);
  ExpectRefused(bad, "admission.tokens");
  bad = good;
  bad.mutable_admissions(0)->mutable_sampling()->add_bias_ids(10);
  ExpectRefused(bad, "bias_ids");
  bad = good;
  bad.mutable_admissions(0)->mutable_sampling()->set_bias_ids(1, 3);
  ExpectRefused(bad, "ascending");
  bad = good;
  bad.mutable_admissions(0)->mutable_sampling()->set_temperature(std::numeric_limits<double>::quiet_NaN());
  ExpectRefused(bad, "finite");
  bad = good;
  bad.mutable_admissions(0)->mutable_sampling()->set_logprobs(1000);
  ExpectRefused(bad, "logprobs");
  bad = good;
  bad.mutable_entries(0)->set_position(-1);
  ExpectRefused(bad, "position");
  bad = good;
  bad.mutable_entries(0)->set_count(std::numeric_limits<int32_t>::max());
  ExpectRefused(bad, "count");
  bad = good;
  bad.mutable_entries(0)->set_new_blocks(0, -1);
  ExpectRefused(bad, "new_blocks");
  bad = good;
  for (int i = 0; i <= kStepEntriesMax; ++i) bad.add_entries();
  ExpectRefused(bad, "entries");
}

TEST(StepCodec, HostileResultsAreRefusedByField) {
  v1::StepResult message;
  message.add_outputs()->set_token(-2);
  EXPECT_THAT(std::string(Decode(message).status().message()), HasSubstr("output.token"));
  message.mutable_outputs(0)->set_token(1);
  message.mutable_outputs(0)->add_top_ids(1);
  EXPECT_THAT(std::string(Decode(message).status().message()), HasSubstr("top_logprobs"));
  for (int i = 0; i <= kTopLogprobsMax; ++i) message.mutable_outputs(0)->add_top_ids(1);
  EXPECT_THAT(std::string(Decode(message).status().message()), HasSubstr("top_ids"));
}

}  // namespace
}  // namespace bellwether
