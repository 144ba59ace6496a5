#pragma once

#include <dlfcn.h>

#include <memory>

#include "common/check.h"
#include "worker/link/nccl_library.h"

namespace bellwether {

// The test double of NCCL (fake_nccl.cc), loaded from `path` as NCCL is, and what a test asks of it. One test
// at a time: its faults are the process's.
class FakeNccl {
 public:
  explicit FakeNccl(const char* path) : handle_(dlopen(path, RTLD_NOW)) {
    BW_CHECK(handle_ != nullptr);
    const auto library = NcclLibrary::Load(path);
    BW_CHECK(library.ok());
    library_ = *library;
  }
  const std::shared_ptr<const NcclLibrary>& library() const { return library_; }

  void Set(const char* what, int value) const {
    reinterpret_cast<void (*)(const char*, int)>(dlsym(handle_, "fake_nccl_set"))(what, value);
  }
  int Get(const char* what) const {
    return reinterpret_cast<int (*)(const char*)>(dlsym(handle_, "fake_nccl_get"))(what);
  }

 private:
  void* const handle_;
  std::shared_ptr<const NcclLibrary> library_;
};

}  // namespace bellwether
