#include "http/queued_exchange.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;
using Progress = QueuedExchange::Progress;

class QueuedExchangeTest : public ::testing::Test {
 protected:
  std::shared_ptr<QueuedExchange> Make(QueuedExchange::Options options = {}) {
    options.stream_bytes_max = 400;
    options.wake = [this] { ++wakes_; };
    return std::make_shared<QueuedExchange>(std::move(options));
  }
  static std::string Taken(QueuedExchange& exchange, Progress expected) {
    std::string out;
    EXPECT_EQ(exchange.Take(&out), expected);
    return out;
  }
  int wakes_ = 0;
};

TEST_F(QueuedExchangeTest, AnswersWholeWithTheLengthAndOnce) {
  const auto exchange = Make();
  exchange->Respond({.status = 404, .headers = {{"X", "a\r\nSet-Cookie: b"}}, .body = "gone"});
  exchange->Respond({.status = 200, .body = "again"});
  exchange->BeginStream({});
  EXPECT_FALSE(exchange->Write("more"));
  const std::string out = Taken(*exchange, Progress::kComplete);
  EXPECT_THAT(out, StartsWith("HTTP/1.1 404 Not Found\r\nDate: "));
  EXPECT_THAT(out, HasSubstr("\r\nX: a  Set-Cookie: b\r\n"));
  EXPECT_THAT(out, EndsWith("\r\nContent-Length: 4\r\n\r\ngone"));
  EXPECT_TRUE(exchange->keep_alive());
}

TEST_F(QueuedExchangeTest, StreamsInChunksAndWakesOnceUntilAllIsTaken) {
  const auto exchange = Make();
  exchange->BeginStream({});
  EXPECT_TRUE(exchange->Write("hello"));
  EXPECT_TRUE(exchange->Write(""));
  EXPECT_EQ(wakes_, 1);
  EXPECT_THAT(Taken(*exchange, Progress::kUnderWay),
              EndsWith("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"));
  EXPECT_TRUE(exchange->Write("sixteen letters!"));
  EXPECT_EQ(wakes_, 1) << "who takes goes on until there is nothing";
  EXPECT_EQ(Taken(*exchange, Progress::kUnderWay), "10\r\nsixteen letters!\r\n");
  EXPECT_EQ(Taken(*exchange, Progress::kUnderWay), "");
  exchange->Finish();
  EXPECT_EQ(wakes_, 2);
  EXPECT_FALSE(exchange->Write("late"));
  EXPECT_EQ(Taken(*exchange, Progress::kComplete), "0\r\n\r\n");
}

TEST_F(QueuedExchangeTest, AStreamOfHttp10EndsWithItsConnection) {
  const auto exchange = Make({.http11 = false});
  exchange->BeginStream({});
  exchange->Write("hello");
  exchange->Finish();
  const std::string out = Taken(*exchange, Progress::kComplete);
  EXPECT_THAT(out, EndsWith("Connection: close\r\n\r\nhello"));
  EXPECT_THAT(out, Not(HasSubstr("chunked")));
  EXPECT_FALSE(exchange->keep_alive());
}

TEST_F(QueuedExchangeTest, HeadHasNoBody) {
  const auto exchange = Make({.head_only = true});
  exchange->Respond({.body = "hello"});
  EXPECT_THAT(Taken(*exchange, Progress::kComplete), EndsWith("Content-Length: 5\r\n\r\n"));
  const auto stream = Make({.head_only = true});
  stream->BeginStream({});
  EXPECT_TRUE(stream->Write("hello"));
  stream->Finish();
  EXPECT_THAT(Taken(*stream, Progress::kComplete), EndsWith("\r\n\r\n"));
}

TEST_F(QueuedExchangeTest, AClientThatTakesNothingLosesItsStream) {
  const auto exchange = Make();
  int gone = 0;
  exchange->OnGone([&gone] { ++gone; });
  exchange->BeginStream({});
  (void)Taken(*exchange, Progress::kUnderWay);
  // One piece may be longer than the limit: it counts what the client had not taken when the next one came.
  EXPECT_TRUE(exchange->Write(std::string(300, 'a')));
  EXPECT_TRUE(exchange->Write(std::string(101, 'b')));
  EXPECT_FALSE(exchange->Write("c"));
  EXPECT_EQ(Taken(*exchange, Progress::kBroken), "");
  EXPECT_THAT(exchange->broken_reason(), HasSubstr("reads too slowly: more than 400 bytes"));
  EXPECT_EQ(gone, 0) << "not from within Write";
  exchange->Detach();
  EXPECT_EQ(gone, 1);
}

TEST_F(QueuedExchangeTest, SaysThatTheClientHasGoneOnceOrAtOnce) {
  const auto exchange = Make();
  int gone = 0;
  exchange->OnGone([&gone] { ++gone; });
  exchange->Detach();
  exchange->Detach();
  EXPECT_EQ(gone, 1);
  exchange->OnGone([&gone] { gone += 10; });
  EXPECT_EQ(gone, 11);
  exchange->Respond({});
  EXPECT_EQ(wakes_, 0) << "there is nobody to wake";
}

TEST_F(QueuedExchangeTest, ACompleteAnswerLetsGoOfWhoWaitedForTheClient) {
  const auto exchange = Make();
  const auto held = std::make_shared<int>();
  bool gone = false;
  exchange->OnGone([held, &gone] { gone = true; });
  EXPECT_EQ(held.use_count(), 2);
  exchange->Respond({});
  EXPECT_EQ(held.use_count(), 1);
  exchange->Detach();
  EXPECT_FALSE(gone);
}

TEST_F(QueuedExchangeTest, WhoForgetsToAnswerLeavesA500) {
  const auto exchange = Make({.refusal = [](int status, std::string_view) {
    return HttpResponse{.status = status, .body = "shaped"};
  }});
  QueuedExchange::Handle(exchange).reset();
  const std::string out = Taken(*exchange, Progress::kComplete);
  EXPECT_THAT(out, StartsWith("HTTP/1.1 500 "));
  EXPECT_THAT(out, EndsWith("shaped"));
}

TEST_F(QueuedExchangeTest, WhoForgetsToEndAStreamBreaksIt) {
  const auto exchange = Make();
  {
    const auto handle = QueuedExchange::Handle(exchange);
    handle->BeginStream({});
    handle->Write("half");
  }
  EXPECT_EQ(Taken(*exchange, Progress::kBroken), "");
}

TEST_F(QueuedExchangeTest, BreaksTheSilenceOfAStreamWhenItIsDue) {
  const auto exchange = Make();
  exchange->BreakSilence(absl::Hours(1));
  EXPECT_EQ(Taken(*exchange, Progress::kUnderWay), "") << "nothing has begun";
  exchange->BeginStream({.silence_max = absl::Seconds(15), .filler = ": \n\n"});
  (void)Taken(*exchange, Progress::kUnderWay);
  exchange->BreakSilence(absl::Seconds(14));
  EXPECT_EQ(Taken(*exchange, Progress::kUnderWay), "");
  exchange->BreakSilence(absl::Seconds(15));
  EXPECT_EQ(Taken(*exchange, Progress::kUnderWay), "4\r\n: \n\n\r\n");
}

}  // namespace
}  // namespace bellwether
