#pragma once

// What every kind of link promises, as tests to be instantiated for each of them (link_test.cc;
// grpc_link_test.cc apart, because ThreadSanitizer does not see through gRPC).

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "worker/link/link.h"

namespace bellwether {

struct Ends {
  std::shared_ptr<void> keeps;  // what has to outlive the links
  std::unique_ptr<Link> first, second;
};
struct LinkKind {
  std::string name;
  std::function<Ends(absl::Duration wait_limit)> make;
};
inline void PrintTo(const LinkKind& kind, std::ostream* stream) { *stream << kind.name; }

class LinkTest : public testing::TestWithParam<LinkKind> {
 protected:
  Ends Make(absl::Duration wait_limit = absl::Seconds(30)) { return GetParam().make(wait_limit); }

  static MessageTag Tag(uint64_t step) {
    return {.epoch = {3}, .step = {step}, .kind = MessageKind::kResidual, .layer = 5, .rows = 2, .cols = 7};
  }
  static std::vector<float> Values(size_t count, int seed) {
    std::vector<float> values(count);
    for (size_t i = 0; i < count; ++i) values[i] = static_cast<float>(i % 10007) + seed * 0.25f;
    return values;
  }
  static void ExpectReceives(Link& link, uint64_t step, size_t count, int seed) {
    std::vector<float> received(count, -1);
    const absl::Status status = link.Receive(Tag(step), absl::MakeSpan(received));
    ASSERT_TRUE(status.ok()) << status;
    ASSERT_EQ(received, Values(count, seed)) << count << " floats in step " << step;
  }
};

inline constexpr size_t kFifoFloats = kLinkFifoBytes / sizeof(float);

TEST_P(LinkTest, MessagesOfEverySizeArriveInOrder) {
  Ends ends = Make();
  std::vector<size_t> sizes = {0,    1,    15,    16,    17,          0,          1000,
                               4095, 4096, 16384, 16385, kFifoFloats, 131072 + 5, 700001};
  for (size_t i = 0; i < 200; ++i) sizes.push_back(i * 37 % 3000);  // goes round any ring
  std::thread sender([&] {
    for (size_t i = 0; i < sizes.size(); ++i) {
      const absl::Status status = ends.first->Send(Tag(i), Values(sizes[i], static_cast<int>(i)));
      ASSERT_TRUE(status.ok()) << status;
    }
  });
  for (size_t i = 0; i < sizes.size(); ++i) ExpectReceives(*ends.second, i, sizes[i], static_cast<int>(i));
  sender.join();
}

TEST_P(LinkTest, BothDirectionsAtOnce) {
  Ends ends = Make();
  auto exchange = [](Link& link, int own, int other) {
    for (int i = 0; i < 300; ++i) {
      const size_t count = i * 131 % 20000;
      const absl::Status status = link.Send(Tag(i), Values(count, own));
      ASSERT_TRUE(status.ok()) << status;
      ExpectReceives(link, i, count, other);
    }
  };
  std::thread second([&] { exchange(*ends.second, 2, 1); });
  exchange(*ends.first, 1, 2);
  second.join();
}

// Collectives count on it: as much as the FIFO holds may be sent before anything is received.
TEST_P(LinkTest, BothMaySendAFullFifoBeforeTheyReceive) {
  Ends ends = Make();
  for (uint64_t step = 0; step < 20; ++step) {
    for (Link* link : {ends.first.get(), ends.second.get()}) {
      const absl::Status status = link->Send(Tag(step), Values(kFifoFloats, 3));
      ASSERT_TRUE(status.ok()) << status;
    }
    ExpectReceives(*ends.first, step, kFifoFloats, 3);
    ExpectReceives(*ends.second, step, kFifoFloats, 3);
  }
}

TEST_P(LinkTest, DifferentTagsAreDataLossNamingBoth) {
  Ends ends = Make();
  MessageTag sent = Tag(41);
  sent.rank = 6;
  ASSERT_TRUE(ends.first->Send(sent, Values(14, 0)).ok());
  std::vector<float> received(14);
  const absl::Status status = ends.second->Receive(Tag(42), absl::MakeSpan(received));
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  EXPECT_THAT(std::string(status.message()),
              testing::AllOf(testing::HasSubstr("step 41"), testing::HasSubstr("step 42"),
                             testing::HasSubstr("rank 6"), testing::HasSubstr("first")));
}

TEST_P(LinkTest, DifferentSizesAreDataLoss) {
  Ends ends = Make();
  ASSERT_TRUE(ends.first->Send(Tag(1), Values(14, 0)).ok());
  std::vector<float> received(13);
  const absl::Status status = ends.second->Receive(Tag(1), absl::MakeSpan(received));
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  EXPECT_THAT(std::string(status.message()),
              testing::AllOf(testing::HasSubstr("14 floats"), testing::HasSubstr("13 floats")));
}

TEST_P(LinkTest, ReceivingFromASilentPeerEndsAfterTheWaitLimit) {
  Ends ends = Make(absl::Milliseconds(30));
  std::vector<float> received(14);
  const absl::Status status = ends.second->Receive(Tag(9), absl::MakeSpan(received));
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
  EXPECT_THAT(
      std::string(status.message()),
      testing::AllOf(testing::HasSubstr("step 9"), testing::HasSubstr("first"), testing::HasSubstr("ms")));
}

TEST_P(LinkTest, TheWaitLimitMayChange) {
  Ends ends = Make();
  std::vector<float> received(14);
  ends.second->SetWaitLimit(absl::ZeroDuration());
  const absl::Status status = ends.second->Receive(Tag(9), absl::MakeSpan(received));
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
}

// However short the wait: it tells who is gone from who is silent.
TEST_P(LinkTest, APeerThatIsGoneIsSaidToBeGone) {
  Ends ends = Make();
  ends.first.reset();
  std::vector<float> received(14);
  absl::Status status;
  do {  // until the end of the connection has come through
    ends.second->SetWaitLimit(absl::ZeroDuration());
    status = ends.second->Receive(Tag(9), absl::MakeSpan(received));
  } while (absl::IsDeadlineExceeded(status));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
}

TEST_P(LinkTest, SendingToAPeerThatDoesNotReceiveEndsAfterTheWaitLimit) {
  Ends ends = Make(absl::Milliseconds(30));
  const absl::Status status =
      ends.first->Send(Tag(9), Values(20'000'000, 0));  // more than anything on the way buffers
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
  EXPECT_THAT(std::string(status.message()),
              testing::AllOf(testing::HasSubstr("step 9"), testing::HasSubstr("second")));
}

TEST_P(LinkTest, AbortEndsWaitsOnBothSides) {
  for (int repeat = 0; repeat < 5; ++repeat) {
    Ends ends = Make();
    std::thread aborted([&] {
      std::vector<float> received(14);
      const absl::Status status = ends.first->Receive(Tag(1), absl::MakeSpan(received));
      EXPECT_EQ(status, absl::AbortedError("the epoch has ended"));
    });
    std::thread peer([&] {
      std::vector<float> received(14);
      const absl::Status status = ends.second->Receive(Tag(1), absl::MakeSpan(received));
      EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    });
    ends.first->Abort(absl::AbortedError("the epoch has ended"));
    aborted.join();
    peer.join();
    ends.first->Abort(absl::AbortedError("a second reason"));
    EXPECT_EQ(ends.first->Send(Tag(1), Values(14, 0)), absl::AbortedError("the epoch has ended"));
  }
}

TEST_P(LinkTest, AbortEndsAWaitForSpace) {
  Ends ends = Make();
  std::thread aborted([&] {
    EXPECT_EQ(ends.first->Send(Tag(1), Values(20'000'000, 0)), absl::AbortedError("the epoch has ended"));
  });
  ends.first->Abort(absl::AbortedError("the epoch has ended"));
  aborted.join();
}

TEST_P(LinkTest, WhatWasSentBeforeTheEndIsReceived) {
  Ends ends = Make();
  ASSERT_TRUE(ends.first->Send(Tag(1), Values(5000, 1)).ok());
  ASSERT_TRUE(ends.first->Send(Tag(2), Values(50000, 2)).ok());
  ends.first.reset();
  ExpectReceives(*ends.second, 1, 5000, 1);
  ExpectReceives(*ends.second, 2, 50000, 2);
  std::vector<float> received(14);
  const absl::Status status = ends.second->Receive(Tag(3), absl::MakeSpan(received));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_THAT(std::string(status.message()),
              testing::AllOf(testing::HasSubstr("step 3"), testing::HasSubstr("first")));
}

TEST_P(LinkTest, NamesItsPeer) {
  Ends ends = Make();
  EXPECT_THAT(ends.first->peer(), testing::HasSubstr("second"));
  EXPECT_THAT(ends.second->peer(), testing::HasSubstr("first"));
}

}  // namespace bellwether
