#include "coordinator/token_stream.h"

#include <atomic>
#include <limits>
#include <numeric>
#include <string>
#include <thread>

#include "common/bounded_queue.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Writes nothing until the test says that the client has read.
class FakeWriter : public TokenStream::Writer {
 public:
  void Write(const TokenStream::Message& message) override {
    EXPECT_FALSE(busy) << "a second write before the first is done";
    EXPECT_FALSE(finished);
    busy = true;
    written.push_back(message);
    if (stream != nullptr) {
      busy = false;
      stream->WriteDone(true);
    }
  }
  void Finish(const absl::Status& status) override {
    EXPECT_FALSE(busy);
    EXPECT_FALSE(finished);
    finished = true;
    end = status;
  }
  bool busy = false, finished = false;
  absl::Status end;
  std::vector<TokenStream::Message> written;
  TokenStream* stream = nullptr;  // set: writes are done before Write returns
};

class TokenStreamTest : public ::testing::Test {
 protected:
  void Emit(int choice, int index, std::vector<TokenId> tokens, std::string text,
            std::optional<FinishReason> finish = {}) {
    stream_.OnTokens({.choice = choice,
                      .index = index,
                      .tokens = std::move(tokens),
                      .text = std::move(text),
                      .finish = finish});
  }
  void ClientReads(bool ok = true) {
    writer_.busy = false;
    stream_.WriteDone(ok);
  }
  FakeWriter writer_;
  int cancels_ = 0;
  TokenStream stream_{{.writer = &writer_, .cancel = [this] { ++cancels_; }, .pending_bytes_max = 100}};
};

TEST_F(TokenStreamTest, WritesAtOnceWhileTheClientKeepsUp) {
  writer_.stream = &stream_;
  Emit(0, 0, {1}, "a");
  Emit(0, 1, {2}, "b");
  Emit(0, 2, {3}, "c", FinishReason::kStop);
  EXPECT_EQ(writer_.written.size(), 2u);  // the end waits for the usage
  stream_.OnDone(absl::OkStatus(), {.prompt_tokens = 4, .generated_tokens = 3}, 9);
  ASSERT_EQ(writer_.written.size(), 3u);
  EXPECT_TRUE(writer_.written[0].first);
  EXPECT_FALSE(writer_.written[1].first);
  EXPECT_FALSE(writer_.written[1].usage);
  EXPECT_EQ(writer_.written[2].chunk.finish, FinishReason::kStop);
  EXPECT_EQ(writer_.written[2].usage->generated_tokens, 3);
  EXPECT_EQ(writer_.written[2].seed, 9u);
  EXPECT_TRUE(writer_.finished);
  EXPECT_TRUE(writer_.end.ok());
  EXPECT_EQ(cancels_, 0);
}

TEST_F(TokenStreamTest, ChunksThatWaitAreJoinedPerChoice) {
  Emit(0, 0, {1}, "a");
  Emit(0, 1, {2}, "b");
  Emit(1, 0, {7}, "x");
  Emit(0, 2, {3}, "c");
  Emit(1, 1, {8}, "y", FinishReason::kLength);
  ClientReads();
  ASSERT_EQ(writer_.written.size(), 2u);
  EXPECT_EQ(writer_.written[1].chunk.index, 1);
  EXPECT_THAT(writer_.written[1].chunk.tokens, ElementsAre(2, 3));
  EXPECT_EQ(writer_.written[1].chunk.text, "bc");
  ClientReads();
  EXPECT_EQ(writer_.written.size(), 2u);  // choice 1 has ended, and nothing tells yet that choice 0 goes on
  Emit(0, 3, {4}, "d");
  ASSERT_EQ(writer_.written.size(), 3u);
  EXPECT_EQ(writer_.written[2].chunk.choice, 1);
  EXPECT_THAT(writer_.written[2].chunk.tokens, ElementsAre(7, 8));
  EXPECT_EQ(writer_.written[2].chunk.finish, FinishReason::kLength);
  ClientReads();
  ASSERT_EQ(writer_.written.size(), 4u);
  EXPECT_EQ(writer_.written[3].chunk.choice, 0);
  EXPECT_FALSE(writer_.finished);
}

TEST_F(TokenStreamTest, OfNoticesASlowClientGetsTheLast) {
  Emit(0, 0, {1}, "a");
  Emit(0, 1, {2}, "b");
  stream_.OnInterrupted("worker x is lost");
  stream_.OnInterrupted("worker y is lost");
  ClientReads();
  ASSERT_EQ(writer_.written.size(), 2u);
  EXPECT_THAT(writer_.written[1].chunk.tokens, ElementsAre(2));
  EXPECT_EQ(writer_.written[1].notice, "");
  ClientReads();
  ASSERT_EQ(writer_.written.size(), 3u);
  EXPECT_EQ(writer_.written[2].notice, "worker y is lost");
  EXPECT_THAT(writer_.written[2].chunk.tokens, ElementsAre());
  Emit(0, 2, {3}, "c", FinishReason::kStop);
  stream_.OnDone(absl::OkStatus(), {.generated_tokens = 3}, 0);
  stream_.OnInterrupted("worker z is lost");  // nobody's any more
  ClientReads();
  ASSERT_EQ(writer_.written.size(), 4u);
  EXPECT_EQ(writer_.written[3].chunk.index, 2);
  ClientReads();
  EXPECT_TRUE(writer_.finished);
}

// What came after a notice was once joined to what came before: the last word of an answer that was whole
// could be that it would go on.
TEST_F(TokenStreamTest, ANoticeKeepsItsPlaceInTheAnswer) {
  Emit(0, 0, {1}, "a");
  Emit(0, 1, {2}, "b");
  stream_.OnInterrupted("worker x is lost");
  Emit(0, 2, {3}, "c");
  Emit(0, 3, {4}, "d", FinishReason::kStop);
  stream_.OnDone(absl::OkStatus(), {.generated_tokens = 4}, 0);
  while (!writer_.finished) ClientReads();
  ASSERT_EQ(writer_.written.size(), 4u);
  EXPECT_THAT(writer_.written[1].chunk.tokens, ElementsAre(2));
  EXPECT_EQ(writer_.written[2].notice, "worker x is lost");
  EXPECT_FALSE(writer_.written[2].usage);
  EXPECT_THAT(writer_.written[3].chunk.tokens, ElementsAre(3, 4));
  EXPECT_EQ(writer_.written[3].usage->generated_tokens, 4);
}

TEST_F(TokenStreamTest, ANoticeMayComeBeforeAnyToken) {
  writer_.stream = &stream_;
  stream_.OnInterrupted("worker x is lost");
  Emit(0, 0, {1}, "a", FinishReason::kStop);
  stream_.OnDone(absl::OkStatus(), {.generated_tokens = 1}, 0);
  ASSERT_EQ(writer_.written.size(), 2u);
  EXPECT_TRUE(writer_.written[0].first);
  EXPECT_EQ(writer_.written[0].notice, "worker x is lost");
  EXPECT_FALSE(writer_.written[1].first);
  EXPECT_EQ(writer_.written[1].usage->generated_tokens, 1);
}

TEST_F(TokenStreamTest, AClientThatDoesNotReadIsCutOff) {
  Emit(0, 0, {1}, "a");
  for (int i = 0; i < 30; ++i) Emit(0, 1 + i, {2}, "b");
  EXPECT_EQ(cancels_, 1);
  EXPECT_FALSE(writer_.finished);  // its turn comes when the message under way is done
  stream_.OnDone(absl::CancelledError("as asked"), {}, 0);
  ClientReads();
  ASSERT_TRUE(writer_.finished);
  EXPECT_EQ(writer_.end.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(writer_.end.message()), HasSubstr("too slowly"));
  EXPECT_EQ(writer_.written.size(), 1u);
}

TEST_F(TokenStreamTest, AClientThatIsGoneCancelsTheRequest) {
  Emit(0, 0, {1}, "a");
  ClientReads(/*ok=*/false);
  EXPECT_EQ(cancels_, 1);
  EXPECT_TRUE(writer_.finished);
  Emit(0, 1, {1}, "a");
  stream_.OnDone(absl::OkStatus(), {}, 0);
  EXPECT_EQ(writer_.written.size(), 1u);
}

TEST_F(TokenStreamTest, AFailureFollowsWhatWasPending) {
  Emit(0, 0, {1}, "a");
  Emit(0, 1, {}, "b", FinishReason::kError);
  stream_.OnDone(absl::UnavailableError("worker x is lost"), {}, 0);
  EXPECT_FALSE(writer_.finished);
  ClientReads();
  ASSERT_EQ(writer_.written.size(), 2u);
  EXPECT_EQ(writer_.written[1].chunk.finish, FinishReason::kError);
  EXPECT_FALSE(writer_.finished);
  ClientReads();
  ASSERT_TRUE(writer_.finished);
  EXPECT_EQ(writer_.end.message(), "worker x is lost");
}

TEST_F(TokenStreamTest, AFailureBeforeAnyTokenIsJustAStatus) {
  stream_.OnDone(absl::ResourceExhaustedError("queue full"), {}, 0);
  EXPECT_TRUE(writer_.written.empty());
  EXPECT_EQ(writer_.end.code(), absl::StatusCode::kResourceExhausted);
}

// A client with a thread of its own that reads one message after the other, as gRPC's do.
class ClientThread : public TokenStream::Writer {
 public:
  void Read(TokenStream* stream) {
    thread_ = std::thread([this, stream] {
      while (const std::optional<const TokenStream::Message*> message = messages_.Pop()) {
        const std::vector<TokenId>& tokens = (*message)->chunk.tokens;
        tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
        stream->WriteDone(++read_ < read_max_);
      }
    });
  }
  void GoAwayAfter(int messages) { read_max_ = messages; }  // before Read
  std::vector<TokenId> WaitForEnd() {
    thread_.join();
    return tokens_;
  }
  void Write(const TokenStream::Message& message) override { EXPECT_TRUE(messages_.TryPush(&message)); }
  void Finish(const absl::Status&) override { messages_.Close(); }

 private:
  BoundedQueue<const TokenStream::Message*> messages_{1};
  int read_ = 0, read_max_ = std::numeric_limits<int>::max();
  std::vector<TokenId> tokens_;
  std::thread thread_;
};

TEST(TokenStreamThreads, EveryTokenGoesOverOnceAndInOrder) {
  ClientThread client;
  TokenStream stream({.writer = &client, .cancel = [] { ADD_FAILURE(); }});
  client.Read(&stream);
  std::vector<TokenId> sent(5000);
  std::iota(sent.begin(), sent.end(), 0);
  for (const TokenId id : sent) stream.OnTokens({.index = id, .tokens = {id}, .text = "x"});
  stream.OnDone(absl::OkStatus(), {}, 0);
  EXPECT_EQ(client.WaitForEnd(), sent);
}

TEST(TokenStreamThreads, AClientGoesAwayWhileTokensCome) {
  std::atomic<int> cancels{0};
  ClientThread client;
  client.GoAwayAfter(20);
  TokenStream stream({.writer = &client, .cancel = [&] { ++cancels; }});
  client.Read(&stream);
  for (TokenId id = 0; cancels == 0; ++id) stream.OnTokens({.index = id, .tokens = {id}, .text = "x"});
  stream.OnDone(absl::CancelledError("as asked"), {}, 0);
  client.WaitForEnd();
  EXPECT_EQ(cancels, 1);
}

}  // namespace
}  // namespace bellwether
