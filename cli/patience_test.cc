#include "cli/patience.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

using ::testing::HasSubstr;

constexpr absl::Duration kLimit = absl::Seconds(300);

TEST(PatienceTest, EndsWhereTheSameIsToldForTooLong) {
  Patience patience(kLimit);
  EXPECT_TRUE(patience.Hear(absl::Seconds(10), "waiting for workers: 0 of 1").ok());
  EXPECT_TRUE(patience.Hear(absl::Seconds(309), "waiting for workers: 0 of 1").ok());
  const absl::Status end = patience.Hear(absl::Seconds(310), "waiting for workers: 0 of 1");
  EXPECT_TRUE(absl::IsDeadlineExceeded(end));
  EXPECT_THAT(std::string(end.message()), HasSubstr("no progress for 5m: waiting for workers: 0 of 1"));
  EXPECT_THAT(std::string(end.message()), HasSubstr("--give-up-seconds"));
}

TEST(PatienceTest, ALoadThatGetsOnIsNeverCutOff) {
  Patience patience(kLimit);
  for (int i = 0; i < 1000; ++i) {
    // The words stay for an hour at a time; the bytes behind them grow.
    EXPECT_TRUE(patience.Hear(absl::Seconds(299) * i, absl::StrCat("loading: ", i / 12, " %"), i).ok());
  }
}

// A worker that is lost again and again loads something each time.
TEST(PatienceTest, CirclesEndAlthoughSomethingMoves) {
  Patience patience(kLimit);
  absl::Status status;
  int epochs = 0;
  absl::Duration now;
  uint64_t loaded = 0;
  while (status.ok() && epochs < 100) {
    ++epochs;
    for (int percent = 0; percent < 50 && status.ok(); percent += 10) {
      now += absl::Seconds(1);
      status = patience.Hear(now, absl::StrCat("loading (epoch ", epochs, "): ", percent, " %"), ++loaded);
    }
    if (status.ok())
      status = patience.Hear(now, absl::StrCat("worker 1 is lost: cannot map ", epochs), loaded);
  }
  EXPECT_EQ(epochs, 6);
  EXPECT_THAT(std::string(status.message()), HasSubstr("6 times: loading (epoch 6): 0 %"));
}

TEST(PatienceTest, NewsIsToldOnce) {
  Patience patience(kLimit);
  EXPECT_FALSE(patience.IsNews());
  EXPECT_TRUE(patience.Hear(absl::ZeroDuration(), "a").ok());
  EXPECT_TRUE(patience.IsNews());
  EXPECT_TRUE(patience.Hear(absl::ZeroDuration(), "a").ok());
  EXPECT_FALSE(patience.IsNews());
  EXPECT_TRUE(patience.Hear(absl::ZeroDuration(), "b").ok());
  EXPECT_TRUE(patience.IsNews());
}

}  // namespace
}  // namespace bellwether
