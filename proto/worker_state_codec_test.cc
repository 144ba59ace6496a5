#include "proto/worker_state_codec.h"

#include "gtest/gtest.h"

namespace bellwether {
namespace {

TEST(WorkerStateCodec, EveryStateOfTheWireIsOneOfOursAndBack) {
  for (int number = v1::WorkerState_MIN; number <= v1::WorkerState_MAX; ++number) {
    const auto wire = static_cast<v1::WorkerState>(number);
    if (wire == v1::WORKER_STATE_UNSPECIFIED) continue;
    const absl::StatusOr<WorkerState> state = Decode(wire);
    ASSERT_TRUE(state.ok()) << state.status();
    EXPECT_EQ(Encode(*state), wire);
    EXPECT_NE(Name(*state), "unknown");
  }
}

TEST(WorkerStateCodec, WhatAPeerMakesUpIsRefused) {
  for (const int number : {0, v1::WorkerState_MAX + 1, -1}) {
    EXPECT_TRUE(absl::IsInvalidArgument(Decode(static_cast<v1::WorkerState>(number)).status())) << number;
  }
}

}  // namespace
}  // namespace bellwether
