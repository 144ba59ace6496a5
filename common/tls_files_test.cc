#include "common/tls_files.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/read_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

// While an authority is replaced its file holds the old one and the new one.
TEST(TlsFilesTest, OfSeveralAuthoritiesOneMustBeGood) {
  const std::string directory = absl::StrCat(testing::TempDir(), "/tls_files_test.", getpid());
  for (const char* made : {"0 ", "10 "}) {
    const std::string command =
        absl::StrCat("DAYS=", made, "tools/make_certificates.sh ", directory, " days", made);
    ASSERT_EQ(std::system(command.c_str()), 0);
  }
  const std::string old = ReadFile(directory + "/days0.pem", 1 << 20).value_or("");
  const std::string good = ReadFile(directory + "/days10.pem", 1 << 20).value_or("");
  const TlsOptions options = {.authority = directory + "/bundle.pem"};
  for (const std::string& bundle : {old + good, good + old, good}) {
    std::ofstream(options.authority) << bundle;
    EXPECT_TRUE(ReadTlsFiles(options).ok()) << ReadTlsFiles(options).status();
  }
  std::ofstream(options.authority) << old << old;
  EXPECT_THAT(ReadTlsFiles(options).status().message(),
              testing::HasSubstr("bundle.pem: the certificate has expired"));
  std::ofstream(options.authority) << "nothing";
  EXPECT_THAT(ReadTlsFiles(options).status().message(), testing::HasSubstr("no certificate in PEM"));
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace bellwether
