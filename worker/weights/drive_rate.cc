#include "worker/weights/drive_rate.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <thread>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/aligned_buffer.h"
#include "common/clock.h"
#include "common/new_file.h"
#include "common/read_file.h"
#include "common/status.h"
#include "common/unique_fd.h"
#include "worker/weights/layer_file.h"

namespace bellwether {
namespace {

constexpr int kThreads = 4;  // as ReadAhead has
constexpr absl::Duration kSampleTime = absl::Seconds(2);
constexpr double kRateMin = 1e5, kRateMax = 1e12;

absl::StatusOr<double> Remembered(const std::string& path) {
  BW_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, /*bytes_max=*/64));
  double rate = 0;
  if (!absl::SimpleAtod(absl::StripAsciiWhitespace(text), &rate) || rate < kRateMin || rate > kRateMax)
    return absl::DataLossError(absl::StrCat(path, ": not a rate"));
  return rate;
}

// A file without a name that goes with its descriptor, full of what does not compress.
absl::StatusOr<UniqueFd> MakeSample(const std::string& directory, const AlignedBuffer& block,
                                    int64_t blocks) {
  std::string path = directory + "/drive-XXXXXX";
  UniqueFd fd(mkostemp(path.data(), O_CLOEXEC));
  if (!fd.valid()) return absl::ErrnoToStatus(errno, absl::StrCat("cannot write in ", directory));
  (void)unlink(path.c_str());
  uint64_t state = 1;
  for (int64_t i = 0; i < block.size() / 8; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    block.as<uint64_t>()[i] = state ^ (state >> 31);
  }
  for (int64_t i = 0; i < blocks; ++i) {
    if (pwrite(fd.get(), block.data(), block.size(), i * block.size()) != block.size())
      return absl::ErrnoToStatus(errno, absl::StrCat("cannot write in ", directory));
  }
  if (fdatasync(fd.get()) != 0)
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot write in ", directory));
  (void)posix_fadvise(fd.get(), 0, 0, POSIX_FADV_DONTNEED);
  (void)fcntl(fd.get(), F_SETFL, O_DIRECT);  // else through the system's cache, once
  return fd;
}

}  // namespace

absl::StatusOr<double> MeasureDriveRate(const std::string& directory, int64_t sample_bytes) {
  const int64_t sample_blocks = std::max<int64_t>(1, sample_bytes / kLayerBlockBytes);
  std::vector<AlignedBuffer> blocks(kThreads);
  for (AlignedBuffer& block : blocks) {
    BW_ASSIGN_OR_RETURN(block, AlignedBuffer::Allocate(kLayerBlockBytes));
  }
  BW_ASSIGN_OR_RETURN(const UniqueFd fd, MakeSample(directory, blocks[0], sample_blocks));
  std::atomic<int64_t> next{0}, bytes{0};
  const absl::Duration begin = Clock::Real()->Now();
  std::vector<std::thread> threads;
  threads.reserve(blocks.size());
  for (const AlignedBuffer& block : blocks) {
    threads.emplace_back([&] {
      for (int64_t i = next++; i < sample_blocks && Clock::Real()->Now() - begin < kSampleTime; i = next++) {
        const ssize_t read = pread(fd.get(), block.data(), block.size(), i * block.size());
        if (read > 0) bytes += read;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const double seconds = absl::ToDoubleSeconds(Clock::Real()->Now() - begin);
  if (bytes == 0) return absl::UnavailableError(absl::StrCat(directory, ": nothing could be read"));
  return std::clamp(static_cast<double>(bytes) / seconds, kRateMin, kRateMax);
}

absl::StatusOr<double> DriveRate(const std::string& directory, int64_t sample_bytes) {
  const std::string path = directory + "/drive-bytes-per-second";
  if (const absl::StatusOr<double> rate = Remembered(path); rate.ok()) return *rate;
  // One after the other: workers that start together would each see a part of the drive.
  const UniqueFd lock(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!lock.valid() || flock(lock.get(), LOCK_EX) != 0)
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot lock ", directory));
  if (const absl::StatusOr<double> rate = Remembered(path); rate.ok()) return *rate;
  BW_ASSIGN_OR_RETURN(const double rate, MeasureDriveRate(directory, sample_bytes));
  // Only a pity if it cannot be remembered.
  (void)unlink(path.c_str());
  if (absl::StatusOr<NewFile> file = NewFile::Create(path); file.ok()) {
    const std::string text = absl::StrCat(rate, "\n");
    const auto bytes = absl::MakeConstSpan(reinterpret_cast<const std::byte*>(text.data()), text.size());
    if (file->Append(bytes).ok()) (void)file->Finish();
  }
  return rate;
}

}  // namespace bellwether
