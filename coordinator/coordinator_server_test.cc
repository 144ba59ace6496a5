#include "coordinator/coordinator_server.h"

#include <atomic>
#include <chrono>
#include <map>
#include <thread>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "coordinator/testing/fake_worker.h"
#include "gmock/gmock.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "http/testing/raw_client.h"
#include "proto/bellwether/v1/inference.grpc.pb.h"
#include "proto/grpc_deadline.h"

// The whole coordinator over real gRPC, with workers that make up the tokens.
namespace bellwether {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr char kModel[] = "tests/goldens/models/llama-mha";

class CoordinatorServerTest : public ::testing::Test {
 protected:
  explicit CoordinatorServerTest(int32_t sequences_max = kDefaultSequences,
                                 int32_t requests_waiting_max = kDefaultQueuedRequests,
                                 absl::Duration resume_wait = kDefaultResumeWait)
      : sequences_max_(sequences_max),
        requests_waiting_max_(requests_waiting_max),
        resume_wait_(resume_wait) {}
  void SetUp() override {
    CoordinatorOptions options{.model = kModel,
                               .build_id = kBuild,
                               .listen = "127.0.0.1:0",
                               .worker_listen = "127.0.0.1:0",
                               .http_listen = "127.0.0.1:0",
                               .metrics_listen = "127.0.0.1:0",
                               .workers = 2,
                               .tensor_parallel = 2,
                               .sequences_max = sequences_max_,
                               .requests_waiting_max = requests_waiting_max_,
                               .seed = 1,
                               .resume_wait = resume_wait_};
    auto server = CoordinatorServer::Start(std::move(options));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    stub_ = v1::Inference::NewStub(Connect(server_->client_address()));
  }
  std::unique_ptr<FakeWorker> Worker(const std::string& name) {
    return std::make_unique<FakeWorker>(server_->worker_address(), name);
  }
  void WaitUntilServing(bool serving = true) {
    v1::GetModelResponse model;
    do {
      grpc::ClientContext context;
      ASSERT_TRUE(stub_->GetModel(&context, {}, &model).ok());
    } while (model.serving() != serving);
  }
  // Until a drain has begun a request may be taken; it then waits for steps that are held until its deadline,
  // whose message without tokens may still reach the client.
  void WaitUntilDraining() {
    grpc::Status refused;
    while (refused.error_message().find("shutting down") == std::string::npos) {
      grpc::ClientContext context;
      Limit(&context, std::chrono::milliseconds(200));
      auto reader = stub_->Generate(&context, Request(3, 1));
      v1::GenerateResponse response;
      while (reader->Read(&response)) EXPECT_EQ(response.token_ids_size(), 0);
      refused = reader->Finish();
    }
  }
  // Every call of a test has a limit, so that a lost answer fails instead of hanging.
  static void Limit(grpc::ClientContext* context,
                    std::chrono::milliseconds limit = std::chrono::seconds(30)) {
    context->set_deadline(GrpcDeadlineAfter(absl::FromChrono(limit)));
  }
  static v1::GenerateRequest Request(int prompt_tokens, int max_tokens) {
    v1::GenerateRequest request;
    for (int i = 0; i < prompt_tokens; ++i) request.mutable_prompt()->mutable_token_ids()->add_ids(i);
    request.mutable_options()->set_max_tokens(max_tokens);
    request.mutable_options()->set_ignore_eos(true);
    return request;
  }
  grpc::Status Generate(const v1::GenerateRequest& request, std::vector<v1::GenerateResponse>* responses) {
    grpc::ClientContext context;
    Limit(&context);
    context.AddMetadata("x-request-id", "abc");
    auto reader = stub_->Generate(&context, request);
    for (v1::GenerateResponse response; reader->Read(&response);) responses->push_back(response);
    return reader->Finish();
  }

  // Asks for 40 tokens, and waits for their end; `lost` is gone in the first step, in which `held` stays
  // until it is let go on.
  std::thread StreamThatLoses(FakeWorker* lost, FakeWorker* held, grpc::Status* status,
                              std::vector<v1::GenerateResponse>* responses) {
    WaitUntilServing();
    held->HoldSteps(true);
    std::thread client([=, this] { *status = Generate(Request(3, 40), responses); });
    lost->WaitForSteps(1);
    lost->Disappear();
    return client;
  }

  const int32_t sequences_max_, requests_waiting_max_;
  const absl::Duration resume_wait_;
  std::unique_ptr<CoordinatorServer> server_;
  std::unique_ptr<v1::Inference::Stub> stub_;
};

// One whose streams end with their layout, so that each says at once what a worker has done.
class ImpatientServerTest : public CoordinatorServerTest {
 protected:
  ImpatientServerTest()
      : CoordinatorServerTest(kDefaultSequences, kDefaultQueuedRequests, absl::ZeroDuration()) {}
};

// A server that takes one request at a time, so that one is only taken when the last has left.
class OneRequestTest : public CoordinatorServerTest {
 protected:
  OneRequestTest() : CoordinatorServerTest(/*sequences_max=*/1, /*requests_waiting_max=*/0) {}
  // The score of a single token needs no step: it is answered while the steps are held.
  grpc::StatusCode ScoreOneToken() {
    grpc::ClientContext context;
    Limit(&context);
    v1::ScoreRequest request;
    request.mutable_prompt()->mutable_token_ids()->add_ids(1);
    v1::ScoreResponse response;
    return stub_->Score(&context, request, &response).error_code();
  }
  // False if the request is still there after a time in which anything would have happened.
  bool WaitUntilTheRequestHasLeft() {
    const absl::Time limit = absl::Now() + absl::Seconds(30);
    while (absl::Now() < limit) {
      const grpc::StatusCode code = ScoreOneToken();
      if (code != grpc::StatusCode::RESOURCE_EXHAUSTED) return code == grpc::StatusCode::OK;
    }
    return false;
  }
};

TEST_F(CoordinatorServerTest, StreamsAnAnswerWithEverythingThatBelongsToIt) {
  const auto a = Worker("a"), b = Worker("b");
  WaitUntilServing();
  std::vector<v1::GenerateResponse> responses;
  v1::GenerateRequest request = Request(3, 5);
  request.mutable_options()->set_n(2);
  request.mutable_options()->set_logprobs(0);
  const grpc::Status status = Generate(request, &responses);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_FALSE(responses.empty());
  EXPECT_THAT(responses.front().prompt_token_ids(), ElementsAre(0, 1, 2));
  EXPECT_EQ(responses.front().request_id(), "abc");
  EXPECT_EQ(responses.back().usage().prompt_tokens(), 3);
  EXPECT_EQ(responses.back().usage().generated_tokens(), 10);
  std::map<int, std::vector<TokenId>> tokens;
  std::map<int, int> finished;
  for (const v1::GenerateResponse& response : responses) {
    std::vector<TokenId>& got = tokens[response.choice()];
    EXPECT_EQ(finished[response.choice()], 0);
    EXPECT_EQ(response.index(), static_cast<int>(got.size()));
    got.insert(got.end(), response.token_ids().begin(), response.token_ids().end());
    EXPECT_EQ(response.logprobs_size(), response.token_ids_size());
    finished[response.choice()] += response.finish_reason() == v1::FINISH_REASON_LENGTH;
  }
  for (int choice = 0; choice < 2; ++choice) {
    std::vector<TokenId> expected;
    for (int p = 2; p < 7; ++p) expected.push_back(TokenAfter(p, choice));
    EXPECT_EQ(tokens[choice], expected);
    EXPECT_EQ(finished[choice], 1);
  }
}

TEST_F(CoordinatorServerTest, Scores) {
  const auto a = Worker("a"), b = Worker("b");
  WaitUntilServing();
  grpc::ClientContext context;
  Limit(&context);
  v1::ScoreRequest request;
  for (int i = 0; i < 4; ++i) request.mutable_prompt()->mutable_token_ids()->add_ids(i);
  v1::ScoreResponse response;
  ASSERT_TRUE(stub_->Score(&context, request, &response).ok());
  EXPECT_THAT(response.token_ids(), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(response.logprobs(), ElementsAre(-1, -2, -3));
}

TEST_F(CoordinatorServerTest, ManyStreamsAtOnceGetTheAnswersTheyGetAlone) {
  const auto a = Worker("a"), b = Worker("b");
  WaitUntilServing();
  std::vector<std::thread> clients;
  std::atomic<int> right{0};
  for (int i = 0; i < 32; ++i) {
    clients.emplace_back([&, i] {
      std::vector<v1::GenerateResponse> responses;
      if (!Generate(Request(1 + i % 5, 10 + i), &responses).ok()) return;
      std::vector<TokenId> got, expected;
      for (const auto& it : responses) got.insert(got.end(), it.token_ids().begin(), it.token_ids().end());
      for (int p = i % 5; p < i % 5 + 10 + i; ++p) expected.push_back(TokenAfter(p, 0));
      if (got == expected) ++right;
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(right, 32);
}

TEST_F(CoordinatorServerTest, BadArgumentsNameFieldAndRequest) {
  const auto a = Worker("a"), b = Worker("b");
  WaitUntilServing();
  std::vector<v1::GenerateResponse> responses;
  v1::GenerateRequest request = Request(3, 0);
  grpc::Status status = Generate(request, &responses);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("max_tokens is 0"));
  EXPECT_THAT(status.error_message(), StartsWith("request abc: "));
  status = Generate(v1::GenerateRequest(), &responses);
  EXPECT_THAT(status.error_message(), HasSubstr("prompt.text or prompt.token_ids"));
  request = Request(3, 1);
  request.mutable_prompt()->set_text("hello");
  status = Generate(request, &responses);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(status.error_message(), HasSubstr("no tokenizer"));
}

TEST_F(CoordinatorServerTest, BeforeTheWorkersAreThereRequestsAreRefused) {
  std::vector<v1::GenerateResponse> responses;
  EXPECT_EQ(Generate(Request(3, 1), &responses).error_code(), grpc::StatusCode::UNAVAILABLE);
  grpc::ClientContext context;
  v1::GetModelResponse model;
  ASSERT_TRUE(stub_->GetModel(&context, {}, &model).ok());
  EXPECT_FALSE(model.serving());
  EXPECT_THAT(model.not_serving_reason(), HasSubstr("0 of 2"));
}

TEST_F(OneRequestTest, ACancelEndsTheRequest) {
  const auto a = Worker("a"), b = Worker("b");
  WaitUntilServing();
  a->HoldSteps(true);
  b->HoldSteps(true);
  grpc::ClientContext context;
  Limit(&context, std::chrono::minutes(2));
  auto reader = stub_->Generate(&context, Request(3, 40));
  a->WaitForSteps(1);
  EXPECT_EQ(ScoreOneToken(), grpc::StatusCode::RESOURCE_EXHAUSTED) << "the request is there";
  context.TryCancel();
  v1::GenerateResponse response;
  while (reader->Read(&response)) {
  }
  // That much the client's own library says; the rest is the server's.
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(WaitUntilTheRequestHasLeft());
}

TEST_F(OneRequestTest, TheClientsDeadlineEndsTheRequest) {
  const auto a = Worker("a"), b = Worker("b");
  WaitUntilServing();
  a->HoldSteps(true);
  b->HoldSteps(true);
  grpc::ClientContext context;
  Limit(&context, std::chrono::milliseconds(100));
  auto reader = stub_->Generate(&context, Request(3, 40));
  v1::GenerateResponse response;
  while (reader->Read(&response)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_TRUE(WaitUntilTheRequestHasLeft());
}

TEST_F(CoordinatorServerTest, AStreamGoesOnWhenAnotherTakesThePlaceOfALostWorker) {
  const auto a = Worker("a"), b = Worker("b");
  std::vector<v1::GenerateResponse> responses;
  grpc::Status status;
  std::thread client = StreamThatLoses(b.get(), a.get(), &status, &responses);
  WaitUntilServing(false);
  a->HoldSteps(false);
  const auto c = Worker("c");
  client.join();
  EXPECT_TRUE(status.ok()) << status.error_message();
  std::vector<TokenId> got, expected;
  std::vector<std::string> interruptions;
  for (const v1::GenerateResponse& response : responses) {
    got.insert(got.end(), response.token_ids().begin(), response.token_ids().end());
    if (!response.interruption().empty()) interruptions.push_back(response.interruption());
  }
  for (int p = 2; p < 42; ++p) expected.push_back(TokenAfter(p, 0));
  EXPECT_EQ(got, expected);
  EXPECT_THAT(interruptions, ElementsAre(HasSubstr("worker b (stage 0, rank 1) is lost")));
  EXPECT_EQ(responses.back().usage().interruptions(), 1);
}

TEST_F(ImpatientServerTest, ALostWorkerEndsItsStreamsAndAnotherTakesItsPlace) {
  const auto a = Worker("a"), b = Worker("b");
  std::vector<v1::GenerateResponse> responses;
  grpc::Status status;
  std::thread client = StreamThatLoses(b.get(), a.get(), &status, &responses);
  client.join();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr("worker b"));
  WaitUntilServing(false);
  a->HoldSteps(false);
  const auto c = Worker("c");
  WaitUntilServing();
  responses.clear();
  EXPECT_TRUE(Generate(Request(3, 4), &responses).ok());
}

TEST_F(ImpatientServerTest, AWorkerThatBreaksTheProtocolIsNamed) {
  const auto a = Worker("a"), b = Worker("b");
  WaitUntilServing();
  a->Misbehave();
  b->Misbehave();
  std::vector<v1::GenerateResponse> responses;
  const grpc::Status status = Generate(Request(3, 4), &responses);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr("rank 0) failed"));
  EXPECT_THAT(status.error_message(), HasSubstr("out of order"));
}

// It reached the client, and was taken for the index of a piece.
TEST_F(ImpatientServerTest, ATokenBeyondTheVocabularyFailsWithItsWorker) {
  const auto a = Worker("a"), b = Worker("b");
  WaitUntilServing();
  a->MakeUpTokens();
  b->MakeUpTokens();
  std::vector<v1::GenerateResponse> responses;
  const grpc::Status status = Generate(Request(3, 4), &responses);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(),
              HasSubstr("(stage 0, rank 0) failed: a result of step 1 holds token ids"));
  for (const v1::GenerateResponse& response : responses) EXPECT_EQ(response.token_ids_size(), 0);
}

TEST_F(CoordinatorServerTest, AResultThatFitsNoStepNamesItsWorker) {
  const auto a = Worker("a"), b = Worker("b");
  WaitUntilServing();
  a->LeaveOutOutputs();
  b->LeaveOutOutputs();
  std::vector<v1::GenerateResponse> responses;
  const grpc::Status status = Generate(Request(3, 4), &responses);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr("(stage 0, rank 0): step 1 gave 0 outputs"));
}

TEST_F(ImpatientServerTest, WhatAWorkerSaysIsCut) {
  FakeWorker wordy(server_->worker_address(), "wordy", kBuild, std::string(1 << 20, 'z'));
  EXPECT_THAT(wordy.WaitForRefusal(), HasSubstr("has 1048576 bytes, allowed are 512"));
  const auto a = Worker("a");
  auto b = Worker("b");
  WaitUntilServing();
  a->HoldSteps(true);  // else it may answer before the other fails
  b->FailStep(std::string(20000, 'x'));
  std::vector<v1::GenerateResponse> responses;
  const grpc::Status status = Generate(Request(3, 4), &responses);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr("failed: " + std::string(512, 'x')));
  EXPECT_LT(status.error_message().size(), 700);
}

TEST_F(CoordinatorServerTest, ADrainLetsRunningRequestsFinish) {
  const auto a = Worker("a"), b = Worker("b");
  WaitUntilServing();
  a->HoldSteps(true);
  b->HoldSteps(true);
  std::vector<v1::GenerateResponse> responses;
  grpc::Status status;
  std::thread client([&] { status = Generate(Request(3, 5), &responses); });
  a->WaitForSteps(1);
  std::thread drain([&] { server_->Shutdown(absl::Seconds(60)); });
  WaitUntilDraining();
  a->HoldSteps(false);
  b->HoldSteps(false);
  client.join();
  drain.join();
  EXPECT_TRUE(status.ok()) << status.error_message();
  int tokens = 0;
  for (const auto& it : responses) tokens += it.token_ids_size();
  EXPECT_EQ(tokens, 5);
}

// A coordinator that is told to stop in the middle of an outage.
TEST_F(CoordinatorServerTest, ADrainLetsRequestsThatWaitForWorkersGoOn) {
  const auto a = Worker("a"), b = Worker("b");
  std::vector<v1::GenerateResponse> responses;
  grpc::Status status;
  std::thread client = StreamThatLoses(b.get(), a.get(), &status, &responses);
  WaitUntilServing(false);
  std::thread drain([&] { server_->Shutdown(absl::Seconds(60)); });
  WaitUntilDraining();
  a->HoldSteps(false);
  const auto c = Worker("c");
  client.join();
  drain.join();
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(responses.back().usage().generated_tokens(), 40);
}

// It waited for all of its time, though nobody was left who could have gone on with them.
TEST_F(CoordinatorServerTest, ADrainWithoutWorkersWaitsForNothing) {
  const auto a = Worker("a"), b = Worker("b");
  std::vector<v1::GenerateResponse> responses;
  grpc::Status status;
  std::thread client = StreamThatLoses(b.get(), a.get(), &status, &responses);
  a->Disappear();
  WaitUntilServing(false);
  server_->Shutdown(absl::InfiniteDuration());
  client.join();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr("shutting down"));
}

// What gRPC's health says of the server from now until it is gone, by its own stream of changes.
class HealthWatch {
 public:
  explicit HealthWatch(const std::string& address) : stub_(Connect(address)) {
    call_ = stub_.PrepareCall(&context_, "/grpc.health.v1.Health/Watch", &queue_);
    call_->StartCall(this);
    const grpc::Slice whole_server;  // HealthCheckRequest { string service = 1; }
    const bool begun = Wait();
    if (begun) call_->WriteLast(grpc::ByteBuffer(&whole_server, 1), grpc::WriteOptions(), this);
    thread_ = std::thread([this, begun] { Read(begun && Wait()); });
  }
  ~HealthWatch() {
    context_.TryCancel();
    thread_.join();
  }
  void WaitUntilHeard() {
    absl::MutexLock lock(&mutex_);
    const auto heard = [this] { return !states_.empty(); };
    mutex_.Await(absl::Condition(&heard));
  }
  // Once the server is gone. Messages of HealthCheckResponse { ServingStatus status = 1; }
  std::vector<std::string> states() {
    absl::MutexLock lock(&mutex_);
    const auto ended = [this] { return ended_; };
    mutex_.Await(absl::Condition(&ended));
    return states_;
  }

 private:
  bool Wait() {
    void* tag = nullptr;
    bool ok = false;
    return queue_.Next(&tag, &ok) && ok;
  }
  void Read(bool ok) {
    grpc::ByteBuffer buffer;
    while (ok) {
      call_->Read(&buffer, this);
      ok = Wait();
      grpc::Slice slice;
      if (!ok || !buffer.DumpToSingleSlice(&slice).ok()) break;
      absl::MutexLock lock(&mutex_);
      states_.emplace_back(reinterpret_cast<const char*>(slice.begin()), slice.size());
    }
    grpc::Status status;
    call_->Finish(&status, this);
    Wait();
    absl::MutexLock lock(&mutex_);
    ended_ = true;
  }

  grpc::GenericStub stub_;
  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
  absl::Mutex mutex_;
  std::vector<std::string> states_;
  bool ended_ = false;
  std::thread thread_;
};

std::string Get(const std::string& address, const std::string& path) {
  RawClient client(address);
  client.Send(absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
  return client.ReadAll();
}

// A load balancer would send its clients to a server that ends.
TEST_F(CoordinatorServerTest, ALayoutThatComesUpAtTheEndServesNobody) {
  const auto a = Worker("a");
  HealthWatch watch(server_->client_address());
  watch.WaitUntilHeard();
  std::thread end([&] { server_->Shutdown(absl::Seconds(60)); });
  grpc::Status refused;
  do {
    std::vector<v1::GenerateResponse> responses;
    refused = Generate(Request(3, 1), &responses);
  } while (absl::StrContains(refused.error_message(), "waiting for workers"));  // the end has not begun
  const auto ready = [&] { return Get(server_->metrics_address(), "/readyz"); };
  // The watch keeps the server for its grace, in which the layout comes up.
  const auto b = Worker("b");
  bool came_up = false;
  for (std::string page = ready(); !page.empty() && !came_up; page = ready()) {
    EXPECT_THAT(page, StartsWith("HTTP/1.1 503")) << page;
    came_up = absl::StrContains(page, "the server is stopping");
  }
  if (came_up) {
    EXPECT_THAT(Get(server_->http_address(), "/health"), Not(StartsWith("HTTP/1.1 200")));
  }
  end.join();
  EXPECT_THAT(watch.states(), Each("\x08\x02")) << "NOT_SERVING";
  if (!came_up) GTEST_SKIP() << "the workers were slower than the end";
}

}  // namespace
}  // namespace bellwether
