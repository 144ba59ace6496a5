#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "cli/inference_client.h"
#include "cli/managed_cluster.h"

namespace bellwether {

// Where a command finds its model: a coordinator that runs (`connect`), or a private cluster of real
// processes that ends with the command.
struct SessionOptions {
  std::string connect;          // HOST:PORT
  TlsOptions tls;               // there
  std::string api_key;          // there
  bool insecure = false;        // there: nothing need be encrypted, wherever it is
  ClusterOptions cluster;       // without `connect`
  bool model_defaults = false;  // generation as the model's authors have it, where a flag does not say
};

class Session {
 public:
  static absl::StatusOr<Session> Open(const SessionOptions& options);

  InferenceClient& client() { return *client_; }
  // With a connection of its own to the same coordinator.
  std::unique_ptr<InferenceClient> NewClient() const;
  const std::string& address() const { return address_; }
  const ServedModel& model() const { return model_; }
  // `options` and what --model-defaults adds to them.
  GenerationOptions WithDefaults(GenerationOptions options) const;
  // An error of a call, with what is behind it if the coordinator itself is gone.
  absl::Status Explain(const absl::Status& status);
  // Until `stop()`: starts workers of the private cluster anew that have ended. Returns an error if the
  // cluster is beyond that, and at once if there is none. Beside other calls, from a thread of its own.
  absl::Status Supervise(const std::function<bool()>& stop);
  // Ends the private cluster, if there is one.
  absl::Status Close();

 private:
  std::unique_ptr<ManagedCluster> cluster_;
  std::string address_;
  InferenceClient::Transport transport_;
  std::string way_;  // how it is reached, where that is not straight
  std::unique_ptr<InferenceClient> client_;
  ServedModel model_;
  bool model_defaults_ = false;
};

}  // namespace bellwether
