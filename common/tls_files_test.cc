#include "common/tls_files.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/read_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

using ::testing::HasSubstr;

class TlsFilesTest : public testing::Test {
 protected:
  void SetUp() override {
    Run(absl::StrCat("tools/make_certificates.sh ", directory_, " good"));
    Run(absl::StrCat("DAYS=0 tools/make_certificates.sh ", directory_, " expired"));
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  static void Run(const std::string& command) { ASSERT_EQ(std::system(command.c_str()), 0) << command; }
  std::string Path(const std::string& name) const { return absl::StrCat(directory_, "/", name); }
  std::string Text(const std::string& name) const { return ReadFile(Path(name), 1 << 20).value_or(""); }
  std::string Put(const std::string& name, const std::string& text) const {
    std::ofstream(Path(name)) << text;
    return Path(name);
  }
  TlsOptions Good() const { return {.certificate = Path("good.pem"), .key = Path("good.key")}; }
  static std::string ErrorOf(const TlsOptions& options) {
    return std::string(ReadTlsFiles(options).status().message());
  }

  const std::string directory_ = absl::StrCat(testing::TempDir(), "/tls_files_test.", getpid());
};

// While an authority is replaced its file holds the old one and the new one.
TEST_F(TlsFilesTest, OfSeveralAuthoritiesOneMustBeGood) {
  const std::string old = Text("expired.pem"), good = Text("good.pem");
  for (const std::string& bundle : {old + good, good + old, good})
    EXPECT_EQ(ErrorOf({.authority = Put("bundle.pem", bundle)}), "");
  EXPECT_THAT(ErrorOf({.authority = Put("bundle.pem", old + old)}),
              HasSubstr("bundle.pem: the certificate has expired"));
  EXPECT_THAT(ErrorOf({.authority = Put("bundle.pem", "nothing")}), HasSubstr("no certificate in PEM"));
}

// gRPC reads key and certificate in its own way: each of these had it refuse everybody.
TEST_F(TlsFilesTest, WhatIsAroundThemInTheFilesIsLeftOut) {
  const std::string certificate = Text("good.pem"), key = Text("good.key");
  TlsOptions options = Good();
  options.key = Put("both.key", key + certificate);
  options.certificate = Put("marked.pem", "\xEF\xBB\xBF" + certificate);
  const auto files = ReadTlsFiles(options);
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_TRUE(absl::StartsWith(files->certificate, "-----BEGIN CERTIFICATE-----"));
  EXPECT_THAT(files->key, testing::Not(HasSubstr("BEGIN CERTIFICATE")));
  const auto plain = ReadTlsFiles(Good());
  EXPECT_EQ(*files, *plain);
}

TEST_F(TlsFilesTest, WhatOpenSslWouldNotShowIsRefused) {
  Run(absl::StrCat("openssl req -x509 -newkey rsa:1024 -nodes -days 9 -subj /CN=weak -keyout ",
                   Path("weak.key"), " -out ", Path("weak.pem"), " 2>", Path("said")));
  EXPECT_THAT(ErrorOf({.certificate = Path("weak.pem"), .key = Path("weak.key")}),
              HasSubstr("weak.pem: OpenSSL does not take the certificate: ee key too small"));
  TlsOptions chain = Good();
  chain.certificate = Put("chain.pem", Text("good.pem") + Text("authority.pem"));
  EXPECT_EQ(ErrorOf(chain), "");
  chain.certificate = Put("chain.pem", Text("good.pem") + Text("authority.pem").substr(0, 100));
  EXPECT_THAT(ErrorOf(chain), HasSubstr("chain.pem: a certificate in it is broken"));
}

// Whoever writes into a pipe may never come.
TEST_F(TlsFilesTest, APipeIsNotWaitedFor) {
  ASSERT_EQ(mkfifo(Path("pipe").c_str(), 0600), 0);
  EXPECT_THAT(ErrorOf({.authority = Path("pipe")}), HasSubstr("pipe: not a regular file"));
}

}  // namespace
}  // namespace bellwether
