#include "kernels/gpu/fiber.h"

#include <sys/mman.h>

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

// g++ and clang say it in ways of their own.
#if defined(__SANITIZE_ADDRESS__)
#define BELLWETHER_UNDER_ASAN
#elif defined(__SANITIZE_THREAD__)
#define BELLWETHER_UNDER_TSAN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define BELLWETHER_UNDER_ASAN
#elif __has_feature(thread_sanitizer)
#define BELLWETHER_UNDER_TSAN
#endif
#endif

#if defined(BELLWETHER_UNDER_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#elif defined(BELLWETHER_UNDER_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace bellwether::gpu {

// ---- The switch. A stack that is not running holds the registers that a callee must keep, and its pointer.

#if defined(__x86_64__)

extern "C" void BellwetherSwitchStack(void** save, void* load);
asm(R"(
.text
.align 16
.type BellwetherSwitchStack, @function
BellwetherSwitchStack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size BellwetherSwitchStack, .-BellwetherSwitchStack
)");

namespace {

void* PrepareStack(char* stack, size_t bytes, void (*entry)()) {
  // At a function's entry the stack pointer is 8 below a multiple of 16: where a return address would be.
  auto* top = reinterpret_cast<uintptr_t*>(stack + bytes / 16 * 16) - 2;
  top[1] = 0;  // of the outermost frame's caller there is none
  top[0] = reinterpret_cast<uintptr_t>(entry);
  for (int i = 1; i <= 6; ++i) top[-i] = 0;
  return top - 6;
}

void Switch(void** save, void* load) { BellwetherSwitchStack(save, load); }

}  // namespace

#else

namespace {

void* PrepareStack(char* stack, size_t bytes, void (*entry)()) {
  auto* context = reinterpret_cast<ucontext_t*>(stack);  // its lower end
  getcontext(context);
  const size_t used = (sizeof(ucontext_t) + 63) / 64 * 64;
  context->uc_stack.ss_sp = stack + used;
  context->uc_stack.ss_size = bytes - used;
  context->uc_link = nullptr;
  makecontext(context, entry, 0);
  return context;
}

void Switch(void** save, void* load) {
  ucontext_t here;
  *save = &here;
  swapcontext(&here, static_cast<ucontext_t*>(load));
}

}  // namespace

#endif

// ---- What the sanitizers must know

namespace {

#if defined(BELLWETHER_UNDER_ASAN)
void* NewState() { return nullptr; }
void DeleteState(void*) {}
void ForgetStack(char* stack, size_t bytes) { __asan_unpoison_memory_region(stack, bytes); }
#elif defined(BELLWETHER_UNDER_TSAN)
void* NewState() { return __tsan_create_fiber(0); }
void DeleteState(void* state) { __tsan_destroy_fiber(state); }
void ForgetStack(char*, size_t) {}
#else
void* NewState() { return nullptr; }
void DeleteState(void*) {}
void ForgetStack(char*, size_t) {}
#endif

}  // namespace

Fiber::~Fiber() {
  if (stack_ != nullptr && sanitizer_state_ != nullptr) DeleteState(sanitizer_state_);
}

void Fiber::Start(char* stack, size_t bytes, void (*entry)()) {
  ForgetStack(stack, bytes);
  // A state keeps the frames that were never left, but is too dear to make each time.
  if (starts_++ % kStartsOfState == 0) {
    if (sanitizer_state_ != nullptr) DeleteState(sanitizer_state_);
    sanitizer_state_ = NewState();
  }
  stack_ = stack;
  stack_bytes_ = bytes;
  stack_pointer_ = PrepareStack(stack, bytes, entry);
}

void Fiber::SwitchTo(Fiber& next) {
#if defined(BELLWETHER_UNDER_ASAN)
  __sanitizer_start_switch_fiber(&sanitizer_state_, next.stack_, next.stack_bytes_);
#elif defined(BELLWETHER_UNDER_TSAN)
  if (stack_ == nullptr) sanitizer_state_ = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(next.sanitizer_state_, 0);
#endif
  Switch(&stack_pointer_, next.stack_pointer_);
#if defined(BELLWETHER_UNDER_ASAN)
  __sanitizer_finish_switch_fiber(sanitizer_state_, nullptr, nullptr);
#endif
}

void Fiber::Entered([[maybe_unused]] Fiber& from) {
#if defined(BELLWETHER_UNDER_ASAN)
  const void* stack = nullptr;
  size_t bytes = 0;
  __sanitizer_finish_switch_fiber(nullptr, &stack, &bytes);
  // Another fiber may have switched here; only the first entry of all comes from the OS thread.
  if (from.stack_ == nullptr) {
    from.stack_ = stack;
    from.stack_bytes_ = bytes;
  }
#endif
}

FiberStacks::~FiberStacks() { Free(); }

void FiberStacks::Free() {
  if (memory_ == nullptr) return;
  // Frames that were never left would be a trap for whoever gets these addresses next.
  ForgetStack(memory_, count_ * kSlotBytes);
  munmap(memory_, count_ * kSlotBytes);
}

absl::Status FiberStacks::Reserve(int count) {
  if (count <= count_) return absl::OkStatus();
  void* memory = mmap(nullptr, count * kSlotBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED)
    return absl::ResourceExhaustedError(absl::StrCat("no memory for the stacks of ", count, " fibers"));
  Free();
  memory_ = static_cast<char*>(memory);
  count_ = count;
  for (int i = 0; i < count; ++i) {
    if (mprotect(memory_ + i * kSlotBytes, kSlotBytes - kBytes, PROT_NONE) != 0)
      return absl::ResourceExhaustedError("no guard page for a fiber's stack");
  }
  return absl::OkStatus();
}

}  // namespace bellwether::gpu
