# GPU kernels, where nvcc is found; elsewhere kernels/gpu/no_cuda.cc says so at run time. nvcc compiles one file,
# kernels/gpu/kernels.cu; everything else is plain C++ that links the runtime statically, so that the programs need
# nothing but the driver, and run without it too.

option(BELLWETHER_CUDA "Build for GPUs if nvcc is found" ON)
# Ampere and Ada; Hopper with its own instructions; Blackwell; and what later cards compile for themselves.
set(BELLWETHER_CUDA_TARGETS "sm_80;sm_90a;sm_100;compute_80" CACHE STRING "Targets of GPU kernels")

set(CUDA_ROOTS $ENV{CUDA_HOME} $ENV{CUDA_PATH} /usr/local/cuda)
if(BELLWETHER_CUDA)
  find_program(NVCC nvcc HINTS ${CUDA_ROOTS} PATH_SUFFIXES bin)
else()
  unset(NVCC CACHE)  # found by a configuration before
endif()
if(NVCC)
  get_filename_component(CUDA_BIN ${NVCC} DIRECTORY)
  get_filename_component(CUDA_HOME ${CUDA_BIN} DIRECTORY)
  find_path(CUDA_INCLUDE cuda_runtime_api.h HINTS ${CUDA_HOME}/include REQUIRED)
  find_library(CUDART_STATIC cudart_static HINTS ${CUDA_HOME}/lib64 ${CUDA_HOME}/lib REQUIRED)
  # Two programs hold the kernels: the smaller of the ways to keep them, where nvcc knows it.
  execute_process(COMMAND ${NVCC} --help OUTPUT_VARIABLE nvcc_help)
  set(CUDA_COMPRESS)
  if(nvcc_help MATCHES "--compress-mode")
    set(CUDA_COMPRESS --compress-mode=size)
  endif()
  message(STATUS "GPU kernels: ${NVCC}, for ${BELLWETHER_CUDA_TARGETS}")
else()
  message(STATUS "GPU kernels: no nvcc, not built")
endif()

# Adds the GPU's part to the library `target`.
function(add_cuda_kernels target)
  if(NOT NVCC)
    target_sources(${target} PRIVATE kernels/gpu/no_cuda.cc)
    return()
  endif()
  set(targets)
  foreach(name ${BELLWETHER_CUDA_TARGETS})
    string(REGEX REPLACE "^sm_" "compute_" virtual ${name})
    list(APPEND targets -gencode=arch=${virtual},code=${name})
  endforeach()
  set(object ${CMAKE_BINARY_DIR}/generated/gpu_kernels.o)
  file(GLOB headers CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/kernels/gpu/*.h)
  # The arithmetic must be what was written: no contraction, no flushing of small numbers, division and roots rounded.
  add_custom_command(OUTPUT ${object}
    COMMAND ${CMAKE_COMMAND} -E time ${NVCC} -O2 -std=c++20 --expt-relaxed-constexpr -I${CMAKE_SOURCE_DIR} -Xcompiler=-fPIC
            -fmad=false -ftz=false -prec-div=true -prec-sqrt=true --threads 2 ${CUDA_COMPRESS} ${targets}
            -Xptxas=-v -c ${CMAKE_SOURCE_DIR}/kernels/gpu/kernels.cu -o ${object} > ${object}.log 2>&1
            || (cat ${object}.log && false)
    DEPENDS kernels/gpu/kernels.cu ${headers}
    COMMENT "nvcc kernels/gpu/kernels.cu for ${BELLWETHER_CUDA_TARGETS}")
  target_sources(${target} PRIVATE kernels/gpu/runtime_cuda.cc ${object})
  set_source_files_properties(${object} PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)
  set_source_files_properties(kernels/gpu/runtime_cuda.cc PROPERTIES INCLUDE_DIRECTORIES ${CUDA_INCLUDE})
  target_link_libraries(${target} PRIVATE ${CUDART_STATIC} Threads::Threads ${CMAKE_DL_LIBS} rt)
endfunction()
