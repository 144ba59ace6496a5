#include "common/tcp_listener.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <thread>

#include "absl/strings/numbers.h"
#include "absl/time/time.h"
#include "common/bounded_queue.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

constexpr int kPatienceMs = 60000;

// A listener, and the connections that it has handed on.
struct Port {
  explicit Port(DescriptorRange range) {
    auto bound = TcpListener::Bind({.address = "127.0.0.1:0", .name = "sheep", .descriptors = range});
    if (!bound.ok()) return;
    listener = *std::move(bound);
    listener->Run([this](int, UniqueFd connection) { (void)taken.TryPush(std::move(connection)); });
  }
  int number() const {
    int number = 0;
    return absl::SimpleAtoi(listener->address().substr(10), &number) ? number : 0;
  }

  BoundedQueue<UniqueFd> taken{1024};
  std::unique_ptr<TcpListener> listener;
};

UniqueFd Connect(const Port& port) {
  UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port.number()));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  return fd;
}

// The other side has closed the connection.
bool IsClosed(const UniqueFd& fd) {
  pollfd entry{.fd = fd.get(), .events = POLLIN, .revents = 0};
  char byte = 0;
  return poll(&entry, 1, kPatienceMs) > 0 && recv(fd.get(), &byte, 1, 0) <= 0;
}

TEST(TcpListener, HandsOnConnectionsWithinItsRangeAndClosesTheOthers) {
  Port port({.first = 200, .end = 203});
  ASSERT_NE(port.listener, nullptr);
  std::vector<UniqueFd> clients, taken;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(Connect(port));
    taken.push_back(*port.taken.Pop());
    EXPECT_EQ(taken.back().get(), 200 + i);
  }
  EXPECT_TRUE(IsClosed(Connect(port)));
  taken.erase(taken.begin() + 1);  // one ends, and there is room for one again
  const UniqueFd late = Connect(port);
  EXPECT_EQ(port.taken.Pop()->get(), 201);
}

// Takes away every free descriptor of this process while it lives.
class NoDescriptorsLeft {
 public:
  NoDescriptorsLeft() {
    EXPECT_EQ(getrlimit(RLIMIT_NOFILE, &before_), 0);
    const UniqueFd next(open("/dev/null", O_RDONLY | O_CLOEXEC));
    const rlimit none{.rlim_cur = static_cast<rlim_t>(next.get()), .rlim_max = before_.rlim_max};
    EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  }
  ~NoDescriptorsLeft() { EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &before_), 0); }

 private:
  rlimit before_{};
};

// The listener that this one replaces stopped for good here.
TEST(TcpListener, GoesOnOnceThereAreDescriptorsAgain) {
  Port port({.first = 200, .end = 300});
  ASSERT_NE(port.listener, nullptr);
  UniqueFd client(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ::testing::internal::CaptureStderr();
  {
    NoDescriptorsLeft none;
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port.number()));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ASSERT_EQ(connect(client.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    while (port.listener->pauses() == 0) std::this_thread::yield();
  }
  EXPECT_TRUE(port.taken.Pop().has_value());
  EXPECT_THAT(::testing::internal::GetCapturedStderr(),
              ::testing::HasSubstr("sheep who connect to 127.0.0.1:"));
}

TEST(TcpListener, SaysWhatIsWrongWithAnAddress) {
  Port port({.first = 200, .end = 300});
  ASSERT_NE(port.listener, nullptr);
  const auto bind = [](const std::string& address) {
    return TcpListener::Bind({.address = address, .name = "sheep", .descriptors = {200, 300}}).status();
  };
  EXPECT_TRUE(absl::IsAlreadyExists(bind(port.listener->address()))) << bind(port.listener->address());
  EXPECT_TRUE(absl::IsInvalidArgument(bind("no such place:80"))) << bind("no such place:80");
  EXPECT_TRUE(absl::IsInvalidArgument(bind("127.0.0.1:http"))) << bind("127.0.0.1:http");
  EXPECT_TRUE(absl::IsUnavailable(bind("192.0.2.1:0"))) << bind("192.0.2.1:0");
}

TEST(TcpListener, TakesEveryAddressOfAName) {
  auto bound = TcpListener::Bind({.address = "localhost:0", .name = "sheep", .descriptors = {200, 300}});
  ASSERT_TRUE(bound.ok()) << bound.status();
  EXPECT_THAT((*bound)->address(), ::testing::StartsWith("localhost:"));
  EXPECT_NE((*bound)->address(), "localhost:0");
}

}  // namespace
}  // namespace bellwether
