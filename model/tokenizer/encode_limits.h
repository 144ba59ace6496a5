#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "common/ids.h"

namespace bellwether {

// When an encoding gives up.
struct EncodeLimits {
  size_t tokens_max = SIZE_MAX;        // OUT_OF_RANGE as soon as it is certain that there are more
  std::function<absl::Status()> stop;  // asked now and then: its error ends the encoding; empty: never
};

// What an encoding has come to.
class EncodeProgress {
 public:
  explicit EncodeProgress(const EncodeLimits& limits) : limits_(limits) {}

  void Push(TokenId id) { ids_.push_back(id); }
  void Push(const std::vector<TokenId>& ids) { ids_.insert(ids_.end(), ids.begin(), ids.end()); }
  std::vector<TokenId> Take() { return std::move(ids_); }

  // To be called between pieces of work; an error is to be passed on. `work`: bytes or merges since the call
  // before. `to_come`: tokens that will follow for certain.
  absl::Status Advance(size_t work, size_t to_come = 0) {
    work_ += work;
    const bool fits = ids_.size() <= limits_.tokens_max && to_come <= limits_.tokens_max - ids_.size();
    return fits && work_ < kWorkBetweenStops ? absl::OkStatus() : Check(fits);
  }

 private:
  // A millisecond's work, more or less.
  static constexpr size_t kWorkBetweenStops = 4096;
  absl::Status Check(bool fits);

  const EncodeLimits& limits_;
  std::vector<TokenId> ids_;
  size_t work_ = 0;  // since limits_.stop was asked
};

// What a step does to the bytes of a text before they become tokens.
enum class ByteEffect {
  kKeeps,     // all of them are still there; there may be more
  kRewrites,  // others may have taken their place, but not fewer
  kShrinks,   // there may be fewer
};

// The most bytes of a text that one token can stand for, where there is no such limit: text may vanish.
inline constexpr size_t kAnyBytes = SIZE_MAX;

// What `bytes` of text come to at least, if a token stands for at most `token_bytes_max`.
inline size_t FewestTokensOf(size_t bytes, size_t token_bytes_max) {
  return token_bytes_max == kAnyBytes ? 0 : bytes / token_bytes_max + (bytes % token_bytes_max > 0 ? 1 : 0);
}

}  // namespace bellwether
