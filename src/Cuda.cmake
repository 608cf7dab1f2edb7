# The target lmfusion_cuda: the operators for CUDA devices, in a library of its own that lmfusion
# loads when a CUDA device is asked for. So lmfusion itself never needs libcudart or libtorch_cuda,
# and works where there is neither.
#
#   LMFUSION_CUDA                AUTO, ON or OFF
#   LMFUSION_CUDA_ARCHITECTURES  as CMAKE_CUDA_ARCHITECTURES; "all": every one the library supports
function(lmfusion_find_cuda result reason)
  set(${result} FALSE PARENT_SCOPE)
  if(NOT EXISTS ${LMFUSION_TORCH_LIBRARY_DIR}/libtorch_cuda.so)
    set(${reason} "torch in ${LMFUSION_TORCH_DIR} is not a CUDA build" PARENT_SCOPE)
    return()
  endif()
  include(CheckLanguage)
  if(NOT CMAKE_CUDA_COMPILER)
    find_program(LMFUSION_NVCC nvcc PATHS /usr/local/cuda/bin ENV CUDA_PATH PATH_SUFFIXES bin)
    if(LMFUSION_NVCC)
      set(CMAKE_CUDA_COMPILER ${LMFUSION_NVCC} CACHE FILEPATH "nvcc")
    endif()
  endif()
  check_language(CUDA)
  if(NOT CMAKE_CUDA_COMPILER)
    set(${reason} "nvcc was not found" PARENT_SCOPE)
    return()
  endif()
  execute_process(COMMAND ${CMAKE_CUDA_COMPILER} --version OUTPUT_VARIABLE version ERROR_QUIET)
  if(version MATCHES "release ([0-9]+\\.[0-9]+)" AND CMAKE_MATCH_1 VERSION_LESS 13.0)
    set(${reason} "nvcc is ${CMAKE_MATCH_1}, and 13.0 is needed" PARENT_SCOPE)
    return()
  endif()
  set(${result} TRUE PARENT_SCOPE)
endfunction()

set(LMFUSION_WITH_CUDA FALSE)
if(NOT LMFUSION_CUDA STREQUAL "OFF")
  lmfusion_find_cuda(LMFUSION_WITH_CUDA no_cuda_reason)
  if(NOT LMFUSION_WITH_CUDA)
    if(LMFUSION_CUDA STREQUAL "ON")
      message(FATAL_ERROR "LMFUSION_CUDA=ON, but ${no_cuda_reason}")
    endif()
    message(STATUS "CUDA: off, ${no_cuda_reason}")
  endif()
else()
  message(STATUS "CUDA: off")
endif()
if(NOT LMFUSION_WITH_CUDA)
  return()
endif()

set(LMFUSION_CUDA_ARCHITECTURES "75-real;90-real" CACHE STRING
    "Architectures of the kernels; all: 7.5 to 12.0")
if(LMFUSION_CUDA_ARCHITECTURES STREQUAL "all")
  set(CMAKE_CUDA_ARCHITECTURES 75-real 80-real 86-real 89-real 90-real 100-real 120)
else()
  set(CMAKE_CUDA_ARCHITECTURES ${LMFUSION_CUDA_ARCHITECTURES})
endif()
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
if(CCACHE_PROGRAM AND NOT CMAKE_CUDA_COMPILER_LAUNCHER)
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
endif()
enable_language(CUDA)
find_package(CUDAToolkit 13.0 REQUIRED)
message(STATUS "CUDA: ${CMAKE_CUDA_COMPILER_VERSION} for ${CMAKE_CUDA_ARCHITECTURES}")

add_library(lmfusion_cuda SHARED
  src/engine/cuda_runtime.cpp
  src/ops/cuda_operators.cpp
  src/kernels/output/output_cuda.cu
  src/kernels/attention/tree_attention_cuda.cu)
target_include_directories(lmfusion_cuda PRIVATE src)
target_link_libraries(lmfusion_cuda PRIVATE
  lmfusion torch_libraries CUDA::cudart
  ${LMFUSION_TORCH_LIBRARY_DIR}/libtorch_cuda.so ${LMFUSION_TORCH_LIBRARY_DIR}/libc10_cuda.so)
target_compile_options(lmfusion_cuda PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra>)
set_target_properties(lmfusion_cuda PROPERTIES
  CUDA_RUNTIME_LIBRARY Shared
  VERSION ${LMFUSION_LIBRARY_VERSION} SOVERSION ${LMFUSION_SOVERSION}
  LIBRARY_OUTPUT_DIRECTORY $<TARGET_FILE_DIR:lmfusion>
  # torch's wheel and the runtime library beside it.
  INSTALL_RPATH "$ORIGIN;$ORIGIN/../torch/lib;$ORIGIN/../nvidia/cu13/lib;${LMFUSION_TORCH_LIBRARY_DIR}")
install(TARGETS lmfusion_cuda
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT development NAMELINK_SKIP)
install(TARGETS lmfusion_cuda LIBRARY DESTINATION lmfusion COMPONENT python NAMELINK_SKIP)
