#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "common/defaults.h"
#include "common/ids.h"
#include "grpcpp/grpcpp.h"
#include "proto/bellwether/v1/cluster.grpc.pb.h"
#include "proto/grpc_channel.h"
#include "proto/step_codec.h"

// A worker that speaks the protocol over real gRPC and makes up the tokens, so that every answer is known.

namespace bellwether {

inline constexpr char kBuild[] = "test-build";

// That comes after this position of this choice.
inline TokenId TokenAfter(int position, int choice) { return (7 * position + choice) % 90; }

inline std::shared_ptr<grpc::Channel> Connect(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return MakeChannel(address, Proxy::kNever, arguments);
}

class FakeWorker {
 public:
  FakeWorker(const std::string& address, const std::string& name, const std::string& build = kBuild,
             const std::string& kernel_level = "portable")
      : stub_(v1::Cluster::NewStub(Connect(address))), stream_(stub_->Join(&context_)) {
    v1::WorkerMessage message;
    v1::JoinRequest* join = message.mutable_join();
    join->set_protocol_version(kClusterProtocolVersion);
    join->set_build_id(build);
    join->set_name(name);
    join->set_host_id("here");
    join->set_memory_bytes(int64_t{1} << 30);
    join->set_threads(1);
    join->set_read_bytes_per_second(1e10);
    join->add_kernel_levels(kernel_level);
    stream_->Write(message);
    thread_ = std::thread([this] { Run(); });
  }
  ~FakeWorker() {
    {
      absl::MutexLock lock(&mutex_);
      hold_ = false;
    }
    Disappear();
    thread_.join();
  }
  // As kill -9 looks from outside.
  void Disappear() { context_.TryCancel(); }
  void HoldSteps(bool hold) {
    absl::MutexLock lock(&mutex_);
    hold_ = hold;
  }
  std::string WaitForRefusal() {
    absl::MutexLock lock(&mutex_);
    const auto refused = [this] { return !refusal_.empty(); };
    mutex_.Await(absl::Condition(&refused));
    return refusal_;
  }
  void WaitForSteps(int count) {
    absl::MutexLock lock(&mutex_);
    const auto enough = [this, count] { return steps_ >= count; };
    mutex_.Await(absl::Condition(&enough));
  }
  // The next result names a step that was never sent.
  void Misbehave() { misbehave_ = true; }
  // So do its results from now on: a token that no vocabulary has, or no output at all.
  void MakeUpTokens() { made_up_tokens_ = true; }
  void LeaveOutOutputs() { no_outputs_ = true; }
  // The next step fails with this message.
  void FailStep(const std::string& message) {
    absl::MutexLock lock(&mutex_);
    failure_ = message;
  }

 private:
  struct Sequence {
    std::vector<TokenId> tokens;
    int choice = 0;
    bool score = false;
  };

  void Run() {
    v1::CoordinatorMessage message;
    while (stream_->Read(&message)) {
      if (message.has_refusal()) {
        absl::MutexLock lock(&mutex_);
        refusal_ = message.refusal().reason();
      }
      if (message.has_assignment()) Ready(message.assignment());
      if (message.has_step()) Answer(*Decode(message.step()));
    }
    stream_->Finish();
  }
  void Ready(const v1::Assignment& assignment) {
    reports_ = assignment.rank() == 0;
    sequences_.clear();
    epoch_ = Epoch{assignment.epoch()};
    v1::WorkerMessage message;
    message.mutable_ready()->set_epoch(assignment.epoch());
    stream_->Write(message);
  }
  void Answer(const Step& step) {
    // One that was on its way when its epoch ended may come behind the next assignment.
    if (step.epoch != epoch_) return;
    for (const SequenceId id : step.retired) sequences_.erase(id);
    for (const Admission& it : step.admissions) sequences_[it.sequence] = {it.tokens, it.choice, it.score};
    StepResult result{.epoch = step.epoch, .id = {step.id.value + (misbehave_ ? 1 : 0)}};
    for (const StepEntry& entry : step.entries) {
      Sequence& sequence = sequences_.at(entry.sequence);
      sequence.tokens.insert(sequence.tokens.end(), entry.new_tokens.begin(), entry.new_tokens.end());
      const int end = entry.position + entry.count;
      if (sequence.score) {
        StepOutput& output = result.outputs.emplace_back(StepOutput{.sequence = entry.sequence});
        for (int p = entry.position + 1; p <= end && p < static_cast<int>(sequence.tokens.size()); ++p) {
          output.scores.push_back(-static_cast<float>(p));
        }
      } else if (entry.sample) {
        result.outputs.push_back(
            {.sequence = entry.sequence, .token = TokenAfter(end - 1, sequence.choice), .logprob = -0.5f});
      }
    }
    {
      absl::MutexLock lock(&mutex_);
      ++steps_;
      const auto go = [this] { return !hold_; };
      mutex_.Await(absl::Condition(&go));
    }
    if (no_outputs_) result.outputs.clear();
    if (made_up_tokens_ && !result.outputs.empty()) result.outputs[0].token = 1 << 20;
    v1::WorkerMessage message;
    if (std::string failure = Failure(); !failure.empty()) {
      message.mutable_failure()->set_epoch(step.epoch.value);
      message.mutable_failure()->set_message(std::move(failure));
      stream_->Write(message);
      return;
    }
    if (!reports_) return;
    Encode(result, message.mutable_step_result());
    stream_->Write(message);
  }

  std::string Failure() {
    absl::MutexLock lock(&mutex_);
    return std::exchange(failure_, "");
  }

  grpc::ClientContext context_;
  std::unique_ptr<v1::Cluster::Stub> stub_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::WorkerMessage, v1::CoordinatorMessage>> stream_;
  std::map<SequenceId, Sequence> sequences_;
  Epoch epoch_;
  bool reports_ = false;
  std::atomic<bool> misbehave_{false}, made_up_tokens_{false}, no_outputs_{false};
  absl::Mutex mutex_;
  bool hold_ = false;
  std::string refusal_;
  std::string failure_;
  int steps_ = 0;
  std::thread thread_;
};

}  // namespace bellwether
