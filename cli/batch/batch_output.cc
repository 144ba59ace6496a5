#include "cli/batch/batch_output.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "absl/memory/memory.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/batch/line_reader.h"
#include "common/quote.h"
#include "common/status.h"
#include "common/write_all.h"

namespace bellwether {
namespace {

absl::Status FileError(absl::string_view what, const std::string& path) {
  return absl::ErrnoToStatus(errno, absl::StrCat(what, " ", Printable(path)));
}

// How every record begins, and the longest that is read back.
constexpr std::string_view kRecordBegin = "{\"line\":";
constexpr size_t kRecordBytesMax = size_t{64} << 20;

}  // namespace

absl::StatusOr<std::unique_ptr<BatchOutput>> BatchOutput::Open(const std::string& path, Order order) {
  auto output = absl::WrapUnique(new BatchOutput(path, order));
  output->file_ = UniqueFd(open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  if (!output->file_.valid()) return FileError("cannot write", path);
  if (flock(output->file_.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK)
      return absl::AlreadyExistsError(absl::StrCat("another run writes ", Printable(path), " now"));
    return FileError("cannot lock", path);
  }
  BW_RETURN_IF_ERROR(output->ReadOld());
  return output;
}

absl::Status BatchOutput::ReadOld() {
  struct stat info = {};
  if (fstat(file_.get(), &info) != 0) return FileError("cannot read", path_);
  if (!S_ISREG(info.st_mode)) return absl::OkStatus();  // a pipe or a device keeps nothing
  LineReader reader(file_.get(), path_, kRecordBytesMax);
  const auto refuse = [this](absl::string_view reason) {
    return absl::FailedPreconditionError(absl::StrCat(Printable(path_), " has ", old_.size(),
                                                      " answers and then a line that is none (", reason,
                                                      "): give another --output"));
  };
  std::string text;
  for (int64_t whole = 0;; whole = reader.bytes_read()) {
    BW_ASSIGN_OR_RETURN(const bool more, reader.Next(text));
    if (!more) return absl::OkStatus();
    if (!reader.ended()) {
      // An earlier run was killed while it wrote this, or the file is none of ours.
      const std::string_view begin = kRecordBegin;
      if (text.substr(0, begin.size()) != begin.substr(0, text.size())) return refuse("it has no end");
      MutexLock lock(&mutex_);
      cut_at_ = whole;
      return absl::OkStatus();
    }
    if (const absl::Status added = AddOld(text); !added.ok()) return refuse(added.message());
  }
}

absl::Status BatchOutput::CutUnfinished() {
  if (!cut_at_) return absl::OkStatus();
  if (ftruncate(file_.get(), *cut_at_) != 0) return FileError("cannot cut", path_);
  cut_at_.reset();
  return absl::OkStatus();
}

absl::Status BatchOutput::AddOld(std::string_view text) {
  BW_ASSIGN_OR_RETURN(const Json record, ParseJson(text));
  const Json& line = record["line"];
  uint64_t key = 0;
  if (!line.is_number_unsigned() || !absl::SimpleHexAtoi(record["key"].text(), &key))
    return absl::InvalidArgumentError("no \"line\" and \"key\"");
  const auto number = line.get<int64_t>();
  if (!old_.emplace(number, key).second)
    return absl::InvalidArgumentError(absl::StrCat("line ", number, " is answered twice"));
  if (order_ == Order::kAsAsked && number < last_old_)
    return absl::InvalidArgumentError("out of order, so that --in-order cannot go on");
  last_old_ = std::max(last_old_, number);
  old_errors_ += record.contains("error") ? 1 : 0;
  return absl::OkStatus();
}

absl::StatusOr<bool> BatchOutput::Has(int64_t line, uint64_t key) const {
  const auto found = old_.find(line);
  if (found == old_.end()) {
    if (order_ == Order::kAsAnswered || line > last_old_) return false;
    return absl::FailedPreconditionError(absl::StrCat(Printable(path_),
                                                      " has later answers than that to line ", line,
                                                      ", so that --in-order cannot go on"));
  }
  if (found->second == key) return true;
  return absl::FailedPreconditionError(
      absl::StrCat(Printable(path_), " answers another line ", line,
                   ", or with another model or other options: give another --output"));
}

void BatchOutput::Expect(int64_t line) {
  MutexLock lock(&mutex_);
  if (order_ == Order::kAsAsked) expected_.push_back(line);
}

absl::Status BatchOutput::Append(std::string_view text) {
  if (failed_.ok()) failed_ = CutUnfinished();
  if (failed_.ok() && WriteAll(file_.get(), text) != 0) failed_ = FileError("cannot write", path_);
  return failed_;
}

absl::Status BatchOutput::Write(int64_t line, uint64_t key, const Json::Object& record) {
  Json json = Json::object({{"line", line}, {"key", absl::StrFormat("%016x", key)}});
  for (const auto& [name, value] : record) json[name] = value;
  std::string text = WriteJson(json) + "\n";
  MutexLock lock(&mutex_);
  if (order_ == Order::kAsAnswered) return Append(text);
  const auto may_write = [this, line]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return closed_ || early_.size() < kEarlyMax || (!expected_.empty() && line == expected_.front());
  };
  mutex_.Await(may_write);
  if (closed_) return absl::CancelledError("the batch has ended before the answer's turn");
  early_.emplace(line, std::move(text));
  while (!expected_.empty() && !early_.empty() && early_.begin()->first == expected_.front()) {
    BW_RETURN_IF_ERROR(Append(early_.begin()->second));
    early_.erase(early_.begin());
    expected_.pop_front();
  }
  return absl::OkStatus();
}

void BatchOutput::Close() {
  MutexLock lock(&mutex_);
  closed_ = true;
}

}  // namespace bellwether
