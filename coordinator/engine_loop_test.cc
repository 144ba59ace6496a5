#include "coordinator/engine_loop.h"

#include <atomic>
#include <thread>

#include "common/bounded_queue.h"
#include "coordinator/testing/fake_tokenizer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

constexpr TokenId kToken = 1;

// What a request was told, for whoever waits for its end.
class Answer : public RequestObserver {
 public:
  void OnAccepted() override {}
  void OnTokens(TokenChunk chunk) override {
    MutexLock lock(&mutex_);
    EXPECT_FALSE(end_) << "nothing follows the end";
    tokens_ += static_cast<int>(chunk.tokens.size());
    begun_ = true;
  }
  void OnInterrupted(const std::string&) override {}
  void OnScores(std::vector<float>, std::vector<TokenLogprob>) override {}
  void OnDone(const absl::Status& status, const Usage&, uint64_t) override {
    MutexLock lock(&mutex_);
    EXPECT_FALSE(end_) << "there is one end";
    end_ = status;
  }
  absl::Status WaitForEnd() {
    MutexLock lock(&mutex_);
    mutex_.Await([this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return end_.has_value(); });
    return *end_;
  }
  void WaitForFirstToken() {
    MutexLock lock(&mutex_);
    mutex_.Await([this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return begun_; });
  }
  int tokens() {
    MutexLock lock(&mutex_);
    return tokens_;
  }

 private:
  Mutex mutex_;
  int tokens_ ABSL_GUARDED_BY(mutex_) = 0;
  bool begun_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mutex_);
};

// A loop whose steps are answered by a thread of its own, as workers do.
class EngineLoopTest : public ::testing::Test {
 protected:
  EngineLoopTest() : tokenizer_({"", "a"}), loop_({.eos = {0}}, &tokenizer_, Options()) {
    loop_.Post(LayoutUp{Epoch{1}, /*kv_blocks=*/64, /*stages=*/1});
    workers_ = std::thread([this] {
      while (const std::optional<Step> step = steps_.Pop()) Finish(*step);
    });
  }
  ~EngineLoopTest() override {
    loop_.Stop();
    steps_.Close();
    workers_.join();
  }

  EngineLoop::Options Options() {
    return {.arrivals_max = 64,
            .send_step = [this](const Step& step) { ASSERT_TRUE(steps_.TryPush(step)); },
            .fail_epoch = [](Epoch, const absl::Status& reason) { ADD_FAILURE() << reason; }};
  }
  void Finish(const Step& step) {
    StepResult result{.epoch = step.epoch, .id = step.id};
    for (const StepEntry& entry : step.entries) {
      if (entry.sample)
        result.outputs.push_back({.sequence = entry.sequence, .token = kToken, .logprob = -1});
    }
    loop_.Post(StepFinished{std::move(result)});
  }
  EngineRequest Request(int32_t max_tokens) {
    EngineRequest request;
    request.id = loop_.NewRequestId();
    request.prompt = {1, 1, 1};
    request.max_tokens = max_tokens;
    return request;
  }
  // A request that goes on until it is cancelled, and has begun.
  RequestId Endless(const std::shared_ptr<Answer>& answer) {
    EngineRequest request = Request(2000);
    const RequestId id = request.id;
    EXPECT_TRUE(loop_.Submit(std::move(request), answer).ok());
    answer->WaitForFirstToken();
    return id;
  }

  FakeTokenizer tokenizer_;
  BoundedQueue<Step> steps_{16};
  EngineLoop loop_;
  std::thread workers_;
};

TEST_F(EngineLoopTest, RequestsOfSeveralThreadsAllEndWithTheirTokens) {
  std::vector<std::thread> clients;
  for (int client = 0; client < 3; ++client) {
    clients.emplace_back([this, client] {
      for (int i = 0; i < 20; ++i) {
        const auto answer = std::make_shared<Answer>();
        const int32_t tokens = 1 + (client + i) % 5;
        ASSERT_TRUE(loop_.Submit(Request(tokens), answer).ok());
        EXPECT_TRUE(answer->WaitForEnd().ok());
        EXPECT_EQ(answer->tokens(), tokens);
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_TRUE(loop_.WaitUntilIdle(absl::InfiniteDuration()));
}

TEST_F(EngineLoopTest, AnyThreadMayCancel) {
  const auto answer = std::make_shared<Answer>();
  const RequestId id = Endless(answer);
  std::thread([&] { loop_.Cancel(id); }).join();
  EXPECT_TRUE(absl::IsCancelled(answer->WaitForEnd()));
  loop_.Cancel(id);  // means nothing any more
  EXPECT_TRUE(loop_.WaitUntilIdle(absl::InfiniteDuration()));
}

// A drain waits so, on a thread of its own.
TEST_F(EngineLoopTest, WhoWaitsForTheEndOfAllRequestsIsTold) {
  const auto answer = std::make_shared<Answer>();
  const RequestId id = Endless(answer);
  EXPECT_FALSE(loop_.WaitUntilIdle(absl::ZeroDuration()));
  std::thread waiting([this] { EXPECT_TRUE(loop_.WaitUntilIdle(absl::InfiniteDuration())); });
  loop_.Cancel(id);
  waiting.join();
}

TEST_F(EngineLoopTest, StopEndsWhatIsStillThereAndRefusesTheRest) {
  const auto running = std::make_shared<Answer>(), late = std::make_shared<Answer>();
  Endless(running);
  loop_.Stop();
  EXPECT_TRUE(absl::IsUnavailable(running->WaitForEnd()));
  EXPECT_TRUE(absl::IsUnavailable(loop_.Submit(Request(1), late)));
  loop_.Post(Tick{});
}

TEST_F(EngineLoopTest, ArrivalsBeyondTheLimitAreRefused) {
  // Holds the loop's thread, so that nothing is taken from its queue.
  class Holding : public Answer {
   public:
    explicit Holding(BoundedQueue<int>* let_go) : let_go_(*let_go) {}
    void OnDone(const absl::Status& status, const Usage& usage, uint64_t seed) override {
      Answer::OnDone(status, usage, seed);
      (void)let_go_.Pop();
    }

   private:
    BoundedQueue<int>& let_go_;
  };
  BoundedQueue<int> let_go(1);
  const auto holding = std::make_shared<Holding>(&let_go);
  ASSERT_TRUE(loop_.Submit(Request(1), holding).ok());
  ASSERT_TRUE(holding->WaitForEnd().ok());
  std::vector<std::shared_ptr<Answer>> answers;
  for (int i = 0; i < 64; ++i) {
    answers.push_back(std::make_shared<Answer>());
    ASSERT_TRUE(loop_.Submit(Request(1), answers.back()).ok());
  }
  const auto refused = std::make_shared<Answer>();
  EXPECT_TRUE(absl::IsResourceExhausted(loop_.Submit(Request(1), refused)));
  let_go.Close();
  for (const auto& answer : answers) EXPECT_TRUE(answer->WaitForEnd().ok());
}

}  // namespace
}  // namespace bellwether
