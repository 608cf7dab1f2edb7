# The target torch_libraries: libtorch for the CPU from the PyPI wheel of torch (or a libtorch zip).
#
# find_package(Torch) is not used: against the PyPI wheel, which is a CUDA build, it asks for a
# CUDA toolkit even where none of it is needed. The libraries are named here directly instead.
#
#   LMFUSION_TORCH_DIR  the folder "torch" of the wheel, asked of Python3 where it is not given.
if(NOT LMFUSION_TORCH_DIR)
  find_package(Python3 COMPONENTS Interpreter REQUIRED)
  execute_process(
    COMMAND ${Python3_EXECUTABLE} -c
            "import importlib.util as u; s = u.find_spec('torch'); print(s.submodule_search_locations[0] if s else '')"
    OUTPUT_VARIABLE torch_dir OUTPUT_STRIP_TRAILING_WHITESPACE)
  if(NOT torch_dir)
    message(FATAL_ERROR
      "torch was not found by ${Python3_EXECUTABLE}. Install torch there (docs/install.md has the versions), name a Python "
      "that has it with -DPython3_EXECUTABLE=..., or name its folder with -DLMFUSION_TORCH_DIR=...")
  endif()
  set(LMFUSION_TORCH_DIR ${torch_dir} CACHE PATH "The folder of torch" FORCE)
endif()

add_library(torch_libraries INTERFACE)
target_include_directories(torch_libraries SYSTEM INTERFACE
  ${LMFUSION_TORCH_DIR}/include ${LMFUSION_TORCH_DIR}/include/torch/csrc/api/include)
# Newer torches' headers are C++20; the other sources stay C++17.
file(STRINGS ${LMFUSION_TORCH_DIR}/include/ATen/ATen.h wants_cpp20 REGEX "C\\+\\+20 or later")
if(wants_cpp20)
  target_compile_features(torch_libraries INTERFACE cxx_std_20)
endif()
foreach(name torch_cpu c10)
  find_library(TORCH_LIBRARY_${name} ${name} PATHS ${LMFUSION_TORCH_DIR}/lib NO_DEFAULT_PATH REQUIRED)
  target_link_libraries(torch_libraries INTERFACE ${TORCH_LIBRARY_${name}})
endforeach()
set(LMFUSION_TORCH_LIBRARY_DIR ${LMFUSION_TORCH_DIR}/lib)
# Which torch that is: the Python package refuses another one.
set(LMFUSION_TORCH_VERSION)
if(EXISTS ${LMFUSION_TORCH_DIR}/version.py)
  file(STRINGS ${LMFUSION_TORCH_DIR}/version.py LMFUSION_TORCH_VERSION REGEX "^__version__ = ")
  string(REGEX REPLACE ".*'(.*)'.*" "\\1" LMFUSION_TORCH_VERSION "${LMFUSION_TORCH_VERSION}")
endif()
message(STATUS "torch: ${LMFUSION_TORCH_VERSION} in ${LMFUSION_TORCH_DIR}")
