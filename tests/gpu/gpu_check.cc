// What a card computes against what is written: its tensor cores against tensor_core.h, and whole steps of
// small models against the emulator, to the bit. tools/gpu_check.sh runs it; `gpu_check emulated` shows the
// program itself without a card.

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "common/log.h"
#include "common/status.h"
#include "kernels/gpu/tensor_core.h"
#include "tests/layouts/engine_driver.h"
#include "tests/layouts/test_gpu.h"
#include "worker/device/gpu_device.h"
#include "worker/device/gpu_weights.h"

namespace bellwether {
namespace {

int failures = 0;
void Row(const std::string& what, bool ok, const std::string& detail) {
  printf("%-44s %-6s %s\n", what.c_str(), ok ? "ok" : "FAILED", detail.c_str());
  fflush(stdout);
  failures += ok ? 0 : 1;
}

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint32_t operator()() {
    state_ += 0x9e3779b97f4a7c15u;
    uint64_t z = state_;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return static_cast<uint32_t>(z >> 32);
  }

 private:
  uint64_t state_;
};

constexpr const char* kKinds[] = {"ordinary",   "wide exponents", "any exponent", "subnormal",
                                  "cancelling", "overflowing",    "Inf and NaN",  "any bits"};
constexpr int kKindCount = 8;

uint16_t RandomBF16(Random& random, int kind) {
  const uint32_t r = random();
  const auto with = [r](uint32_t exponent) { return static_cast<uint16_t>((r & 0x807fu) | exponent << 7); };
  const uint32_t high = r >> 16;
  switch (kind) {
    case 0:
      return with(120 + high % 8);
    case 1:
      return with(100 + high % 56);
    case 2:
      return with(high % 255);
    case 3:
      return with(high % 3);
    case 4:
      return high % 3 == 0 ? static_cast<uint16_t>(r & 0x8000u) : with(120 + high % 8);
    case 5:
      return with(185 + high % 6);
    case 6:
      if (high % 24 == 0) return static_cast<uint16_t>(0x7f80u | (r & 0x8000u));
      if (high % 24 == 1) return 0x7fc1;
      return with(120 + high % 8);
    default:
      return static_cast<uint16_t>(r);
  }
}

float RandomAccumulator(Random& random, int kind) {
  const uint32_t r = random();
  const auto with = [r](uint32_t exponent) {
    return std::bit_cast<float>((r & 0x807fffffu) | exponent << 23);
  };
  switch (kind) {
    case 0:
      return with(118 + (r >> 24) % 14);
    case 1:
      return with(90 + (r >> 24) % 76);
    case 3:
      return with((r >> 24) % 3);
    case 4:
      return r % 4 == 0 ? -0.0f : 0.0f;
    case 5:
      return with(248 + (r >> 24) % 6);
    case 6:
      return with(120);
    default:
      return std::bit_cast<float>(r);
  }
}

gpu::TensorCoreCase RandomCase(Random& random, int kind) {
  gpu::TensorCoreCase made;
  for (auto& row : made.a) {
    for (uint16_t& value : row) value = RandomBF16(random, kind);
  }
  for (auto& row : made.b) {
    for (uint16_t& value : row) value = RandomBF16(random, kind == 5 ? 0 : kind);
  }
  for (auto& row : made.c) {
    for (float& value : row) value = RandomAccumulator(random, kind);
  }
  if (kind == 4) {  // neighbours that take each other away
    for (int k = 0; k < 16; k += 2) {
      for (auto& row : made.a) row[k + 1] = random() % 2 == 0 ? row[k + 1] : row[k];
      for (auto& row : made.b)
        row[k + 1] = random() % 2 == 0 ? row[k + 1] : static_cast<uint16_t>(row[k] ^ 0x8000u);
    }
  }
  return made;
}

struct Differences {
  int64_t outputs = 0, mma = 0, wgmma = 0;
  std::string first;
};

void Compare(const gpu::TensorCoreCase& one, const gpu::TensorCoreResult& result, Differences& differences) {
  for (int row = 0; row < 64; ++row) {
    for (int column = 0; column < 8; ++column) {
      const auto want = std::bit_cast<uint32_t>(
          gpu::TensorCoreDot(gpu::kHopperTensorCore, one.a[row], one.b[column], one.c[row][column]));
      const auto mma = std::bit_cast<uint32_t>(result.mma[row][column]);
      const auto wgmma = std::bit_cast<uint32_t>(result.wgmma[row][column]);
      ++differences.outputs;
      differences.mma += mma != want ? 1 : 0;
      differences.wgmma += wgmma != want ? 1 : 0;
      if ((mma != want || wgmma != want) && differences.first.empty()) {
        char text[96];
        snprintf(text, sizeof(text), "; first: wanted %08x, mma %08x, wgmma %08x", want, mma, wgmma);
        differences.first = text;
      }
    }
  }
}

// At least 10^7 outputs, a kind of inputs a row of the table.
absl::Status CheckTensorCores(const std::shared_ptr<gpu::Runtime>& runtime, int cases_a_kind) {
  const int threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  int64_t outputs = 0;
  for (int kind = 0; kind < kKindCount; ++kind) {
    std::vector<gpu::TensorCoreCase> cases;
    Random random(1000 + static_cast<uint64_t>(kind));
    for (int i = 0; i < cases_a_kind; ++i) cases.push_back(RandomCase(random, kind));
    const auto case_bytes = static_cast<int64_t>(cases.size() * sizeof(gpu::TensorCoreCase));
    std::vector<gpu::TensorCoreResult> results(cases.size());
    const auto result_bytes = static_cast<int64_t>(results.size() * sizeof(gpu::TensorCoreResult));
    BW_ASSIGN_OR_RETURN(GpuMemory from, GpuMemory::Allocate(runtime, case_bytes));
    BW_ASSIGN_OR_RETURN(GpuMemory to, GpuMemory::Allocate(runtime, result_bytes));
    runtime->CopyToDevice(from.data(), cases.data(), case_bytes);
    gpu::LaunchList list;
    list.Add(gpu::Kernel::tensor_core_bits,
             {.grid_x = 1024, .threads = 128, .shared_bytes = gpu::kTensorCoreBitsSharedBytes},
             gpu::TensorCoreBitsArgs{reinterpret_cast<const gpu::TensorCoreCase*>(from.data()),
                                     reinterpret_cast<gpu::TensorCoreResult*>(to.data()), cases_a_kind});
    runtime->Run(list);
    runtime->CopyToHost(results.data(), to.data(), result_bytes);
    BW_RETURN_IF_ERROR(runtime->Synchronize());
    std::vector<Differences> parts(threads);
    std::vector<std::thread> team;
    for (int thread = 0; thread < threads; ++thread) {
      team.emplace_back([&, thread] {
        for (int i = thread; i < cases_a_kind; i += threads) Compare(cases[i], results[i], parts[thread]);
      });
    }
    for (std::thread& member : team) member.join();
    Differences all;
    for (const Differences& part : parts) {
      all.outputs += part.outputs, all.mma += part.mma, all.wgmma += part.wgmma;
      if (all.first.empty()) all.first = part.first;
    }
    outputs += all.outputs;
    Row(std::string("tensor core bits, ") + kKinds[kind], all.mma == 0 && all.wgmma == 0,
        absl::StrCat(all.outputs, " outputs, ", all.mma, " differ by mma.sync, ", all.wgmma, " by wgmma",
                     all.first));
  }
  Row("tensor core bits, in all", true, absl::StrCat(outputs, " outputs"));
  return absl::OkStatus();
}

// Answers of a small model: prompts of many lengths together, so that all kinds of kernels run.
absl::StatusOr<std::vector<Answer>> AnswersOn(const Checkpoint& checkpoint, DType kv_type, Quantize quantize,
                                              const std::shared_ptr<Device>& device) {
  BW_ASSIGN_OR_RETURN(Layout layout, EvenLayout(checkpoint.config(), 1, 1));
  BW_ASSIGN_OR_RETURN(
      auto cluster,
      LocalCluster::Start(
          checkpoint, {.layout = std::move(layout),
                       .numeric = {.kernel_level = TestGpuLevel(), .quantize = quantize, .kv_type = kv_type},
                       .kv_blocks = 32,
                       .device_of = [&](size_t) { return device; }}));
  std::vector<EngineRequest> requests;
  for (const int length : {70, 3, 9, 35, 1, 2}) {
    EngineRequest request{.id = RequestId{requests.size() + 1}, .max_tokens = 3};
    for (int i = 0; i < length; ++i) request.prompt.push_back((i * 31 + length) % checkpoint.config().vocab);
    request.sampling.temperature = 0;
    request.sampling.logprobs = 5;
    request.score = length == 35;
    requests.push_back(std::move(request));
  }
  DriverOptions driver{.kv_blocks = 32};
  driver.engine.context_tokens_max = 256;
  return RunRequests(*cluster, driver, std::move(requests));
}

absl::Status CheckAgainstEmulator(const std::shared_ptr<gpu::Runtime>& runtime) {
  struct Subject {
    const char* name;
    const char* checkpoint;
    DType kv_type;
    Quantize quantize;
  };
  constexpr char kGrouped[] =
      "random:llama?hidden=128,layers=2,heads=8,kv_heads=2,head_dim=32,ffn=512,vocab=160:bf16";
  constexpr char kOdd[] =
      "random:llama?hidden=120,layers=2,heads=5,kv_heads=1,head_dim=24,ffn=200,vocab=173:fp32";
  constexpr char kBloom[] = "random:bloom?hidden=100,layers=2,heads=5,ffn=400,vocab=151:bf16";
  for (const Subject& subject : {Subject{"LLaMA, bf16", kGrouped, DType::kBF16, Quantize::kNone},
                                 {"LLaMA, int8", kGrouped, DType::kBF16, Quantize::kInt8},
                                 {"LLaMA, int4", kGrouped, DType::kF16, Quantize::kInt4},
                                 {"LLaMA, odd widths, fp32", kOdd, DType::kF32, Quantize::kNone},
                                 {"LLaMA, odd widths, int4", kOdd, DType::kBF16, Quantize::kInt4},
                                 {"BLOOM, bf16", kBloom, DType::kBF16, Quantize::kNone}}) {
    BW_ASSIGN_OR_RETURN(const auto checkpoint, Checkpoint::Open(subject.checkpoint));
    BW_ASSIGN_OR_RETURN(const auto card, AnswersOn(*checkpoint, subject.kv_type, subject.quantize,
                                                   std::make_shared<GpuDevice>(runtime, 4)));
    BW_ASSIGN_OR_RETURN(
        const auto emulated,
        AnswersOn(*checkpoint, subject.kv_type, subject.quantize,
                  std::make_shared<GpuDevice>(
                      std::shared_ptr<gpu::Runtime>(gpu::MakeEmulatedRuntime({.threads = 8})), 4)));
    int64_t values = 0, different = 0;
    for (size_t i = 0; i < card.size(); ++i) {
      values += static_cast<int64_t>(card[i].logprobs.size());
      different += card[i] == emulated[i] ? 0 : 1;
    }
    Row(std::string("card against emulator, ") + subject.name, different == 0,
        absl::StrCat(card.size(), " answers, ", values, " log-probabilities, ", different,
                     " answers differ"));
  }
  return absl::OkStatus();
}

absl::Status Main(int argc, char** argv) {
  const bool emulated = argc > 1 && std::string(argv[1]) == "emulated";
  std::shared_ptr<gpu::Runtime> runtime;
  if (emulated) {
    runtime = gpu::MakeEmulatedRuntime({.seed = 7, .threads = 2});
  } else {
    BW_ASSIGN_OR_RETURN(runtime, gpu::MakeCudaRuntime(0));
  }
  printf("%s, class %s\n", runtime->info().name.c_str(), runtime->info().numeric_class.c_str());
  BW_RETURN_IF_ERROR(CheckTensorCores(runtime, emulated ? 8 : 2560));
  return CheckAgainstEmulator(runtime);
}

}  // namespace
}  // namespace bellwether

int main(int argc, char** argv) {
  const absl::Status status = bellwether::Main(argc, argv);
  if (!status.ok()) bellwether::LogError(status.ToString());
  return status.ok() && bellwether::failures == 0 ? 0 : 1;
}
