#!/usr/bin/env bash
# On a machine with a GPU: checks what no emulator can, a row a check as it comes, at most 4 minutes where all is well. A check that hangs
# ends, and fails, after two or three. Ctrl-C ends the one that runs, and the table has what is done.
#   tools/gpu_check.sh BIN TESTS [--only WORD]     BIN: gpu_check and the three programs; TESTS: of kernels, gpu_equality and golden_models
# NCCL is what BELLWETHER_NCCL_LIBRARY names, or the system's, or PyTorch's.
# make gpu-check builds them and runs this. On a machine that cannot build: tools/gpu_bundle.sh.
set -uo pipefail
cd "$(dirname "$0")/.."
source tools/stoppable.sh
export bin=$1 tests=$2
only=""
[[ "${3:-}" == "--only" ]] && only=$4
rows=()
name=""  # of the check that runs
failed=0

check() { # NAME COMMAND...
  local code=0 word=ok
  [[ -z "$only" || "$1" == *"$only"* ]] || return 0
  name=$1 began=$SECONDS
  stoppable "${@:2}" || code=$?
  if ((code == 77)); then word=skipped; elif ((code != 0)); then word=FAILED; failed=1; fi
  row "$word"
}
row() { # WORD
  rows+=("$(printf '%-44s %-8s %4d s' "$name" "$1" $((SECONDS - began)))")
  name=""
  echo "== ${rows[-1]}"
}
report() {
  [[ -z "$name" ]] || row stopped
  printf '\n'
  printf '%s\n' "${rows[@]}"
}
limited() { timeout --kill-after=10 "$@"; } # SECONDS COMMAND...
of_gtest() { BELLWETHER_TEST_CUDA=1 limited 120 "$@" --gtest_brief=1 2>&1 | any_test | tail -20; return $(( PIPESTATUS[0] | PIPESTATUS[1] )); }
# What a test says, and a failure where a filter has left none of them.
any_test() { awk '{ print } / 0 tests from 0 test suites ran/ { none = 1 } END { exit none }'; }
with_nccl() {
  has_nccl || { echo "no libnccl.so.2 here"; return 77; }
  limited 180 tests/gpu/processes.sh "$bin" cuda:0 nccl
}
# All of ldconfig's list is read: grep -q would end it by a signal, which pipefail takes for "not there".
has_nccl() { [[ -n "${BELLWETHER_NCCL_LIBRARY:-}" ]] || ldconfig -p | grep libnccl.so.2 >/dev/null; }
sanitize() { # TOOL FILTER
  command -v compute-sanitizer >/dev/null || { echo "no compute-sanitizer here"; return 77; }
  BELLWETHER_TEST_CUDA=1 limited 60 compute-sanitizer --tool "$1" --error-exitcode 3 "$tests/tests_layouts_gpu_equality_test" --gtest_filter="$2" 2>&1 |
    any_test | grep -E "ERROR SUMMARY|RACECHECK SUMMARY|=========|OK|FAILED|tests ran" | tail -8
  return $(( PIPESTATUS[0] | PIPESTATUS[1] ))
}
export -f limited of_gtest any_test with_nccl has_nccl sanitize

if ! has_nccl && found=$(python3 -c 'import nvidia.nccl; print(nvidia.nccl.__path__[0])' 2>/dev/null); then
  export BELLWETHER_NCCL_LIBRARY=$found/lib/libnccl.so.2
fi
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null
check "bits: tensor cores, whole steps, NCCL alone" limited 120 "$bin/gpu_check"
for test in tensor_core products attention rows; do
  check "bits: kernels of ${test}_test" of_gtest "$tests/kernels_gpu_${test}_test"
done
check "layouts are equal on the card" of_gtest "$tests/tests_layouts_gpu_equality_test"
check "goldens of Hugging Face" of_gtest "$tests/tests_layouts_golden_models_test" --gtest_filter='*OfGpus*'
check "processes: layouts, a killed worker" limited 180 tests/gpu/processes.sh "$bin"
check "processes: NCCL" with_nccl
check "memcheck" sanitize memcheck '*/GpuEquality.*mqa_bf16:*/GpuEquality.*gqa_int4'
check "racecheck" sanitize racecheck '*/GpuEquality.*mqa_bf16'
((${#rows[@]})) || { echo "gpu_check.sh: no check is called so: $only" >&2; exit 2; }
report
exit $failed
