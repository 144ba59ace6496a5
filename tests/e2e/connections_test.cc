// More connections than a process may have: every port of coordinator and worker outlives them.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/unique_fd.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "http/testing/raw_client.h"
#include "tests/e2e/test_cluster.h"
#include "worker/link/grpc_connector.h"

namespace bellwether {
namespace {

using ::testing::HasSubstr;

// The TCP ports of 127.0.0.1 that a process listens on.
std::vector<int> ListeningPorts(pid_t process) {
  std::set<std::string> sockets;
  for (const auto& entry : std::filesystem::directory_iterator(absl::StrCat("/proc/", process, "/fd"))) {
    std::error_code gone;
    sockets.insert(std::filesystem::read_symlink(entry.path(), gone).string());
  }
  std::vector<int> ports;
  std::ifstream table(absl::StrCat("/proc/", process, "/net/tcp"));
  std::string line;
  while (std::getline(table, line)) {
    std::istringstream words(line);
    std::string slot, local, remote, state, queues, timer, retransmits, user, timeout, inode;
    words >> slot >> local >> remote >> state >> queues >> timer >> retransmits >> user >> timeout >> inode;
    const bool listens = state == "0A" && sockets.contains(absl::StrCat("socket:[", inode, "]"));
    int port = 0;
    if (listens && absl::SimpleHexAtoi(local.substr(local.find(':') + 1), &port)) ports.push_back(port);
  }
  return ports;
}

// `count` connections to a port of 127.0.0.1 over which nothing is said.
std::vector<UniqueFd> Burst(int port, int count) {
  std::vector<UniqueFd> connections;
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  for (int i = 0; i < count; ++i) {
    UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT_TRUE(fd.valid());
    EXPECT_EQ(connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    connections.push_back(std::move(fd));
  }
  return connections;
}

void RaiseOwnLimit(rlim_t wanted) {
  rlimit limit{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  if (limit.rlim_max < wanted) GTEST_SKIP() << "this process may open " << limit.rlim_max << " files";
  limit.rlim_cur = wanted;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

// A hello of an epoch that is long over is answered with exactly that, if anybody is there.
absl::Status SayHello(int port) {
  const std::string address = absl::StrCat("127.0.0.1:", port);
  auto outgoing =
      ConnectGrpc(address, {.epoch = {0}, .from = 0, .to = 1, .secret = "wool"}, {.peer = "the worker"});
  if (!outgoing.ok()) return outgoing.status();
  return (*outgoing)->Poll(absl::Seconds(5)).status();
}

constexpr int kOpenFiles = 256;
constexpr int kBurst = 3 * kOpenFiles;

TEST(Connections, EveryPortOutlivesABurstBeyondTheLimitOfOpenFiles) {
  RaiseOwnLimit(7 * kBurst);
  if (IsSkipped()) return;
  auto cluster = TestCluster::Start({.model = "random:llama:fp32",
                                     .pipeline_parallel = 2,
                                     .separate_hosts = true,
                                     .open_files_max = kOpenFiles});
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  const std::vector<int> server_ports = ListeningPorts((*cluster)->coordinator().pid());
  const std::vector<int> worker_ports = ListeningPorts((*cluster)->worker(0).pid());
  ASSERT_EQ(server_ports.size(), 4u) << "clients, HTTP clients, workers and monitoring";
  ASSERT_EQ(worker_ports.size(), 2u) << "links and monitoring";

  std::vector<std::vector<UniqueFd>> bursts;
  for (const int port : server_ports) bursts.push_back(Burst(port, kBurst));
  for (const int port : worker_ports) bursts.push_back(Burst(port, kBurst));
  // All stay open. Those that got in are cut, as they do not greet, and then there is room.
  const absl::Duration end = Clock::Real()->Now() + kPatience;
  absl::Status answered = absl::UnknownError("not asked");
  while (!answered.ok() && Clock::Real()->Now() < end) {
    InferenceClient client((*cluster)->address());
    answered = Generate(client, Ids({1, 2, 3}), {.max_tokens = 2}).status;
  }
  EXPECT_TRUE(answered.ok()) << answered << (*cluster)->Logs();
  std::string health;
  while (health.empty() && Clock::Real()->Now() < end) {
    RawClient client((*cluster)->http_address());
    client.Send("GET /health HTTP/1.1\r\nHost: a\r\n\r\n");
    health = client.ReadUntil("\r\n");
  }
  EXPECT_EQ(health, "HTTP/1.1 200 OK\r\n") << (*cluster)->Logs();
  absl::Status greeted;
  while (!absl::IsFailedPrecondition(greeted) && Clock::Real()->Now() < end) {
    for (const int port : worker_ports) {
      greeted = SayHello(port);  // one of them is not for links
      if (absl::IsFailedPrecondition(greeted)) break;
    }
  }
  EXPECT_TRUE(absl::IsFailedPrecondition(greeted)) << greeted << (*cluster)->Logs();
  ASSERT_TRUE((*cluster)->StartWorker(1).ok());  // the first one is killed: another must join
  absl::StatusOr<ServedModel> served = absl::UnknownError("not asked");
  answered = absl::UnknownError("not asked");
  while (!answered.ok() && Clock::Real()->Now() < end) {
    served = (*cluster)->WaitUntilServing();
    answered = Generate((*cluster)->client(), Ids({1, 2, 3}), {.max_tokens = 2}).status;
  }
  EXPECT_TRUE(answered.ok()) << answered << served.status() << (*cluster)->Logs();
  EXPECT_THAT((*cluster)->Logs(), HasSubstr("refuses a connection: clients may have 64 at once"));
  EXPECT_THAT((*cluster)->Logs(), HasSubstr("only 256 files may be open (ulimit -n)"));
}

TEST(Connections, TooFewOpenFilesAreSaidAtOnce) {
  for (const char* program : {"bellwether-coordinator", "bellwether-worker"}) {
    const std::string log = ::testing::TempDir() + "/too_few_open_files.log";
    std::error_code ignored;
    std::filesystem::remove(log, ignored);
    auto child = ChildProcess::Start(
        {.program = "/bin/sh",
         .arguments = {"-c", "ulimit -n 12 && exec \"$@\"", "sh", absl::StrCat(BELLWETHER_BIN, "/", program),
                       "--model", "random:llama:fp32"},
         .log_file = log});
    ASSERT_TRUE(child.ok()) << child.status();
    EXPECT_TRUE(child->WaitFor(kPatience)) << program;
    EXPECT_EQ(child->ending(), "exit code 1");
    std::ifstream file(log);
    const std::string text(std::istreambuf_iterator<char>(file), {});
    EXPECT_THAT(text, HasSubstr("only 12 files may be open")) << program;
  }
}

}  // namespace
}  // namespace bellwether
