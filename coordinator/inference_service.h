#pragma once

#include <functional>
#include <memory>
#include <string>

#include "common/clock.h"
#include "coordinator/cluster_service.h"
#include "coordinator/engine_loop.h"
#include "coordinator/request_validation.h"
#include "model/chat_template/chat_template.h"
#include "model/tokenizer/tokenizer.h"

namespace grpc {
class Service;
}

namespace bellwether {

// The Inference service of inference.proto: checks and tokenises requests on a pool of its own, hands them to
// the engine, and turns what comes back into messages.
class InferenceService {
 public:
  // What GetModel tells and no layout changes.
  struct Model {
    std::string name;
    std::string id;
    std::string architecture;
    std::string weights;  // "bf16", "int8" ...
    GenerationOptions authors_options;
  };
  struct Options {
    Model model;
    RequestLimits limits;
    const Tokenizer* tokenizer = nullptr;         // may be null; outlives the service
    const ChatTemplate* chat_template = nullptr;  // null without a tokenizer
    EngineLoop* engine = nullptr;                 // outlives the service
    std::function<ClusterService::Status()> cluster_status;
    const Clock* clock = Clock::Real();
    int tokenizer_threads = 2;
  };
  explicit InferenceService(Options options);
  ~InferenceService();  // after the gRPC server has shut down

  // To register with a server; lives as long as this.
  grpc::Service* service();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace bellwether
