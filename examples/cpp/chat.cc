// A client in C++, with nothing but gRPC's generated code: asks one question and prints the answer as it
// comes.
//
//   chat HOST:PORT "What is a bellwether?"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <iostream>

#include "proto/bellwether/v1/inference.grpc.pb.h"

namespace v1 = bellwether::v1;

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: chat HOST:PORT QUESTION\n";
    return 2;
  }
  const auto channel = grpc::CreateChannel(argv[1], grpc::InsecureChannelCredentials());
  const std::unique_ptr<v1::Inference::Stub> stub = v1::Inference::NewStub(channel);

  v1::ChatRequest request;
  v1::ChatMessage* message = request.add_messages();
  message->set_role("user");
  message->set_content(argv[2]);
  request.mutable_options()->set_max_tokens(256);
  request.mutable_options()->mutable_sampling()->set_temperature(0.7);

  // The deadline reaches the server: it stops computing when nobody waits any more. So does
  // context.TryCancel().
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::minutes(2));
  const auto stream = stub->Chat(&context, request);
  for (v1::GenerateResponse response; stream->Read(&response);) {
    std::cout << response.text() << std::flush;
    // A worker was lost; the answer goes on when others serve in its place.
    if (!response.interruption().empty()) std::cerr << "\n[" << response.interruption() << "]\n";
    if (response.has_usage()) std::cout << "\n[" << response.usage().generated_tokens() << " tokens]\n";
  }
  const grpc::Status status = stream->Finish();
  if (status.ok()) return 0;
  std::cerr << "chat: " << status.error_message() << "\n";
  return 1;
}
