#include "tests/e2e/test_cluster.h"

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/status.h"
#include "common/utf8.h"

namespace bellwether {
namespace {

// How often a file that another process writes is looked at.
constexpr absl::Duration kLook = absl::Milliseconds(10);

std::string Program(const std::string& name) { return absl::StrCat(BELLWETHER_BIN, "/", name); }

std::string Contents(const std::string& path) {
  std::ifstream file(path);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

int WorkersWanted(const TestClusterOptions& options) {
  return options.workers > 0 ? options.workers : options.tensor_parallel * options.pipeline_parallel;
}

// A port of the loopback address in "client 127.0.0.1:1234".
std::string AddressIn(const std::string& ports, const std::string& name) {
  std::istringstream words(ports);
  for (std::string key, address; words >> key >> address;) {
    if (key == name) return address;
  }
  return "";
}

}  // namespace

absl::StatusOr<std::unique_ptr<TestCluster>> TestCluster::Start(const TestClusterOptions& options) {
  BW_ASSIGN_OR_RETURN(auto cluster, Launch(options));
  const auto model = cluster->WaitUntilServing();
  if (!model.ok())
    return absl::Status(model.status().code(), absl::StrCat(model.status().message(), "\n", cluster->Logs()));
  return cluster;
}

absl::StatusOr<std::unique_ptr<TestCluster>> TestCluster::Launch(const TestClusterOptions& options) {
  auto cluster = std::unique_ptr<TestCluster>(new TestCluster(options));
  std::error_code error;
  std::string directory = (std::filesystem::temp_directory_path(error) / "bellwether-test.XXXXXX").string();
  if (mkdtemp(directory.data()) == nullptr) return absl::InternalError("cannot make a temporary directory");
  cluster->directory_ = directory;
  BW_RETURN_IF_ERROR(cluster->StartCoordinator());
  cluster->workers_.resize(static_cast<size_t>(WorkersWanted(options)));
  for (int i = 0; i < cluster->workers(); ++i) BW_RETURN_IF_ERROR(cluster->StartWorker(i));
  cluster->client_ = std::make_unique<InferenceClient>(cluster->address_);
  return cluster;
}

TestCluster::~TestCluster() {
  workers_.clear();
  coordinator_ = ChildProcess();
  std::error_code ignored;
  if (!directory_.empty()) std::filesystem::remove_all(directory_, ignored);
}

std::string TestCluster::WorkerName(int index) { return absl::StrCat("sheep-", index); }

absl::StatusOr<ChildProcess> TestCluster::StartProgram(const std::string& name,
                                                       std::vector<std::string> arguments,
                                                       const std::string& log_name) const {
  std::string program = Program(name);
  if (options_.open_files_max > 0) {
    const std::string limited = absl::StrCat("ulimit -n ", options_.open_files_max, " && exec \"$@\"");
    arguments.insert(arguments.begin(), {"-c", limited, "sh", program});
    program = "/bin/sh";
  }
  return ChildProcess::Start({.program = std::move(program),
                              .arguments = std::move(arguments),
                              .log_file = absl::StrCat(directory_, "/", log_name, ".log")});
}

absl::Status TestCluster::StartCoordinator() {
  coordinator_ = ChildProcess();
  const bool again = !address_.empty();
  const std::string port_file = directory_ + "/ports";
  std::error_code ignored;
  std::filesystem::remove(port_file, ignored);
  std::vector<std::string> arguments = {"--model",
                                        options_.model,
                                        "--listen",
                                        again ? address_ : "127.0.0.1:0",
                                        "--worker-listen",
                                        again ? worker_address_ : "127.0.0.1:0",
                                        "--http-listen",
                                        "127.0.0.1:0",
                                        "--metrics-listen",
                                        again ? metrics_address_ : "127.0.0.1:0",
                                        "--port-file",
                                        port_file,
                                        "--workers",
                                        std::to_string(WorkersWanted(options_)),
                                        "--tensor-parallel",
                                        std::to_string(options_.tensor_parallel),
                                        "--pipeline-parallel",
                                        std::to_string(options_.pipeline_parallel),
                                        "--quantize",
                                        options_.quantize,
                                        "--kv-type",
                                        options_.kv_type,
                                        "--log-level",
                                        "info"};
  arguments.insert(arguments.end(), options_.coordinator_flags.begin(), options_.coordinator_flags.end());
  BW_ASSIGN_OR_RETURN(coordinator_,
                      StartProgram("bellwether-coordinator", std::move(arguments), "coordinator"));
  return ReadPorts();
}

absl::Status TestCluster::ReadPorts() {
  const absl::Duration end = Clock::Real()->Now() + kPatience;
  while (Clock::Real()->Now() < end) {
    const std::string ports = Contents(directory_ + "/ports");
    address_ = AddressIn(ports, "client");
    worker_address_ = AddressIn(ports, "worker");
    http_address_ = AddressIn(ports, "http");
    metrics_address_ = AddressIn(ports, "metrics");
    if (!address_.empty() && !worker_address_.empty()) return absl::OkStatus();
    if (coordinator_.WaitFor(kLook)) {
      return absl::UnavailableError(
          absl::StrCat("the coordinator ended with ", coordinator_.ending(), "\n", Logs()));
    }
  }
  return absl::DeadlineExceededError("the coordinator wrote no ports");
}

absl::StatusOr<ChildProcess> TestCluster::StartWorkerProcess(std::vector<std::string> arguments,
                                                             const std::string& name, int host) {
  arguments.insert(arguments.end(),
                   {"--coordinator", worker_address_, "--name", name, "--metrics-listen", "127.0.0.1:0",
                    "--threads", std::to_string(options_.threads), "--log-level", "info"});
  arguments.insert(arguments.end(), options_.worker_flags.begin(), options_.worker_flags.end());
  if (options_.separate_hosts) {
    arguments.insert(arguments.end(),
                     {"--host-id", absl::StrCat("host-", host), "--link-listen", "127.0.0.1:0"});
  }
  return StartProgram("bellwether-worker", std::move(arguments), name);
}

absl::Status TestCluster::StartWorker(int index) {
  workers_[index] = ChildProcess();
  std::vector<std::string> arguments = options_.model_root.empty()
                                           ? std::vector<std::string>{"--model", options_.model}
                                           : std::vector<std::string>{"--model-root", options_.model_root};
  if (options_.device_of) arguments.insert(arguments.end(), {"--device", options_.device_of(index)});
  BW_ASSIGN_OR_RETURN(workers_[index], StartWorkerProcess(arguments, WorkerName(index), index));
  return absl::OkStatus();
}

absl::StatusOr<ChildProcess> TestCluster::StartStranger(const std::string& model) {
  return StartWorkerProcess({"--model", model}, "stranger", workers());
}

absl::StatusOr<ServedModel> TestCluster::WaitUntilServing() { return client_->WaitUntilServing(kPatience); }

std::string TestCluster::Logs() const {
  std::string text;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(directory_, ignored)) {
    if (entry.path().extension() == ".log") {
      absl::StrAppend(&text, "-- ", entry.path().filename().string(), "\n", Contents(entry.path()));
    }
  }
  return text;
}

void CollectedAnswer::Add(const AnswerChunk& chunk) {
  const auto require = [this, &chunk](bool kept, absl::string_view rule) {
    if (!kept && broken_rule.empty()) {
      broken_rule =
          absl::StrCat(rule, " (message ", messages, ", choice ", chunk.choice, ", index ", chunk.index, ")");
    }
  };
  if (messages++ == 0) {
    prompt_tokens = chunk.prompt_tokens;
    request_id = chunk.request_id;
    require(!request_id.empty() && !prompt_tokens.empty(), "the first message brings request id and prompt");
  } else {
    require(chunk.request_id.empty() && chunk.prompt_tokens.empty(),
            "only the first message brings the prompt");
  }
  require(usage.total_seconds == 0, "nothing follows usage");
  if (chunk.usage.has_value()) {
    usage = *chunk.usage;
    seed = chunk.seed;
  }
  if (!chunk.interruption.empty()) {
    interruptions.push_back(chunk.interruption);
    require(chunk.tokens.empty() && chunk.text.empty() && chunk.finish_reason.empty(),
            "a notice is no part of a choice");
    return;
  }
  if (chunk.choice >= static_cast<int>(choices.size())) choices.resize(static_cast<size_t>(chunk.choice) + 1);
  Choice& choice = choices[chunk.choice];
  require(choice.finish_reason.empty(), "nothing follows a choice's finish reason");
  require(chunk.index == static_cast<int>(choice.tokens.size()),
          "index is that of the message's first token");
  require(ValidUtf8Prefix(chunk.text) == chunk.text.size(), "text is valid UTF-8");
  choice.tokens.insert(choice.tokens.end(), chunk.tokens.begin(), chunk.tokens.end());
  choice.text += chunk.text;
  choice.logprobs.insert(choice.logprobs.end(), chunk.logprobs.begin(), chunk.logprobs.end());
  choice.finish_reason = chunk.finish_reason;
}

void CollectedAnswer::CheckEnd() {
  if (!status.ok() || !broken_rule.empty()) return;
  size_t tokens = 0;
  for (const Choice& choice : choices) {
    tokens += choice.tokens.size();
    if (choice.finish_reason.empty()) broken_rule = "every choice has a finish reason";
    if (!choice.logprobs.empty() && choice.logprobs.size() != choice.tokens.size())
      broken_rule = "logprobs: one a token";
  }
  if (usage.generated_tokens != static_cast<int>(tokens)) broken_rule = "usage counts the generated tokens";
  if (usage.prompt_tokens != static_cast<int>(prompt_tokens.size())) broken_rule = "usage counts the prompt";
  if (usage.queue_seconds < 0 || usage.time_to_first_token_seconds < usage.queue_seconds ||
      usage.total_seconds < usage.time_to_first_token_seconds) {
    broken_rule = "times of usage are in order";
  }
}

CollectedAnswer Generate(InferenceClient& client, const PromptInput& prompt, const GenerationOptions& options,
                         const CallOptions& call) {
  CollectedAnswer answer;
  answer.status = client.Generate(prompt, options, call, [&answer](const AnswerChunk& chunk) {
    answer.Add(chunk);
    return true;
  });
  answer.CheckEnd();
  return answer;
}

CollectedAnswer Chat(InferenceClient& client, const std::vector<ChatMessage>& messages,
                     const GenerationOptions& options) {
  CollectedAnswer answer;
  answer.status = client.Chat(messages, options, {}, [&answer](const AnswerChunk& chunk) {
    answer.Add(chunk);
    return true;
  });
  answer.CheckEnd();
  return answer;
}

bool operator==(const CollectedAnswer::Choice& a, const CollectedAnswer::Choice& b) {
  const auto same = [](const AnswerLogprob& x, const AnswerLogprob& y) {
    return x.token == y.token && x.logprob == y.logprob && x.bytes == y.bytes;
  };
  if (a.tokens != b.tokens || a.text != b.text || a.finish_reason != b.finish_reason) return false;
  if (a.logprobs.size() != b.logprobs.size()) return false;
  for (size_t i = 0; i < a.logprobs.size(); ++i) {
    const AnswerLogprobs &x = a.logprobs[i], &y = b.logprobs[i];
    if (!same(x.sampled, y.sampled) || x.top.size() != y.top.size()) return false;
    for (size_t j = 0; j < x.top.size(); ++j) {
      if (!same(x.top[j], y.top[j])) return false;
    }
  }
  return true;
}

PromptInput Ids(std::vector<TokenId> ids) { return {.token_ids = std::move(ids)}; }
PromptInput Text(const std::string& text) { return {.text = text}; }

std::vector<TokenId> SomeTokens(int length, int number, int vocab) {
  std::vector<TokenId> tokens;
  uint32_t state = 12345u + static_cast<uint32_t>(number) * 7919u;
  for (int i = 0; i < length; ++i) {
    state = state * 1664525u + 1013904223u;
    tokens.push_back(static_cast<TokenId>((state >> 8) % static_cast<uint32_t>(vocab)));
  }
  return tokens;
}

}  // namespace bellwether
