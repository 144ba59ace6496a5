#include "worker/sequence_table.h"

#include <functional>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr SequenceTable::Limits kLimits = {
    .vocab = 100, .kv_blocks = 8, .context_tokens = 128, .step_tokens = 64, .sequences = 2};

Step AdmitStep() {
  Step step{.id = StepId{1}};
  step.admissions.push_back({.sequence = SequenceId{7}, .tokens = {1, 2, 3}, .prompt_length = 3});
  step.entries.push_back(
      {.sequence = SequenceId{7}, .position = 0, .count = 3, .new_blocks = {5}, .sample = true});
  return step;
}

TEST(SequenceTable, FollowsASequenceThroughItsLife) {
  SequenceTable table(kLimits);
  ASSERT_TRUE(table.Apply(AdmitStep()).ok());
  Step decode{.id = StepId{2}};
  decode.entries.push_back(
      {.sequence = SequenceId{7}, .position = 3, .count = 1, .new_tokens = {42}, .sample = true});
  ASSERT_TRUE(table.Apply(decode).ok());
  EXPECT_THAT(table.at(SequenceId{7}).tokens(), ElementsAre(1, 2, 3, 42));
  EXPECT_THAT(table.at(SequenceId{7}).blocks, ElementsAre(5));

  // Retired and admitted again in one step, as after a preemption.
  Step again{.id = StepId{3}, .retired = {SequenceId{7}}};
  again.admissions.push_back({.sequence = SequenceId{7}, .tokens = {1, 2, 3, 42}, .prompt_length = 3});
  again.entries.push_back(
      {.sequence = SequenceId{7}, .position = 0, .count = 4, .new_blocks = {0}, .sample = true});
  ASSERT_TRUE(table.Apply(again).ok());
  EXPECT_THAT(table.at(SequenceId{7}).blocks, ElementsAre(0));
}

// What a coordinator may never say; each is refused with the sequence and what is wrong.
TEST(SequenceTable, RefusesContradictions) {
  const std::vector<std::pair<std::function<void(Step&)>, std::string>> cases = {
      {[](Step& s) { s.admissions[0].tokens = {}; }, "0 tokens"},
      {[](Step& s) { s.admissions[0].tokens.assign(129, 1); }, "129 tokens, at most 128"},
      {[](Step& s) { s.admissions[0].tokens[1] = 100; }, "no token 100"},
      {[](Step& s) { s.admissions[0].tokens[1] = -1; }, "no token -1"},
      {[](Step& s) { s.admissions[0].prompt_length = 4; }, "a prompt of 4 of 3"},
      {[](Step& s) { s.admissions.push_back(s.admissions[0]); }, "admitted twice"},
      {[](Step& s) { s.retired = {SequenceId{9}}; }, "retired but not admitted"},
      {[](Step& s) { s.entries[0].sequence = SequenceId{8}; }, "not admitted"},
      {[](Step& s) { s.entries[0].new_blocks = {8}; }, "no KV block 8"},
      {[](Step& s) { s.entries[0].new_blocks = {}; }, "3 positions in 0 KV blocks"},
      {[](Step& s) { s.entries[0].new_tokens = {1000}; }, "no token 1000"},
      {[](Step& s) { s.entries[0].count = 4; }, "positions 0 to 4 of 3"},
      {[](Step& s) { s.entries[0].count = 0; }, "positions 0 to 0"},
      {[](Step& s) { s.entries[0].position = -1; }, "positions -1"},
      {[](Step& s) { s.entries[0].count = 2; }, "samples a token that is known"},
  };
  for (const auto& [spoil, message] : cases) {
    SequenceTable table(kLimits);
    Step step = AdmitStep();
    spoil(step);
    const absl::Status status = table.Apply(step);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << message;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
    EXPECT_THAT(std::string(status.message()), HasSubstr("step 1"));
  }
}

TEST(SequenceTable, LimitsTokensOfAStepAndSequences) {
  SequenceTable table(kLimits);
  Step step = AdmitStep();
  step.admissions[0].tokens.assign(70, 1);
  step.entries[0] = {.sequence = SequenceId{7}, .count = 65, .new_blocks = {0, 1, 2}};
  EXPECT_THAT(std::string(table.Apply(step).message()), HasSubstr("65 tokens, at most 64"));

  SequenceTable full(kLimits);
  Step many{.id = StepId{1}};
  for (uint64_t i = 1; i <= 3; ++i) {
    many.admissions.push_back({.sequence = SequenceId{i}, .tokens = {1}, .prompt_length = 1});
  }
  EXPECT_THAT(std::string(full.Apply(many).message()), HasSubstr("too many sequences"));
}

}  // namespace
}  // namespace bellwether
