#!/usr/bin/env bash
# check.sh [PHASE ...]: what is too slow for `make test`. Without a phase, all but those marked "quick":
#
#   format         clang-format agrees with every file
#   release        builds everything and runs all tests, with every layout of emulated GPUs
#   tidy           clang-tidy on all of our code (after release)
#   tidy-recent    quick: on the files of the last 30 commits
#   asan           all tests again under AddressSanitizer and UndefinedBehaviorSanitizer, but for the matrix of all layouts and the demo model
#   tsan           by clang, whose -Wthread-safety checks which mutex guards what: the programs, and all tests that run threads
#                  of ours, under ThreadSanitizer
#   tsan-handover  quick: only those tests in which threads hand something over
#   fuzz           every fuzzer for a minute, from the seeds in tests/corpora and what earlier runs found
#   openai         OpenAI's own client against the HTTP door (a package from PyPI)
#   lm-eval        lm-eval's figures over the HTTP door are those of `bellwether score` (a package from PyPI, with 0.8 GB of others)
#   aiperf         NVIDIA's aiperf counts over the HTTP door what /metrics does (a package from PyPI, with 0.9 GB of others)
#   page           the page at `/` in a real Chromium (Debian's, unpacked into build/)
#   chart          the Helm chart by a real Helm, against the schemas of Kubernetes (packages from PyPI)
#   cluster        the chart without Kubernetes: its pods as processes in namespaces of Linux, with probes, names, Services, policies, drains and
#                  losses, and a fault planted in each template (as root, else skipped; the packages of chart)
#   monitoring     rules and dashboards by Grafana's own reader (PyPI) and a real Prometheus (Debian's, unpacked into build/) that watches a
#                  real cluster
#   bundle         what tools/gpu_bundle.sh makes, in a root that has libc and nothing else (as root, else skipped)
#   images         the real Dockerfiles by Debian's buildah, and what compose.yaml starts of them, played in namespaces (as root; hadolint,
#                  Compose's schema and a reader of SPDX from PyPI)
set -euo pipefail
cd "$(dirname "$0")/.."
tools/setup.sh --check

# Builds the preset and runs its tests; with a pattern, those whose names match it and nothing else.
run() {
  local preset="$1" pattern="${2:-.}"
  local targets=()
  cmake --preset "$preset" >/dev/null
  if [[ $# -gt 1 ]]; then
    mapfile -t targets < <(ctest --preset "$preset" -N -R "$pattern" 2>/dev/null | sed -n 's/^ *Test *#[0-9]*: //p' | tr / _)
    if ((${#targets[@]} == 0)); then echo "check: no test of $preset is called $pattern" >&2 && return 1; fi
    targets=(--target "${targets[@]}")
  fi
  cmake --build --preset "$preset" "${targets[@]}"
  ctest --preset "$preset" -j 2 -R "$pattern"
}

# Names of sources on stdin; those of ours that are there are looked at. Headers count as their sources. What g++ has compiled
# before (cmake/precompiled.cmake) clang cannot read, nor does it know all of its warnings: it sees each file as it is written.
tidy() {
  mkdir -p build/tidy
  sed -E 's/ -Winvalid-pch -include [^ ]+cmake_pch\.hxx//' build/release/compile_commands.json >build/tidy/compile_commands.json
  sed 's/\.h$/.cc/' | sort -u | grep -E '^(common|http|metrics|kernels|model|worker|coordinator|cli)/.*\.cc$' |
    grep -v '_\(test\|bench\|fuzz\)\.cc$' | while read -r file; do if [[ -f "$file" ]]; then echo "$file"; fi; done |
    xargs -r -P 2 -n 8 clang-tidy -p build/tidy --quiet --extra-arg=-Wno-unknown-warning-option 2> >(grep -v 'generated\.$' >&2)
}

# Debian's gRPC is not instrumented, so ThreadSanitizer runs what has little of it; tests/tsan.supp is for the rest.
tsan() {
  cmake --preset tsan >/dev/null
  cmake --build --preset tsan --target bellwether bellwether-coordinator bellwether-worker
  TSAN_OPTIONS="ignore_noninstrumented_modules=1 suppressions=$PWD/tests/tsan.supp" run tsan "^($1)_test$"
}
# Without groups, of which ctest knows nine.
handover='common/bounded_queue|common/mutex|coordinator/token_stream|coordinator/engine_loop|coordinator/text_pool|worker/epoch_runner'
handover+='|worker/thread_pool|worker/link/rendezvous|worker/link/connector|worker/weights/read_ahead|worker/weights/shard_loader|worker/weights/cached_shard'
threaded='common/.*|http/.*|metrics/.*|kernels/.*|worker/device/.*|worker/link/host_group|worker/link/staged_group|worker/link/link'
threaded+='|worker/link/shm_link|worker/link/tree_sum|coordinator/engine|coordinator/scheduler|coordinator/kv_ledger'
threaded+='|coordinator/stop_checker|tests/layouts/.*|tests/simulation/.*'

# A test of tests/deploy, with the programs and what they need from PyPI. Skipped (77) is no failure.
deploy() {
  cmake --preset release >/dev/null
  cmake --build --preset release --target bellwether bellwether-coordinator bellwether-worker
  [[ -x build/chart/bin/python ]] || python3 -m venv build/chart
  build/chart/bin/pip install -q --disable-pip-version-check -r tests/deploy/requirements.txt
  BELLWETHER_BIN="$PWD/build/release/bin" build/chart/bin/python -B -m "tests.deploy.$1" || [[ $? == 77 ]]
}

bundle() {
  cmake --preset release >/dev/null
  cmake --build --preset release --target bellwether bellwether-coordinator bellwether-worker
  BELLWETHER_BIN="$PWD/build/release/bin" /usr/bin/python3 -B -m tests.deploy.bundle_check || [[ $? == 77 ]]
}

monitoring() {
  local usr
  usr="$(tools/fetch_prometheus.sh)"
  "$usr/bin/promtool" check config monitoring/prometheus.yml
  "$usr/bin/promtool" test rules tests/monitoring/rules_test.yml
  [[ -x build/monitoring/bin/python ]] || python3 -m venv build/monitoring
  build/monitoring/bin/pip install -q --disable-pip-version-check -r tests/monitoring/requirements.txt
  build/monitoring/bin/python -B -m tests.monitoring.dashboards_test
  cmake --preset release >/dev/null
  cmake --build --preset release --target bellwether bellwether-coordinator bellwether-worker python_stubs
  BELLWETHER_BIN="$PWD/build/release/bin" PYTHONPATH="$PWD/build/release/generated/python" BELLWETHER_PROMETHEUS="$usr" \
    BELLWETHER_SAVE="$PWD/build/monitoring/answers.json" /usr/bin/python3 -B -m tests.monitoring.live_test
}

images() {
  if ((EUID != 0)); then echo "check: images needs root, for file systems and namespaces of its own: skipped" >&2 && return; fi
  tools/setup.sh --images
  cmake --preset release >/dev/null
  cmake --build --preset release --target bellwether bellwether-coordinator bellwether-worker
  rm -f build/release/bellwether_*.deb
  (cd build/release && cpack >/dev/null)
  [[ -x build/images/venv/bin/python ]] || python3 -m venv build/images/venv
  build/images/venv/bin/pip install -q --disable-pip-version-check -r tests/deploy/images_requirements.txt
  build/images/venv/bin/pyspdxtools --infile build/release/bellwether.spdx.json
  build/images/venv/bin/hadolint deploy/docker/*Dockerfile
  local targets=(coordinator worker)
  if build/release/bin/bellwether devices | grep -q "built without CUDA"; then
    echo "check: there is no nvcc here: worker-cuda is not built" >&2
  else
    targets+=(worker-cuda)
  fi
  tools/build_images.sh "${targets[@]}"
  export BELLWETHER_BIN="$PWD/build/release/bin" BELLWETHER_IMAGES="$PWD/build/images"
  build/images/venv/bin/python -B -m tests.deploy.compose_test
  build/images/venv/bin/python -B -m tests.deploy.images_test
}

openai() {
  cmake --preset release >/dev/null
  cmake --build --preset release --target bellwether-coordinator bellwether-worker
  [[ -x build/openai/bin/python ]] || python3 -m venv build/openai
  build/openai/bin/pip install -q --disable-pip-version-check -r tests/e2e/openai_requirements.txt
  BELLWETHER_BIN="$PWD/build/release/bin" build/openai/bin/python -B -m tests.e2e.openai_client_check
}

lm_eval() {
  cmake --preset release >/dev/null
  cmake --build --preset release --target bellwether bellwether-coordinator bellwether-worker
  [[ -x build/lm_eval/bin/python ]] || python3 -m venv build/lm_eval
  build/lm_eval/bin/pip install -q --no-compile --disable-pip-version-check -r tests/e2e/lm_eval_requirements.txt
  BELLWETHER_BIN="$PWD/build/release/bin" build/lm_eval/bin/python -B -m tests.e2e.lm_eval_check
}

aiperf() {
  cmake --preset release >/dev/null
  cmake --build --preset release --target bellwether-coordinator bellwether-worker
  [[ -x build/aiperf/bin/python ]] || python3 -m venv build/aiperf
  build/aiperf/bin/pip install -q --no-compile --disable-pip-version-check -r tests/e2e/aiperf_requirements.txt
  BELLWETHER_BIN="$PWD/build/release/bin" build/aiperf/bin/python -B -m tests.e2e.aiperf_check
}

page() {
  local browser
  browser="$(tools/fetch_chromium.sh)"
  cmake --preset release >/dev/null
  cmake --build --preset release --target bellwether-coordinator bellwether-worker
  BELLWETHER_BIN="$PWD/build/release/bin" BELLWETHER_BROWSER="$browser" BELLWETHER_SAVE="$PWD/build/chromium/page.png" \
    /usr/bin/python3 -B -m tests.e2e.chat_page_check
}

phase() {
  echo "== $1"
  case "$1" in
    format) git ls-files '*.cc' '*.h' | xargs clang-format --dry-run -Werror ;;
    release) BELLWETHER_ALL_LAYOUTS=1 run release ;;
    tidy) git ls-files | tidy ;;
    tidy-recent) git log -30 --format= --name-only | tidy ;;
    # Some layouts touch all the memory, and have all the threads, that a matrix of all layouts has; that and a real model would take
    # the longest of all.
    asan) LSAN_OPTIONS="suppressions=$PWD/tests/lsan.supp:print_suppressions=0" GTEST_FILTER=-*FullMatrix*:DemoModel.* run asan ;;
    tsan) GTEST_FILTER=-*FullMatrix* tsan "$handover|$threaded" ;;
    tsan-handover) tsan "$handover" ;;
    fuzz) run fuzz '_fuzz$' ;;
    openai) openai ;;
    lm-eval) lm_eval ;;
    aiperf) aiperf ;;
    page) page ;;
    chart) deploy chart_test ;;
    cluster)
      deploy cluster_test
      deploy cluster_faults_test
      ;;
    monitoring) monitoring ;;
    bundle) bundle ;;
    images) images ;;
    *) echo "check: there is no phase $1" >&2 && exit 2 ;;
  esac
}

if (($# == 0)); then set -- format release tidy asan tsan fuzz openai lm-eval aiperf page chart cluster monitoring bundle images; fi
for name in "$@"; do phase "$name"; done
echo "check: all passed"
