#include "worker/link/shm_segment.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/status.h"

namespace bellwether {
namespace {

constexpr uint64_t kMagic = 0x626c776c696e6b31;  // "blwlink1"
constexpr uint32_t kVersion = 1;
constexpr size_t kDataOffset = 4096;
constexpr size_t kSegmentBytes = kDataOffset + 2 * static_cast<size_t>(kShmRingBytes);
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
static_assert(sizeof(ShmHeader) <= kDataOffset);
static_assert((kShmRingBytes & (kShmRingBytes - 1)) == 0);

absl::Status SystemError(const char* what) {
  return absl::ResourceExhaustedError(absl::StrCat("shared memory of ", kSegmentBytes,
                                                   " bytes for a link: ", what, ": ", std::strerror(errno)));
}

}  // namespace

absl::StatusOr<ShmSegment> ShmSegment::Map(int fd, bool creator) {
  // Populated at once: the first step should not pay for page faults.
  void* base = mmap(nullptr, kSegmentBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
  if (base == MAP_FAILED) return SystemError("mmap");
  return ShmSegment(static_cast<std::byte*>(base), creator);
}

absl::StatusOr<ShmSegment::Created> ShmSegment::Create(const ShmIdentity& identity) {
  UniqueFd fd(memfd_create("bellwether-link", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid()) return SystemError("memfd_create");
  if (ftruncate(fd.get(), kSegmentBytes) != 0) return SystemError("ftruncate");
  if (fcntl(fd.get(), F_ADD_SEALS, kSeals) != 0) return SystemError("F_ADD_SEALS");
  BW_ASSIGN_OR_RETURN(ShmSegment segment, Map(fd.get(), /*creator=*/true));
  ShmHeader& header = segment.header();  // a new memfd is all zeros, which is what the atomics start from
  header.magic = kMagic;
  header.version = kVersion;
  header.ring_bytes = kShmRingBytes;
  header.epoch = identity.epoch.value;
  header.creator = identity.creator;
  header.opener = identity.opener;
  return Created{std::move(segment), std::move(fd)};
}

absl::StatusOr<ShmSegment> ShmSegment::Open(const UniqueFd& fd, const ShmIdentity& identity) {
  // A memory that can still shrink could make any later access fault.
  const int seals = fd.valid() ? fcntl(fd.get(), F_GET_SEALS) : -1;
  if (seals < 0 || (seals & kSeals) != kSeals)
    return absl::DataLossError("the peer sent no sealed shared memory");
  struct stat status {};
  if (fstat(fd.get(), &status) != 0 || status.st_size != static_cast<off_t>(kSegmentBytes)) {
    return absl::DataLossError(
        absl::StrCat("the peer's shared memory has ", status.st_size, " bytes, not ", kSegmentBytes));
  }
  BW_ASSIGN_OR_RETURN(ShmSegment segment, Map(fd.get(), /*creator=*/false));
  const ShmHeader& header = segment.header();
  if (header.magic != kMagic || header.version != kVersion || header.ring_bytes != kShmRingBytes) {
    return absl::DataLossError(
        "the peer's shared memory has another layout; run the same build on all workers");
  }
  if (header.epoch != identity.epoch.value || header.creator != identity.creator ||
      header.opener != identity.opener) {
    return absl::DataLossError(absl::StrCat("the peer's shared memory is for epoch ", header.epoch,
                                            ", worker ", header.creator, " to ", header.opener,
                                            ", not for epoch ", identity.epoch.value, ", worker ",
                                            identity.creator, " to ", identity.opener));
  }
  return segment;
}

ShmSegment::~ShmSegment() {
  if (base_ != nullptr) munmap(base_, kSegmentBytes);
}

std::byte* ShmSegment::ring_data(int side) const {
  return base_ + kDataOffset + static_cast<size_t>(side) * kShmRingBytes;
}

}  // namespace bellwether
