#include "tests/e2e/raw_calls.h"

#include <chrono>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/grpcpp.h"
#include "proto/grpc_channel.h"

namespace bellwether {
namespace {

// Sends one message and reads one, both as bytes.
grpc::Status CallOnce(const std::string& address, const std::string& method, const std::string& request,
                      std::string* response) {
  grpc::GenericStub stub(MakeChannel(address));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
  grpc::CompletionQueue queue;
  const auto call = stub.PrepareCall(&context, method, &queue);
  void* tag = nullptr;
  bool ok = false;
  const auto wait = [&] { return queue.Next(&tag, &ok) && ok; };
  call->StartCall(nullptr);
  wait();
  const grpc::Slice slice(request);
  call->WriteLast(grpc::ByteBuffer(&slice, 1), grpc::WriteOptions(), nullptr);
  wait();
  grpc::ByteBuffer buffer;
  call->Read(&buffer, nullptr);
  std::vector<grpc::Slice> slices;
  if (wait() && buffer.Dump(&slices).ok()) {
    for (const grpc::Slice& part : slices)
      response->append(reinterpret_cast<const char*>(part.begin()), part.size());
  }
  grpc::Status status;
  call->Finish(&status, nullptr);
  wait();
  return status;
}

}  // namespace

std::string HealthOf(const std::string& address, const std::string& service) {
  // HealthCheckRequest { string service = 1; }
  std::string request;
  if (!service.empty())
    request = absl::StrCat("\x0a", std::string(1, static_cast<char>(service.size())), service);
  std::string response;
  const grpc::Status status = CallOnce(address, "/grpc.health.v1.Health/Check", request, &response);
  if (!status.ok()) return absl::StrCat("error ", status.error_code(), ": ", status.error_message());
  // HealthCheckResponse { ServingStatus status = 1; }, whose zero is not written.
  if (response == std::string("\x08\x01")) return "SERVING";
  if (response == std::string("\x08\x02")) return "NOT_SERVING";
  return "UNKNOWN";
}

std::string ReflectedServices(const std::string& address) {
  // ServerReflectionRequest { string list_services = 7; }
  std::string response;
  CallOnce(address, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "\x3a\x01*", &response);
  return response;
}

std::string EndOf(const std::string& address, const std::string& method, const std::string& request) {
  std::string response;
  const grpc::Status status = CallOnce(address, method, request, &response);
  return absl::StrCat(status.error_code(), ": ", status.error_message());
}

}  // namespace bellwether
