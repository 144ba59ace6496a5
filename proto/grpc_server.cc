#include "proto/grpc_server.h"

#include <netdb.h>
#include <sys/socket.h>

#include <cstdlib>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/host_port.h"
#include "common/status.h"
#include "proto/grpc_deadline.h"
#include "proto/handshake_log.h"
#include "proto/tls.h"

namespace bellwether {
namespace {

// A connection that does not greet within this time is cut: it holds a descriptor that others could use.
constexpr int kHandshakeTimeoutMs = 10000;

std::string PeerOf(int connection) {
  sockaddr_storage address{};
  socklen_t length = sizeof(address);
  char host[NI_MAXHOST], port[NI_MAXSERV];
  if (getpeername(connection, reinterpret_cast<sockaddr*>(&address), &length) != 0 ||
      getnameinfo(reinterpret_cast<const sockaddr*>(&address), length, host, sizeof(host), port, sizeof(port),
                  NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    return "somebody";
  }
  return HostPort{.host = host, .port = std::atoi(port)}.ToString();
}

}  // namespace

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(grpc::ServerBuilder* builder, Options options) {
  std::shared_ptr<grpc::ServerCredentials> credentials = grpc::InsecureServerCredentials();
  if (options.tls.wanted()) {
    BW_ASSIGN_OR_RETURN(credentials, TlsServer(options.tls));
  }
  std::unique_ptr<GrpcServer> server(new GrpcServer);
  BW_ASSIGN_OR_RETURN(server->listener_, TcpListener::Bind(std::move(options.listen)));
  using ConnectionType = grpc::ServerBuilder::experimental_type::ExternalConnectionType;
  server->acceptor_ =
      builder->experimental().AddExternalConnectionAcceptor(ConnectionType::FROM_FD, std::move(credentials));
  builder->AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, kHandshakeTimeoutMs);
  server->server_ = builder->BuildAndStart();
  if (server->server_ == nullptr) {
    return absl::InternalError(absl::StrCat("gRPC starts no server for ", server->address()));
  }
  server->listener_->Run([acceptor = server->acceptor_.get(), tls = options.tls.wanted(),
                          handshakes = HandshakeLog(server->address())](int listener, UniqueFd connection) {
    grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters parameters;
    const std::string peer = tls ? PeerOf(connection.get()) : "";
    parameters.listener_fd = listener;
    parameters.fd = connection.Release();  // gRPC closes it
    const auto hand_over = [&] { acceptor->HandleNewConnection(&parameters); };
    tls ? handshakes.Follow(peer, hand_over) : hand_over();
  });
  return server;
}

GrpcServer::~GrpcServer() { Shutdown(absl::ZeroDuration()); }

void GrpcServer::Shutdown(absl::Duration grace) {
  // First: a connection that comes after the server's end would never be closed.
  if (listener_ != nullptr) listener_->Stop();
  if (server_ != nullptr) server_->Shutdown(GrpcDeadlineAfter(grace));
}

}  // namespace bellwether
