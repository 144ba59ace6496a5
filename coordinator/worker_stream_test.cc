#include "coordinator/worker_stream.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

using ::testing::ElementsAre;

// A stream without gRPC: the test says what happens to it, in the order that gRPC's threads may do.
class WorkerStreamTest : public ::testing::Test {
 protected:
  std::vector<std::string> told_;
  const std::shared_ptr<WorkerStream> stream_ = WorkerStream::Start(
      /*context=*/nullptr, WorkerId{1},
      {.on_message = [this](WorkerStream&, const v1::WorkerMessage&) { told_.push_back("message"); },
       .on_end = [this](WorkerStream&,
                        const absl::Status& reason) { told_.push_back(std::string(reason.message())); }});
  grpc::ServerBidiReactor<v1::WorkerMessage, v1::CoordinatorMessage>& grpc_ = *stream_;
};

// A worker whose connection broke at once joined after it was lost: a ghost that the next layout was planned
// with.
TEST_F(WorkerStreamTest, TheEndComesAfterAMessageThatACancelledStreamStillBrings) {
  grpc_.OnCancel();
  EXPECT_THAT(told_, ElementsAre());
  grpc_.OnReadDone(/*ok=*/true);
  grpc_.OnReadDone(/*ok=*/false);
  grpc_.OnDone();
  EXPECT_THAT(told_, ElementsAre("message", "its connection broke"));
}

TEST_F(WorkerStreamTest, TheFirstReasonIsTold) {
  grpc_.OnReadDone(/*ok=*/false);
  grpc_.OnCancel();
  grpc_.OnDone();
  EXPECT_THAT(told_, ElementsAre("its connection closed"));
}

}  // namespace
}  // namespace bellwether
