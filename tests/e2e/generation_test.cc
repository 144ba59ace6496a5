// What clients see of Generate, Chat, Score and the tokenizer calls, from real processes: two tensor-parallel
// workers, a checkpoint of random weights with a real tokenizer.

#include <algorithm>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/e2e/test_cluster.h"
#include "tests/e2e/tiny_checkpoint.h"

namespace bellwether {
namespace {

using ::testing::HasSubstr;

constexpr TokenId kStartOfTurn = 1, kEndOfTurn = 2;  // <|im_start|>, <|im_end|>
constexpr int kBlockTokens = 32;

class Generation : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    checkpoint_ = new TinyCheckpoint("smollm", "{{'<|im_start|>' + message['role']}}");
    // The KV blocks of little more than one sequence of full length, so that a block that is not freed is
    // missed.
    auto cluster = TestCluster::Start({.model = checkpoint_->path(),
                                       .tensor_parallel = 2,
                                       .coordinator_flags = {"--kv-blocks-max", std::to_string(kKvBlocks)}});
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    cluster_ = cluster->release();
  }
  static void TearDownTestSuite() {
    delete cluster_;
    delete checkpoint_;
  }
  void SetUp() override { ASSERT_NE(cluster_, nullptr); }
  void TearDown() override {
    if (HasFailure() && cluster_ != nullptr) printf("%s\n", cluster_->Logs().c_str());
  }

  static InferenceClient& client() { return cluster_->client(); }
  static CollectedAnswer Greedy(const std::string& prompt, int max_tokens,
                                std::vector<std::string> stop = {}) {
    GenerationOptions options{.max_tokens = max_tokens, .temperature = 0, .ignore_eos = true, .logprobs = 2};
    options.stop = std::move(stop);
    return Generate(client(), Text(prompt), options);
  }
  static void ExpectWell(const CollectedAnswer& answer) {
    EXPECT_TRUE(answer.status.ok()) << answer.status;
    EXPECT_EQ(answer.broken_rule, "");
    ASSERT_FALSE(answer.choices.empty());
  }

  static constexpr int kKvBlocks = TinyCheckpoint::kContext / kBlockTokens + 8;
  static TinyCheckpoint* checkpoint_;
  static TestCluster* cluster_;
};
TinyCheckpoint* Generation::checkpoint_ = nullptr;
TestCluster* Generation::cluster_ = nullptr;

TEST_F(Generation, StreamsTokensInOrder) {
  const CollectedAnswer answer = Greedy("Once upon a time", 100);
  ExpectWell(answer);
  EXPECT_GT(answer.messages, 2) << "a stream, not one message at the end";
  EXPECT_EQ(answer.choices[0].tokens.size(), 100u);
  EXPECT_EQ(answer.choices[0].finish_reason, "length");
  const auto prompt = client().Tokenize("Once upon a time", false, true);
  ASSERT_TRUE(prompt.ok()) << prompt.status();
  EXPECT_EQ(answer.prompt_tokens, prompt->tokens);
  const auto text = client().Detokenize(answer.choices[0].tokens, /*keep_special_tokens=*/false);
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(answer.choices[0].text, *text);
}

// Random weights answer with parts of characters; none of them may reach a client as broken text.
TEST_F(Generation, TextIsValidUtf8WhateverTheTokens) {
  for (uint64_t seed = 0; seed < 8; ++seed) {
    const CollectedAnswer answer = Generate(
        client(), Text("é漢😀"), {.max_tokens = 64, .temperature = 3, .seed = seed, .ignore_eos = true});
    ExpectWell(answer);
    const auto text = client().Detokenize(answer.choices[0].tokens, false);
    ASSERT_TRUE(text.ok()) << text.status();
    EXPECT_EQ(answer.choices[0].text, *text) << "seed " << seed;
  }
}

TEST_F(Generation, StopStringsEndTheAnswerAndAreNotPartOfIt) {
  const CollectedAnswer whole = Greedy("The quick brown fox", 60);
  ExpectWell(whole);
  const std::string& text = whole.choices[0].text;
  ASSERT_GT(text.size(), 40u);
  for (const size_t at : {5u, 17u, 30u}) {
    // Whole characters only: a stop string is text.
    size_t begin = at, end = at + 4;
    while ((text[begin] & 0xC0) == 0x80) ++begin;
    while (end < text.size() && (text[end] & 0xC0) == 0x80) ++end;
    const std::string stop = text.substr(begin, end - begin);
    const CollectedAnswer stopped = Greedy("The quick brown fox", 60, {"never in the text", stop});
    ExpectWell(stopped);
    EXPECT_EQ(stopped.choices[0].text, text.substr(0, text.find(stop)));
    EXPECT_EQ(stopped.choices[0].finish_reason, "stop");
    EXPECT_LT(stopped.choices[0].tokens.size(), 60u);
    EXPECT_TRUE(std::equal(stopped.choices[0].tokens.begin(), stopped.choices[0].tokens.end(),
                           whole.choices[0].tokens.begin()));
  }
}

TEST_F(Generation, StopTokensEosAndMinTokens) {
  const CollectedAnswer whole = Greedy("abc", 40);
  ExpectWell(whole);
  const std::vector<TokenId>& tokens = whole.choices[0].tokens;
  const TokenId stop = tokens[20];
  const auto first = std::find(tokens.begin(), tokens.end(), stop) - tokens.begin();
  GenerationOptions options{.max_tokens = 40, .temperature = 0, .stop_token_ids = {stop}, .ignore_eos = true};
  const CollectedAnswer stopped = Generate(client(), Text("abc"), options);
  ExpectWell(stopped);
  EXPECT_EQ(stopped.choices[0].finish_reason, "stop");
  EXPECT_EQ(static_cast<long>(stopped.choices[0].tokens.size()), first + 1)
      << "the stop token counts, its text does not";
  // Masked until min_tokens are there.
  options.min_tokens = 39;
  const CollectedAnswer later = Generate(client(), Text("abc"), options);
  ExpectWell(later);
  EXPECT_GE(later.choices[0].tokens.size(), 39u);
  // A bias makes end-of-sequence certain.
  GenerationOptions ending{.max_tokens = 40, .temperature = 0, .logit_bias = {{kEndOfTurn, 1000.0f}}};
  const CollectedAnswer ended = Generate(client(), Text("abc"), ending);
  ExpectWell(ended);
  EXPECT_EQ(ended.choices[0].finish_reason, "stop");
  EXPECT_EQ(ended.choices[0].tokens, std::vector<TokenId>{kEndOfTurn});
  EXPECT_EQ(ended.choices[0].text, "");
  ending.ignore_eos = true;
  const CollectedAnswer ignoring = Generate(client(), Text("abc"), ending);
  ExpectWell(ignoring);
  EXPECT_EQ(ignoring.choices[0].tokens.size(), 40u);
}

TEST_F(Generation, ChoicesAreIndependentAndRepeatable) {
  const GenerationOptions options{
      .max_tokens = 24, .temperature = 1.5, .seed = 11, .ignore_eos = true, .n = 5};
  const CollectedAnswer first = Generate(client(), Text("choices"), options);
  const CollectedAnswer second = Generate(client(), Text("choices"), options);
  ExpectWell(first);
  ExpectWell(second);
  ASSERT_EQ(first.choices.size(), 5u);
  EXPECT_EQ(first.choices, second.choices);
  std::set<std::vector<TokenId>> different;
  for (const auto& choice : first.choices) different.insert(choice.tokens);
  EXPECT_EQ(different.size(), 5u);
  EXPECT_EQ(first.usage.generated_tokens, 5 * 24);
}

TEST(SequencesMax, ChoicesTakeTurnsWhereOneSequenceMayRun) {
  for (const int limit : {1, 256}) {
    auto cluster = TestCluster::Start(
        {.model = "random:llama:fp32", .coordinator_flags = {"--sequences-max", std::to_string(limit)}});
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    std::vector<int> choices;
    const absl::Status status = (*cluster)->client().Generate(
        Ids({1, 2, 3}), {.max_tokens = 20, .ignore_eos = true, .n = 3}, {}, [&](const AnswerChunk& chunk) {
          if (!chunk.tokens.empty()) choices.push_back(chunk.choice);
          return true;
        });
    ASSERT_TRUE(status.ok()) << status;
    choices.erase(std::unique(choices.begin(), choices.end()), choices.end());
    EXPECT_EQ(choices.size() == 3, limit == 1) << choices.size() << " turns";
  }
}

TEST_F(Generation, SeedsRepeatAlsoTheDrawnOnes) {
  GenerationOptions options{
      .max_tokens = 40, .temperature = 1.2, .top_k = 50, .top_p = 0.95, .ignore_eos = true};
  const CollectedAnswer drawn = Generate(client(), Text("seed"), options);
  const CollectedAnswer other = Generate(client(), Text("seed"), options);
  ExpectWell(drawn);
  ExpectWell(other);
  EXPECT_NE(drawn.seed, other.seed);
  EXPECT_NE(drawn.choices[0].tokens, other.choices[0].tokens);
  options.seed = drawn.seed;
  const CollectedAnswer repeated = Generate(client(), Text("seed"), options);
  ExpectWell(repeated);
  EXPECT_EQ(repeated.choices, drawn.choices);
  EXPECT_EQ(repeated.seed, drawn.seed);
}

// Decoding token by token and scoring the whole text at once are the same sums, so the numbers are
// equal.
TEST_F(Generation, LogprobsEqualThoseOfScore) {
  for (const double temperature : {0.0, 1.0}) {
    const GenerationOptions options{.max_tokens = 48,
                                    .temperature = temperature,
                                    .repetition_penalty = 1.1,
                                    .seed = 3,
                                    .ignore_eos = true,
                                    .logprobs = 5};
    const CollectedAnswer answer = Generate(client(), Text("Log-probabilities"), options);
    ExpectWell(answer);
    std::vector<TokenId> all = answer.prompt_tokens;
    const auto& choice = answer.choices[0];
    all.insert(all.end(), choice.tokens.begin(), choice.tokens.end());
    const auto score = client().Score(Ids(all), {});
    ASSERT_TRUE(score.ok()) << score.status();
    EXPECT_EQ(score->tokens, all);
    ASSERT_EQ(score->logprobs.size(), all.size() - 1);
    ASSERT_EQ(choice.logprobs.size(), choice.tokens.size());
    for (size_t i = 0; i < choice.tokens.size(); ++i) {
      const AnswerLogprobs& logprobs = choice.logprobs[i];
      EXPECT_EQ(logprobs.sampled.token, choice.tokens[i]);
      EXPECT_EQ(logprobs.sampled.logprob, score->logprobs[answer.prompt_tokens.size() - 1 + i]) << i;
      ASSERT_EQ(logprobs.top.size(), 5u);
      EXPECT_TRUE(std::is_sorted(logprobs.top.begin(), logprobs.top.end(),
                                 [](const auto& a, const auto& b) { return a.logprob > b.logprob; }));
      EXPECT_LE(logprobs.sampled.logprob, logprobs.top[0].logprob);
    }
  }
}

TEST_F(Generation, SixtyFourStreamsAtOnceAnswerAsOneByOne) {
  constexpr int kStreams = 64;
  const auto ask = [](int i) {
    const GenerationOptions options{.max_tokens = 8 + i % 17,
                                    .temperature = i % 3 == 0 ? 0.0 : 0.9,
                                    .top_k = i % 2 == 0 ? 0 : 40,
                                    .repetition_penalty = i % 5 == 0 ? 1.2 : 1.0,
                                    .seed = static_cast<uint64_t>(i),
                                    .ignore_eos = true,
                                    .logprobs = 1};
    InferenceClient own(cluster_->address());
    // Also makes the connection: a first try fails at times when gRPC 1.51 makes many at once ("No such file
    // or directory").
    EXPECT_TRUE(own.WaitUntilServing(kPatience).ok());
    return Generate(own, Ids(SomeTokens(3 + (i * 7) % 90, i, TinyCheckpoint::kVocab)), options);
  };
  std::vector<CollectedAnswer> alone, together(kStreams);
  for (int i = 0; i < kStreams; ++i) alone.push_back(ask(i));
  std::vector<std::thread> threads;
  for (int i = 0; i < kStreams; ++i) threads.emplace_back([&, i] { together[i] = ask(i); });
  for (std::thread& thread : threads) thread.join();
  for (int i = 0; i < kStreams; ++i) {
    ExpectWell(alone[i]);
    ExpectWell(together[i]);
    EXPECT_EQ(alone[i].choices, together[i].choices) << "stream " << i;
  }
}

// Together they need more KV blocks than there are: some are put off and computed again, and nobody sees it.
TEST_F(Generation, AnswersThatDoNotFitTogetherAreTheSame) {
  constexpr int kStreams = 6, kTokens = 480;
  static_assert(kStreams * kTokens > kKvBlocks * kBlockTokens);
  const auto ask = [](int i) {
    const GenerationOptions options{.max_tokens = kTokens,
                                    .temperature = i % 2 == 0 ? 0.0 : 0.8,
                                    .seed = static_cast<uint64_t>(i),
                                    .ignore_eos = true,
                                    .logprobs = 0};
    return Generate(client(), Ids(SomeTokens(30 + i, i, TinyCheckpoint::kVocab)), options);
  };
  std::vector<CollectedAnswer> alone, together(kStreams);
  for (int i = 0; i < kStreams; ++i) alone.push_back(ask(i));
  std::vector<std::thread> threads;
  for (int i = 0; i < kStreams; ++i) threads.emplace_back([&, i] { together[i] = ask(i); });
  for (std::thread& thread : threads) thread.join();
  for (int i = 0; i < kStreams; ++i) {
    ExpectWell(alone[i]);
    ExpectWell(together[i]);
    EXPECT_EQ(alone[i].choices, together[i].choices) << "stream " << i;
  }
}

// Answers as long as the context, ended early by the client; then one that needs nearly every KV block there
// is. A block that was not given back would leave it waiting for ever.
TEST_F(Generation, CancelledAnswersGiveTheirBlocksBack) {
  const PromptInput nearly_all = Ids(SomeTokens(TinyCheckpoint::kContext - 8, 1, TinyCheckpoint::kVocab));
  const GenerationOptions brief{.max_tokens = 4, .temperature = 0, .ignore_eos = true};
  const CollectedAnswer before = Generate(client(), nearly_all, brief);
  ExpectWell(before);
  for (int i = 0; i < 2 * kKvBlocks / 4; ++i) {
    int messages = 0;
    const absl::Status status =
        client().Generate(Ids(SomeTokens(40, i, TinyCheckpoint::kVocab)), {.ignore_eos = true, .n = 4}, {},
                          [&messages](const AnswerChunk&) { return ++messages < 6; });
    EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
  }
  const CollectedAnswer after = Generate(client(), nearly_all, brief, {.timeout = kPatience});
  ExpectWell(after);
  EXPECT_EQ(after.choices, before.choices);
}

TEST_F(Generation, CancelFromAnotherThread) {
  Cancellation cancellation;
  const absl::Status status =
      client().Generate(Text("never ends"), {.ignore_eos = true}, {.cancellation = &cancellation},
                        [&](const AnswerChunk& chunk) {
                          if (chunk.index > 0) std::thread([&] { cancellation.Cancel(); }).join();
                          return true;
                        });
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
}

TEST_F(Generation, DeadlinesEndTheAnswer) {
  // What the client sees. That the server lets go of the request at once: server_test.
  const GenerationOptions endless{.temperature = 1, .seed = 1, .ignore_eos = true, .n = 16};
  const CollectedAnswer answer =
      Generate(client(), Text("deadline"), endless, {.timeout = absl::Milliseconds(300)});
  EXPECT_EQ(answer.status.code(), absl::StatusCode::kDeadlineExceeded) << answer.status;
  EXPECT_EQ(answer.broken_rule, "");
  ExpectWell(Generate(client(), Ids(SomeTokens(TinyCheckpoint::kContext - 8, 2, TinyCheckpoint::kVocab)),
                      {.max_tokens = 2}, {.timeout = kPatience}));
}

// Allowed, if strange: none of them may end the step for those who share it.
TEST_F(Generation, ExtremeOptionsHurtNobody) {
  std::vector<GenerationOptions> extremes;
  for (const double penalty : {1e-308, 1e-40, 1e40, 1e308})
    extremes.push_back({.repetition_penalty = penalty});
  for (const double temperature : {1e-308, 1e-40, 1e40, 1e308})
    extremes.push_back({.temperature = temperature});
  extremes.push_back({.top_k = INT32_MAX, .top_p = 1e-300, .min_p = 1});
  extremes.push_back({.presence_penalty = -100, .frequency_penalty = 100, .seed = UINT64_MAX});
  extremes.push_back({.temperature = 1e-40, .repetition_penalty = 1e-40});
  for (GenerationOptions& options : extremes) {
    options.max_tokens = 12;
    options.ignore_eos = true;
    options.logprobs = 20;
    ExpectWell(Generate(client(), Text("to the limit and beyond"), options));
  }
}

TEST_F(Generation, PromptsBeyondTheContextAreRefusedWithBothNumbers) {
  const int limit = TinyCheckpoint::kContext;
  const auto refused =
      Generate(client(), Ids(SomeTokens(limit, 1, TinyCheckpoint::kVocab)), {.max_tokens = 1});
  EXPECT_EQ(refused.status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.status.message()), HasSubstr(std::to_string(limit) + " tokens"));
  EXPECT_THAT(std::string(refused.status.message()), HasSubstr("holds " + std::to_string(limit)));
  const auto score = client().Score(Ids(SomeTokens(limit + 5, 1, TinyCheckpoint::kVocab)), {});
  EXPECT_EQ(score.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(score.status().message()), HasSubstr(std::to_string(limit + 5)));
  // The longest that fits ends with the context.
  const auto longest =
      Generate(client(), Ids(SomeTokens(limit - 3, 1, TinyCheckpoint::kVocab)), {.ignore_eos = true});
  ExpectWell(longest);
  EXPECT_EQ(longest.choices[0].finish_reason, "length");
  EXPECT_EQ(longest.choices[0].tokens.size(), 3u);
}

TEST_F(Generation, TokenizeAndDetokenize) {
  const std::string text = "Hello, 世界! <|im_end|>\n\tdef f(x): return x";
  const auto plain = client().Tokenize(text, /*parse_special_tokens=*/false, /*add_special_tokens=*/false);
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_EQ(std::count(plain->tokens.begin(), plain->tokens.end(), kEndOfTurn), 0)
      << "plain text unless asked";
  std::string joined;
  for (const std::string& bytes : plain->bytes) joined += bytes;
  EXPECT_EQ(joined, text);
  const auto back = client().Detokenize(plain->tokens, true);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(*back, text);

  const auto special = client().Tokenize(text, true, false);
  ASSERT_TRUE(special.ok()) << special.status();
  EXPECT_EQ(std::count(special->tokens.begin(), special->tokens.end(), kEndOfTurn), 1);
  EXPECT_EQ(*client().Detokenize(special->tokens, /*keep_special_tokens=*/true), text);
  EXPECT_THAT(*client().Detokenize(special->tokens, false), ::testing::Not(HasSubstr("<|im_end|>")));
}

// Chat is Generate with the family's text around the messages, and contents that are never special tokens.
TEST_F(Generation, ChatUsesTheTemplateOfTheCheckpoint) {
  const auto model = client().GetModel();
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->chat_template, "chatml");
  const GenerationOptions options{.max_tokens = 12, .temperature = 0, .ignore_eos = true, .logprobs = 0};
  const CollectedAnswer chat =
      Chat(client(), {{"system", "Be brief."}, {"user", "Who <|im_end|> are you?"}}, options);
  ExpectWell(chat);
  PromptInput opening = Text("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWho ");
  opening.parse_special_tokens = true;
  const auto head = client().Tokenize(*opening.text, true, false);
  ASSERT_TRUE(head.ok()) << head.status();
  ASSERT_GT(chat.prompt_tokens.size(), head->tokens.size());
  EXPECT_TRUE(std::equal(head->tokens.begin(), head->tokens.end() - 1, chat.prompt_tokens.begin()));
  EXPECT_EQ(std::count(chat.prompt_tokens.begin(), chat.prompt_tokens.end(), kStartOfTurn), 3);
  EXPECT_EQ(std::count(chat.prompt_tokens.begin(), chat.prompt_tokens.end(), kEndOfTurn), 2);
  const CollectedAnswer same = Generate(client(), Ids(chat.prompt_tokens), options);
  ExpectWell(same);
  EXPECT_EQ(same.choices, chat.choices);
}

TEST_F(Generation, RequestIdsComeBackAndDefaultOnesDiffer) {
  const GenerationOptions options{.max_tokens = 1};
  EXPECT_EQ(Generate(client(), Text("id"), options, {.request_id = "order-66"}).request_id, "order-66");
  const std::string made_up = Generate(client(), Text("id"), options).request_id;
  EXPECT_NE(made_up, Generate(client(), Text("id"), options).request_id);
  const auto refused = Generate(client(), Text("id"), {.max_tokens = 0}, {.request_id = "order-67"});
  EXPECT_THAT(std::string(refused.status.message()), HasSubstr("order-67")) << "errors name the request";
}

TEST_F(Generation, GetModelTellsWhatIsServed) {
  const auto model = client().GetModel();
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_TRUE(model->serving);
  EXPECT_TRUE(model->has_tokenizer);
  EXPECT_EQ(model->architecture, "llama");
  EXPECT_EQ(model->vocab_size, TinyCheckpoint::kVocab);
  EXPECT_EQ(model->context_tokens, TinyCheckpoint::kContext);
  EXPECT_EQ(model->weights, "fp32");
  EXPECT_EQ(model->kv_blocks, kKvBlocks);
  EXPECT_EQ(model->model_id.size(), 64u);
  EXPECT_NE(model->layout, "");
  EXPECT_NE(model->kernel_level, "");
}

}  // namespace
}  // namespace bellwether
