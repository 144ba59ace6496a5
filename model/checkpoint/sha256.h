#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

struct evp_md_ctx_st;

namespace bellwether {

// SHA-256 of bytes that come piece by piece.
class Sha256 {
 public:
  Sha256();
  void Add(const void* data, size_t size);
  void AddLine(const std::string& text);  // and the line's end
  // 64 digits. Internal if this OpenSSL has no SHA-256. Called once, last.
  absl::StatusOr<std::string> HexDigest();
  // The first 16 of them, which tell apart what differs by accident.
  absl::StatusOr<std::string> ShortDigest();

 private:
  std::unique_ptr<evp_md_ctx_st, void (*)(evp_md_ctx_st*)> context_;
  bool ok_ = false;
};

}  // namespace bellwether
