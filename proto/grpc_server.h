#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/tcp_listener.h"
#include "common/tls_options.h"
#include "grpcpp/grpcpp.h"

namespace bellwether {

// A gRPC server on a port of ours. gRPC 1.51's own listener stops for good once the process has run out of
// descriptors (grpc#20418, #16058), so it is given connections that TcpListener has taken.
class GrpcServer {
 public:
  struct Options {
    TcpListener::Options listen;
    TlsOptions tls;  // none: nothing is encrypted
  };
  // Starts what `builder` describes, which names no port itself. Errors: TcpListener::Bind's, TlsServer's,
  // or Internal.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(grpc::ServerBuilder* builder, Options options);
  ~GrpcServer();  // shuts down at once

  // HOST:PORT as given but with the port in use.
  const std::string& address() const { return listener_->address(); }
  grpc::HealthCheckServiceInterface* health() { return server_->GetHealthCheckService(); }

  // Takes no more connections and calls; those under way may go on for `grace`, then they are cancelled.
  void Shutdown(absl::Duration grace);

 private:
  GrpcServer() = default;

  std::unique_ptr<TcpListener> listener_;
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> acceptor_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace bellwether
