#!/usr/bin/env bash
# How fast the machine's first GPU runs whole steps, as shares of its own rates: tools/bench_gpu.sh BIN [--only WORD] [--profile]
# WORD: part of a model's and its weights' name, such as "7B bf16" or "7B bf16 streamed", or load. A row as it comes, and a table at the
# end, or at Ctrl-C. The matmul rate and transformers' own figures are measured where PyTorch with CUDA is found.
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/stoppable.sh
bin=$1
shift
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
if [[ -z "${MATMUL_TFLOPS:-}" ]]; then
  stoppable python3 - >"$scratch/matmul" 2>/dev/null <<'PYTHON' || true
import statistics
import torch
a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
times = []
for _ in range(23):
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    a @ b
    end.record()
    torch.cuda.synchronize()
    times.append(begin.elapsed_time(end) / 1e3)
print(round(2 * 8192**3 / statistics.median(times[3:]) / 1e12))
PYTHON
  MATMUL_TFLOPS=$(<"$scratch/matmul")
fi
flags=(--matmul-tflops "${MATMUL_TFLOPS:-0}")
# Its rows are of bf16: a minute or two that --only something else saves.
if [[ "$*" == *--only* && "$*" != *bf16* ]]; then
  echo "transformers: skipped, not asked for" >"$scratch/transformers"
else
  stoppable python3 tools/bench_transformers.py >"$scratch/transformers" 2>/dev/null || echo "transformers: failed" >>"$scratch/transformers"
fi
flags+=(--transformers "$scratch/transformers")
# Loading: one file of 2.2 GB, random weights of the 1.1B shape.
if (($(df --output=avail -B1 "$scratch" | tail -1) > 3000000000)); then
  flags+=(--load "$scratch/model")
else
  echo "load: skipped, there are not 3 GB free in $(dirname "$scratch")" >&2
fi
stoppable "$bin/gpu_bench" "${flags[@]}" "$@"
