#include "tests/layouts/engine_driver.h"

#include <deque>
#include <utility>

#include "common/status.h"

namespace bellwether {
namespace {

class Driver {
 public:
  Driver(LocalCluster& cluster, const DriverOptions& options)
      : cluster_(cluster), options_(options), engine_(options.engine, /*tokenizer=*/nullptr) {}

  absl::Status Run(std::vector<EngineRequest> requests) {
    BW_RETURN_IF_ERROR(
        Handle(LayoutUp{.epoch = Epoch{1}, .kv_blocks = options_.kv_blocks, .stages = options_.stages}));
    for (EngineRequest& request : requests) {
      BW_RETURN_IF_ERROR(Handle(RequestArrived{std::move(request)}));
      if (options_.one_by_one) BW_RETURN_IF_ERROR(Finish());
    }
    return Finish();
  }

  std::map<std::pair<RequestId, int32_t>, Answer> answers;
  EngineSnapshot snapshot() const { return engine_.snapshot(); }

 private:
  absl::Status Finish() {
    while (steps_in_flight_ > 0) {
      BW_ASSIGN_OR_RETURN(StepResult result, cluster_.Receive());
      --steps_in_flight_;
      BW_RETURN_IF_ERROR(Handle(StepFinished{std::move(result)}));
    }
    return engine_.idle() ? absl::OkStatus()
                          : absl::InternalError("the engine sends nothing but is not idle");
  }

  absl::Status Handle(Event event) {
    now_ += absl::Milliseconds(1);
    for (Action& action : engine_.Handle(std::move(event), now_)) {
      if (auto* send = std::get_if<SendStep>(&action)) {
        ++steps_in_flight_;
        cluster_.Send(send->step);
      } else if (auto* emit = std::get_if<EmitTokens>(&action)) {
        Answer& answer = answers[{emit->request, emit->chunk.choice}];
        answer.tokens.insert(answer.tokens.end(), emit->chunk.tokens.begin(), emit->chunk.tokens.end());
        for (const StepOutput& output : emit->chunk.logprobs) answer.logprobs.push_back(output.logprob);
      } else if (auto* scores = std::get_if<EmitScores>(&action)) {
        answers[{scores->request, 0}].logprobs = scores->logprobs;
      } else if (auto* done = std::get_if<RequestDone>(&action)) {
        BW_RETURN_IF_ERROR(Annotate(done->status, absl::StrCat("request ", done->request.value)));
      }
    }
    return absl::OkStatus();
  }

  LocalCluster& cluster_;
  const DriverOptions options_;
  Engine engine_;
  absl::Duration now_;
  int steps_in_flight_ = 0;
};

}  // namespace

absl::StatusOr<std::vector<Answer>> RunRequests(LocalCluster& cluster, const DriverOptions& options,
                                                std::vector<EngineRequest> requests, EngineSnapshot* end) {
  Driver driver(cluster, options);
  BW_RETURN_IF_ERROR(driver.Run(std::move(requests)));
  if (end != nullptr) *end = driver.snapshot();
  std::vector<Answer> answers;
  for (auto& [key, answer] : driver.answers) answers.push_back(std::move(answer));
  return answers;
}

std::vector<EngineRequest> WithSecondTurns(std::vector<EngineRequest> requests,
                                           const std::vector<Answer>& answers) {
  const size_t count = requests.size();
  for (size_t i = 0; i < count; ++i) {
    EngineRequest turn = requests[i];
    turn.id = RequestId{requests[i].id.value + count};
    turn.prompt.insert(turn.prompt.end(), answers[i].tokens.begin(), answers[i].tokens.end());
    for (TokenId token = 1; token <= 5; ++token) turn.prompt.push_back(token);
    requests.push_back(std::move(turn));
  }
  return requests;
}

}  // namespace bellwether
