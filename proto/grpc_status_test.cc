#include "proto/grpc_status.h"

#include "gtest/gtest.h"

namespace bellwether {
namespace {

TEST(GrpcStatusTest, LongMessagesAreCutToWhatTravels) {
  const grpc::Status status = ToGrpc(absl::NotFoundError("a" + std::string(3000, 'b')));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(status.error_message(), "a" + std::string(kStatusMessageBytesMax - 1, 'b') + "...");
  EXPECT_EQ(ToAbsl(ToGrpc(absl::AbortedError("why"))), absl::AbortedError("why"));
  EXPECT_TRUE(ToGrpc(absl::OkStatus()).ok());
}

}  // namespace
}  // namespace bellwether
