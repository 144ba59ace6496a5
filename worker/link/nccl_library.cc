#include "worker/link/nccl_library.h"

#include <dlfcn.h>

#include "absl/strings/str_cat.h"
#include "common/status.h"

namespace bellwether {
namespace {

// The first with communicators that never block, their aborts and their repairs.
constexpr int kVersionMin = 21800;

template <typename Function>
absl::Status Find(void* library, const char* name, Function& function) {
  void* const symbol = dlsym(library, name);
  if (symbol == nullptr) return absl::FailedPreconditionError(absl::StrCat("it has no ", name));
  function = reinterpret_cast<Function>(symbol);
  return absl::OkStatus();
}

absl::Status FindAll(void* library, nccl::Functions& functions) {
  BW_RETURN_IF_ERROR(Find(library, "ncclGetVersion", functions.get_version));
  BW_RETURN_IF_ERROR(Find(library, "ncclGetErrorString", functions.get_error_string));
  BW_RETURN_IF_ERROR(Find(library, "ncclGetUniqueId", functions.get_unique_id));
  BW_RETURN_IF_ERROR(Find(library, "ncclCommInitRankConfig", functions.comm_init_rank_config));
  BW_RETURN_IF_ERROR(Find(library, "ncclCommGetAsyncError", functions.comm_get_async_error));
  BW_RETURN_IF_ERROR(Find(library, "ncclCommAbort", functions.comm_abort));
  BW_RETURN_IF_ERROR(Find(library, "ncclGetLastError", functions.get_last_error));
  BW_RETURN_IF_ERROR(Find(library, "ncclGroupStart", functions.group_start));
  BW_RETURN_IF_ERROR(Find(library, "ncclGroupEnd", functions.group_end));
  BW_RETURN_IF_ERROR(Find(library, "ncclSend", functions.send));
  return Find(library, "ncclRecv", functions.receive);
}

}  // namespace

absl::StatusOr<std::shared_ptr<const NcclLibrary>> NcclLibrary::Load(const std::string& name) {
  void* const library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    return absl::NotFoundError(
        absl::StrCat("no NCCL (", dlerror(), "): install it, or say where it is with --nccl-library"));
  }
  auto loaded = std::shared_ptr<NcclLibrary>(new NcclLibrary);
  absl::Status status = FindAll(library, loaded->functions_);
  if (status.ok())
    status = loaded->StatusOf(loaded->functions_.get_version(&loaded->version_), "version", {});
  if (status.ok() && loaded->version_ < kVersionMin) {
    status = absl::FailedPreconditionError(absl::StrCat("it is version ", NcclVersionText(loaded->version_),
                                                        ", needed is ", NcclVersionText(kVersionMin),
                                                        " or later"));
  }
  if (!status.ok()) return Annotate(status, absl::StrCat("NCCL (", name, ")"));
  return loaded;
}

absl::Status NcclLibrary::StatusOf(int result, const std::string& what,
                                   nccl::Communicator* communicator) const {
  if (result == nccl::kSuccess) return absl::OkStatus();
  std::string message = absl::StrCat("NCCL, ", what, ": ", functions_.get_error_string(result));
  if (communicator != nullptr) {
    if (const char* more = functions_.get_last_error(communicator); more != nullptr && *more != '\0') {
      absl::StrAppend(&message, " (", more, ")");
    }
  }
  // A system error is this process's own: no room in /dev/shm, no interface.
  return result == nccl::kRemoteError ? absl::UnavailableError(message) : absl::InternalError(message);
}

std::string NcclVersionText(int version) {
  return absl::StrCat(version / 10000, ".", version / 100 % 100, ".", version % 100);
}

}  // namespace bellwether
