// Reading requests, which takes time: who has gone is not read, and short texts do not wait for long ones.

#include "coordinator/inference_service.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <memory>
#include <string>
#include <thread>

#include "absl/synchronization/notification.h"
#include "common/mutex.h"
#include "coordinator/testing/fake_tokenizer.h"
#include "coordinator/text_pool.h"
#include "gmock/gmock.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "proto/bellwether/v1/inference.grpc.pb.h"
#include "proto/grpc_channel.h"
#include "proto/grpc_deadline.h"
#include "proto/grpc_server.h"

namespace bellwether {
namespace {

using ::testing::HasSubstr;

constexpr int kContext = 1000;

// Text of "a"s, each a token. A text that begins with "hold" takes until it is told to stop or let go.
class SlowTokenizer final : public FakeTokenizer {
 public:
  SlowTokenizer() : FakeTokenizer({"a"}) {}
  absl::StatusOr<std::vector<TokenId>> EncodePieces(absl::Span<const TextPiece> pieces, bool special,
                                                    const EncodeLimits& limits) const override {
    const size_t fewest = FewestTokens(pieces[0].text);
    if (fewest > limits.tokens_max) return absl::OutOfRangeError("too long");
    if (!pieces[0].text.starts_with("hold")) {
      ++encoded;
      return FakeTokenizer::EncodePieces(pieces, special, limits);
    }
    {
      MutexLock lock(&mutex_);
      ++held_;
    }
    while (!released_.HasBeenNotified()) {
      if (const absl::Status stop = limits.stop(); !stop.ok()) {
        MutexLock lock(&mutex_);
        ++stopped_;
        return stop;
      }
      std::this_thread::yield();
    }
    return std::vector<TokenId>{0};
  }
  size_t FewestTokens(std::string_view text) const override {
    return static_cast<size_t>(std::count(text.begin(), text.end(), 'a')) / 64;  // the rest may vanish
  }

  void WaitUntilHeld(int count) const { WaitFor(&held_, count); }
  void WaitUntilStopped(int count) const { WaitFor(&stopped_, count); }
  void Release() { released_.Notify(); }
  mutable std::atomic<int> encoded{0};

 private:
  void WaitFor(const int* counter, int count) const {
    MutexLock lock(&mutex_);
    const auto enough = [counter, count] { return *counter >= count; };
    mutex_.Await(enough);
  }
  mutable Mutex mutex_;
  mutable int held_ = 0, stopped_ = 0;
  absl::Notification released_;
};

// Stands still until it jumps.
class JumpingClock final : public Clock {
 public:
  absl::Duration Now() const override { return absl::Seconds(seconds_.load()); }
  void Jump() { seconds_ += 3600; }

 private:
  std::atomic<int> seconds_{1};
};

class InferenceServiceTest : public testing::Test {
 protected:
  InferenceServiceTest()
      : engine_({}, &tokenizer_, {}),
        requests_({.limits = {.vocab = 1, .context_tokens = kContext, .has_tokenizer = true},
                   .tokenizer = &tokenizer_,
                   .engine = &engine_,
                   .clock = &clock_}),
        service_({.requests = &requests_, .cluster_status = [] { return ClusterService::Status(); }}) {
    grpc::ServerBuilder builder;
    builder.RegisterService(service_.service());
    auto server = GrpcServer::Start(
        &builder,
        {.listen = {.address = "127.0.0.1:0", .name = "clients", .descriptors = DescriptorsBetween(0.5, 1)}});
    EXPECT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    stub_ = v1::Inference::NewStub(MakeChannel(server_->address()));
  }

  // What becomes of a prompt. The engine serves nothing, so one that reaches it is Unavailable.
  grpc::Status Ask(const std::string& text, grpc::ClientContext* context) {
    v1::GenerateRequest request;
    request.mutable_prompt()->set_text(text);
    request.mutable_options()->set_max_tokens(1);
    const auto reader = stub_->Generate(context, request);
    v1::GenerateResponse response;
    while (reader->Read(&response)) {
    }
    return reader->Finish();
  }
  grpc::Status Ask(const std::string& text) {
    grpc::ClientContext context;
    return Ask(text, &context);
  }

  JumpingClock clock_;
  SlowTokenizer tokenizer_;
  EngineLoop engine_;
  RequestService requests_;
  InferenceService service_;
  std::unique_ptr<GrpcServer> server_;
  std::unique_ptr<v1::Inference::Stub> stub_;
};

// One call in a thread of its own.
class Asking {
 public:
  template <typename Ask>
  explicit Asking(Ask ask) : thread_([this, ask] { status = ask(&context); }) {}
  ~Asking() {
    if (thread_.joinable()) thread_.join();
  }
  void Wait() { thread_.join(); }
  grpc::ClientContext context;
  grpc::Status status;

 private:
  std::thread thread_;
};

const std::string kHeldShort = "hold";
const std::string kHeldLong = "hold" + std::string(kShortTextBytes, 'a');

TEST_F(InferenceServiceTest, ReadingStopsWhenTheClientGoes) {
  Asking asking([this](auto* context) { return Ask(kHeldShort, context); });
  tokenizer_.WaitUntilHeld(1);
  asking.context.TryCancel();
  asking.Wait();
  EXPECT_EQ(asking.status.error_code(), grpc::StatusCode::CANCELLED);
  tokenizer_.WaitUntilStopped(1);
}

TEST_F(InferenceServiceTest, ReadingStopsAtTheDeadline) {
  grpc::ClientContext context;
  context.set_deadline(GrpcDeadlineAfter(absl::Milliseconds(100)));
  EXPECT_EQ(Ask(kHeldShort, &context).error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  tokenizer_.WaitUntilStopped(1);
}

// Ten prompts whose clients have gone used to be read to their ends, one after the other.
TEST_F(InferenceServiceTest, WhoHasGoneBeforeHisTurnIsNeverRead) {
  Asking first([this](auto* context) { return Ask(kHeldShort, context); });
  Asking second([this](auto* context) { return Ask(kHeldShort, context); });
  tokenizer_.WaitUntilHeld(2);
  for (int i = 0; i < 10; ++i) {
    grpc::ClientContext context;
    context.set_deadline(GrpcDeadlineAfter(absl::Milliseconds(20)));
    EXPECT_EQ(Ask("a", &context).error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  }
  clock_.Jump();  // the service may hear of a deadline a moment after the client
  tokenizer_.Release();
  EXPECT_EQ(Ask("aa").error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(tokenizer_.encoded, 1);
}

TEST_F(InferenceServiceTest, ShortTextsPassLongOnes) {
  Asking first([this](auto* context) { return Ask(kHeldLong, context); });
  tokenizer_.WaitUntilHeld(1);
  Asking second([this](auto* context) { return Ask(kHeldLong, context); });
  for (int i = 0; i < 2 * kShortsAhead; ++i) EXPECT_EQ(Ask("a").error_code(), grpc::StatusCode::UNAVAILABLE);
  tokenizer_.Release();
}

// Ten prompts of 3 MB that are all to be refused once held up every text of more than 16 KiB for 46 s.
TEST_F(InferenceServiceTest, ATextOf17KilobytesPassesTenOfThreeMegabytes) {
  const std::string three_megabytes = "hold" + std::string(3 << 20, ' ');
  std::deque<Asking> asking;
  for (int i = 0; i < 10; ++i) {
    asking.emplace_back([&](auto* context) { return Ask(three_megabytes, context); });
  }
  tokenizer_.WaitUntilHeld(1);
  for (int i = 0; i < 3; ++i) {
    grpc::ClientContext context;
    context.set_deadline(GrpcDeadlineAfter(absl::Seconds(60)));
    const grpc::Status status = Ask(std::string(17'000, 'a'), &context);  // too long as well, once it is read
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << status.error_message();
  }
  EXPECT_EQ(tokenizer_.encoded, 3) << "while the first of the ten was being read";
  tokenizer_.Release();
}

// By its bytes alone, so it need not wait for the long one that is being read.
TEST_F(InferenceServiceTest, APromptThatIsCertainlyTooLongIsRefusedAtOnce) {
  Asking reading([this](auto* context) { return Ask(kHeldLong, context); });
  tokenizer_.WaitUntilHeld(1);
  const grpc::Status refused = Ask(std::string(3 << 20, 'a'));
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(refused.error_message(),
              HasSubstr("prompt has more than 999 tokens, but the context holds 1000 including the answer"));
  tokenizer_.Release();
}

}  // namespace
}  // namespace bellwether
