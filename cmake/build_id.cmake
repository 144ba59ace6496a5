# The library bellwether_build_id: BuildId() of common/build_id.h, from the release, the compiler, the flags and the
# hash of the sources that decide bits or messages. Only programs link it, so tests are not linked anew at every edit.
# As a script (-P) it writes the source file.
if(CMAKE_SCRIPT_MODE_FILE)
  file(STRINGS ${SOURCES} sources)
  set(hashes)
  foreach(source ${sources})
    file(SHA256 ${source} hash)
    string(APPEND hashes ${hash})
  endforeach()
  string(SHA256 hash "${COMPILED_BY}${hashes}")
  string(SUBSTRING ${hash} 0 16 hash)
  file(WRITE ${OUTPUT}
    "#include \"common/build_id.h\"\n"
    "namespace bellwether {\n"
    "std::string BuildId() { return \"${VERSION}-${hash}\"; }\n"
    "}  // namespace bellwether\n")
  return()
endif()

file(GLOB_RECURSE build_id_sources CONFIGURE_DEPENDS
  common/*.cc common/*.h kernels/*.cc kernels/*.h model/*.cc model/*.h worker/*.cc worker/*.h
  coordinator/*.cc coordinator/*.h proto/*.cc proto/*.h proto/*.proto)
list(FILTER build_id_sources EXCLUDE REGEX "_(test|bench|fuzz)\\.cc$|/testing/")
string(REPLACE ";" "\n" build_id_lines "${build_id_sources}")
file(GENERATE OUTPUT ${CMAKE_BINARY_DIR}/build_id_sources.txt CONTENT "${build_id_lines}\n")
get_directory_property(build_id_options COMPILE_OPTIONS)
set(build_id_compiler "${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION} ${CMAKE_SYSTEM_PROCESSOR} "
  "${CMAKE_CXX_FLAGS} ${CMAKE_CXX_FLAGS_${CMAKE_BUILD_TYPE}} ${build_id_options}")
string(REPLACE ";" " " build_id_compiler "${build_id_compiler}")
add_custom_command(OUTPUT ${CMAKE_BINARY_DIR}/generated/build_id.cc
  COMMAND ${CMAKE_COMMAND} -DSOURCES=${CMAKE_BINARY_DIR}/build_id_sources.txt
          -DOUTPUT=${CMAKE_BINARY_DIR}/generated/build_id.cc -DVERSION=${PROJECT_VERSION}
          "-DCOMPILED_BY=${build_id_compiler}" -P ${CMAKE_SOURCE_DIR}/cmake/build_id.cmake
  DEPENDS ${build_id_sources} ${CMAKE_BINARY_DIR}/build_id_sources.txt COMMENT "build id" VERBATIM)
add_library(bellwether_build_id STATIC ${CMAKE_BINARY_DIR}/generated/build_id.cc)
