#pragma once

#include <functional>
#include <memory>
#include <string>

#include "common/generation_options.h"
#include "coordinator/cluster_service.h"
#include "coordinator/request_service.h"

namespace grpc {
class Service;
}

namespace bellwether {

// The Inference service of inference.proto: the door of the RequestService that speaks gRPC.
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
    RequestService* requests = nullptr;  // outlives the service
    std::function<ClusterService::Status()> cluster_status;
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
