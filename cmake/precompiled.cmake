# Headers of others that most of our files read, compiled once: they were a third of the time of a build. Twice, since
# libraries are compiled with -fPIC and tests with -fPIE.
# No file may count on it: the preset "debug", and clang-tidy, read each file as it is written.

option(BELLWETHER_PRECOMPILED "Compile common headers of others once" ON)
if(NOT BELLWETHER_PRECOMPILED)
  function(reuse_precompiled)
  endfunction()
  return()
endif()

set(headers
  <algorithm> <array> <atomic> <cmath> <cstdint> <cstring> <deque> <filesystem> <fstream> <functional> <map> <memory>
  <optional> <set> <string> <string_view> <thread> <utility> <variant> <vector>
  <absl/container/flat_hash_map.h> <absl/container/flat_hash_set.h> <absl/status/status.h> <absl/status/statusor.h>
  <absl/strings/numbers.h> <absl/strings/str_cat.h> <absl/strings/str_format.h> <absl/strings/str_join.h>
  <absl/strings/str_split.h> <absl/synchronization/mutex.h> <absl/time/time.h> <absl/types/span.h>)
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
  # g++ forgets that these are others' headers, and then warns of what it believes to see in them.
  add_compile_options(-Wno-array-bounds -Wno-stringop-overflow -Wno-stringop-overread -Wno-restrict)
endif()
file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/generated/nothing.cc CONTENT "int main() {}\n")

add_library(precompiled_for_libraries OBJECT ${CMAKE_BINARY_DIR}/generated/nothing.cc)
target_link_libraries(precompiled_for_libraries PRIVATE ${BELLWETHER_COMMON_LIBRARIES})
target_precompile_headers(precompiled_for_libraries PRIVATE ${headers})

add_executable(precompiled_for_tests EXCLUDE_FROM_ALL ${CMAKE_BINARY_DIR}/generated/nothing.cc)
target_link_libraries(precompiled_for_tests PRIVATE ${BELLWETHER_COMMON_LIBRARIES} GTest::gmock)
target_precompile_headers(precompiled_for_tests PRIVATE ${headers} <gmock/gmock.h> <gtest/gtest.h>)

# A library of ours, or a test made with add_unit_test.
function(reuse_precompiled target)
  get_target_property(type ${target} TYPE)
  if(type STREQUAL EXECUTABLE)
    target_precompile_headers(${target} REUSE_FROM precompiled_for_tests)
  else()
    target_precompile_headers(${target} REUSE_FROM precompiled_for_libraries)
  endif()
endfunction()
