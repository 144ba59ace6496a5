#include "coordinator/cluster_service.h"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "common/check.h"
#include "common/clock.h"
#include "common/log.h"
#include "gmock/gmock.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "proto/bellwether/v1/cluster.grpc.pb.h"
#include "proto/grpc_channel.h"
#include "proto/grpc_deadline.h"
#include "proto/grpc_server.h"

namespace bellwether {
namespace {

// Of a service whose engine and health are nobody's.
ClusterService::Options OptionsOfNobody() {
  ClusterService::Options options;
  options.post = [](const Event&) {};
  options.serving_changed = [](bool) {};
  return options;
}

// A client can ask before the service's thread has run for the first time. It was told nothing then.
TEST(ClusterServiceTest, SaysFromTheFirstMomentWhatItWaitsFor) {
  ManualClock clock;
  ClusterService::Options options = OptionsOfNobody();
  options.view.workers_wanted = 2;
  options.clock = &clock;
  const ClusterService service(std::move(options));
  EXPECT_FALSE(service.status().serving);
  EXPECT_THAT(service.status().not_serving_reason, testing::HasSubstr("0 of 2"));
}

class JoiningStream {
 public:
  JoiningStream(const std::string& address, const std::string& name)
      : stub_(v1::Cluster::NewStub(MakeChannel(address))) {
    context_.set_deadline(GrpcDeadlineAfter(absl::Seconds(60)));
    stream_ = stub_->Join(&context_);
    v1::WorkerMessage message;
    v1::JoinRequest* join = message.mutable_join();
    join->set_protocol_version(kClusterProtocolVersion);
    join->set_name(name);
    join->set_threads(1);
    join->set_read_bytes_per_second(1e9);
    join->add_kernel_levels("portable");
    stream_->Write(message);
  }
  bool Read(v1::CoordinatorMessage* message) { return stream_->Read(message); }
  grpc::Status Finish() { return stream_->Finish(); }
  grpc::Status Leave() {
    stream_->WritesDone();
    return stream_->Finish();
  }

 private:
  std::unique_ptr<v1::Cluster::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::WorkerMessage, v1::CoordinatorMessage>> stream_;
};

std::unique_ptr<GrpcServer> Serve(ClusterService* service) {
  grpc::ServerBuilder builder;
  builder.RegisterService(service->service());
  auto server = GrpcServer::Start(
      &builder,
      {.listen = {.address = "127.0.0.1:0", .name = "workers", .descriptors = DescriptorsBetween(0.5, 1)}});
  BW_CHECK(server.ok());
  return *std::move(server);
}

// Fake workers that fill the house must not make real ones end for good.
TEST(ClusterServiceTest, AFullHouseIsNotFinal) {
  ClusterService::Options options = OptionsOfNobody();
  options.view.workers_wanted = 10;
  options.workers_max = 1;
  ClusterService service(std::move(options));
  const auto server = Serve(&service);
  v1::CoordinatorMessage message;
  JoiningStream first(server->address(), "first");
  ASSERT_TRUE(first.Read(&message));
  EXPECT_TRUE(message.has_joined());
  JoiningStream second(server->address(), "second");
  EXPECT_FALSE(second.Read(&message)) << "a refusal would be final: " << message.ShortDebugString();
  EXPECT_EQ(second.Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  first.Leave();
  // The place is free a moment after the first one's end.
  bool joined = false;
  for (int i = 0; i < 1000 && !joined; ++i) {
    JoiningStream third(server->address(), "third");
    joined = third.Read(&message) && message.has_joined();
  }
  EXPECT_TRUE(joined);
  service.Stop();
}

// In an upgrade a coordinator of the worker's build may be on the way.
TEST(ClusterServiceTest, AnUnequalBuildIsRefusedForNow) {
  ClusterService::Options options = OptionsOfNobody();
  options.view.build_id = "ours";
  ClusterService service(std::move(options));
  const auto server = Serve(&service);
  JoiningStream other(server->address(), "other");
  v1::CoordinatorMessage message;
  EXPECT_FALSE(other.Read(&message)) << "a refusal would be final: " << message.ShortDebugString();
  const grpc::Status end = other.Finish();
  EXPECT_EQ(end.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(end.error_message(), testing::HasSubstr("this coordinator ours: unequal builds"));
  service.Stop();
}

// How many lines of a log hold one of the texts.
int LinesWith(const std::string& log, const std::vector<std::string>& texts) {
  const std::vector<std::string> lines = absl::StrSplit(log, '\n');
  return static_cast<int>(std::count_if(lines.begin(), lines.end(), [&](const std::string& line) {
    return std::any_of(texts.begin(), texts.end(),
                       [&](const auto& text) { return absl::StrContains(line, text); });
  }));
}

// 200 strangers come to a service, one after the other.
struct Flood {
  std::string log;
  int64_t lines_max = 0;  // that it may have of a kind: a burst, and then one a second
};
Flood LogOfStrangers(ClusterService::Options options, const std::function<void(JoiningStream&)>& meet) {
  ClusterService service(std::move(options));
  const auto server = Serve(&service);
  testing::internal::CaptureStderr();
  const absl::Duration begin = Clock::Real()->Now();
  for (int i = 0; i < 200; ++i) {
    JoiningStream stranger(server->address(), "stranger");
    meet(stranger);
  }
  service.Stop();
  return {testing::internal::GetCapturedStderr(), 30 + absl::ToInt64Seconds(Clock::Real()->Now() - begin)};
}

// Strangers used to fill the disk: a line for each.
TEST(ClusterServiceTest, RefusalsDoNotFloodTheLog) {
  ClusterService::Options options = OptionsOfNobody();
  options.view.build_id = "ours";
  const Flood flood = LogOfStrangers(std::move(options), [](JoiningStream& stranger) {
    v1::CoordinatorMessage message;
    EXPECT_FALSE(stranger.Read(&message));
  });
  const int lines = LinesWith(flood.log, {"refused a worker"});
  EXPECT_GT(lines, 0);
  EXPECT_LT(lines, flood.lines_max) << flood.log;
}

// As do those that are taken and leave again.
TEST(ClusterServiceTest, WhoComesAndGoesDoesNotFloodTheLog) {
  InitLogging("test", {.level = "info"});
  ClusterService::Options options = OptionsOfNobody();
  options.view.workers_wanted = 100;  // more than are there at once
  const Flood flood = LogOfStrangers(std::move(options), [](JoiningStream& stranger) {
    v1::CoordinatorMessage message;
    ASSERT_TRUE(stranger.Read(&message));
    ASSERT_TRUE(message.has_joined());
    stranger.Leave();
  });
  InitLogging("test", {.level = "warning"});
  const int joins = LinesWith(flood.log, {"has joined", "leaves"});
  EXPECT_GT(joins, 0);
  EXPECT_LT(joins, flood.lines_max) << flood.log;
  EXPECT_LT(LinesWith(flood.log, {"waiting for workers"}), flood.lines_max) << flood.log;
}

}  // namespace
}  // namespace bellwether
