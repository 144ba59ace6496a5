#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/child_process.h"
#include "cli/inference_client.h"

namespace bellwether {

// What a test wants to run. Everything else is as the programs do it by themselves.
struct TestClusterOptions {
  std::string model;
  int tensor_parallel = 1;
  int pipeline_parallel = 1;
  int workers = 0;  // with neither of them (0): as many, and the planner decides
  int threads = 1;  // of each worker
  std::string quantize = "none";
  std::string kv_type = "auto";
  std::vector<std::string> coordinator_flags, worker_flags;
  std::function<std::string(int worker)> device_of;  // of each worker (--device); empty: the default
  bool separate_hosts = false;  // workers say that they share no memory, so their links are gRPC streams
  int open_files_max = 0;       // hard limit of each process; 0: ours
  std::string model_root;       // where workers look for the model; empty: they are given it
};

// A coordinator and its workers as real processes, each free to be killed, stopped and started again. They
// end with this object. The binaries are those of the build that the test belongs to.
class TestCluster {
 public:
  // Returns once the model is served.
  static absl::StatusOr<std::unique_ptr<TestCluster>> Start(const TestClusterOptions& options);
  // Returns once the coordinator listens and the workers are on their way.
  static absl::StatusOr<std::unique_ptr<TestCluster>> Launch(const TestClusterOptions& options);
  ~TestCluster();
  TestCluster(const TestCluster&) = delete;

  const std::string& address() const { return address_; }
  const std::string& http_address() const { return http_address_; }
  const std::string& metrics_address() const { return metrics_address_; }
  InferenceClient& client() { return *client_; }
  int workers() const { return static_cast<int>(workers_.size()); }
  static std::string WorkerName(int index);

  ChildProcess& coordinator() { return coordinator_; }
  ChildProcess& worker(int index) { return workers_[index]; }
  // Starts it with the flags of the first time; one that still runs is killed before.
  absl::Status StartWorker(int index);
  // Likewise, and on the ports of the first time.
  absl::Status StartCoordinator();
  absl::StatusOr<ServedModel> WaitUntilServing();
  // A worker beyond those of the layout. Not one of workers(): it ends with the caller's handle.
  absl::StatusOr<ChildProcess> StartStranger(const std::string& model);

  // What all processes have logged, for the message of a failed test.
  std::string Logs() const;

 private:
  explicit TestCluster(const TestClusterOptions& options) : options_(options) {}
  absl::Status ReadPorts();
  absl::StatusOr<ChildProcess> StartProgram(const std::string& name, std::vector<std::string> arguments,
                                            const std::string& log_name) const;
  absl::StatusOr<ChildProcess> StartWorkerProcess(std::vector<std::string> arguments, const std::string& name,
                                                  int host);

  const TestClusterOptions options_;
  std::string directory_;
  std::string address_, worker_address_, http_address_, metrics_address_;
  ChildProcess coordinator_;
  std::vector<ChildProcess> workers_;
  std::unique_ptr<InferenceClient> client_;
};

// Everything that a stream of Generate or Chat brought for one request.
struct CollectedAnswer {
  struct Choice {
    std::vector<TokenId> tokens;
    std::string text;
    std::vector<AnswerLogprobs> logprobs;
    std::string finish_reason;
  };
  absl::Status status;
  std::vector<TokenId> prompt_tokens;
  std::vector<Choice> choices;
  AnswerUsage usage;
  uint64_t seed = 0;
  std::string request_id;
  int messages = 0;
  std::vector<std::string> interruptions;  // what notices have said
  std::string broken_rule;  // what inference.proto promises of a stream and this one did not keep; empty if
                            // all is well

  void Add(const AnswerChunk& chunk);
  // To be called after the last message.
  void CheckEnd();
};
CollectedAnswer Generate(InferenceClient& client, const PromptInput& prompt, const GenerationOptions& options,
                         const CallOptions& call = {});
CollectedAnswer Chat(InferenceClient& client, const std::vector<ChatMessage>& messages,
                     const GenerationOptions& options);

// The same tokens, texts and log-probabilities, bit for bit.
bool operator==(const CollectedAnswer::Choice& a, const CollectedAnswer::Choice& b);

PromptInput Ids(std::vector<TokenId> ids);
PromptInput Text(const std::string& text);
// `length` token ids below `vocab` that depend on `number` alone.
std::vector<TokenId> SomeTokens(int length, int number, int vocab);

// Longest wait for what must happen, but has no time of its own: generous, as sanitizers and busy machines
// are slow.
inline constexpr absl::Duration kPatience = absl::Seconds(120);

}  // namespace bellwether
