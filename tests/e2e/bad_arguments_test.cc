// Every field of inference.proto with values that are not allowed: INVALID_ARGUMENT, naming the field.

#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "google/protobuf/descriptor.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "proto/bellwether/v1/inference.grpc.pb.h"
#include "proto/grpc_channel.h"
#include "tests/e2e/raw_calls.h"
#include "tests/e2e/test_cluster.h"
#include "tests/e2e/tiny_checkpoint.h"

namespace bellwether {
namespace {

using ::testing::HasSubstr;

// A wrong value of GenerationOptions and the field that the refusal must name.
struct BadOption {
  std::string field;
  std::string what;
  std::function<void(v1::GenerationOptions&)> set;
};

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

template <typename Setter>
void AddReals(const std::string& field, std::vector<double> values, Setter setter,
              std::vector<BadOption>& cases) {
  for (const double value : values) {
    cases.push_back({field, std::to_string(value), [setter, value](v1::GenerationOptions& options) {
                       setter(*options.mutable_sampling(), value);
                     }});
  }
}

template <typename Setter>
void AddIntegers(const std::string& field, std::vector<int32_t> values, Setter setter,
                 std::vector<BadOption>& cases) {
  for (const int32_t value : values) {
    cases.push_back({field, std::to_string(value),
                     [setter, value](v1::GenerationOptions& options) { setter(options, value); }});
  }
}

void AddLists(std::vector<BadOption>& cases) {
  constexpr int kVocab = TinyCheckpoint::kVocab;
  cases.push_back({"stop", "empty", [](auto& options) { options.add_stop(""); }});
  cases.push_back({"stop", "long", [](auto& options) { options.add_stop(std::string(5000, 'x')); }});
  cases.push_back({"stop", "many", [](auto& options) {
                     for (int i = 0; i < 17; ++i) options.add_stop("x");
                   }});
  for (const int id : {-1, kVocab}) {
    cases.push_back(
        {"stop_token_ids", std::to_string(id), [id](auto& options) { options.add_stop_token_ids(id); }});
    cases.push_back({"logit_bias", std::to_string(id),
                     [id](auto& options) { (*options.mutable_sampling()->mutable_logit_bias())[id] = 1; }});
  }
  cases.push_back({"stop_token_ids", "many", [](auto& options) {
                     for (int i = 0; i < 65; ++i) options.add_stop_token_ids(i);
                   }});
  for (const float bias : {1001.0f, -1001.0f, std::numeric_limits<float>::quiet_NaN()}) {
    cases.push_back({"logit_bias", std::to_string(bias), [bias](auto& options) {
                       (*options.mutable_sampling()->mutable_logit_bias())[3] = bias;
                     }});
  }
  cases.push_back({"logit_bias", "many", [](auto& options) {
                     for (int i = 0; i < 5000; ++i)
                       (*options.mutable_sampling()->mutable_logit_bias())[i] = 1;
                   }});
}

std::vector<BadOption> BadOptions() {
  constexpr int kLeast = std::numeric_limits<int32_t>::min(), kMost = std::numeric_limits<int32_t>::max();
  std::vector<BadOption> cases;
  AddIntegers(
      "max_tokens", {0, -1, kLeast}, [](auto& o, int32_t v) { o.set_max_tokens(v); }, cases);
  AddIntegers(
      "min_tokens", {-1, kLeast}, [](auto& o, int32_t v) { o.set_min_tokens(v); }, cases);
  AddIntegers(
      "min_tokens", {9}, [](auto& o, int32_t v) { o.set_min_tokens(v), o.set_max_tokens(8); }, cases);
  AddIntegers(
      "logprobs", {-1, 21, kMost}, [](auto& o, int32_t v) { o.set_logprobs(v); }, cases);
  AddIntegers(
      "n", {0, -1, 17, kMost}, [](auto& o, int32_t v) { o.set_n(v); }, cases);
  AddIntegers(
      "top_k", {-1, kLeast}, [](auto& o, int32_t v) { o.mutable_sampling()->set_top_k(v); }, cases);
  AddReals(
      "temperature", {-0.1, kNan, kInfinity}, [](auto& s, double v) { s.set_temperature(v); }, cases);
  AddReals(
      "top_p", {0, -1, 1.01, kNan}, [](auto& s, double v) { s.set_top_p(v); }, cases);
  AddReals(
      "min_p", {-0.1, 1.01, kNan}, [](auto& s, double v) { s.set_min_p(v); }, cases);
  AddReals(
      "repetition_penalty", {0, -1, kNan, kInfinity}, [](auto& s, double v) { s.set_repetition_penalty(v); },
      cases);
  AddReals(
      "presence_penalty", {-101, 101, kNan}, [](auto& s, double v) { s.set_presence_penalty(v); }, cases);
  AddReals(
      "frequency_penalty", {-101, 101, kNan}, [](auto& s, double v) { s.set_frequency_penalty(v); }, cases);
  AddLists(cases);
  return cases;
}

class BadArguments : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    checkpoint_ = new TinyCheckpoint("smollm", "<|im_start|>");
    auto cluster = TestCluster::Start({.model = checkpoint_->path()});
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    cluster_ = cluster->release();
    stub_ = v1::Inference::NewStub(MakeChannel(cluster_->address())).release();
  }
  static void TearDownTestSuite() {
    delete stub_;
    delete cluster_;
    delete checkpoint_;
  }
  void SetUp() override { ASSERT_NE(stub_, nullptr); }

  static grpc::Status ReadAll(grpc::ClientReaderInterface<v1::GenerateResponse>& reader) {
    v1::GenerateResponse message;
    while (reader.Read(&message)) {
    }
    return reader.Finish();
  }
  static grpc::Status Generate(const v1::GenerateRequest& request, const std::string& request_id = "") {
    grpc::ClientContext context;
    if (!request_id.empty()) context.AddMetadata("x-request-id", request_id);
    return ReadAll(*stub_->Generate(&context, request));
  }
  static grpc::Status Chat(const v1::ChatRequest& request) {
    grpc::ClientContext context;
    return ReadAll(*stub_->Chat(&context, request));
  }
  static grpc::Status Score(const v1::ScoreRequest& request) {
    grpc::ClientContext context;
    v1::ScoreResponse response;
    return stub_->Score(&context, request, &response);
  }
  static void ExpectRefused(const grpc::Status& status, const std::string& field) {
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT)
        << field << ": " << status.error_message();
    EXPECT_THAT(status.error_message(), HasSubstr(field));
  }
  static v1::GenerateRequest GoodRequest() {
    v1::GenerateRequest request;
    request.mutable_prompt()->set_text("hello");
    request.mutable_options()->set_max_tokens(8);
    return request;
  }

  static TinyCheckpoint* checkpoint_;
  static TestCluster* cluster_;
  static v1::Inference::Stub* stub_;
};
TinyCheckpoint* BadArguments::checkpoint_ = nullptr;
TestCluster* BadArguments::cluster_ = nullptr;
v1::Inference::Stub* BadArguments::stub_ = nullptr;

TEST_F(BadArguments, TheGoodRequestIsGood) {
  const grpc::Status status = Generate(GoodRequest());
  EXPECT_TRUE(status.ok()) << status.error_message();
}

TEST_F(BadArguments, OfGenerateAndChat) {
  for (const BadOption& bad : BadOptions()) {
    SCOPED_TRACE(bad.field + " " + bad.what);
    v1::GenerateRequest request = GoodRequest();
    bad.set(*request.mutable_options());
    ExpectRefused(Generate(request), bad.field);
    v1::ChatRequest chat;
    chat.add_messages()->set_role("user");
    bad.set(*chat.mutable_options());
    ExpectRefused(Chat(chat), bad.field);
  }
}

// A field that is added later needs a line in the table, or a place among those that have no wrong value.
TEST_F(BadArguments, NoFieldOfTheOptionsIsForgotten) {
  std::string tried = " ignore_eos seed sampling ";
  for (const BadOption& bad : BadOptions()) tried += bad.field + " ";
  for (const auto* type : {v1::GenerationOptions::descriptor(), v1::Sampling::descriptor()}) {
    for (int i = 0; i < type->field_count(); ++i) {
      EXPECT_THAT(tried, HasSubstr(" " + type->field(i)->name() + " "));
    }
  }
}

TEST_F(BadArguments, OfPrompts) {
  std::vector<v1::Prompt> prompts(4);
  prompts[1].mutable_token_ids();  // none
  prompts[2].mutable_token_ids()->add_ids(-1);
  prompts[3].mutable_token_ids()->add_ids(TinyCheckpoint::kVocab);
  for (const v1::Prompt& prompt : prompts) {
    SCOPED_TRACE(prompt.ShortDebugString());
    v1::GenerateRequest request = GoodRequest();
    *request.mutable_prompt() = prompt;
    ExpectRefused(Generate(request), "prompt");
    v1::ScoreRequest score;
    *score.mutable_prompt() = prompt;
    ExpectRefused(Score(score), "prompt");
  }
  ExpectRefused(Generate(v1::GenerateRequest()), "prompt");
  ExpectRefused(Score(v1::ScoreRequest()), "prompt");
}

TEST_F(BadArguments, OfConversations) {
  ExpectRefused(Chat(v1::ChatRequest()), "messages");
  v1::ChatRequest request;
  request.add_messages()->set_role("wizard");
  ExpectRefused(Chat(request), "wizard");
  // More than fits in the metadata that a status travels in.
  request.mutable_messages(0)->set_role(std::string(1 << 20, 'x') + "\n");
  ExpectRefused(Chat(request), "(1048577 bytes) is none of");
  request.mutable_messages(0)->set_role("a\nb");
  ExpectRefused(Chat(request), "a\\nb");
  request.mutable_messages(0)->set_role("");
  ExpectRefused(Chat(request), "role");
}

TEST_F(BadArguments, OfTheTokenizerCalls) {
  for (const int id : {-1, TinyCheckpoint::kVocab}) {
    grpc::ClientContext context;
    v1::DetokenizeRequest request;
    request.add_token_ids(id);
    v1::DetokenizeResponse response;
    ExpectRefused(stub_->Detokenize(&context, request, &response), "token_ids");
  }
}

// gRPC itself answers, as inference.proto says: where a newer one says more, that line goes.
TEST_F(BadArguments, AStringThatIsNoUtf8IsNoMessage) {
  std::string request = GoodRequest().SerializeAsString();
  request.replace(request.find("hello"), 1, "\xFF");
  for (const char* method : {"Generate", "Score", "Tokenize"}) {
    const std::string end =
        EndOf(cluster_->address(), absl::StrCat("/bellwether.v1.Inference/", method), request);
    EXPECT_EQ(end, "12: ") << method;
  }
}

TEST_F(BadArguments, RequestIds) {
  ExpectRefused(Generate(GoodRequest(), std::string(500, 'x')), "x-request-id");
  ExpectRefused(Generate(GoodRequest(), "two words"), "x-request-id");
}

// As over HTTP; what is no trace is no reason to refuse anybody.
TEST_F(BadArguments, ATraceIsEchoedAndWhatIsNoneIsNot) {
  const std::string trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
  for (const std::string& given : {trace, std::string("00-of-no-trace")}) {
    grpc::ClientContext context;
    context.AddMetadata("traceparent", given);
    const grpc::Status status = ReadAll(*stub_->Generate(&context, GoodRequest()));
    EXPECT_TRUE(status.ok()) << status.error_message();
    const auto& answered = context.GetServerInitialMetadata();
    const auto echo = answered.find("traceparent");
    EXPECT_EQ(echo == answered.end() ? "" : std::string(echo->second.data(), echo->second.size()),
              given == trace ? trace : "");
  }
}

TEST_F(BadArguments, NothingOfThisHarmedTheServer) {
  const grpc::Status status = Generate(GoodRequest());
  EXPECT_TRUE(status.ok()) << status.error_message();
}

// Without a tokenizer there are token ids alone.
TEST(NoTokenizer, TextIsRefusedAndTokenIdsWork) {
  auto cluster = TestCluster::Start({.model = "random:llama:fp32"});
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  InferenceClient& client = (*cluster)->client();
  EXPECT_FALSE(client.GetModel()->has_tokenizer);
  const CollectedAnswer answer =
      bellwether::Generate(client, Ids({1, 2, 3}), {.max_tokens = 4, .ignore_eos = true});
  EXPECT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_EQ(answer.broken_rule, "");
  EXPECT_EQ(answer.choices[0].tokens.size(), 4u);
  const auto refused = [](const absl::Status& status) {
    EXPECT_TRUE(status.code() == absl::StatusCode::kInvalidArgument ||
                status.code() == absl::StatusCode::kFailedPrecondition)
        << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("tokenizer"));
  };
  refused(bellwether::Generate(client, Text("hello"), {}).status);
  refused(bellwether::Generate(client, Ids({1}), {.stop = {"x"}}).status);
  refused(client.Tokenize("hello", false, false).status());
  refused(client.Detokenize({1}, false).status());
  const absl::Status chat = bellwether::Chat(client, {{"user", "hello"}}, {}).status;
  EXPECT_FALSE(chat.ok());
  EXPECT_NE(chat.code(), absl::StatusCode::kInternal) << chat;
}

}  // namespace
}  // namespace bellwether
