#!/usr/bin/env bash
# How fast the machine's first GPU runs whole steps, as shares of its own rates: tools/bench_gpu.sh BIN [ONLY [--profile]]
# ONLY: part of a row's name, such as "7B bf16". The matmul rate is measured by PyTorch where that is found.
set -euo pipefail
bin=$1
shift
if [[ -z "${MATMUL_TFLOPS:-}" ]]; then
  MATMUL_TFLOPS=$(python3 - 2>/dev/null <<'PYTHON' || true
import time
import torch
a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
for _ in range(3): a @ b
torch.cuda.synchronize()
began = time.time()
for _ in range(20): a @ b
torch.cuda.synchronize()
print(round(2 * 8192**3 * 20 / (time.time() - began) / 1e12))
PYTHON
)
fi
MATMUL_TFLOPS=${MATMUL_TFLOPS:-0} "$bin/gpu_bench" "$@"
