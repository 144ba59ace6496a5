#include "coordinator/token_stream.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"

namespace bellwether {
namespace {

int64_t BytesOf(const TokenChunk& chunk) {
  int64_t bytes = static_cast<int64_t>(chunk.text.size() + chunk.tokens.size() * sizeof(TokenId));
  for (const StepOutput& logprobs : chunk.logprobs) {
    bytes += static_cast<int64_t>(sizeof(StepOutput) + logprobs.top.size() * sizeof(TokenLogprob));
  }
  return bytes;
}

template <typename T>
void MoveToEnd(std::vector<T>& from, std::vector<T>* to) {
  to->insert(to->end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
}

}  // namespace

TokenStream::TokenStream(Options options) : options_(std::move(options)) {}

void TokenStream::OnTokens(TokenChunk chunk) {
  bool too_slow = false;
  {
    MutexLock lock(&mutex_);
    if (end_) return;
    too_slow = pending_bytes_ + BytesOf(chunk) > options_.pending_bytes_max;
    if (too_slow) {
      GiveUp(absl::ResourceExhaustedError(absl::StrCat("the client reads too slowly: more than ",
                                                       options_.pending_bytes_max,
                                                       " bytes are waiting for it")));
    } else {
      Append(std::move(chunk));
    }
  }
  if (too_slow) options_.cancel();
  Pump();
}

void TokenStream::OnInterrupted(const std::string& reason) {
  {
    MutexLock lock(&mutex_);
    if (end_) return;
    std::erase_if(pending_, [](const Message& message) { return !message.notice.empty(); });
    pending_.push_back({.notice = reason});
  }
  Pump();
}

void TokenStream::OnScores(std::vector<float>, std::vector<TokenLogprob>) {}

void TokenStream::OnDone(const absl::Status& status, const Usage& usage, uint64_t seed) {
  {
    MutexLock lock(&mutex_);
    if (!end_) {
      if (status.ok() && pending_.empty()) pending_.emplace_back();
      if (!pending_.empty()) {
        pending_.back().usage = usage;
        pending_.back().seed = seed;
      }
      end_ = status;
    }
  }
  Pump();
}

void TokenStream::WriteDone(bool ok) {
  bool cancel = false;
  {
    MutexLock lock(&mutex_);
    BW_CHECK(write_under_way_);
    write_under_way_ = false;
    if (!ok) {
      cancel = !end_;
      GiveUp(end_.value_or(absl::CancelledError("the client is gone")));
    }
  }
  if (cancel) options_.cancel();
  Pump();
}

void TokenStream::Append(TokenChunk chunk) {
  pending_bytes_ += BytesOf(chunk);
  // A notice stays where it is in the answer: with what came before it, it would speak of what is over.
  for (auto message = pending_.rbegin(); message != pending_.rend() && message->notice.empty(); ++message) {
    TokenChunk& before = message->chunk;
    if (before.choice != chunk.choice) continue;
    MoveToEnd(chunk.tokens, &before.tokens);
    MoveToEnd(chunk.logprobs, &before.logprobs);
    before.text += chunk.text;
    before.finish = chunk.finish;
    before.ending_token = chunk.ending_token;
    return;
  }
  pending_.push_back({.chunk = std::move(chunk)});
}

void TokenStream::GiveUp(absl::Status status) {
  pending_.clear();
  pending_bytes_ = 0;
  end_ = std::move(status);
}

void TokenStream::Pump() {
  bool finish = false;
  absl::Status status;
  {
    MutexLock lock(&mutex_);
    if (write_under_way_ || finished_) return;
    if (pending_.empty()) {
      if (!end_) return;
      finish = finished_ = true;
      status = *end_;
    } else {
      // The end of a choice may be the end of the stream, whose last message also carries the usage.
      if (!end_ && pending_.size() == 1 && pending_.front().chunk.finish) return;
      writing_ = std::move(pending_.front());
      pending_.pop_front();
      pending_bytes_ -= BytesOf(writing_.chunk);
      writing_.first = !std::exchange(wrote_first_, true);
      write_under_way_ = true;
    }
  }
  // The flags let one thread through until WriteDone, and none after Finish.
  if (finish) {
    options_.writer->Finish(status);
  } else {
    options_.writer->Write(writing_);
  }
}

}  // namespace bellwether
