#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace bellwether {

// What the programs of a cluster know and others do not: the bytes of a file, without the white space at its
// end.
class SharedSecret {
 public:
  SharedSecret() = default;  // none
  // Without a path none. InvalidArgument: the file cannot be read, or holds fewer than 16 bytes, or more than
  // 4 KiB.
  static absl::StatusOr<SharedSecret> Read(const std::string& path);

  const std::string& bytes() const { return bytes_; }  // for nothing but to be sent; empty: none
  // Whether another knows it too. Takes as long whatever he says; true where there is none.
  bool Matches(std::string_view said) const;

 private:
  std::string bytes_;
};

}  // namespace bellwether
