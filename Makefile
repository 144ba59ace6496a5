# A thin front door: the work is in CMakePresets.json and tools/.
#
#   make demo    from nothing to a chat with a real model: packages, the three programs, model, cluster, answer
#   make test    builds everything and runs the tests (packages and the demo model too, where missing)
#   make chat    talk to the demo model
#   make monitor the demo cluster with Prometheus, and Grafana where it is installed: says which pages to open
#   make check   everything that is slow: tools/check.sh lists it; some of it needs PyPI
#   make gpu-check  on a machine with a GPU: what no emulator can show (also tools/gpu_check.sh)
#   make gpu-bundle  the programs with their libraries in one folder and archive, for another Linux (docs/gpus.md)
#   make bench-gpu  there: how fast, as shares of what the card can do
#   make bench   how fast, as shares of what this machine can do
#   make package  a Debian package of the programs, with units of systemd (docs/deploy.md)
#   make setup   only the packages

PRESET ?= release
BIN := build/$(PRESET)/bin

.PHONY: all setup configure programs build demo chat monitor package test check bench gpu-check bench-gpu gpu-bundle format clean
all: build

setup:
	@tools/setup.sh

configure: setup
	@echo "make: configuring build/$(PRESET)" >&2
	@mkdir -p build && cmake --preset $(PRESET) >build/$(PRESET).log 2>&1 || { cat build/$(PRESET).log >&2; exit 1; }

# What serves a model, without tests and benchmarks.
programs: configure
	@echo "make: building the three programs (some minutes on two cores; [done/all] shows how far it is)" >&2
	@cmake --build --preset $(PRESET) --target bellwether bellwether-coordinator bellwether-worker

build: configure
	@echo "make: building programs, tests and benchmarks" >&2
	@cmake --build --preset $(PRESET)

demo: programs
	@tools/demo.sh $(BIN)

chat: programs
	@tools/demo.sh $(BIN) --chat

monitor: programs
	@tools/monitor.sh $(BIN)

package: programs
	rm -f build/$(PRESET)/bellwether_*.deb
	cd build/$(PRESET) && cpack

test: build
	@tools/fetch_demo_model.sh >/dev/null || echo "test: the demo model cannot be fetched, its tests are skipped" >&2
	@$(BIN)/bellwether --version
	ctest --preset $(PRESET) -j 2

check:
	tools/check.sh

bench: programs
	$(BIN)/bellwether bench

gpu-check: configure
	@cmake --build --preset $(PRESET) --target gpu_check bellwether bellwether-coordinator bellwether-worker \
	  tests_layouts_gpu_equality_test tests_layouts_golden_models_test kernels_gpu_tensor_core_test \
	  kernels_gpu_products_test kernels_gpu_attention_test kernels_gpu_rows_test
	tools/gpu_check.sh $(BIN) build/$(PRESET)/tests

bench-gpu: configure
	@cmake --build --preset $(PRESET) --target gpu_bench
	tools/bench_gpu.sh $(BIN)

# What may be taken to another x86-64 Linux: the programs and their libraries.
gpu-bundle: programs
	tools/gpu_bundle.sh build/$(PRESET)/bellwether-gpu $(BIN)/bellwether $(BIN)/bellwether-coordinator $(BIN)/bellwether-worker
	tar -C build/$(PRESET) -caf build/$(PRESET)/bellwether-gpu.tar.xz bellwether-gpu

format:
	git ls-files '*.cc' '*.h' | xargs clang-format -i

clean:
	rm -rf build
