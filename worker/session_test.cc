#include "worker/session.h"

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "common/descriptors.h"
#include "gmock/gmock.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "proto/bellwether/v1/cluster.grpc.pb.h"
#include "proto/grpc_server.h"
#include "worker/device/cpu_device.h"

namespace bellwether {
namespace {

using ::testing::HasSubstr;

// Has no use for the first worker yet, asks the next one to start afresh, and refuses the third.
class RefusingCoordinator final : public v1::Cluster::Service {
 public:
  grpc::Status Join(grpc::ServerContext*,
                    grpc::ServerReaderWriter<v1::CoordinatorMessage, v1::WorkerMessage>* stream) override {
    v1::WorkerMessage join;
    if (!stream->Read(&join)) return grpc::Status::OK;
    joins_.push_back(join.join());
    if (joins_.size() == 1) return {grpc::StatusCode::UNAVAILABLE, "the worker is another build"};
    v1::CoordinatorMessage answer;
    answer.mutable_refusal()->set_start_afresh(joins_.size() == 2);
    answer.mutable_refusal()->set_reason(joins_.size() == 2 ? "epochs beyond belief" : "enough");
    stream->Write(answer);
    return grpc::Status::OK;
  }
  const std::vector<v1::JoinRequest>& joins() const { return joins_; }  // once the worker has ended

 private:
  std::vector<v1::JoinRequest> joins_;
};

TEST(WorkerSession, DoesWhatTheCoordinatorSaysWhereItIsNotTaken) {
  RefusingCoordinator coordinator;
  grpc::ServerBuilder builder;
  builder.RegisterService(&coordinator);
  auto server = GrpcServer::Start(
      &builder,
      {.listen = {.address = "127.0.0.1:0", .name = "workers", .descriptors = DescriptorsBetween(0.5, 1)}});
  ASSERT_TRUE(server.ok()) << server.status();
  WorkerSession::Options options;
  options.coordinator = (*server)->address();
  options.model = "random:llama:fp32";
  options.name = "sheep";
  options.device.device = std::make_shared<CpuDevice>(1, std::vector<int>());
  options.device.kernel_levels = {"portable"};
  auto session = WorkerSession::Start(std::move(options));
  ASSERT_TRUE(session.ok()) << session.status();
  testing::internal::CaptureStderr();
  const absl::Status end = (*session)->Run();
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("the worker is another build"));
  EXPECT_TRUE(absl::IsFailedPrecondition(end)) << end;
  EXPECT_THAT(std::string(end.message()), HasSubstr("enough"));
  ASSERT_EQ(coordinator.joins().size(), 3u);
  EXPECT_EQ(coordinator.joins()[0].unix_socket(), coordinator.joins()[1].unix_socket()) << "it asks again";
  EXPECT_NE(coordinator.joins()[1].unix_socket(), coordinator.joins()[2].unix_socket()) << "all is new";
}

}  // namespace
}  // namespace bellwether
