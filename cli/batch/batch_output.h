#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/json.h"
#include "common/mutex.h"
#include "common/unique_fd.h"

namespace bellwether {

// The answers of a batch, one JSON object a line, each on its way to the disk as soon as it is there: a run
// that was killed is completed by another. Every record has "line", the line of the input that it answers
// (from 1), and "key", a hash of what decides the answer. Methods may be called from several threads.
class BatchOutput {
 public:
  enum class Order { kAsAnswered, kAsAsked };

  // Reads what an earlier run has left; a last line that it had not finished is cut off. AlreadyExists:
  // another run writes there now. FailedPrecondition: not a batch's answers, or out of order where `order` is
  // kAsAsked.
  static absl::StatusOr<std::unique_ptr<BatchOutput>> Open(const std::string& path, Order order);

  int fd() const { return file_.get(); }
  // Records of earlier runs that say that their line cannot be answered.
  int64_t old_errors() const { return old_errors_; }
  // Whether a line has its answer already. FailedPrecondition: to something else, by its key.
  absl::StatusOr<bool> Has(int64_t line, uint64_t key) const;

  // Lines in ascending order, before their answers: in this order they are written with Order::kAsAsked.
  void Expect(int64_t line);
  // The answer to an expected line; "line" and "key" are put before the members of `record`. With
  // Order::kAsAsked it waits while kEarlyMax answers have come before their turn, until Close.
  absl::Status Write(int64_t line, uint64_t key, const Json::Object& record);
  // Nothing waits any more; what has not come to its turn is dropped.
  void Close();

  static constexpr size_t kEarlyMax = 256;

 private:
  BatchOutput(std::string path, Order order) : path_(std::move(path)), order_(order) {}
  absl::Status ReadOld();
  absl::Status AddOld(std::string_view text);
  absl::Status CutUnfinished() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Append(std::string_view text) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string path_;
  const Order order_;
  UniqueFd file_;
  absl::flat_hash_map<int64_t, uint64_t> old_;  // key of each line that was answered before
  int64_t last_old_ = 0;                        // the greatest of them
  int64_t old_errors_ = 0;
  Mutex mutex_;
  std::optional<int64_t> cut_at_ ABSL_GUARDED_BY(mutex_);  // where a record begins that was not finished
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<int64_t> expected_ ABSL_GUARDED_BY(mutex_);
  std::map<int64_t, std::string> early_ ABSL_GUARDED_BY(mutex_);  // answered, but not their turn
  absl::Status failed_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace bellwether
