# add_module(NAME DEPS ...): the room NAME/ becomes the library bellwether_NAME, made of every .cc below it.
# Its neighbours by suffix are built and registered too, so none can be forgotten:
#   x_test.cc   a GoogleTest program, run by ctest as NAME/x_test
#   x_bench.cc  a Google Benchmark program; ctest runs it on tiny input so that it cannot rot
#   x_fuzz.cc   a libFuzzer program (preset "fuzz"), run for a minute from the seeds in tests/corpora/NAME/x_fuzz
# `main.cc` is left out: add_program names it. EXCEPT names sources that are added elsewhere, if at all.
function(add_module name)
  cmake_parse_arguments(ARG "" "" "DEPS;EXCEPT" ${ARGN})
  file(GLOB_RECURSE all CONFIGURE_DEPENDS ${name}/*.cc)
  set(sources ${all})
  list(FILTER sources EXCLUDE REGEX "(_test|_bench|_fuzz|/main)\\.cc$")
  foreach(source ${ARG_EXCEPT})
    list(REMOVE_ITEM sources ${CMAKE_SOURCE_DIR}/${source})
  endforeach()
  add_library(bellwether_${name} STATIC ${sources})
  reuse_precompiled(bellwether_${name})
  target_link_libraries(bellwether_${name} PUBLIC ${ARG_DEPS})
  foreach(source ${all})
    if(source MATCHES "_test\\.cc$")
      add_unit_test(${source} bellwether_${name})
    elseif(source MATCHES "_bench\\.cc$")
      add_microbenchmark(${source} bellwether_${name})
    elseif(source MATCHES "_fuzz\\.cc$" AND BELLWETHER_FUZZ)
      add_fuzzer(${source} bellwether_${name})
    endif()
  endforeach()
endfunction()

# kernels/cpu/matmul_test.cc -> target kernels_cpu_matmul_test, ctest name kernels/cpu/matmul_test
function(target_name_of source out_target out_name)
  file(RELATIVE_PATH relative ${CMAKE_SOURCE_DIR} ${source})
  string(REGEX REPLACE "\\.cc$" "" relative ${relative})
  string(REPLACE "/" "_" target ${relative})
  set(${out_target} ${target} PARENT_SCOPE)
  set(${out_name} ${relative} PARENT_SCOPE)
endfunction()

# How long a test may take; under a sanitizer all takes several times as long.
set(test_seconds 300)
if(BELLWETHER_ASAN OR BELLWETHER_TSAN)
  set(test_seconds 1800)
endif()

function(add_unit_test source)
  target_name_of(${source} target name)
  add_executable(${target} ${source})
  target_link_libraries(${target} PRIVATE ${ARGN} GTest::gmock GTest::gtest GTest::gtest_main)
  reuse_precompiled(${target})
  set_target_properties(${target} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  add_test(NAME ${name} COMMAND ${target} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${test_seconds})
endfunction()

function(add_microbenchmark source)
  target_name_of(${source} target name)
  add_executable(${target} ${source})
  target_link_libraries(${target} PRIVATE ${ARGN} benchmark::benchmark benchmark::benchmark_main)
  set_target_properties(${target} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/benchmarks)
  add_test(NAME ${name} COMMAND ${target} --benchmark_min_time=0)
  set_tests_properties(${name} PROPERTIES ENVIRONMENT BELLWETHER_TINY_BENCH=1)
endfunction()

function(add_fuzzer source)
  target_name_of(${source} target name)
  if(NOT TARGET fuzzers)
    add_custom_target(fuzzers)  # all of them, without the tests that clang need not build
  endif()
  add_executable(${target} ${source})
  add_dependencies(fuzzers ${target})
  target_link_libraries(${target} PRIVATE ${ARGN})
  target_link_options(${target} PRIVATE -fsanitize=fuzzer)
  set_target_properties(${target} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/fuzz)
  set(seeds ${CMAKE_SOURCE_DIR}/tests/corpora/${name})
  if(NOT EXISTS ${seeds})
    message(FATAL_ERROR "${name} has no seeds in tests/corpora: see tools/make_fuzz_corpora.py")
  endif()
  # The first directory takes what is found, and is begun from when it runs again.
  set(found ${CMAKE_BINARY_DIR}/fuzz/found/${name})
  file(MAKE_DIRECTORY ${found})
  add_test(NAME ${name} COMMAND ${target} -max_total_time=60 -timeout=10 -rss_limit_mb=4096 ${found} ${seeds})
endfunction()

# For a program that may be taken elsewhere with its libraries beside it (tools/gpu_bundle.sh). RPATH, not RUNPATH: it counts for
# what those libraries need too. By a file of options, as CMake's own property ends in ":", which is the current directory, and
# no shell shall see the dollar. What is installed has none (cmake/package.cmake).
file(WRITE ${CMAKE_BINARY_DIR}/generated/libraries_beside "-Wl,--disable-new-dtags -Wl,-rpath,$ORIGIN/lib\n")
function(find_libraries_beside target)
  target_link_options(${target} PRIVATE @${CMAKE_BINARY_DIR}/generated/libraries_beside)
endfunction()

function(add_program name main library)
  if(NOT EXISTS ${CMAKE_SOURCE_DIR}/${main})  # not written yet
    return()
  endif()
  add_executable(${name} ${main})
  target_link_libraries(${name} PRIVATE ${library} bellwether_build_id CLI11::CLI11)
  find_libraries_beside(${name})
endfunction()
