#include "http/server.h"

#include <sys/socket.h>

#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "common/bounded_queue.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "http/testing/raw_client.h"

namespace bellwether {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

using ExchangePtr = std::shared_ptr<HttpExchange>;

constexpr char kGet[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
constexpr char kGetHeld[] = "GET /held HTTP/1.1\r\nHost: a\r\n\r\n";

std::string Post(std::string_view path, std::string_view body) {
  return absl::StrCat("POST ", std::string(path), " HTTP/1.1\r\nHost: a\r\nContent-Length: ", body.size(),
                      "\r\n\r\n", std::string(body));
}

// GET / answers "home", POST /echo what it was sent, and /held waits in `held` for whoever answers it.
class HttpServerTest : public ::testing::Test {
 protected:
  void Start(const HttpLimits& limits = {}) {
    HttpServer::Options options{
        .listen = {.address = "127.0.0.1:0", .name = "clients", .descriptors = {.first = 100, .end = 1000}},
        .limits = limits,
        .origins = OriginRules({"https://friend.example"}, /*loopback=*/true),
        .answered = [this](int status) { (void)answered_.TryPush(status); }};
    options.routes = {
        {"GET", "/", [](HttpRequest, ExchangePtr exchange) { exchange->Respond({.body = "home"}); }},
        {"POST", "/echo",
         [](HttpRequest request, ExchangePtr exchange) {
           exchange->Respond({.body = absl::StrCat("<", request.body, ">")});
         }},
        {"GET", "/held",
         [this](HttpRequest, ExchangePtr exchange) { (void)held_.TryPush(std::move(exchange)); }},
        {"GET", "/forgotten", [](HttpRequest, ExchangePtr) {}}};
    auto started = HttpServer::Start(std::move(options));
    ASSERT_TRUE(started.ok()) << started.status();
    server_ = *std::move(started);
  }
  RawClient Connect() { return RawClient(server_->address()); }
  // What the server says until it closes the connection, after these bytes.
  std::string AllAfter(std::string_view bytes) {
    RawClient client = Connect();
    client.Send(bytes);
    const std::string all = client.ReadAll();
    EXPECT_TRUE(client.closed());
    return all;
  }

  BoundedQueue<ExchangePtr> held_{1024};
  BoundedQueue<int> answered_{1024};
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpServerTest, AnswersManyRequestsOnOneConnection) {
  Start();
  RawClient client = Connect();
  for (int i = 0; i < 3; ++i) {
    client.Send(kGet);
    const std::string head = client.ReadUntil("\r\n\r\n");
    EXPECT_THAT(head, StartsWith("HTTP/1.1 200 OK\r\n"));
    EXPECT_THAT(head, Not(HasSubstr("Connection:")));
    EXPECT_EQ(client.ReadUntil("home"), "home");
  }
  client.Send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  const std::string last = client.ReadAll();
  EXPECT_THAT(last, HasSubstr("Connection: close\r\n"));
  EXPECT_THAT(last, EndsWith("home"));
}

TEST_F(HttpServerTest, SpeaksHttp10) {
  Start();
  EXPECT_THAT(AllAfter("GET / HTTP/1.0\r\n\r\n"), EndsWith("home"));
  RawClient client = Connect();
  client.Send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  EXPECT_THAT(client.ReadUntil("home"), HasSubstr("Connection: keep-alive\r\n"));
  client.Send("GET /held HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  const ExchangePtr exchange = *held_.Pop();
  exchange->BeginStream({});
  exchange->Write("a stream");
  exchange->Finish();
  EXPECT_THAT(client.ReadAll(), EndsWith("\r\n\r\na stream"));
}

TEST_F(HttpServerTest, HeadGetsTheHeadersOfGet) {
  Start();
  EXPECT_THAT(AllAfter("HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
              EndsWith("Connection: close\r\nContent-Length: 4\r\n\r\n"));
}

TEST_F(HttpServerTest, SaysWhatItDoesNotHave) {
  Start();
  RawClient client = Connect();
  client.Send("GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_THAT(client.ReadUntil("there is no /nowhere\n"), StartsWith("HTTP/1.1 404 "));
  client.Send(Post("/", "x"));
  EXPECT_THAT(client.ReadUntil("/ takes GET, HEAD\n"),
              AllOf(StartsWith("HTTP/1.1 405 "), HasSubstr("\r\nAllow: GET, HEAD\r\n")));
  client.Send("GET /forgotten HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_THAT(client.ReadUntil("nobody has answered this request\n"), StartsWith("HTTP/1.1 500 "));
  client.Send(kGet);
  EXPECT_THAT(client.ReadUntil("home"), EndsWith("home")) << "the connection goes on";
}

TEST_F(HttpServerTest, AnswersWhatIsSentAheadInItsOrder) {
  Start();
  RawClient client = Connect();
  client.Send(absl::StrCat(kGetHeld, Post("/echo", "second"), kGet, kGetHeld));
  (*held_.Pop())->Respond({.body = "first"});
  const ExchangePtr fourth = *held_.Pop();  // so the others have been answered
  EXPECT_THAT(client.ReadUntil("first"), EndsWith("\r\n\r\nfirst"));
  EXPECT_THAT(client.ReadUntil("<second>"), EndsWith("\r\n\r\n<second>"));
  EXPECT_THAT(client.ReadUntil("home"), EndsWith("\r\n\r\nhome"));
  fourth->Respond({.body = "fourth"});
  EXPECT_THAT(client.ReadUntil("fourth"), EndsWith("\r\n\r\nfourth"));
}

TEST_F(HttpServerTest, TakesMoreAheadThanItsBufferHolds) {
  Start();
  RawClient client = Connect();
  std::string requests = kGetHeld;
  for (int i = 0; i < 200; ++i) requests += Post("/echo", std::string(2000, 'x'));
  std::thread sender([&] { client.Send(requests); });
  (*held_.Pop())->Respond({.body = "first"});
  EXPECT_THAT(client.ReadUntil("first"), EndsWith("\r\n\r\nfirst"));
  const std::string expected = absl::StrCat("<", std::string(2000, 'x'), ">");
  for (int i = 0; i < 200; ++i) ASSERT_THAT(client.ReadUntil(">"), EndsWith(expected));
  sender.join();
}

TEST_F(HttpServerTest, TakesBodiesInChunksAndBytewise) {
  Start();
  RawClient client = Connect();
  const std::string request =
      "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
      "5;extension=1\r\nhello\r\n7\r\n, world\r\n0\r\nTrailer: x\r\n\r\n";
  client.Send(request);
  EXPECT_THAT(client.ReadUntil("world>"), EndsWith("<hello, world>"));
  for (const char byte : request) client.Send({&byte, 1});
  EXPECT_THAT(client.ReadUntil("world>"), EndsWith("<hello, world>"));
}

TEST_F(HttpServerTest, TellsWhoAsksToGoOn) {
  Start();
  RawClient client = Connect();
  client.Send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(client.ReadUntil("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  client.Send("hi");
  EXPECT_THAT(client.ReadUntil("<hi>"), StartsWith("HTTP/1.1 200 OK\r\n"));
}

struct Refusal {
  const char* name;
  std::string request;
  int status;
};

class HttpRefusals : public HttpServerTest, public ::testing::WithParamInterface<Refusal> {};

// The status, and then the connection's end, as nobody knows where the next request begins.
TEST_P(HttpRefusals, HaveTheirStatus) {
  Start({.header_bytes_max = 1000, .body_bytes_max = 10});
  EXPECT_THAT(AllAfter(GetParam().request), StartsWith(absl::StrCat("HTTP/1.1 ", GetParam().status, " ")));
}

INSTANTIATE_TEST_SUITE_P(
    All, HttpRefusals,
    ::testing::Values(
        Refusal{"NotHttp", "\x16\x03\x01 hello over TLS\r\n\r\n", 400},
        Refusal{"Http2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
        Refusal{"NoHost", "GET / HTTP/1.1\r\n\r\n", 400},
        Refusal{"TwoHosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
        Refusal{"BrokenHeader", "GET / HTTP/1.1\r\nHost: a\r\nbro ken: b\r\n\r\n", 400},
        Refusal{"LongHeader", absl::StrCat("GET / HTTP/1.1\r\nHost: a\r\nX: ", std::string(2000, 'x')), 431},
        Refusal{"LongTarget", absl::StrCat("GET /", std::string(2000, 'x')), 431},
        Refusal{"LongBody", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n", 413},
        Refusal{"HugeBody", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551615\r\n\r\n",
                413},
        Refusal{"LengthBeyondAll",
                "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n", 400},
        Refusal{"NegativeLength", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400},
        Refusal{"TwoLengths",
                "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400},
        Refusal{"LengthAndChunks",
                "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: "
                "chunked\r\n\r\n0\r\n\r\n",
                400},
        Refusal{"UnknownEncoding", "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501},
        Refusal{"LongChunks",
                "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
                "chunked\r\n\r\n6\r\nabcdef\r\n6\r\nabcdef\r\n0\r\n\r\n",
                413},
        Refusal{"HugeChunk",
                "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
                400},
        Refusal{"BrokenChunk", "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
                400},
        Refusal{"ChunkWithoutEnd",
                "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabcde\r\n", 400},
        Refusal{"LongChunkHeader",
                absl::StrCat("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;",
                             std::string(80000, 'x')),
                431},
        Refusal{"OtherExpectation",
                "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: wonders\r\n\r\n", 417}),
    [](const auto& info) { return std::string(info.param.name); });

TEST_F(HttpServerTest, ATargetThatIsNoPathIsRefused) {
  Start();
  RawClient client = Connect();
  client.Send("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_THAT(client.ReadUntil("it does not begin with '/'\n"), StartsWith("HTTP/1.1 400 "));
}

TEST_F(HttpServerTest, EndsWhoKeepsItWaiting) {
  Start({.header_time = absl::Milliseconds(50),
         .body_time = absl::Milliseconds(50),
         .idle_time = absl::Milliseconds(50)});
  EXPECT_THAT(AllAfter("GET / HT"), StartsWith("HTTP/1.1 408 "));
  EXPECT_THAT(AllAfter("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nx"),
              StartsWith("HTTP/1.1 408 "));
  EXPECT_THAT(AllAfter(""), IsEmpty()) << "who asks nothing is told nothing";
}

TEST_F(HttpServerTest, LimitsWhatAllBodiesTakeTogether) {
  Start({.body_bytes_max = 1000, .bodies_bytes_max = 1500});
  RawClient first = Connect();
  const std::string head = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n";
  first.Send(absl::StrCat(head, std::string(999, 'x')));
  // The server has one thread: who is answered now came after those bytes or is refused with them.
  std::string second;
  while (!absl::StrContains(second, "503")) second = AllAfter(absl::StrCat(head, std::string(999, 'y')));
  first.Send("x");
  EXPECT_THAT(first.ReadUntil(">"), StartsWith("HTTP/1.1 200 OK\r\n"));
  RawClient third = Connect();
  third.Send(absl::StrCat(head, std::string(1000, 'z')));
  EXPECT_THAT(third.ReadUntil(">"), StartsWith("HTTP/1.1 200 OK\r\n")) << "what was refused is forgotten";
}

TEST_F(HttpServerTest, StreamsAsThePiecesCome) {
  Start();
  RawClient client = Connect();
  client.Send(kGetHeld);
  const ExchangePtr exchange = *held_.Pop();
  exchange->BeginStream({.headers = {{"Content-Type", "text/event-stream"}}});
  EXPECT_THAT(client.ReadUntil("\r\n\r\n"),
              HasSubstr("Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"));
  exchange->Write("one");
  EXPECT_EQ(client.ReadUntil("one\r\n"), "3\r\none\r\n");
  exchange->Write("two");
  EXPECT_EQ(client.ReadUntil("two\r\n"), "3\r\ntwo\r\n");
  exchange->Finish();
  EXPECT_EQ(client.ReadUntil("\r\n\r\n"), "0\r\n\r\n");
  client.Send(kGet);
  EXPECT_THAT(client.ReadUntil("home"), EndsWith("home"));
}

TEST_F(HttpServerTest, ASilentStreamShowsThatItLives) {
  Start();
  RawClient client = Connect();
  client.Send(kGetHeld);
  const ExchangePtr exchange = *held_.Pop();
  exchange->BeginStream({.silence_max = absl::Milliseconds(1), .filler = ": \n\n"});
  EXPECT_THAT(client.ReadUntil(": \n\n\r\n4"), HasSubstr("4\r\n: \n\n\r\n"));
}

TEST_F(HttpServerTest, SaysWhenTheClientHasGone) {
  Start();
  for (const bool half : {false, true}) {
    absl::Notification gone;
    auto client = std::make_unique<RawClient>(server_->address());
    client->Send(kGetHeld);
    const ExchangePtr exchange = *held_.Pop();
    exchange->OnGone([&gone] { gone.Notify(); });
    exchange->BeginStream({});
    client->ReadUntil("\r\n\r\n");
    if (half) {
      client->FinishSending();
    } else {
      client = nullptr;
    }
    gone.WaitForNotification();
    EXPECT_FALSE(exchange->Write("more"));
  }
}

TEST_F(HttpServerTest, WhoEndsSendingAfterAQuestionThatIsAnsweredAtOnceGetsTheAnswer) {
  Start();
  RawClient client = Connect();
  client.Send(kGet);
  client.FinishSending();
  EXPECT_THAT(client.ReadAll(), EndsWith("home"));
}

TEST_F(HttpServerTest, CutsOffTheStreamOfASlowReader) {
  Start({.stream_bytes_max = 100000});
  RawClient client = Connect();
  client.Send(kGetHeld);
  const ExchangePtr exchange = *held_.Pop();
  absl::Notification gone;
  exchange->OnGone([&gone] { gone.Notify(); });
  exchange->BeginStream({});
  const std::string piece(10000, 'x');
  int64_t written = 0;
  while (exchange->Write(piece)) written += 1;
  gone.WaitForNotification();
  EXPECT_GE(written, 9);
  EXPECT_THAT(client.ReadAll(), Not(EndsWith("0\r\n\r\n"))) << "it can see that this is not all";
}

TEST_F(HttpServerTest, EndsAClientThatTakesNothing) {
  Start({.write_time = absl::Milliseconds(50)});
  RawClient client = Connect();
  client.Send(kGetHeld);
  const ExchangePtr exchange = *held_.Pop();
  const size_t bytes = size_t{64} << 20;  // more than the sockets' buffers hold
  exchange->Respond({.body = std::string(bytes, 'x')});
  // It is ended at the latest when the next one has been for as long.
  while (client.Send("x")) {
  }
  EXPECT_LT(client.ReadAll().size(), bytes);
}

TEST_F(HttpServerTest, HasAsManyConnectionsAsItMay) {
  Start({.connections_max = 2});
  auto first = std::make_unique<RawClient>(server_->address());
  RawClient second = Connect();
  for (RawClient* client : {first.get(), &second}) {
    client->Send(kGet);
    EXPECT_THAT(client->ReadUntil("home"), EndsWith("home"));
  }
  EXPECT_THAT(Connect().ReadAll(), IsEmpty());
  first = nullptr;
  std::string answer;
  while (answer.empty()) {  // until the server has seen that the first one has gone
    RawClient third = Connect();
    third.Send(kGet);
    answer = third.ReadUntil("home");
  }
  EXPECT_THAT(answer, EndsWith("home"));
}

TEST_F(HttpServerTest, ManyStreamsFromManyThreads) {
  Start();
  constexpr int kClients = 200, kThreads = 4, kPieces = 20;
  std::vector<RawClient> clients;
  for (int i = 0; i < kClients; ++i) {
    clients.push_back(Connect());
    ASSERT_TRUE(clients.back().Send(kGetHeld));
  }
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([this] {
      std::vector<ExchangePtr> mine;
      for (int j = 0; j < kClients / kThreads; ++j) mine.push_back(*held_.Pop());
      for (const ExchangePtr& exchange : mine) exchange->BeginStream({});
      for (int piece = 0; piece < kPieces; ++piece) {
        for (const ExchangePtr& exchange : mine) EXPECT_TRUE(exchange->Write(absl::StrCat("<", piece, ">")));
      }
      for (const ExchangePtr& exchange : mine) exchange->Finish();
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (RawClient& client : clients) {
    const std::string answer = client.ReadUntil("\r\n0\r\n\r\n");
    for (int piece = 0; piece < kPieces; ++piece)
      ASSERT_THAT(answer, HasSubstr(absl::StrCat("<", piece, ">\r\n")));
  }
}

// Who closes before the end of an answer is counted as nginx counts it, whatever the answer would have been.
TEST_F(HttpServerTest, TellsHowEachRequestWasAnswered) {
  Start();
  RawClient client = Connect();
  client.Send(kGet);
  EXPECT_EQ(answered_.Pop(), 200);
  client.Send("GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(answered_.Pop(), 404);
  client.Send("no HTTP\r\n\r\n");
  EXPECT_EQ(answered_.Pop(), 400);
  {
    RawClient impatient = Connect();
    impatient.Send(kGetHeld);
    const ExchangePtr exchange = *held_.Pop();
    exchange->BeginStream({});
    impatient.ReadUntil("\r\n\r\n");
    impatient.FinishSending();
    EXPECT_EQ(answered_.Pop(), 499);
  }
}

// A page of another site cannot have this machine's model compute, also where it could not read the answer.
TEST_F(HttpServerTest, OnlyPagesThatMayAreAnswered) {
  Start();
  const auto get = [&](const std::string& method, const std::string& more) {
    return AllAfter(absl::StrCat(method, " / HTTP/1.1\r\nHost: ", server_->address(),
                                 "\r\nConnection: close\r\n", more, "\r\n"));
  };
  const std::string own = get("GET", absl::StrCat("Origin: http://", server_->address(), "\r\n"));
  EXPECT_THAT(own, StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(own, Not(HasSubstr("Access-Control")));
  const std::string evil = get("GET", "Origin: https://evil.example\r\n");
  EXPECT_THAT(evil, StartsWith("HTTP/1.1 403 "));
  EXPECT_THAT(evil, Not(HasSubstr("Access-Control")));
  EXPECT_THAT(get("GET", "Origin: https://friend.example\r\n"),
              AllOf(StartsWith("HTTP/1.1 200 "),
                    HasSubstr("Access-Control-Allow-Origin: https://friend.example\r\n"), EndsWith("home")));
  EXPECT_THAT(
      get("OPTIONS",
          "Origin: https://friend.example\r\nAccess-Control-Request-Method: POST\r\n"
          "Access-Control-Request-Headers: authorization,content-type\r\n"),
      AllOf(StartsWith("HTTP/1.1 204 "), HasSubstr("Access-Control-Allow-Origin: https://friend.example\r\n"),
            HasSubstr("Access-Control-Allow-Headers: authorization,content-type\r\n")));
  // Without what a browser adds it is a method like another.
  EXPECT_THAT(get("OPTIONS", ""), StartsWith("HTTP/1.1 405 "));
}

TEST_F(HttpServerTest, StopsWhenTheAnswersUnderWayAreThrough) {
  Start();
  RawClient busy = Connect(), idle = Connect();
  idle.Send(kGet);
  idle.ReadUntil("home");
  busy.Send(kGetHeld);
  const ExchangePtr exchange = *held_.Pop();
  std::thread stopper([this] { server_->Shutdown(absl::InfiniteDuration()); });
  EXPECT_THAT(idle.ReadAll(), IsEmpty());
  exchange->Respond({.body = "late"});
  EXPECT_THAT(busy.ReadUntil("late"), EndsWith("late"));
  busy.ReadAll();
  EXPECT_TRUE(busy.closed());
  stopper.join();
  EXPECT_FALSE(Connect().connected());
}

TEST_F(HttpServerTest, StopsInTheMiddleOfWhatTakesLonger) {
  Start();
  RawClient client = Connect();
  client.Send(kGetHeld);
  const ExchangePtr exchange = *held_.Pop();
  bool gone = false;
  exchange->OnGone([&gone] { gone = true; });
  exchange->BeginStream({});
  client.ReadUntil("\r\n\r\n");
  server_->Shutdown(absl::Milliseconds(1));
  EXPECT_TRUE(gone);
  EXPECT_THAT(client.ReadAll(), IsEmpty());
  server_ = nullptr;
  EXPECT_FALSE(exchange->Write("there is no server any more"));
  exchange->Finish();
}

}  // namespace
}  // namespace bellwether
