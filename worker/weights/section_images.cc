#include "worker/weights/section_images.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "common/mutex.h"
#include "common/status.h"

namespace bellwether {

absl::StatusOr<std::shared_ptr<const LayerFile>> SectionImages::Find(const Section& section, bool read) {
  std::shared_ptr<const LayerFile> file = options_.cache->Find(section.key);
  if (file != nullptr && file->info().image_bytes != static_cast<int64_t>(section.image.size())) {
    LogWarning("shard cache: ", file->path(), ": of another size; ", section.name, " is packed again");
    file->Discard();
    file = nullptr;
  }
  if (file == nullptr || !read) return file;
  const absl::Status status = Read(*file, section.image);
  if (status.ok()) return file;
  if (absl::IsCancelled(status)) return status;
  file->Discard();
  LogWarning("shard cache: ", status.message(), "; ", section.name, " is packed again");
  std::fill(section.image.begin(), section.image.end(), std::byte{0});
  return std::shared_ptr<const LayerFile>();
}

absl::Status SectionImages::Read(const LayerFile& file, absl::Span<std::byte> image) {
  Mutex mutex;
  absl::Status status;
  options_.pool->ParallelForDynamic(file.blocks(), /*grain=*/1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const absl::Status read = Cancelled() ? absl::CancelledError("the weights are no longer wanted")
                                            : file.ReadBlock(block, /*check=*/true, image.data());
      if (options_.progress != nullptr) options_.progress->counter.fetch_add(1);
      MutexLock lock(&mutex);
      status.Update(read);
    }
  });
  return status;
}

bool SectionImages::GoOnWriting() const {
  if (options_.progress != nullptr) options_.progress->counter.fetch_add(1);
  return !Cancelled();
}

absl::StatusOr<std::shared_ptr<const LayerFile>> SectionImages::Write(const Section& section,
                                                                      const std::vector<WeightHash>& hashes) {
  return WriteBeside(/*leave_bytes=*/0, section, hashes);
}

absl::StatusOr<std::shared_ptr<const LayerFile>> SectionImages::WriteBeside(
    int64_t leave_bytes, const Section& section, const std::vector<WeightHash>& hashes) {
  auto file = options_.cache->Write(
      DescribeImage(section.key, section.image, hashes), section.image, [this] { return !GoOnWriting(); },
      leave_bytes);
  if (!file.ok()) return Annotate(file.status(), absl::StrCat("shard cache: ", section.name));
  return file;
}

void SectionImages::Keep(const Section& section, const std::vector<WeightHash>& hashes,
                         std::shared_ptr<const void> owner, bool stays, int64_t leave_bytes) {
  if (stays && options_.unwritten != nullptr) {
    options_.unwritten->push_back(
        {.key = section.key, .hashes = hashes, .image = section.image, .owner = owner});
    return;
  }
  WaitForWriter();
  if (told_) return;
  writer_ = std::thread([this, section, hashes, leave_bytes, owner = std::move(owner)] {
    const absl::Status written = WriteBeside(leave_bytes, section, hashes).status();
    if (written.ok() || absl::IsCancelled(written)) return;
    told_ = true;
    LogWarning(written.message(), "; loading goes on without");
  });
  if (stays) WaitForWriter();
}

}  // namespace bellwether
