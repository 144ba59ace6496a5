#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "common/quote.h"
#include "grpcpp/support/status.h"

namespace bellwether {

// A status travels in the metadata, of which gRPC takes 8 KiB, and there every byte may take three.
inline constexpr size_t kStatusMessageBytesMax = 2048;

// The two kinds of status have the same codes.
inline grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const std::string_view whole(status.message().data(), status.message().size());
  std::string message = Printable(CutText(whole, kStatusMessageBytesMax));
  if (whole.size() > kStatusMessageBytesMax) message += "...";
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::move(message));
}

inline absl::Status ToAbsl(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

}  // namespace bellwether
