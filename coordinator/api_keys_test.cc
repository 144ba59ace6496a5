#include "coordinator/api_keys.h"

#include <cstdio>
#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

using ::testing::HasSubstr;

// Of the keys "sheep" and "goat".
constexpr char kSheep[] =
    R"({"name": "a", "sha256": "5c599616ac500daae9e6b0bc875e22ea609a6f8f1170cbf14187e1a9f270d422", "weight": 2})"
    "\n";
constexpr char kGoat[] =
    R"({"name": "b", "sha256": "5480F08F35968440EBE8135A8BF9E58C8C944BF4E3BA0F45ACB141E474BD0C9C"})"
    "\n";

class ApiKeysTest : public ::testing::Test {
 protected:
  void Write(const std::string& text) { std::ofstream(path_) << text; }
  std::string NameOf(ApiKeys& keys, std::string_view authorization) {
    const auto name = keys.NameOf(authorization);
    EXPECT_TRUE(name.ok() || absl::IsUnauthenticated(name.status())) << name.status();
    return name.value_or("");
  }
  const std::string path_ = ::testing::TempDir() + "/api_keys";
  ManualClock clock_;
};

TEST_F(ApiKeysTest, KnowsWhoseKeyItIs) {
  Write(std::string(kSheep) + "\n" + kGoat);
  const auto keys = ApiKeys::Load(path_);
  ASSERT_TRUE(keys.ok()) << keys.status();
  EXPECT_EQ(NameOf(**keys, "Bearer sheep"), "a");
  EXPECT_EQ(NameOf(**keys, "bearer goat"), "b");
  EXPECT_EQ(NameOf(**keys, "BEARER   sheep"), "a") << "any number of spaces stands between the two";
  for (const char* stranger : {"", "Bearer", "Bearer ", "Bearer  ", "Bearersheep", "Bearer\tsheep",
                               "Bearer sheep ", "Bearer wolf", "Basic sheep", "sheep"}) {
    EXPECT_EQ(NameOf(**keys, stranger), "") << stranger;
  }
}

TEST_F(ApiKeysTest, FollowsTheFileAndKeepsWhatItHasWhileThatIsBroken) {
  Write(kSheep);
  const auto keys = ApiKeys::Load(path_, &clock_);
  ASSERT_TRUE(keys.ok()) << keys.status();
  Write(kGoat + std::string(" \n"));
  EXPECT_EQ(NameOf(**keys, "Bearer sheep"), "a") << "it is not looked at all the time";
  clock_.Advance(absl::Seconds(1));
  EXPECT_EQ(NameOf(**keys, "Bearer sheep"), "");
  EXPECT_EQ(NameOf(**keys, "Bearer goat"), "b");
  Write("half a reco");
  clock_.Advance(absl::Seconds(1));
  EXPECT_EQ(NameOf(**keys, "Bearer goat"), "b");
  ASSERT_EQ(std::remove(path_.c_str()), 0);
  clock_.Advance(absl::Seconds(1));
  EXPECT_EQ(NameOf(**keys, "Bearer goat"), "b");
}

TEST_F(ApiKeysTest, SaysWhatIsWrongWithTheFile) {
  EXPECT_FALSE(ApiKeys::Load(path_ + ".none").ok());
  const std::string record = kSheep;
  for (const auto& [text, message] : std::initializer_list<std::pair<std::string, const char*>>{
           {"", "holds no key"},
           {record + "[]\n", ":2: name must be"},
           {record + "no json\n", ":2: "},
           {R"({"name": "two words", "sha256": ""})", "name must be"},
           {R"({"name": "a", "sha256": "12"})", "sha256 must be 64"}}) {
    Write(text);
    EXPECT_THAT(std::string(ApiKeys::Load(path_).status().message()), HasSubstr(message)) << text;
  }
}

}  // namespace
}  // namespace bellwether
