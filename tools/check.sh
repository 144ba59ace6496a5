#!/usr/bin/env bash
# Everything that is too slow for `make test`: format, clang-tidy, all tests again under the sanitizers, fuzz smoke.
set -euo pipefail
cd "$(dirname "$0")/.."
tools/setup.sh --check

echo "== format"
git ls-files '*.cc' '*.h' | xargs clang-format --dry-run -Werror

# Builds the preset and runs its tests; with a pattern, those whose names match it and nothing else.
run() {
  local preset="$1" pattern="${2:-.}"
  local targets=()
  echo "== $preset"
  cmake --preset "$preset" >/dev/null
  if [[ $# -gt 1 ]]; then
    mapfile -t targets < <(ctest --preset "$preset" -N -R "$pattern" 2>/dev/null | sed -n 's/^ *Test *#[0-9]*: //p' | tr / _)
    targets=(--target "${targets[@]}")
  fi
  cmake --build --preset "$preset" "${targets[@]}"
  ctest --preset "$preset" -j 2 -R "$pattern"
}
run release
echo "== clang-tidy"
git ls-files 'common/*.cc' 'kernels/*.cc' 'model/*.cc' 'worker/*.cc' 'coordinator/*.cc' 'cli/*.cc' |
  grep -v '_\(test\|bench\|fuzz\)\.cc$' | xargs -P 2 -n 8 clang-tidy -p build/release --quiet 2> >(grep -v 'generated\.$' >&2)

# Clang checks which mutex guards what (-Wthread-safety, an error): the programs, without their tests.
echo "== clang"
cmake --preset clang >/dev/null
cmake --build --preset clang

run asan
# Debian's gRPC is not instrumented, so ThreadSanitizer runs what has none of it; tests/tsan.supp is for the rest.
export TSAN_OPTIONS="ignore_noninstrumented_modules=1 suppressions=$PWD/tests/tsan.supp"
threaded='common/.*|kernels/.*|worker/(device/.*|link/(host_group|staged_group|link|shm_link|tree_sum)|thread_pool)'
threaded+='|coordinator/(engine|scheduler|kv_ledger|stop_checker)|tests/(layouts|simulation)/.*'
# One layout has all the threads that a matrix of them has; this would take the longest of all.
GTEST_FILTER=-*FullMatrix* run tsan "^($threaded)_test$"
run fuzz '_fuzz$'
echo "check: all passed"
