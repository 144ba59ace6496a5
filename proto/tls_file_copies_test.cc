#include "proto/tls_file_copies.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/read_file.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

class TlsFileCopiesTest : public testing::Test {
 protected:
  void SetUp() override {
    Renew();
    options_ = {.certificate = directory_ + "/flock.pem",
                .key = directory_ + "/flock.key",
                .authority = directory_ + "/authority.pem"};
    auto made = TlsFileCopies::Make(options_);
    ASSERT_TRUE(made.ok()) << made.status();
    copies_ = *std::move(made);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  void Renew() const {
    ASSERT_EQ(std::system(absl::StrCat("tools/make_certificates.sh ", directory_, " flock").c_str()), 0);
  }
  static std::string TextOf(const std::string& path) { return ReadFile(path, 1 << 20).value_or("none"); }
  std::string Pair() const { return absl::StrCat(TextOf(options_.key), TextOf(options_.certificate)); }
  // By which gRPC's watcher tells whether two looks saw the same file.
  static time_t ChangedAt(const std::string& path) {
    struct stat status = {};
    return stat(path.c_str(), &status) == 0 ? status.st_mtim.tv_sec : 0;
  }

  const std::string directory_ = absl::StrCat(testing::TempDir(), "/tls_file_copies_test.", getpid());
  TlsOptions options_;
  std::unique_ptr<TlsFileCopies> copies_;
};

TEST_F(TlsFileCopiesTest, HoldWhatIsInTheFiles) {
  EXPECT_EQ(TextOf(copies_->key_and_certificate()), Pair());
  EXPECT_EQ(TextOf(copies_->authority()), TextOf(options_.authority));
}

// A key whose certificate is still to come had gRPC refuse every new connection.
TEST_F(TlsFileCopiesTest, ChangeOnlyFromOneGoodPairToAnother) {
  const std::string path = copies_->key_and_certificate();
  const std::string old_pair = Pair(), old_certificate = TextOf(options_.certificate);
  const time_t first = ChangedAt(path);
  Renew();
  const std::string new_certificate = TextOf(options_.certificate);
  std::ofstream(options_.certificate) << old_certificate;
  copies_->Look();
  EXPECT_EQ(TextOf(path), old_pair);
  EXPECT_EQ(ChangedAt(path), first);
  std::ofstream(options_.certificate) << new_certificate;
  copies_->Look();
  EXPECT_EQ(copies_->key_and_certificate(), path);
  EXPECT_EQ(TextOf(path), Pair());
  EXPECT_NE(TextOf(path), old_pair);
  EXPECT_NE(ChangedAt(path), first);
}

TEST_F(TlsFileCopiesTest, StayWhenTheFilesAreGone) {
  const std::string pair = Pair();
  std::filesystem::remove_all(directory_);
  copies_->Look();
  EXPECT_EQ(TextOf(copies_->key_and_certificate()), pair);
}

TEST_F(TlsFileCopiesTest, AreSharedByAllWhoUseTheSameFiles) {
  const auto one = TlsFileCopies::Of(options_), other = TlsFileCopies::Of(options_);
  ASSERT_TRUE(one.ok()) << one.status();
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_EQ(*one, *other);
  EXPECT_FALSE(TlsFileCopies::Of({.certificate = options_.certificate, .key = "/none"}).ok());
}

TEST_F(TlsFileCopiesTest, WhoTrustsOthersAndShowsNothingHasAnAuthorityAlone) {
  const auto made = TlsFileCopies::Make({.authority = options_.authority});
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ((*made)->key_and_certificate(), "");
  EXPECT_EQ(TextOf((*made)->authority()), TextOf(options_.authority));
}

}  // namespace
}  // namespace bellwether
