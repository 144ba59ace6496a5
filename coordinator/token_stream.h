#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "common/mutex.h"
#include "coordinator/engine.h"
#include "coordinator/request_observer.h"

namespace bellwether {

// The write queue of one answer, between the engine, which never waits, and a client, which reads as it
// likes.
//
// At most one message is with the writer at a time. Chunks that come meanwhile are joined, one message a
// choice, so a slow client gets fewer and longer messages; one that falls behind by more than the limit is
// cut off. Of notices it gets the last one, between what came before and what came after.
class TokenStream : public RequestObserver {
 public:
  struct Message {
    TokenChunk chunk;            // holds nothing beside a notice
    std::string notice;          // why nothing comes for a while; empty: this is a part of the answer
    bool first = false;          // of the stream
    std::optional<Usage> usage;  // on the last message
    uint64_t seed = 0;           // likewise
  };

  // Where messages go. Methods are called from any thread, one at a time, without a lock held.
  class Writer {
   public:
    virtual ~Writer() = default;
    // The writer calls WriteDone later, perhaps before it returns. `message` lives until then.
    virtual void Write(const Message& message) = 0;
    // The last call: the stream does not touch the writer afterwards.
    virtual void Finish(const absl::Status& status) = 0;
  };

  struct Options {
    Writer* writer = nullptr;
    // Called once if the client is too slow or gone: the request is not wanted any more.
    std::function<void()> cancel;
    int64_t pending_bytes_max = 1 << 20;
  };
  explicit TokenStream(Options options);

  void OnAccepted() override {}
  void OnTokens(TokenChunk chunk) override;
  void OnInterrupted(const std::string& reason) override;
  void OnScores(std::vector<float> logprobs, std::vector<TokenLogprob> best) override;
  void OnDone(const absl::Status& status, const Usage& usage, uint64_t seed) override;

  // The message handed to Write is on its way, or, if not `ok`, will never arrive.
  void WriteDone(bool ok);

 private:
  // Hands the next message or the end to the writer if it is its turn.
  void Pump();
  void Append(TokenChunk chunk) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Drops what is pending: only the end is left to say.
  void GiveUp(absl::Status status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  Mutex mutex_;  // never held while the writer or `cancel` is called
  std::deque<Message> pending_ ABSL_GUARDED_BY(mutex_);
  int64_t pending_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  Message writing_;  // the writer's while write_under_way_
  bool write_under_way_ ABSL_GUARDED_BY(mutex_) = false;
  bool wrote_first_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  // How it ends, once known: nothing is added any more.
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace bellwether
