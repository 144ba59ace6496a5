#include "model/checkpoint/file_mapping.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/check.h"
#include "common/status.h"

namespace bellwether {
namespace {

// Closes at the end of a scope; the mapping outlives its descriptor.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  const int fd_;
};

std::string IdentityOf(const struct stat& info) {
  // Not its device's number, which changes with every mount of some file systems.
  return absl::StrCat(info.st_size, " bytes ", info.st_ino, " ",
                      absl::ToUnixNanos(absl::TimeFromTimespec(info.st_mtim)), " ",
                      absl::ToUnixNanos(absl::TimeFromTimespec(info.st_ctim)));
}

// Git LFS leaves a few lines of text, at most 1,024 bytes by its specification, where the real file was not
// fetched.
bool IsLfsPointer(absl::Span<const std::byte> bytes) {
  constexpr std::string_view kFirstLine = "version https://git-lfs.github.com/spec/";
  return bytes.size() <= 1024 && bytes.size() >= kFirstLine.size() &&
         std::memcmp(bytes.data(), kFirstLine.data(), kFirstLine.size()) == 0;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const FileMapping>> FileMapping::Open(const std::string& path) {
  const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  struct stat info;
  if (fstat(file.get(), &info) != 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot stat ", path));
  if (!S_ISREG(info.st_mode)) return absl::InvalidArgumentError(absl::StrCat(path, ": not a regular file"));
  if (info.st_size == 0) return absl::InvalidArgumentError(absl::StrCat(path, ": empty file"));
  const auto size = static_cast<size_t>(info.st_size);
  void* data = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (data == MAP_FAILED) return absl::ErrnoToStatus(errno, absl::StrCat("cannot map ", path));
  const std::shared_ptr<const FileMapping> mapping(
      new FileMapping(path, IdentityOf(info), static_cast<const std::byte*>(data), size));
  if (IsLfsPointer(mapping->bytes())) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " is a Git LFS pointer: fetch the real file (git lfs pull)"));
  }
  return mapping;
}

FileMapping::~FileMapping() { munmap(const_cast<std::byte*>(data_), size_); }

void FileMapping::DropPages(uint64_t offset, uint64_t size) const {
  BW_CHECK(offset <= size_ && size <= size_ - offset);
  const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const uint64_t begin = offset / page * page;
  // Advice only: a kernel that does not take it costs memory, not correctness.
  (void)madvise(const_cast<std::byte*>(data_) + begin, offset + size - begin, MADV_DONTNEED);
}

bool FileExists(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0;
}

absl::StatusOr<std::string> ReadSmallFile(const std::string& path, size_t bytes_max) {
  BW_ASSIGN_OR_RETURN(const std::shared_ptr<const FileMapping> file, FileMapping::Open(path));
  const absl::Span<const std::byte> bytes = file->bytes();
  if (bytes.size() > bytes_max) {
    return absl::ResourceExhaustedError(
        absl::StrCat(path, " has ", bytes.size(), " bytes; at most ", bytes_max, " are read"));
  }
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

}  // namespace bellwether
