#!/usr/bin/env bash
# Everything that is too slow for `make test`: format, clang-tidy, all tests again under the sanitizers, fuzz smoke.
set -euo pipefail
cd "$(dirname "$0")/.."
tools/setup.sh --check

echo "== format"
git ls-files '*.cc' '*.h' | xargs clang-format --dry-run -Werror

run() {  # preset, ctest arguments
  local preset="$1"
  shift
  echo "== $preset"
  cmake --preset "$preset" >/dev/null
  cmake --build --preset "$preset"
  ctest --preset "$preset" -j 2 "$@"
}
run release
echo "== clang-tidy"
git ls-files 'common/*.cc' 'kernels/*.cc' 'model/*.cc' 'worker/*.cc' 'coordinator/*.cc' 'cli/*.cc' |
  grep -v '_\(test\|bench\|fuzz\)\.cc$' | xargs -P 2 -n 8 clang-tidy -p build/release --quiet

# Debian's gRPC is not instrumented, so TSan runs what has no gRPC in it; tests/tsan.supp is for the rest.
run asan
TSAN_OPTIONS="ignore_noninstrumented_modules=1 suppressions=$PWD/tests/tsan.supp" \
  run tsan -R '^(common|kernels|worker/link|worker/thread_pool|coordinator/(engine|scheduler|kv_ledger|stop_checker)|tests/(layouts|simulation))'
run fuzz -R '_fuzz$'
echo "check: all passed"
