#include "worker/session.h"

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "common/descriptors.h"
#include "gmock/gmock.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "model/checkpoint/checkpoint.h"
#include "proto/assignment_codec.h"
#include "proto/bellwether/v1/cluster.grpc.pb.h"
#include "proto/grpc_server.h"
#include "worker/device/cpu_device.h"

namespace bellwether {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<std::unique_ptr<GrpcServer>> Serve(v1::Cluster::Service* coordinator) {
  grpc::ServerBuilder builder;
  builder.RegisterService(coordinator);
  return GrpcServer::Start(
      &builder,
      {.listen = {.address = "127.0.0.1:0", .name = "workers", .descriptors = DescriptorsBetween(0.5, 1)}});
}

WorkerSession::Options Joining(const GrpcServer& server, std::shared_ptr<Device> device) {
  WorkerSession::Options options;
  options.coordinator = server.address();
  options.model = "random:llama:fp32";
  options.name = "sheep";
  options.device.device = std::move(device);
  options.device.kernel_levels = {"portable"};
  return options;
}

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
  auto server = Serve(&coordinator);
  ASSERT_TRUE(server.ok()) << server.status();
  auto session = WorkerSession::Start(Joining(**server, std::make_shared<CpuDevice>(1, std::vector<int>())));
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

// Gives the first worker the whole model, and lets its epoch end when it fails.
class LosingCoordinator final : public v1::Cluster::Service {
 public:
  grpc::Status Join(grpc::ServerContext*,
                    grpc::ServerReaderWriter<v1::CoordinatorMessage, v1::WorkerMessage>* stream) override {
    v1::WorkerMessage message;
    if (!stream->Read(&message)) return grpc::Status::OK;
    v1::CoordinatorMessage joined;
    joined.mutable_joined()->set_worker_id(1);
    stream->Write(joined);
    v1::CoordinatorMessage assignment;
    Encode(WholeModel(message.join()), assignment.mutable_assignment());
    stream->Write(assignment);
    while (stream->Read(&message)) {
      if (!message.has_failure()) continue;
      failure_ = message.failure().message();
      v1::CoordinatorMessage end;
      end.mutable_end_epoch()->set_epoch(1);
      end.mutable_end_epoch()->set_reason("a worker has failed");
      stream->Write(end);
    }
    return grpc::Status::OK;
  }
  const std::string& failure() const { return failure_; }  // once the worker has ended

 private:
  static AssignmentMessage WholeModel(const v1::JoinRequest& join) {
    const auto checkpoint = Checkpoint::Open("random:llama:fp32").value();
    AssignmentMessage message;
    message.assignment = {.epoch = Epoch{1},
                          .model_id = join.model_id(),
                          .layout = EvenLayout(checkpoint->config(), 1, 1).value()};
    message.assignment.numeric.kernel_level = "portable";
    message.assignment.stage_kernel_levels = {"portable"};
    message.assignment.kv_blocks = 8;
    message.assignment.context_tokens = 64;
    message.assignment.step_tokens = 64;
    message.assignment.step_deadline = absl::Seconds(30);
    message.peers = {{.name = "sheep", .host_id = join.host_id(), .unix_socket = join.unix_socket()}};
    message.link_secret = "secret";
    return message;
  }
  std::string failure_;
};

// As a card with an uncorrectable error is: all fails from then on.
class LostDevice : public CpuDevice {
 public:
  LostDevice() : CpuDevice(1, {}) {}
  std::string Describe() const override { return "cuda:3 (a card)"; }
  absl::StatusOr<std::shared_ptr<WeightStore>> NewWeightStore(absl::Span<const kernels::MatrixSpec>,
                                                              WeightHome, bool) override {
    return Health();
  }
  absl::Status Health() override { return absl::InternalError("fell off the bus"); }
};

TEST(WorkerSession, EndsWhereItsDeviceIsLostOnceTheCoordinatorKnows) {
  LosingCoordinator coordinator;
  auto server = Serve(&coordinator);
  ASSERT_TRUE(server.ok()) << server.status();
  auto session = WorkerSession::Start(Joining(**server, std::make_shared<LostDevice>()));
  ASSERT_TRUE(session.ok()) << session.status();
  const absl::Status end = (*session)->Run();
  EXPECT_EQ(end, absl::InternalError("the device is lost, this worker ends and may be started anew: "
                                     "cuda:3 (a card): fell off the bus"));
  server->reset();
  EXPECT_THAT(coordinator.failure(), HasSubstr("fell off the bus"));
}

}  // namespace
}  // namespace bellwether
