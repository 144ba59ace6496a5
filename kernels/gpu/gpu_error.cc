#include "kernels/gpu/gpu_error.h"

#include "absl/strings/str_cat.h"

namespace bellwether::gpu {
namespace {

using Code = absl::StatusCode;

constexpr absl::string_view kIsItLoaded = "is the NVIDIA driver loaded? nvidia-smi tells";
constexpr absl::string_view kNoCode =
    "this program has no code for this card, which needs compute capability 8.0 or more";
constexpr absl::string_view kUpdateForCard =
    "the driver has to make code for this card, and is too old for that: update the NVIDIA driver";
constexpr absl::string_view kLost =
    "the card is lost to this process: start the worker anew; if it happens again, dmesg (Xid) tells why, "
    "and "
    "nvidia-smi --gpu-reset or a restart of the machine helps";

constexpr GpuAdvice kAdvices[] = {
    {kNoDriver, Code::kUnavailable, "this machine has no NVIDIA driver: install it, or use --device cpu"},
    {"cudaErrorInsufficientDriver", Code::kUnavailable, "update the NVIDIA driver, or use --device cpu"},
    {"cudaErrorCompatNotSupportedOnDevice", Code::kUnavailable,
     "update the NVIDIA driver, or use --device cpu"},
    {"cudaErrorNoDevice", Code::kUnavailable, kIsItLoaded},
    {"cudaErrorSystemDriverMismatch", Code::kUnavailable, kIsItLoaded},
    {"cudaErrorSystemNotReady", Code::kUnavailable,
     "the machine's cards are not ready yet: does nvidia-fabricmanager run?"},
    {"cudaErrorInitializationError", Code::kUnavailable, kIsItLoaded},
    {"cudaErrorStubLibrary", Code::kUnavailable, kIsItLoaded},
    {"cudaErrorDevicesUnavailable", Code::kUnavailable,
     "another process holds the card for itself: end it (nvidia-smi shows it and the compute mode), or use "
     "another card"},
    {"cudaErrorNoKernelImageForDevice", Code::kFailedPrecondition, kNoCode},
    {"cudaErrorInvalidDeviceFunction", Code::kFailedPrecondition, kNoCode},
    {"cudaErrorUnsupportedPtxVersion", Code::kFailedPrecondition, kUpdateForCard},
    {"cudaErrorJitCompilationDisabled", Code::kFailedPrecondition,
     "the driver has to make code for this card, which CUDA_DISABLE_PTX_JIT forbids"},
    {"cudaErrorMemoryAllocation", Code::kResourceExhausted,
     "nvidia-smi tells who else uses the card; plan with less of it by --device-memory-fraction or a shorter "
     "--context-tokens"},
    {kPinnedMemory, Code::kResourceExhausted,
     "it is the host's memory that is short, not the card's: end what else uses it, lift the container's "
     "limit, or stream weights from a drive (--offload nvme)"},
    {"cudaErrorECCUncorrectable", Code::kInternal, kLost},
    {"cudaErrorNvlinkUncorrectable", Code::kInternal, kLost},
    {"cudaErrorContained", Code::kInternal, kLost},
    {"cudaErrorHardwareStackError", Code::kInternal, kLost},
    {"cudaErrorLaunchTimeout", Code::kInternal, kLost},
    {"cudaErrorLaunchFailure", Code::kInternal, kLost},
    {"cudaErrorIllegalAddress", Code::kInternal, kLost},
    {"cudaErrorIllegalInstruction", Code::kInternal, kLost},
    {"cudaErrorUnknown", Code::kInternal, kLost},
};

}  // namespace

absl::Span<const GpuAdvice> GpuAdvices() { return kAdvices; }

absl::Status GpuError(absl::string_view what, absl::string_view error, absl::string_view text) {
  for (const GpuAdvice& row : kAdvices) {
    if (row.error != error) continue;
    if (error == kNoDriver) return {row.code, absl::StrCat(what, ": ", row.advice)};
    const absl::string_view name = error == kPinnedMemory ? "cudaErrorMemoryAllocation" : error;
    return {row.code, absl::StrCat(what, ": ", text, " (", name, "): ", row.advice)};
  }
  return absl::InternalError(absl::StrCat(what, ": ", text, " (", error, ")"));
}

}  // namespace bellwether::gpu
