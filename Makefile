# A thin front door: the work is in CMakePresets.json and tools/.
#
#   make demo    from nothing to a chat with a real model: packages, build, model, cluster, answer
#   make test    builds and runs the tests (packages and the demo model too, where missing)
#   make chat    talk to the demo model
#   make check   everything that is slow: format, tidy, sanitizers, fuzz smoke
#   make bench   how fast, as shares of what this machine can do
#   make setup   only the packages

PRESET ?= release
BIN := build/$(PRESET)/bin

.PHONY: all setup build demo chat test check bench format clean
all: build

setup:
	tools/setup.sh

build: setup
	cmake --preset $(PRESET)
	cmake --build --preset $(PRESET)

demo: build
	tools/demo.sh $(BIN)

chat: build
	tools/demo.sh $(BIN) --chat

test: build
	@tools/fetch_demo_model.sh >/dev/null || echo "test: the demo model cannot be fetched, its tests are skipped" >&2
	ctest --preset $(PRESET) -j 2

check: setup
	tools/check.sh

bench: build
	$(BIN)/bellwether bench

format:
	git ls-files '*.cc' '*.h' | xargs clang-format -i

clean:
	rm -rf build
