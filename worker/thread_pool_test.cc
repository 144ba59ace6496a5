#include "worker/thread_pool.h"

#include <gtest/gtest.h>

#include <numeric>
#include <set>
#include <thread>

namespace bellwether {
namespace {

class ThreadPoolTest : public testing::TestWithParam<ThreadPool::Options> {};

TEST_P(ThreadPoolTest, EveryIndexExactlyOnce) {
  ThreadPool pool(GetParam());
  for (int64_t count : {0, 1, 2, 3, 5, 7, 16, 100, 1001}) {
    std::vector<int> hits(count, 0);
    pool.ParallelFor(count, [&](int64_t begin, int64_t end) {
      ASSERT_LT(begin, end);
      for (int64_t i = begin; i < end; ++i) ++hits[i];
    });
    EXPECT_EQ(hits, std::vector<int>(count, 1)) << count;
    for (int64_t grain : {1, 3, 64, 5000}) {
      std::fill(hits.begin(), hits.end(), 0);
      pool.ParallelForDynamic(count, grain, [&](int64_t begin, int64_t end) {
        ASSERT_LE(end - begin, grain);
        ASSERT_EQ(begin % grain, 0);
        for (int64_t i = begin; i < end; ++i) ++hits[i];
      });
      EXPECT_EQ(hits, std::vector<int>(count, 1)) << count << " by " << grain;
    }
  }
}

TEST_P(ThreadPoolTest, PartsDifferByAtMostOne) {
  ThreadPool pool(GetParam());
  const int64_t count = 1003;
  std::atomic<int> parts{0};
  pool.ParallelFor(count, [&](int64_t begin, int64_t end) {
    ++parts;
    EXPECT_GE(end - begin, count / pool.threads());
    EXPECT_LE(end - begin, count / pool.threads() + 1);
  });
  EXPECT_EQ(parts, pool.threads());
}

TEST_P(ThreadPoolTest, TheSamePartOnTheSameThread) {
  ThreadPool pool(GetParam());
  std::vector<std::thread::id> first(pool.threads()), second(pool.threads());
  auto note = [](std::vector<std::thread::id>& ids) {
    return [&ids](int64_t begin, int64_t) { ids[begin] = std::this_thread::get_id(); };
  };
  pool.ParallelFor(pool.threads(), note(first));
  pool.ParallelFor(pool.threads(), note(second));
  EXPECT_EQ(first, second);
  EXPECT_EQ(first[0], std::this_thread::get_id());
  EXPECT_EQ(std::set<std::thread::id>(first.begin(), first.end()).size(), first.size());
}

// Each loop reads what another thread wrote in the loop before: a missing barrier is a wrong sum, and a race
// to TSan.
TEST_P(ThreadPoolTest, EachLoopSeesTheOneBefore) {
  ThreadPool pool(GetParam());
  const int64_t count = 64;
  std::vector<int64_t> values(count), shifted(count);
  std::iota(values.begin(), values.end(), 0);
  const int loops = 2000;
  for (int loop = 0; loop < loops; ++loop) {
    pool.ParallelFor(count, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) shifted[i] = values[(i + 1) % count] + 1;
    });
    pool.ParallelForDynamic(count, 5, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) values[i] = shifted[i];
    });
  }
  for (int64_t i = 0; i < count; ++i) EXPECT_EQ(values[i], (i + loops) % count + loops);
}

TEST_P(ThreadPoolTest, WakesThreadsThatHaveGoneToSleep) {
  ThreadPool::Options options = GetParam();
  options.spin_pauses = 0;
  ThreadPool pool(options);
  std::atomic<int64_t> sum{0};
  for (int loop = 0; loop < 500; ++loop) {
    pool.ParallelFor(100, [&](int64_t begin, int64_t end) { sum += end - begin; });
  }
  EXPECT_EQ(sum, 500 * 100);
}

INSTANTIATE_TEST_SUITE_P(Teams, ThreadPoolTest,
                         testing::Values(ThreadPool::Options{.threads = 1}, ThreadPool::Options{.threads = 2},
                                         ThreadPool::Options{.threads = 3},
                                         ThreadPool::Options{.threads = 7, .spin_pauses = 10},
                                         ThreadPool::Options{.threads = 7, .cores_are_short = true},
                                         ThreadPool::Options{.threads = 2, .cpus = {0, 1000000}},
                                         ThreadPool::Options{.threads = 2, .cpus = {0}}),
                         [](const testing::TestParamInfo<ThreadPool::Options>& info) {
                           return "n" + std::to_string(info.index) + "_threads" +
                                  std::to_string(info.param.threads);
                         });

TEST(ThreadPoolLife, StartsAndStopsWithoutWork) {
  for (int i = 0; i < 20; ++i) ThreadPool pool(3);
}

}  // namespace
}  // namespace bellwether
