#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/cluster_service.h"
#include "coordinator/coordinator_metrics.h"
#include "coordinator/coordinator_options.h"
#include "coordinator/engine_loop.h"
#include "coordinator/inference_service.h"
#include "coordinator/request_service.h"
#include "model/checkpoint/checkpoint.h"
#include "model/shard_size.h"

namespace bellwether {

class GrpcServer;
class HttpGateway;
class HttpServer;

// A whole coordinator: the model's description, the engine, two gRPC servers, one for clients (with health
// and reflection) and one for workers, and two HTTP servers, one for clients and one for monitoring.
class CoordinatorServer {
 public:
  // Returns once all ports listen; the model is served when the workers are ready. Errors: of the
  // checkpoint, of the options, or AlreadyExists if a port is taken.
  static absl::StatusOr<std::unique_ptr<CoordinatorServer>> Start(CoordinatorOptions options);
  ~CoordinatorServer();  // shuts down at once

  // host:port, as given but with the port in use.
  const std::string& client_address() const { return client_address_; }
  const std::string& worker_address() const { return worker_address_; }
  const std::string& http_address() const { return http_address_; }        // empty: none
  const std::string& metrics_address() const { return metrics_address_; }  // empty: none

  // Takes no new requests, lets running ones finish for as long as `drain`, ends the rest, and returns. None
  // is waited for where no worker is connected.
  void Shutdown(absl::Duration drain);

 private:
  explicit CoordinatorServer(CoordinatorOptions options);
  absl::Status OpenModel();
  absl::Status CheckOptions();
  void StartEngine();
  absl::Status Listen();
  absl::Status ListenHttp();
  absl::Status ListenForMonitoring();
  absl::Status Ready() const;
  ClusterService::Status ClusterStatus() const;
  void ShowServing(bool serving);
  void Drain(absl::Duration drain);
  std::string ModelName() const;
  std::vector<std::string> ServedNames() const;  // by which clients over HTTP ask for it; not empty
  std::string WeightsName() const;
  CoordinatorMetrics::Options MetricsOptions() const;
  InferenceService::Options InferenceOptions();
  ClusterService::Options ClusterOptions();

  CoordinatorOptions options_;
  PlannerOptions planner_;
  std::unique_ptr<Checkpoint> checkpoint_;
  std::unique_ptr<TensorFormats> formats_;
  std::unique_ptr<Tokenizer> tokenizer_;         // null if the checkpoint has none
  const ChatTemplate* chat_template_ = nullptr;  // null without a tokenizer
  std::string model_id_;

  std::atomic<bool> draining_{false};
  std::atomic<bool> serving_{false};
  std::unique_ptr<CoordinatorMetrics> metrics_;  // outlives all that counts
  std::unique_ptr<ClusterService> cluster_;
  std::unique_ptr<EngineLoop> engine_;
  std::unique_ptr<ApiKeys> api_keys_;  // null: nobody is asked
  SharedSecret join_secret_;
  std::unique_ptr<HttpGateway> gateway_;  // outlives the threads of requests_, which read for it
  std::unique_ptr<RequestService> requests_;
  std::unique_ptr<InferenceService> inference_;
  std::unique_ptr<GrpcServer> worker_server_;
  std::unique_ptr<GrpcServer> client_server_;
  std::unique_ptr<HttpServer> http_server_;
  std::unique_ptr<HttpServer> monitoring_server_;
  std::string client_address_, worker_address_, http_address_, metrics_address_;
};

}  // namespace bellwether
