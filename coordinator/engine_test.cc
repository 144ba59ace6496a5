#include "coordinator/engine.h"

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "common/step_bytes.h"
#include "coordinator/testing/fake_tokenizer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr TokenId kEos = 0;

// An engine, the last step it sent and what it said about requests.
class EngineTest : public ::testing::Test {
 protected:
  EngineTest() : tokenizer_({"", "a", "b", "c", "end"}) { Make({}); }

  void Make(EngineOptions options) {
    options.eos = {kEos};
    engine_ = std::make_unique<Engine>(options, &tokenizer_);
    Handle(LayoutUp{Epoch{1}, /*kv_blocks=*/8, /*stages=*/1});
  }

  void Handle(Event event) {
    for (Action& action : engine_->Handle(std::move(event), now_)) {
      if (auto* send = std::get_if<SendStep>(&action)) steps_.push_back(std::move(send->step));
      if (auto* emit = std::get_if<EmitTokens>(&action)) chunks_.push_back(std::move(emit->chunk));
      if (auto* scores = std::get_if<EmitScores>(&action)) {
        scores_ = std::move(scores->logprobs);
        best_ = std::move(scores->best);
      }
      if (auto* interrupted = std::get_if<Interrupted>(&action)) interrupted_.push_back(*interrupted);
      if (auto* done = std::get_if<RequestDone>(&action)) done_.push_back(std::move(*done));
      if (auto* fail = std::get_if<FailEpoch>(&action)) failed_ = fail->reason;
    }
  }

  EngineRequest Request(uint64_t id, int32_t prompt = 3) {
    EngineRequest request;
    request.id = RequestId{id};
    request.prompt.assign(prompt, 1);
    request.max_tokens = 5;
    return request;
  }

  // Reports the last step; every sequence that samples in it gets this token.
  void Report(TokenId token) {
    StepResult result{.epoch = steps_.back().epoch, .id = steps_.back().id};
    for (const StepEntry& entry : steps_.back().entries) {
      if (entry.sample) result.outputs.push_back({.sequence = entry.sequence, .token = token, .logprob = -1});
    }
    Handle(StepFinished{std::move(result)});
  }

  absl::Status Refusal(EngineRequest request) {
    const size_t before = done_.size();
    Handle(RequestArrived{std::move(request)});
    return done_.size() == before + 1 ? done_.back().status : absl::OkStatus();
  }

  FakeTokenizer tokenizer_;
  std::unique_ptr<Engine> engine_;
  absl::Duration now_ = absl::Seconds(10);
  std::vector<Step> steps_;
  std::vector<TokenChunk> chunks_;
  std::vector<RequestDone> done_;
  std::vector<Interrupted> interrupted_;
  std::optional<std::vector<float>> scores_;
  std::vector<TokenLogprob> best_;
  std::optional<absl::Status> failed_;
};

TEST_F(EngineTest, AnswersUntilTheEndingToken) {
  EngineRequest request = Request(1);
  request.sampling.logprobs = 0;
  Handle(RequestArrived{request});
  EXPECT_FALSE(engine_->idle());
  now_ += absl::Seconds(1);
  Report(2);
  now_ += absl::Seconds(1);
  Report(3);
  Report(kEos);
  ASSERT_EQ(chunks_.size(), 3);
  EXPECT_EQ(chunks_[0].text, "b");
  EXPECT_EQ(chunks_[1].text, "c");
  EXPECT_EQ(chunks_[1].index, 1);
  EXPECT_FALSE(chunks_[1].finish.has_value());
  EXPECT_THAT(chunks_[2].tokens, ElementsAre(kEos));
  EXPECT_EQ(chunks_[2].text, "");
  EXPECT_EQ(chunks_[2].finish, FinishReason::kStop);
  ASSERT_EQ(chunks_[2].logprobs.size(), 1);
  EXPECT_EQ(chunks_[2].logprobs[0].logprob, -1);
  ASSERT_EQ(done_.size(), 1);
  EXPECT_TRUE(done_[0].status.ok());
  EXPECT_EQ(done_[0].usage.prompt_tokens, 3);
  EXPECT_EQ(done_[0].usage.generated_tokens, 3);
  EXPECT_EQ(done_[0].usage.queued, absl::ZeroDuration());
  EXPECT_EQ(done_[0].usage.time_to_first_token, absl::Seconds(1));
  EXPECT_EQ(done_[0].usage.total, absl::Seconds(2));
  EXPECT_TRUE(engine_->idle());
  EXPECT_EQ(engine_->snapshot().kv_blocks_used, 0);
}

TEST_F(EngineTest, TellsWorkersSeedAndEndingTokens) {
  EngineRequest request = Request(1);
  request.seed = 77;
  request.stop_token_ids = {3, 2, 3};
  Handle(RequestArrived{request});
  EXPECT_EQ(steps_[0].admissions[0].sampling.seed, 77);
  EXPECT_THAT(steps_[0].admissions[0].sampling.ending_tokens, ElementsAre(kEos, 2, 3));
  request.id = RequestId{2};
  request.ignore_eos = true;
  request.seed.reset();
  Handle(RequestArrived{request});
  Report(2);
  EXPECT_EQ(done_.back().seed, 77);
  EXPECT_THAT(steps_[1].admissions[0].sampling.ending_tokens, ElementsAre(2, 3));
  Report(3);
  EXPECT_EQ(done_.back().seed, steps_[1].admissions[0].sampling.seed);
  EXPECT_NE(done_.back().seed, 77);
}

TEST_F(EngineTest, RefusesWhatNeverFitsInAMessageToTheWorkers) {
  const EngineOptions options{.step_bytes_max = AdmissionBytesMax(3 + 5, {.ending_tokens = {kEos}}) -
                                                AdmissionsBytesMax(0, 256)};
  Make(options);
  EngineRequest request = Request(1);
  EXPECT_TRUE(Refusal(request).ok());
  request.id = RequestId{2};
  request.max_tokens = 6;
  absl::Status status = Refusal(request);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(),
              HasSubstr("a prompt of 3 tokens with max_tokens 6 and 0 entries of logit_bias"));
  request.max_tokens = 5;
  request.sampling.logit_bias = {{1, 1.0f}};
  EXPECT_EQ(Refusal(request).code(), absl::StatusCode::kInvalidArgument);
  request = Request(3, /*prompt=*/9);
  request.score = true;
  EXPECT_EQ(Refusal(request).code(), absl::StatusCode::kInvalidArgument);
  request.prompt.resize(8);
  EXPECT_TRUE(Refusal(request).ok());
}

TEST_F(EngineTest, EndsAtMaxTokensAndAtTheContext) {
  Make({.context_tokens_max = 6});
  EngineRequest request = Request(1);
  request.max_tokens = 2;
  Handle(RequestArrived{request});
  Report(1);
  Report(1);
  EXPECT_EQ(chunks_.back().finish, FinishReason::kLength);
  request = Request(2);
  request.max_tokens = std::numeric_limits<int32_t>::max();
  Handle(RequestArrived{request});
  for (int i = 0; i < 3; ++i) Report(1);
  EXPECT_EQ(chunks_.back().finish, FinishReason::kLength);
  EXPECT_EQ(done_.back().usage.generated_tokens, 3);
  EXPECT_TRUE(engine_->idle());
}

TEST_F(EngineTest, EachChoiceEndsByItself) {
  EngineRequest request = Request(1);
  request.choices = 2;
  request.max_tokens = 3;
  Handle(RequestArrived{request});
  ASSERT_EQ(steps_[0].admissions.size(), 2);
  EXPECT_EQ(steps_[0].admissions[1].choice, 1);
  StepResult result{.epoch = Epoch{1}, .id = StepId{1}};
  result.outputs.push_back({.sequence = steps_[0].entries[0].sequence, .token = kEos});
  result.outputs.push_back({.sequence = steps_[0].entries[1].sequence, .token = 2});
  Handle(StepFinished{result});
  EXPECT_TRUE(done_.empty());
  Report(2);
  Report(2);
  EXPECT_EQ(chunks_.back().choice, 1);
  EXPECT_EQ(chunks_.back().finish, FinishReason::kLength);
  ASSERT_EQ(done_.size(), 1);
  EXPECT_EQ(done_[0].usage.generated_tokens, 4);
}

TEST_F(EngineTest, TheMostLikelyTokensComeWithTheScoresWhereAskedFor) {
  Make({.step_tokens_max = 2});
  EngineRequest request = Request(1, /*prompt=*/4);
  request.score = true;
  request.sampling.logprobs = 1;
  Handle(RequestArrived{request});
  const SequenceId sequence = steps_[0].entries[0].sequence;
  Handle(StepFinished{
      {.epoch = Epoch{1},
       .id = StepId{1},
       .outputs = {{.sequence = sequence, .top = {{7, -0.5f}, {8, -1.5f}}, .scores = {-1, -2}}}}});
  Handle(StepFinished{{.epoch = Epoch{1},
                       .id = StepId{2},
                       .outputs = {{.sequence = sequence, .top = {{9, -2.5f}}, .scores = {-3}}}}});
  EXPECT_THAT(*scores_, ElementsAre(-1, -2, -3));
  ASSERT_EQ(best_.size(), 3u);
  EXPECT_EQ(best_[1].token, 8);
  EXPECT_EQ(best_[2].logprob, -2.5f);

  request.id = {2};
  Handle(RequestArrived{request});
  Handle(StepFinished{{.epoch = Epoch{1},
                       .id = StepId{3},
                       .outputs = {{.sequence = steps_.back().entries[0].sequence, .scores = {-1, -2}}}}});
  ASSERT_TRUE(failed_.has_value()) << "a worker leaves them out";
  EXPECT_EQ(failed_->code(), absl::StatusCode::kInternal);
}

TEST_F(EngineTest, ScoresComeAtOnceWhenAllChunksAreThere) {
  Make({.step_tokens_max = 2});
  EngineRequest request = Request(1, /*prompt=*/4);
  request.score = true;
  Handle(RequestArrived{request});
  const SequenceId sequence = steps_[0].entries[0].sequence;
  Handle(StepFinished{
      {.epoch = Epoch{1}, .id = StepId{1}, .outputs = {{.sequence = sequence, .scores = {-1, -2}}}}});
  EXPECT_FALSE(scores_.has_value());
  Handle(StepFinished{
      {.epoch = Epoch{1}, .id = StepId{2}, .outputs = {{.sequence = sequence, .scores = {-3}}}}});
  EXPECT_THAT(*scores_, ElementsAre(-1, -2, -3));
  EXPECT_TRUE(done_.at(0).status.ok());
  EXPECT_THAT(chunks_, IsEmpty());

  EngineRequest one = Request(2, /*prompt=*/1);
  one.score = true;
  Handle(RequestArrived{one});
  EXPECT_THAT(*scores_, IsEmpty());
  EXPECT_TRUE(done_.at(1).status.ok());
}

TEST_F(EngineTest, BadRequestsAreRefusedWithTheNumbers) {
  Make({.context_tokens_max = 600});
  EXPECT_THAT(Refusal(Request(1, 601)).message(), HasSubstr("601 tokens, the context holds 600"));
  EXPECT_EQ(Refusal(Request(2, 600)).code(), absl::StatusCode::kInvalidArgument);
  const absl::Status blocks = Refusal(Request(3, 257));
  EXPECT_EQ(blocks.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(blocks.message(), HasSubstr("needs 9 KV blocks of 32 tokens, the workers hold 8"));
  EXPECT_EQ(Refusal(Request(4, 0)).code(), absl::StatusCode::kInvalidArgument);
  EngineRequest none = Request(5);
  none.max_tokens = 0;
  EXPECT_EQ(Refusal(none).code(), absl::StatusCode::kInvalidArgument);
}

// The limit counted those that ran too, and by default was no larger than what may run: there was no queue.
TEST_F(EngineTest, SoManyRequestsMayWaitBeyondThoseThatRun) {
  Make({.sequences_max = 2, .requests_waiting_max = 3});
  for (uint64_t id = 1; id <= 5; ++id) EXPECT_TRUE(Refusal(Request(id)).ok()) << id;
  EXPECT_EQ(engine_->snapshot().requests_waiting, 4) << "one step is under way, with the first";
  Report(1);
  EXPECT_EQ(engine_->snapshot().sequences_running, 2);
  EXPECT_EQ(engine_->snapshot().requests_waiting, 3);
  const absl::Status full = Refusal(Request(6));
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(full.message(), HasSubstr("5 requests"));
  Report(kEos);  // of both that run
  EXPECT_TRUE(Refusal(Request(7)).ok());
  Make({});
  const EngineOptions options;
  for (int id = 1; id <= options.sequences_max; ++id) EXPECT_TRUE(Refusal(Request(id)).ok());
  EXPECT_TRUE(Refusal(Request(options.sequences_max + 1)).ok()) << "it waits, by default too";
}

TEST_F(EngineTest, AnAnswerThatOutgrowsTheCacheEndsWithBothNumbers) {
  Handle(LayoutUp{Epoch{2}, /*kv_blocks=*/1, /*stages=*/1});
  Handle(RequestArrived{Request(1, 31)});
  Report(1);
  Report(2);
  ASSERT_EQ(done_.size(), 1);
  EXPECT_EQ(done_[0].status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(done_[0].status.message(),
              HasSubstr("33 tokens need 2 KV blocks of 32 tokens, the workers hold 1"));
  EXPECT_EQ(chunks_.back().finish, FinishReason::kError);
  EXPECT_EQ(chunks_.back().index, 2);
}

TEST_F(EngineTest, CancelGivesTheTextHeldBackAndFreesTheBlocks) {
  EngineRequest request = Request(1);
  request.stop = {"bcd"};
  Handle(RequestArrived{request});
  Report(2);
  EXPECT_EQ(chunks_.back().text, "");
  Handle(RequestCancelled{RequestId{1}});
  EXPECT_EQ(chunks_.back().text, "b");
  EXPECT_THAT(chunks_.back().tokens, IsEmpty());
  EXPECT_EQ(chunks_.back().finish, FinishReason::kCancelled);
  EXPECT_EQ(done_.at(0).status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(engine_->snapshot().kv_blocks_used, 0);
  Report(2);  // of the step that was in flight
  Handle(RequestCancelled{RequestId{1}});
  EXPECT_EQ(done_.size(), 1);
  Handle(RequestArrived{Request(2)});
  EXPECT_EQ(steps_.back().retired.size(), 1);
}

TEST_F(EngineTest, DeadlinesPassWithTime) {
  EngineRequest request = Request(1);
  request.deadline = now_ + absl::Seconds(3);
  Handle(RequestArrived{request});
  EXPECT_EQ(engine_->next_tick(), request.deadline);
  now_ += absl::Seconds(2);
  Handle(Tick{});
  EXPECT_THAT(done_, IsEmpty());
  now_ += absl::Seconds(1);
  Handle(Tick{});
  EXPECT_EQ(done_.at(0).status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(chunks_.back().finish, FinishReason::kDeadline);
  EXPECT_EQ(engine_->next_tick(), absl::InfiniteDuration());
}

TEST_F(EngineTest, AStreamSurvivesItsLayoutAndGoesOnInTheNext) {
  Handle(RequestArrived{Request(1)});
  Report(1);
  Report(2);
  Handle(RequestArrived{Request(2)});
  EXPECT_EQ(engine_->snapshot().requests_waiting, 1);
  const size_t sent = steps_.size();
  Handle(LayoutDown{Epoch{1}, absl::AbortedError("worker 3 is lost")});
  EXPECT_THAT(done_, IsEmpty());
  ASSERT_EQ(interrupted_.size(), 2);
  EXPECT_EQ(interrupted_[1].request, RequestId{2});
  EXPECT_EQ(interrupted_[1].reason, "worker 3 is lost");
  EXPECT_EQ(Refusal(Request(3)), absl::UnavailableError("not serving: worker 3 is lost"));
  done_.clear();
  Report(3);  // what was under way comes too late, and is computed again
  EXPECT_EQ(steps_.size(), sent);
  EXPECT_EQ(chunks_.size(), 2);

  Handle(LayoutUp{Epoch{2}, 8, 1});
  ASSERT_EQ(steps_.size(), sent + 1);
  EXPECT_EQ(steps_.back().epoch, Epoch{2});
  ASSERT_EQ(steps_.back().admissions.size(), 2);
  EXPECT_THAT(steps_.back().admissions[0].tokens, ElementsAre(1, 1, 1, 1, 2))
      << "the prompt and what was answered";
  EXPECT_EQ(steps_.back().admissions[0].prompt_length, 3);
  Report(3);
  EXPECT_EQ(chunks_[2].index, 2) << "no token is lost, none comes twice";
  Report(3);
  Report(3);
  ASSERT_EQ(done_.size(), 1);
  EXPECT_TRUE(done_[0].status.ok());
  EXPECT_EQ(done_[0].usage.generated_tokens, 5);
  EXPECT_EQ(done_[0].usage.interruptions, 1);
  EXPECT_EQ(engine_->snapshot().interruptions, 2);
}

TEST_F(EngineTest, AStreamWaitsForALayoutAsLongAsItIsToldTo) {
  Make({.resume_wait = absl::Seconds(20)});
  EngineRequest hasty = Request(1);
  hasty.deadline = now_ + absl::Seconds(5);
  Handle(RequestArrived{hasty});
  Handle(RequestArrived{Request(2)});
  Handle(RequestArrived{Request(3)});
  Handle(LayoutDown{Epoch{1}, absl::UnavailableError("worker 3 is lost")});
  Handle(RequestCancelled{RequestId{3}});
  EXPECT_EQ(done_.at(0).status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(engine_->next_tick(), hasty.deadline);
  now_ += absl::Seconds(5);
  Handle(Tick{});
  EXPECT_EQ(done_.at(1).status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(engine_->next_tick(), now_ + absl::Seconds(15));
  now_ += absl::Seconds(15);
  Handle(Tick{});
  EXPECT_EQ(done_.at(2).status, absl::UnavailableError("worker 3 is lost; service was not back within 20s"));
  EXPECT_EQ(engine_->next_tick(), absl::InfiniteDuration());
}

// It may be what ends them: a prompt that no worker survives must not take the cluster down for ever.
TEST_F(EngineTest, ARequestThatRunsInThreeEpochsWithoutGettingOnIsNotTriedAgain) {
  Make({.sequences_max = 1});
  Handle(RequestArrived{Request(1)});
  Handle(RequestArrived{Request(2)});  // which waits
  Report(1);
  uint64_t epoch = 1;
  const auto lose = [&](bool planned = false) {
    Handle(LayoutDown{Epoch{epoch}, absl::UnavailableError("worker 3 is lost"), planned});
    Handle(LayoutUp{Epoch{++epoch}, 8, 1});
  };
  lose();
  lose();
  Report(1);  // it gets on
  lose();
  lose(/*planned=*/true);
  lose();
  EXPECT_THAT(done_, IsEmpty());
  lose();
  ASSERT_EQ(done_.size(), 1);
  EXPECT_EQ(done_[0].request, RequestId{1});
  EXPECT_EQ(done_[0].status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(done_[0].status.message(),
              HasSubstr("worker 3 is lost; the request has run in 3 epochs in a row"));
  while (!engine_->idle()) Report(2);
  EXPECT_TRUE(done_.at(1).status.ok());
  EXPECT_EQ(done_[1].usage.interruptions, 6);
}

// The rest would not be the rest of that answer.
TEST_F(EngineTest, WhatHasBegunDoesNotGoOnInOtherBits) {
  Handle(RequestArrived{Request(1)});
  Report(1);
  Handle(RequestArrived{Request(2)});
  Handle(LayoutDown{Epoch{1}, absl::UnavailableError("worker 3 is lost")});
  Handle(LayoutUp{.epoch = Epoch{2}, .kv_blocks = 8, .stages = 1, .other_bits = true});
  ASSERT_EQ(done_.size(), 1);
  EXPECT_EQ(done_[0].request, RequestId{1});
  EXPECT_THAT(done_[0].status.message(),
              HasSubstr("worker 3 is lost; the workers that serve now compute other bits"));
  while (!engine_->idle()) Report(kEos);
  EXPECT_TRUE(done_.at(1).status.ok());
}

TEST_F(EngineTest, WithoutAnyPatienceALostLayoutEndsEveryStream) {
  Make({.resume_wait = absl::ZeroDuration()});
  Handle(RequestArrived{Request(1)});
  Handle(RequestArrived{Request(2)});
  EXPECT_EQ(engine_->snapshot().requests_waiting, 1);
  Handle(LayoutDown{Epoch{7}, absl::UnavailableError("another epoch")});
  EXPECT_THAT(done_, IsEmpty());
  Handle(LayoutDown{Epoch{1}, absl::AbortedError("worker 3 is lost")});
  EXPECT_THAT(interrupted_, IsEmpty());
  ASSERT_EQ(done_.size(), 2);
  EXPECT_EQ(done_[1].status, absl::UnavailableError("worker 3 is lost"));
  EXPECT_EQ(Refusal(Request(3)).code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(engine_->snapshot().serving);
  Report(1);
  Handle(LayoutUp{Epoch{2}, 8, 1});
  Handle(RequestArrived{Request(4)});
  EXPECT_EQ(steps_.back().epoch, Epoch{2});
  EXPECT_EQ(steps_.back().id, StepId{1});
}

TEST_F(EngineTest, AResultThatDoesNotFitEndsTheEpoch) {
  Handle(RequestArrived{Request(1)});
  Handle(StepFinished{{.epoch = Epoch{1}, .id = StepId{2}}});
  ASSERT_TRUE(failed_.has_value());
  EXPECT_EQ(done_.at(0).status.code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(engine_->snapshot().serving);
}

// A checkpoint that makes a NaN of one prompt must not end everybody's answers.
TEST_F(EngineTest, WhereNoTokenCanBeSampledOnlyThatRequestEnds) {
  EngineRequest twice = Request(1);
  twice.choices = 2;
  Handle(RequestArrived{twice});
  Report(2);  // both choices are running from here on
  Handle(RequestArrived{Request(2)});
  Report(2);
  while (steps_.back().entries.size() < 3) Report(2);
  StepResult result{.epoch = steps_.back().epoch, .id = steps_.back().id};
  for (const StepEntry& entry : steps_.back().entries) {
    result.outputs.push_back({.sequence = entry.sequence, .token = 2});
  }
  result.outputs[0].token = -1;
  result.outputs[0].error = "a logit is NaN";
  Handle(StepFinished{result});
  ASSERT_EQ(done_.size(), 1);
  EXPECT_EQ(done_[0].request, RequestId{1});
  EXPECT_EQ(done_[0].status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(done_[0].status.message()), HasSubstr("NaN"));
  EXPECT_FALSE(failed_.has_value());
  while (!engine_->idle()) Report(2);
  EXPECT_TRUE(done_.at(1).status.ok());
  EXPECT_EQ(done_[1].usage.generated_tokens, 5);
}

TEST_F(EngineTest, DrainingFinishesWhatIsHere) {
  Handle(RequestArrived{Request(1)});
  Handle(DrainRequested{});
  EXPECT_EQ(Refusal(Request(2)).code(), absl::StatusCode::kUnavailable);
  Report(kEos);
  EXPECT_TRUE(done_.back().status.ok());
  EXPECT_TRUE(engine_->idle());
  EXPECT_TRUE(engine_->snapshot().draining);
}

}  // namespace
}  // namespace bellwether
