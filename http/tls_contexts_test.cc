#include "http/tls_contexts.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/unique_fd.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

class TlsContextsTest : public testing::Test {
 protected:
  void SetUp() override {
    Renew();
    auto made = TlsContexts::Make({.certificate = directory_ + "/door.pem", .key = directory_ + "/door.key"});
    ASSERT_TRUE(made.ok()) << made.status();
    contexts_ = *std::move(made);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  void Renew() const {
    ASSERT_EQ(std::system(absl::StrCat("tools/make_certificates.sh ", directory_, " door").c_str()), 0);
  }

  const std::string directory_ = absl::StrCat(testing::TempDir(), "/tls_contexts_test.", getpid());
  std::shared_ptr<TlsContexts> contexts_;
};

TEST_F(TlsContextsTest, AreMadeAnewWhenFilesHaveChangedAndAreGood) {
  const auto first = contexts_->Current();
  contexts_->Look();
  EXPECT_EQ(contexts_->Current(), first);
  Renew();
  EXPECT_EQ(contexts_->Current(), first);
  contexts_->Look();
  const auto second = contexts_->Current();
  EXPECT_NE(second, first);
  std::filesystem::remove(directory_ + "/door.key");
  contexts_->Look();
  EXPECT_EQ(contexts_->Current(), second);
}

// The thread that serves read the files as well, so a network drive that did not answer held up every
// connection and every stream of the port, and the probes of the one for monitoring.
TEST_F(TlsContextsTest, NobodyWaitsForAFile) {
  const auto first = contexts_->Current();
  Renew();
  // Whoever opens the file waits until the lease is given back, of which its holder is told by a signal.
  std::signal(SIGIO, SIG_IGN);
  const std::string certificate = directory_ + "/door.pem";
  const UniqueFd lease(open(certificate.c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_EQ(fcntl(lease.get(), F_SETLEASE, F_WRLCK), 0);
  std::atomic<bool> read = false;
  std::thread reader([&] {
    contexts_->Look();
    read = true;
  });
  while (fcntl(lease.get(), F_GETLEASE) == F_WRLCK) std::this_thread::yield();  // until the file is opened
  EXPECT_EQ(contexts_->Current(), first);
  EXPECT_FALSE(read);
  fcntl(lease.get(), F_SETLEASE, F_UNLCK);
  reader.join();
  EXPECT_NE(contexts_->Current(), first);
}

}  // namespace
}  // namespace bellwether
