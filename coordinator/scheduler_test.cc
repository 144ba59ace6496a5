#include "coordinator/scheduler.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Of a prompt of its own, unless told which.
Admission Sequence(uint64_t id, int32_t prompt, bool score = false, TokenId token = -1) {
  const auto own = static_cast<TokenId>(100 + id);
  return {.sequence = SequenceId{id},
          .tokens = std::vector<TokenId>(prompt, token < 0 ? own : token),
          .prompt_length = prompt,
          .score = score};
}

// "1@0+4s 2@7+1": sequence, position, count, sampled. "-" without a step.
std::string Describe(const Scheduler::Next& next) {
  if (!next.step) return "-";
  return absl::StrJoin(next.step->entries, " ", [](std::string* out, const StepEntry& entry) {
    absl::StrAppend(out, entry.sequence.value, "@", entry.position, "+", entry.count,
                    entry.sample ? "s" : "");
  });
}

std::string Retired(const Scheduler::Next& next) {
  return absl::StrJoin(next.step->retired, " ",
                       [](std::string* out, SequenceId id) { absl::StrAppend(out, id.value); });
}

// The result that a step's entries call for: every sampled token is 9.
StepResult ResultOf(const Step& step, const std::vector<uint64_t>& scored = {}) {
  StepResult result{.epoch = step.epoch, .id = step.id};
  for (const StepEntry& entry : step.entries) {
    const bool scores = std::count(scored.begin(), scored.end(), entry.sequence.value) > 0;
    if (!entry.sample && !scores) continue;
    StepOutput output{.sequence = entry.sequence, .token = entry.sample ? 9 : -1};
    if (scores) output.scores.assign(entry.count, -1.0f);
    result.outputs.push_back(output);
  }
  return result;
}

// Takes the result as the engine does when no answer ends.
void Report(Scheduler* scheduler, const Step& step) {
  const auto outputs = scheduler->Finish(ResultOf(step));
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  for (const Scheduler::Output& output : *outputs) scheduler->Append(output.sequence, 9);
}

TEST(SchedulerTest, DecodesBeforePrefillsWithinTheBudget) {
  Scheduler scheduler({.step_tokens_max = 8, .sequences_max = 4});
  scheduler.Start(Epoch{3}, /*kv_blocks=*/16, /*stages=*/1);
  EXPECT_EQ(Describe(scheduler.NextStep()), "-");
  scheduler.Add(1, Sequence(1, 5));
  scheduler.Add(2, Sequence(2, 12));
  const Scheduler::Next first = scheduler.NextStep();
  EXPECT_EQ(Describe(first), "1@0+5s 2@0+3");
  EXPECT_EQ(first.step->epoch, Epoch{3});
  EXPECT_EQ(first.step->id, StepId{1});
  EXPECT_EQ(first.step->admissions.size(), 2);
  EXPECT_EQ(Describe(scheduler.NextStep()), "-") << "one stage, one step in flight";
  Report(&scheduler, *first.step);
  scheduler.Add(3, Sequence(3, 4));
  const Scheduler::Next second = scheduler.NextStep();
  EXPECT_EQ(Describe(second), "1@5+1s 2@3+7");
  EXPECT_THAT(second.step->entries[0].new_tokens, ElementsAre(9));
  EXPECT_THAT(second.step->entries[0].new_blocks, IsEmpty());
  Report(&scheduler, *second.step);
  EXPECT_EQ(Describe(scheduler.NextStep()), "1@6+1s 2@10+2s 3@0+4s");
}

TEST(SchedulerTest, ChunksFollowEachOtherAndDecodesAreSplitOverTheStages) {
  Scheduler scheduler({.step_tokens_max = 4, .sequences_max = 8});
  scheduler.Start(Epoch{1}, 16, /*stages=*/2);
  scheduler.Add(1, Sequence(1, 10));
  const Scheduler::Next a = scheduler.NextStep(), b = scheduler.NextStep();
  EXPECT_EQ(Describe(a), "1@0+4");
  EXPECT_EQ(Describe(b), "1@4+4");
  EXPECT_EQ(Describe(scheduler.NextStep()), "-");
  Report(&scheduler, *a.step);
  for (uint64_t id = 2; id <= 5; ++id) scheduler.Add(id, Sequence(id, 1));
  const Scheduler::Next c = scheduler.NextStep();
  EXPECT_EQ(Describe(c), "1@8+2s 2@0+1s 3@0+1s");
  Report(&scheduler, *b.step);
  const Scheduler::Next d = scheduler.NextStep();
  EXPECT_EQ(Describe(d), "4@0+1s 5@0+1s");
  Report(&scheduler, *c.step);
  const Scheduler::Next e = scheduler.NextStep();
  EXPECT_EQ(Describe(e), "1@10+1s 2@1+1s 3@1+1s") << "a half of five, rounded up";
  Report(&scheduler, *d.step);
  EXPECT_EQ(Describe(scheduler.NextStep()), "4@1+1s 5@1+1s");
}

// A layout that streams says how many tokens its steps have best.
TEST(SchedulerTest, ALayoutMaySayHowManyTokensAStepHas) {
  Scheduler scheduler({.step_tokens_max = 100, .sequences_max = 8});
  scheduler.Add(1, Sequence(1, 500));
  for (const auto& [given, expected] : {std::pair{64, 64}, {300, 100}, {0, 100}}) {
    scheduler.Start(Epoch{1}, /*kv_blocks=*/32, /*stages=*/1, /*step_tokens=*/given);
    EXPECT_EQ(Describe(scheduler.NextStep()), absl::StrCat("1@0+", expected));
  }
}

TEST(SchedulerTest, APromptIsATrainOfChunksOverSeveralStages) {
  Scheduler scheduler({.step_tokens_max = 512, .sequences_max = 8});
  const auto chunks = [&](int32_t stages) {
    scheduler.Start(Epoch{static_cast<uint64_t>(stages)}, /*kv_blocks=*/32, stages);
    const std::string first = Describe(scheduler.NextStep());
    return absl::StrCat(first, ", ", Describe(scheduler.NextStep()));
  };
  scheduler.Add(1, Sequence(1, 500));
  EXPECT_EQ(chunks(1), "1@0+500s, -");
  EXPECT_EQ(chunks(2), "1@0+128, 1@128+128");
  EXPECT_EQ(chunks(4), "1@0+64, 1@64+64");
  EXPECT_EQ(chunks(30), "1@0+32, 1@32+32");
}

TEST(SchedulerTest, PreemptsTheLatestAndReadmitsItWithAllTokens) {
  Scheduler scheduler({.step_tokens_max = 100, .sequences_max = 8});
  scheduler.Start(Epoch{1}, /*kv_blocks=*/3, /*stages=*/1);
  scheduler.Add(1, Sequence(1, 32));
  scheduler.Add(2, Sequence(2, 31));
  Scheduler::Next next = scheduler.NextStep();
  EXPECT_EQ(Describe(next), "1@0+32s 2@0+31s");
  Report(&scheduler, *next.step);
  next = scheduler.NextStep();  // 1 takes the third block
  EXPECT_EQ(Describe(next), "1@32+1s 2@31+1s");
  EXPECT_EQ(next.step->entries[0].new_blocks.size(), 1);
  Report(&scheduler, *next.step);
  next = scheduler.NextStep();  // 2 needs one too and is itself the latest
  EXPECT_EQ(Describe(next), "1@33+1s");
  EXPECT_EQ(Retired(next), "2");
  EXPECT_EQ(scheduler.preemptions(), 1);
  Report(&scheduler, *next.step);
  scheduler.Remove(SequenceId{1});
  next = scheduler.NextStep();
  EXPECT_EQ(Describe(next), "2@32+1s") << "its full block is still there";
  EXPECT_EQ(Retired(next), "1");
  ASSERT_EQ(next.step->admissions.size(), 1);
  EXPECT_EQ(next.step->admissions[0].tokens.size(), 33);
  EXPECT_EQ(next.step->admissions[0].prompt_length, 31);
}

// Two stages: 2 is preempted while its step is in flight and the blocks it needs are free again before its
// token comes.
TEST(SchedulerTest, APreemptedSequenceWaitsForItsResult) {
  Scheduler scheduler({.step_tokens_max = 400, .sequences_max = 8});
  scheduler.Start(Epoch{1}, /*kv_blocks=*/3, /*stages=*/2);
  scheduler.Add(2, Sequence(2, 3));
  scheduler.Add(3, Sequence(3, 30));
  const Scheduler::Next both = scheduler.NextStep();
  EXPECT_EQ(Describe(both), "2@0+3s 3@0+30s");
  Report(&scheduler, *both.step);
  // One token at a time until 2 or 3 needs a second block while the other is in flight.
  std::vector<Step> in_flight;
  while (scheduler.preemptions() == 0) {
    Scheduler::Next next = scheduler.NextStep();
    if (next.step) {
      in_flight.push_back(*next.step);
    } else {
      Report(&scheduler, in_flight.front());
      in_flight.erase(in_flight.begin());
    }
    ASSERT_LT(scheduler.tokens(SequenceId{3}).size(), 80);
  }
  ASSERT_EQ(scheduler.running(), 1);
  const size_t known = scheduler.tokens(SequenceId{3}).size();
  scheduler.Remove(SequenceId{2});
  bool due = false;
  for (const Step& step : in_flight) {
    for (const StepEntry& entry : step.entries) due |= entry.sequence == SequenceId{3};
  }
  ASSERT_TRUE(due);
  EXPECT_EQ(Describe(scheduler.NextStep()), "-");
  for (const Step& step : in_flight) Report(&scheduler, step);
  const Scheduler::Next again = scheduler.NextStep();
  EXPECT_EQ(Describe(again), absl::StrCat("3@32+", known + 1 - 32, "s")) << "its first block is still there";
}

TEST(SchedulerTest, ChoicesShareTheFullBlocksOfTheirPrompt) {
  Scheduler scheduler({.step_tokens_max = 400, .sequences_max = 8});
  scheduler.Start(Epoch{1}, /*kv_blocks=*/16, /*stages=*/2);
  scheduler.Add(7, Sequence(1, 70, /*score=*/false, 5));
  scheduler.Add(7, Sequence(2, 70, /*score=*/false, 5));
  scheduler.Add(8, Sequence(3, 70));
  const Scheduler::Next first = scheduler.NextStep();
  EXPECT_EQ(Describe(first), "1@0+70s") << "what this step writes is read in the next one";
  const Scheduler::Next second = scheduler.NextStep();
  EXPECT_EQ(Describe(second), "2@64+6s 3@0+70s");
  const std::vector<KvBlockId>& owner = first.step->entries[0].new_blocks;
  const std::vector<KvBlockId>& fork = second.step->entries[0].new_blocks;
  ASSERT_EQ(fork.size(), 3);
  EXPECT_EQ(fork[0], owner[0]);
  EXPECT_EQ(fork[1], owner[1]);
  EXPECT_NE(fork[2], owner[2]);
  EXPECT_EQ(scheduler.ledger().used(), 3 + 1 + 3);
  scheduler.Remove(SequenceId{1});
  EXPECT_EQ(scheduler.ledger().used(), 3 + 3);
}

// A conversation: its second turn begins with the first one's prompt and answer.
TEST(SchedulerTest, WhatASequenceBeginsWithIsNotComputedAgain) {
  for (const bool cache : {true, false}) {
    Scheduler scheduler({.step_tokens_max = 400, .sequences_max = 8, .prefix_cache = cache});
    scheduler.Start(Epoch{1}, /*kv_blocks=*/16, /*stages=*/1);
    scheduler.Add(1, Sequence(1, 63));
    Scheduler::Next next = scheduler.NextStep();
    const std::vector<KvBlockId> first = next.step->entries[0].new_blocks;
    Report(&scheduler, *next.step);
    next = scheduler.NextStep();
    EXPECT_EQ(Describe(next), "1@63+1s") << "fills its second block";
    Report(&scheduler, *next.step);
    Admission turn = Sequence(2, 0);
    turn.tokens = scheduler.tokens(SequenceId{1});
    turn.tokens.resize(80, 7);
    turn.prompt_length = 80;
    scheduler.Remove(SequenceId{1});
    EXPECT_EQ(scheduler.ledger().used(), 0);
    scheduler.Add(2, std::move(turn));
    next = scheduler.NextStep();
    EXPECT_EQ(Describe(next), cache ? "2@64+16s" : "2@0+80s");
    EXPECT_EQ(scheduler.tokens_shared(SequenceId{2}), cache ? 64 : 0);
    EXPECT_EQ(scheduler.tokens_shared(), cache ? 64 : 0);
    EXPECT_EQ(scheduler.tokens_admitted(), 63 + 80);
    if (!cache) continue;
    EXPECT_EQ(next.step->entries[0].new_blocks[0], first[0]);
    EXPECT_EQ(next.step->entries[0].new_blocks[1], first[1]);
  }
}

// The last token's position is computed for its logits, though a known block holds it.
TEST(SchedulerTest, ThePromptThatIsKnownWholeIsComputedFromItsLastBlockOn) {
  Scheduler scheduler({.step_tokens_max = 400, .sequences_max = 8});
  scheduler.Start(Epoch{1}, /*kv_blocks=*/16, /*stages=*/1);
  scheduler.Add(1, Sequence(1, 64, /*score=*/false, 5));
  Report(&scheduler, *scheduler.NextStep().step);
  scheduler.Add(2, Sequence(2, 64, /*score=*/false, 5));
  scheduler.Add(3, Sequence(3, 64, /*score=*/true, 5));
  EXPECT_EQ(Describe(scheduler.NextStep()), "1@64+1s 2@32+32s 3@0+63");
}

// What one step writes is read in later ones only. A burst of requests that begin alike computes it once.
TEST(SchedulerTest, WhoBeginsLikeAnotherWaitsUntilItIsComputed) {
  Scheduler scheduler({.step_tokens_max = 400, .sequences_max = 8});
  scheduler.Start(Epoch{1}, /*kv_blocks=*/32, /*stages=*/2);
  for (uint64_t id = 1; id <= 3; ++id) scheduler.Add(id, Sequence(id, 150, /*score=*/false, 5));
  const Scheduler::Next a = scheduler.NextStep(), b = scheduler.NextStep();
  EXPECT_EQ(Describe(a), "1@0+100");
  EXPECT_EQ(Describe(b), "1@100+50s");
  Report(&scheduler, *a.step);
  EXPECT_EQ(Describe(scheduler.NextStep()), "2@128+22s 3@128+22s") << "though that step has not come back";
}

TEST(SchedulerTest, BlocksAreSharedAmongThoseWhoMay) {
  Scheduler scheduler({.step_tokens_max = 400, .sequences_max = 8});
  scheduler.Start(Epoch{1}, /*kv_blocks=*/16, /*stages=*/1);
  scheduler.Add(1, Sequence(1, 40, /*score=*/false, 5), /*sharers=*/1);
  Report(&scheduler, *scheduler.NextStep().step);
  scheduler.Remove(SequenceId{1});
  scheduler.Add(2, Sequence(2, 40, /*score=*/false, 5), /*sharers=*/2);
  scheduler.Add(3, Sequence(3, 40, /*score=*/false, 5), /*sharers=*/1);
  scheduler.Add(4, Sequence(4, 40, /*score=*/false, 5));
  EXPECT_EQ(Describe(scheduler.NextStep()), "2@0+40s 3@32+8s 4@0+40s");
}

// Nor does who runs tell by a quick answer what another has asked.
TEST(SchedulerTest, WithoutACacheOnlyChoicesOfOnePromptShare) {
  Scheduler scheduler({.step_tokens_max = 400, .sequences_max = 8, .prefix_cache = false});
  scheduler.Start(Epoch{1}, /*kv_blocks=*/16, /*stages=*/1);
  scheduler.Add(1, Sequence(1, 40, /*score=*/false, 5));
  scheduler.Add(1, Sequence(2, 40, /*score=*/false, 5));
  scheduler.Add(2, Sequence(3, 40, /*score=*/false, 5));
  Report(&scheduler, *scheduler.NextStep().step);
  EXPECT_EQ(Describe(scheduler.NextStep()), "1@40+1s 2@32+8s 3@0+40s");
}

// Known blocks give way to whoever needs room, the one that was let go longest ago first.
TEST(SchedulerTest, KnownBlocksTakeNobodysRoom) {
  Scheduler scheduler({.step_tokens_max = 400, .sequences_max = 8});
  scheduler.Start(Epoch{1}, /*kv_blocks=*/4, /*stages=*/1);
  const auto run = [&](uint64_t id, int32_t prompt, TokenId token) {
    scheduler.Add(id, Sequence(id, prompt, /*score=*/false, token));
    const Scheduler::Next next = scheduler.NextStep();
    Report(&scheduler, *next.step);
    scheduler.Remove(SequenceId{id});
    return Describe(next);
  };
  EXPECT_EQ(run(1, 33, 5), "1@0+33s");
  EXPECT_EQ(run(2, 33, 6), "2@0+33s");
  EXPECT_EQ(run(3, 33, 5), "3@32+1s");
  EXPECT_EQ(run(4, 97, 7), "4@0+97s") << "takes all that is there";
  EXPECT_EQ(run(5, 33, 5), "5@0+33s");
}

TEST(SchedulerTest, ScoresNeedNoSamplingAndNotTheLastPosition) {
  Scheduler scheduler({.step_tokens_max = 6, .sequences_max = 8});
  scheduler.Start(Epoch{1}, 16, /*stages=*/2);
  scheduler.Add(1, Sequence(1, 10, /*score=*/true));
  const Scheduler::Next a = scheduler.NextStep(), b = scheduler.NextStep();
  EXPECT_EQ(Describe(a), "1@0+6");
  EXPECT_EQ(Describe(b), "1@6+3");
  const auto outputs = scheduler.Finish(ResultOf(*a.step, {1}));
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  ASSERT_EQ(outputs->size(), 1);
  EXPECT_EQ(outputs->front().position, 0);
  EXPECT_EQ(scheduler.Finish(ResultOf(*b.step, {1}))->front().position, 6);
}

TEST(SchedulerTest, WhatCanNeverFitIsReported) {
  Scheduler scheduler({.step_tokens_max = 100, .sequences_max = 8});
  scheduler.Start(Epoch{1}, /*kv_blocks=*/1, /*stages=*/1);
  scheduler.Add(1, Sequence(1, 33));
  EXPECT_THAT(scheduler.NextStep().too_large, ElementsAre(SequenceId{1}));
  scheduler.Remove(SequenceId{1});
  scheduler.Add(2, Sequence(2, 32));
  const Scheduler::Next next = scheduler.NextStep();
  EXPECT_EQ(Describe(next), "2@0+32s");
  Report(&scheduler, *next.step);
  EXPECT_THAT(scheduler.NextStep().too_large, ElementsAre(SequenceId{2}));
  EXPECT_EQ(scheduler.blocks_needed(SequenceId{2}), 2);
}

TEST(SchedulerTest, ResultsThatDoNotFitAreRefused) {
  Scheduler scheduler({.step_tokens_max = 100, .sequences_max = 8});
  scheduler.Start(Epoch{1}, 8, /*stages=*/1);
  EXPECT_EQ(scheduler.Finish({.epoch = Epoch{1}, .id = StepId{1}}).status().code(),
            absl::StatusCode::kInternal);
  const auto refused = [](StepResult result) {
    Scheduler fresh({.step_tokens_max = 100, .sequences_max = 8});
    fresh.Start(Epoch{1}, 8, 1);
    fresh.Add(1, Sequence(1, 3));
    EXPECT_EQ(Describe(fresh.NextStep()), "1@0+3s");
    return fresh.Finish(result).status().code() == absl::StatusCode::kInternal;
  };
  const StepOutput good{.sequence = SequenceId{1}, .token = 4};
  const StepOutput other{.sequence = SequenceId{2}, .token = 4};
  const StepOutput none{.sequence = SequenceId{1}, .token = -1};
  const StepOutput scores{.sequence = SequenceId{1}, .token = 4, .scores = {1.0f}};
  EXPECT_FALSE(refused({.epoch = Epoch{1}, .id = StepId{1}, .outputs = {good}}));
  EXPECT_TRUE(refused({.epoch = Epoch{1}, .id = StepId{2}, .outputs = {good}}));
  EXPECT_TRUE(refused({.epoch = Epoch{1}, .id = StepId{1}, .outputs = {}}));
  EXPECT_TRUE(refused({.epoch = Epoch{1}, .id = StepId{1}, .outputs = {good, good}}));
  for (const StepOutput& bad : {other, none, scores}) {
    EXPECT_TRUE(refused({.epoch = Epoch{1}, .id = StepId{1}, .outputs = {bad}}));
  }
}

TEST(SchedulerTest, ResultsOfRemovedSequencesAreDropped) {
  Scheduler scheduler({.step_tokens_max = 100, .sequences_max = 8});
  scheduler.Start(Epoch{1}, 8, /*stages=*/1);
  scheduler.Add(1, Sequence(1, 3));
  const Scheduler::Next next = scheduler.NextStep();
  scheduler.Remove(SequenceId{1});
  EXPECT_EQ(scheduler.ledger().used(), 0);
  EXPECT_THAT(*scheduler.Finish(ResultOf(*next.step)), IsEmpty());
}

TEST(SchedulerTest, AdmissionsThatWouldMakeTheMessageTooLongWaitForTheNextStep) {
  const int64_t two = 2 * AdmissionBytesMax(40, {});
  Scheduler scheduler(
      {.step_tokens_max = 400, .sequences_max = 8, .step_bytes_max = two - AdmissionsBytesMax(0, 8)});
  ASSERT_EQ(scheduler.admissions_bytes_max(), two);
  scheduler.Start(Epoch{1}, 64, /*stages=*/1);
  for (uint64_t id = 1; id <= 3; ++id) scheduler.Add(id, Sequence(id, 40));
  scheduler.Add(4, Sequence(4, 60));
  scheduler.Add(5, Sequence(5, 1));
  const Scheduler::Next first = scheduler.NextStep();
  EXPECT_EQ(Describe(first), "1@0+40s 2@0+40s");
  Report(&scheduler, *first.step);
  const Scheduler::Next second = scheduler.NextStep();
  EXPECT_EQ(Describe(second), "1@40+1s 2@40+1s 3@0+40s") << "5 would fit, but does not overtake 4";
  Report(&scheduler, *second.step);
  EXPECT_EQ(Describe(scheduler.NextStep()), "1@41+1s 2@41+1s 3@40+1s 4@0+60s 5@0+1s");
}

TEST(SchedulerTest, ANewEpochPrefillsWhatIsThereAgain) {
  Scheduler scheduler({.step_tokens_max = 100, .sequences_max = 8});
  scheduler.Start(Epoch{1}, 8, /*stages=*/1);
  scheduler.Add(1, Sequence(1, 3));
  const Scheduler::Next first = scheduler.NextStep();
  Report(&scheduler, *first.step);
  EXPECT_EQ(Describe(scheduler.NextStep()), "1@3+1s");
  scheduler.Stop();
  EXPECT_EQ(Describe(scheduler.NextStep()), "-");
  scheduler.Start(Epoch{2}, 8, /*stages=*/1);
  const Scheduler::Next again = scheduler.NextStep();
  EXPECT_EQ(Describe(again), "1@0+4s");
  EXPECT_EQ(again.step->id, StepId{1});
  EXPECT_THAT(again.step->retired, IsEmpty());
}

}  // namespace
}  // namespace bellwether
