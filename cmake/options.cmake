# How every translation unit is compiled.

option(BELLWETHER_ASAN "AddressSanitizer and UndefinedBehaviorSanitizer" OFF)
option(BELLWETHER_TSAN "ThreadSanitizer" OFF)
option(BELLWETHER_FUZZ "Build *_fuzz.cc with libFuzzer (needs clang)" OFF)

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()
# CHECK of common/check.h stays on in release, so NDEBUG only silences assert() of libraries.
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")

find_program(CCACHE ccache)
if(CCACHE)
  # It must be told that headers compiled before (cmake/precompiled.cmake) are known by their content.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros ${CCACHE})
  set(CMAKE_C_COMPILER_LAUNCHER ${CCACHE})
endif()
find_program(MOLD mold)
find_program(LLD ld.lld)
if(MOLD)
  add_link_options(-fuse-ld=mold)
elseif(LLD)
  add_link_options(-fuse-ld=lld)
endif()

add_compile_options(
  # The compiler must not change the arithmetic: g++ otherwise fuses a*b+c, even through intrinsics.
  -ffp-contract=off
  -fno-fast-math
  -Wall -Wextra -Wno-missing-field-initializers -Werror
  -fno-omit-frame-pointer
  -pthread)
if(CMAKE_CXX_COMPILER_ID MATCHES Clang)
  add_compile_options(-Wthread-safety)  # what ABSL_GUARDED_BY says is checked by clang alone
endif()
# What the loader resolves is resolved at the start and then read-only. (Programs are position-independent: CMakeLists.txt.)
add_link_options(-Wl,-z,relro,-z,now)
if(CMAKE_BUILD_TYPE STREQUAL Release)
  # A function that has written over its frame ends the process instead of returning; so does a call of libc that would
  # overrun what the compiler knows the size of. (Sanitizers see more, in presets of their own.)
  add_compile_options(-fstack-protector-strong -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)
endif()
include_directories(${CMAKE_SOURCE_DIR})

if(BELLWETHER_ASAN)
  # g++ takes what the sanitizers add for uses of what was never set, in Boost's optional above all.
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=undefined -Wno-maybe-uninitialized -g1)
  add_link_options(-fsanitize=address,undefined)
endif()
if(BELLWETHER_TSAN)
  add_compile_options(-fsanitize=thread -g1)  # lines are enough for its reports, and quicker to compile
  add_link_options(-fsanitize=thread)
endif()
if(BELLWETHER_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined)
  add_link_options(-fsanitize=address,undefined)
endif()
