// What a card computes against what is written: its tensor cores against tensor_core.h, and whole steps of
// small models against the emulator, to the bit; and whether NCCL is as it is declared. tools/gpu_check.sh
// runs it. `gpu_check emulated` shows the program itself without a card, `gpu_check planted` what it says of
// one that is not as it should be.

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/types/span.h"
#include "common/dtype.h"
#include "common/log.h"
#include "common/status.h"
#include "kernels/gpu/testing/forwarding_runtime.h"
#include "kernels/gpu/testing/tensor_core_cases.h"
#include "kernels/gpu/testing/test_runtime.h"
#include "tests/gpu/nccl_alone.h"
#include "tests/layouts/engine_driver.h"
#include "worker/device/gpu_device.h"
#include "worker/device/gpu_weights.h"

namespace bellwether {
namespace {

using gpu::TensorCoreCase;
using gpu::TensorCoreClass;
using gpu::TensorCoreResult;

int failures = 0;
void Row(const std::string& what, bool ok, const std::string& detail) {
  printf("%-44s %-6s %s\n", what.c_str(), ok ? "ok" : "FAILED", detail.c_str());
  fflush(stdout);
  failures += ok ? 0 : 1;
}

// One instruction of one card.
class TensorCores {
 public:
  TensorCores(std::shared_ptr<gpu::Runtime> runtime, gpu::Kernel kernel, const TensorCoreClass& numerics)
      : runtime_(std::move(runtime)), kernel_(kernel), numerics_(numerics) {}

  const char* name() const { return kernel_ == gpu::Kernel::tensor_core_mma ? "mma.sync" : "wgmma"; }

  absl::StatusOr<std::vector<TensorCoreResult>> Outputs(const std::vector<TensorCoreCase>& cases) const {
    std::vector<TensorCoreResult> results(cases.size());
    const auto case_bytes = static_cast<int64_t>(cases.size() * sizeof(TensorCoreCase));
    const auto result_bytes = static_cast<int64_t>(results.size() * sizeof(TensorCoreResult));
    BW_ASSIGN_OR_RETURN(GpuMemory from, GpuMemory::Allocate(runtime_, case_bytes));
    BW_ASSIGN_OR_RETURN(GpuMemory to, GpuMemory::Allocate(runtime_, result_bytes));
    runtime_->CopyToDevice(from.data(), cases.data(), case_bytes);
    gpu::LaunchList list;
    list.Add(kernel_,
             {.grid_x = static_cast<int32_t>(std::min<size_t>(1024, cases.size())),
              .threads = 128,
              .shared_bytes = gpu::kTensorCoreBitsSharedBytes},
             gpu::TensorCoreBitsArgs{reinterpret_cast<const TensorCoreCase*>(from.data()),
                                     reinterpret_cast<TensorCoreResult*>(to.data()),
                                     static_cast<int32_t>(cases.size())});
    runtime_->Run(list);
    runtime_->CopyToHost(results.data(), to.data(), result_bytes);
    BW_RETURN_IF_ERROR(runtime_->Synchronize());
    return results;
  }

  // Of one output: 16 products and an accumulator.
  struct Dot {
    uint16_t a[16], b[16];
    float c;
  };
  // `dot`, which differs, with every product and the accumulator taken away that it differs without.
  absl::StatusOr<Dot> Smallest(Dot dot) const {
    for (bool smaller = true; smaller;) {
      // Row i lacks product i, row 16 the accumulator.
      std::vector<TensorCoreCase> cases(1);
      std::vector<Dot> dots(17, dot);
      for (int row = 0; row < 17; ++row) {
        row < 16 ? void(dots[row].a[row] = dots[row].b[row] = 0) : void(dots[row].c = 0);
        std::copy_n(dots[row].a, 16, cases[0].a[row]);
        cases[0].c[row][0] = dots[row].c;
      }
      std::copy_n(dot.b, 16, cases[0].b[0]);
      BW_ASSIGN_OR_RETURN(const auto results, Outputs(cases));
      smaller = false;
      for (int row = 0; row < 17 && !smaller; ++row) {
        if (std::memcmp(&dots[row], &dot, sizeof(dot)) == 0) continue;
        smaller = Differs(dots[row], results[0].values[row][0]);
        if (smaller) dot = dots[row];
      }
    }
    return dot;
  }
  // The inputs of it, what the card made of them, and what the function does.
  absl::StatusOr<std::string> Describe(const Dot& dot) const {
    std::vector<TensorCoreCase> cases(1);
    std::copy_n(dot.a, 16, cases[0].a[0]);
    std::copy_n(dot.b, 16, cases[0].b[0]);
    cases[0].c[0][0] = dot.c;
    BW_ASSIGN_OR_RETURN(const auto results, Outputs(cases));
    std::string text = absl::StrFormat("  the smallest that differs by %s: c %08x", name(), Bits(dot.c));
    for (int k = 0; k < 16; ++k) {
      if (dot.a[k] != 0 || dot.b[k] != 0)
        absl::StrAppendFormat(&text, ", a[%d] %04x b[%d] %04x", k, dot.a[k], k, dot.b[k]);
    }
    absl::StrAppendFormat(&text, ": gave %08x, wanted %08x", Bits(results[0].values[0][0]),
                          Bits(gpu::TensorCoreDot(numerics_, dot.a, dot.b, dot.c)));
    return text;
  }

  struct Differences {
    int64_t outputs = 0, different = 0;
    std::optional<Dot> first;
  };
  void Compare(const TensorCoreCase& one, const TensorCoreResult& result, Differences& differences) const {
    for (int row = 0; row < 64; ++row) {
      for (int column = 0; column < 8; ++column) {
        Dot dot;
        std::copy_n(one.a[row], 16, dot.a);
        std::copy_n(one.b[column], 16, dot.b);
        dot.c = one.c[row][column];
        ++differences.outputs;
        if (!Differs(dot, result.values[row][column])) continue;
        ++differences.different;
        if (!differences.first) differences.first = dot;
      }
    }
  }

  // The constants by which the function gives what the card did for a few cases of every kind; absent if none
  // do, and the card computes in another way.
  absl::StatusOr<std::optional<TensorCoreClass>> Fit() const {
    std::vector<TensorCoreCase> cases;
    for (int kind = 0; kind < gpu::kTensorCoreKindCount; ++kind) {
      for (const TensorCoreCase& one : gpu::TensorCoreCases(kind, 2)) cases.push_back(one);
    }
    // And sixteen products of 2^-153, each a 2^-column more or less: their sum is the least fp32, unless
    // zeros hold the largest exponent up so far that what is more is cut away.
    TensorCoreCase tiny{};
    for (auto& row : tiny.a) std::fill_n(row, 16, BF16FromF32(0x1p-80f));
    for (int column = 0; column < 8; ++column) {
      for (int k = 0; k < 16; ++k)
        tiny.b[column][k] = BF16FromF32(0x1p-73f * (1 + std::ldexp(k % 2 == 0 ? 1.0f : -1.0f, -column)));
    }
    cases.push_back(tiny);
    BW_ASSIGN_OR_RETURN(const auto results, Outputs(cases));
    const auto fits = [&](const TensorCoreClass& numerics) {
      for (size_t i = 0; i < cases.size(); ++i) {
        for (int row = 0; row < 64; ++row) {
          for (int column = 0; column < 8; ++column) {
            const float expected =
                gpu::TensorCoreDot(numerics, cases[i].a[row], cases[i].b[column], cases[i].c[row][column]);
            if (Bits(expected) != Bits(results[i].values[row][column])) return false;
          }
        }
      }
      return true;
    };
    for (const int step : {16, 8, 4}) {
      for (int bits = 20; bits <= 28; ++bits) {
        for (int zero = -140; zero <= -126; ++zero) {
          if (const TensorCoreClass numerics{bits, zero, step}; fits(numerics)) return numerics;
        }
      }
    }
    return std::nullopt;
  }

 private:
  static uint32_t Bits(float value) { return std::bit_cast<uint32_t>(value); }
  bool Differs(const Dot& dot, float seen) const {
    return Bits(seen) != Bits(gpu::TensorCoreDot(numerics_, dot.a, dot.b, dot.c));
  }

  const std::shared_ptr<gpu::Runtime> runtime_;
  const gpu::Kernel kernel_;
  const TensorCoreClass& numerics_;
};

// Whether the outputs of a kind are those of the golden, as far as `results` go.
bool AsGolden(absl::Span<const std::string> golden, absl::Span<const TensorCoreResult> results) {
  for (size_t part = 0; (part + 1) * gpu::kTensorCorePartCases <= results.size(); ++part) {
    gpu::OutputsHash hash;
    for (const TensorCoreResult& result :
         results.subspan(part * gpu::kTensorCorePartCases, gpu::kTensorCorePartCases))
      hash.Add(result);
    if (part >= golden.size() || hash.text() != golden[part]) return false;
  }
  return true;
}

// At least 10^7 outputs of each instruction, a kind of inputs a row of the table.
absl::Status CheckTensorCores(const std::shared_ptr<gpu::Runtime>& runtime, const TensorCoreClass& numerics,
                              int cases_a_kind) {
  std::vector<TensorCores> instructions = {{runtime, gpu::Kernel::tensor_core_mma, numerics}};
  if (runtime->info().hopper) instructions.emplace_back(runtime, gpu::Kernel::tensor_core_wgmma, numerics);
  // Only cards of its class have its bits.
  std::vector<std::string> golden;
  if (runtime->info().numeric_class == "cuda_sm90")
    golden = gpu::GoldenOutputs("tests/goldens/gpu/h200_outputs.txt");
  for (const TensorCores& instruction : instructions) {
    int64_t outputs = 0, different = 0;
    for (int kind = 0; kind < gpu::kTensorCoreKindCount; ++kind) {
      const std::vector<TensorCoreCase> cases = gpu::TensorCoreCases(kind, cases_a_kind);
      BW_ASSIGN_OR_RETURN(const auto results, instruction.Outputs(cases));
      TensorCores::Differences all;
      for (size_t i = 0; i < cases.size(); ++i) instruction.Compare(cases[i], results[i], all);
      outputs += all.outputs;
      different += all.different;
      std::string detail = absl::StrCat(all.outputs, " outputs, ", all.different, " differ");
      bool ok = all.different == 0;
      if (!golden.empty()) {
        const bool as_golden = AsGolden(
            absl::MakeSpan(golden).subspan(kind * gpu::kTensorCoreParts, gpu::kTensorCoreParts), results);
        if (!as_golden) absl::StrAppend(&detail, ", not those of the golden");
        ok = ok && as_golden;
      }
      Row(absl::StrCat(instruction.name(), ", ", gpu::kTensorCoreKinds[kind]), ok, detail);
      if (!all.first) continue;
      BW_ASSIGN_OR_RETURN(const TensorCores::Dot smallest, instruction.Smallest(*all.first));
      BW_ASSIGN_OR_RETURN(const std::string text, instruction.Describe(smallest));
      printf("%s\n", text.c_str());
    }
    Row(absl::StrCat(instruction.name(), ", in all"), different == 0,
        absl::StrCat(outputs, " outputs, ", different, " differ"));
    if (different == 0) continue;
    BW_ASSIGN_OR_RETURN(const std::optional<TensorCoreClass> fit, instruction.Fit());
    printf("  %s\n", fit ? absl::StrCat("TensorCoreClass{", fit->fraction_bits, ", ", fit->zero_exponent,
                                        ", ", fit->step, "} would be right for ", instruction.name())
                               .c_str()
                         : "no constants of TensorCoreClass would be right");
  }
  if (instructions.size() == 1) Row("wgmma", true, "this card has none");
  return absl::OkStatus();
}

// Tells whether steps came to be graphs.
class GraphCounter : public gpu::ForwardingRuntime {
 public:
  using gpu::ForwardingRuntime::ForwardingRuntime;
  using gpu::ForwardingRuntime::Run;
  void Run(gpu::Graph& graph) override {
    ++graph_runs;
    gpu::ForwardingRuntime::Run(graph);
  }
  int64_t graph_runs = 0;
};

// Answers of a small model: prompts of many lengths together, so that all kinds of kernels run.
absl::StatusOr<std::vector<Answer>> AnswersOn(const Checkpoint& checkpoint, const std::string& kernel_level,
                                              DType kv_type, Quantize quantize,
                                              const std::shared_ptr<Device>& device) {
  BW_ASSIGN_OR_RETURN(Layout layout, EvenLayout(checkpoint.config(), 1, 1));
  BW_ASSIGN_OR_RETURN(
      auto cluster,
      LocalCluster::Start(
          checkpoint, {.layout = std::move(layout),
                       .numeric = {.kernel_level = kernel_level, .quantize = quantize, .kv_type = kv_type},
                       .kv_blocks = 32,
                       .device_of = [&](size_t) { return device; }}));
  std::vector<EngineRequest> requests;
  for (const int length : {70, 3, 9, 35, 1, 2}) {
    EngineRequest request{.id = RequestId{requests.size() + 1}, .max_tokens = 6};
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

absl::Status CheckAgainstEmulator(const std::shared_ptr<gpu::Runtime>& runtime, size_t models) {
  const std::string& level = runtime->info().numeric_class;
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
  const std::vector<Subject> subjects = {Subject{"LLaMA, bf16", kGrouped, DType::kBF16, Quantize::kNone},
                                         {"LLaMA, int8", kGrouped, DType::kBF16, Quantize::kInt8},
                                         {"LLaMA, int4", kGrouped, DType::kF16, Quantize::kInt4},
                                         {"LLaMA, odd widths, fp32", kOdd, DType::kF32, Quantize::kNone},
                                         {"LLaMA, odd widths, int4", kOdd, DType::kBF16, Quantize::kInt4},
                                         {"BLOOM, bf16", kBloom, DType::kBF16, Quantize::kNone}};
  for (const Subject& subject : absl::MakeSpan(subjects).first(models)) {
    BW_ASSIGN_OR_RETURN(const auto checkpoint, Checkpoint::Open(subject.checkpoint));
    const auto counter = std::make_shared<GraphCounter>(runtime);
    BW_ASSIGN_OR_RETURN(const auto card, AnswersOn(*checkpoint, level, subject.kv_type, subject.quantize,
                                                   std::make_shared<GpuDevice>(counter, 4)));
    BW_ASSIGN_OR_RETURN(const auto emulated,
                        AnswersOn(*checkpoint, level, subject.kv_type, subject.quantize,
                                  std::make_shared<GpuDevice>(
                                      std::shared_ptr<gpu::Runtime>(gpu::MakeEmulatedRuntime(
                                          {.threads = 8, .card = gpu::EmulatedLike(runtime->info())})),
                                      4)));
    int64_t values = 0, different = 0;
    for (size_t i = 0; i < card.size(); ++i) {
      values += static_cast<int64_t>(card[i].logprobs.size());
      different += card[i] == emulated[i] ? 0 : 1;
    }
    Row(std::string("card against emulator, ") + subject.name, different == 0 && counter->graph_runs > 0,
        absl::StrCat(card.size(), " answers, ", values, " log-probabilities, ", different,
                     " answers differ, ", counter->graph_runs, " graphs run"));
  }
  return absl::OkStatus();
}

void CheckNccl(const std::shared_ptr<gpu::Runtime>& runtime) {
  const char* const named = std::getenv("BELLWETHER_NCCL_LIBRARY");
  if (named == nullptr && runtime->stream() == nullptr) return;  // NCCL knows nothing of the emulator
  const std::string what = "NCCL with one rank";
  const auto library = NcclLibrary::Load(named == nullptr ? NcclLibrary::kDefaultName : named);
  if (!library.ok()) return Row(what, named == nullptr, std::string(library.status().message()));
  const absl::StatusOr<NcclAlone> alone = NcclAloneTrial(runtime, *library).Run();
  if (!alone.ok()) return Row(what, false, alone.status().ToString());
  Row(what, alone->equal,
      absl::StrFormat("version %s, a group of copies takes the host %.1f us (%.1f where it may block)",
                      NcclVersionText((*library)->version()), alone->group_seconds * 1e6,
                      alone->blocking_group_seconds * 1e6));
}

absl::Status Main(const std::string& mode) {
  std::shared_ptr<gpu::Runtime> runtime;
  if (mode.empty()) {
    BW_ASSIGN_OR_RETURN(runtime, gpu::MakeCudaRuntime(0));
  } else {
    runtime = gpu::MakeEmulatedRuntime({.seed = 7, .threads = 2});
  }
  const gpu::DeviceInfo& info = runtime->info();
  printf("%s, class %s\n", info.name.c_str(), info.numeric_class.c_str());
  // An Ampere's answers are not those of the card that is emulated.
  if (mode == "planted") return CheckTensorCores(runtime, gpu::kAmpereTensorCore, 1);
  BW_RETURN_IF_ERROR(
      CheckTensorCores(runtime, gpu::TensorCoreOf(info.numeric_class), mode.empty() ? 2560 : 2));
  BW_RETURN_IF_ERROR(CheckAgainstEmulator(runtime, mode.empty() ? 6 : 1));
  CheckNccl(runtime);
  return absl::OkStatus();
}

}  // namespace
}  // namespace bellwether

int main(int argc, char** argv) {
  const absl::Status status = bellwether::Main(argc > 1 ? argv[1] : "");
  if (!status.ok()) bellwether::LogError(status.ToString());
  return status.ok() && bellwether::failures == 0 ? 0 : 1;
}
