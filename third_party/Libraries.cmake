# The C and C++ libraries that lmfusion is linked with, under the names that find_package and
# pkg_check_modules give them: the system's where it has them, otherwise built from the archives in this
# folder, so that a build needs a compiler, CMake and torch alone, and no network.
#
#   LMFUSION_VENDORED  AUTO  each library that the system does not have (the default)
#                      ON    all of them, as a wheel wants it: no version of a distribution's is chosen
#                      OFF   none: what is missing is an error
set(LMFUSION_VENDORED AUTO CACHE STRING "Build libraries from third_party: AUTO (where the system has none), ON or OFF")
set_property(CACHE LMFUSION_VENDORED PROPERTY STRINGS AUTO ON OFF)

set(vendored)
if(LMFUSION_VENDORED STREQUAL "ON")
  set(vendored zlib json libzip pcre2 utf8proc sentencepiece)
else()
  find_package(PkgConfig QUIET)
  # lmfusion_system_library(name prefix module): PkgConfig::PREFIX, or name goes into `vendored`.
  function(lmfusion_system_library name prefix module)
    if(PKG_CONFIG_FOUND)
      pkg_check_modules(${prefix} QUIET IMPORTED_TARGET GLOBAL ${module})
    endif()
    if(NOT TARGET PkgConfig::${prefix})
      set(vendored ${vendored} ${name} PARENT_SCOPE)
    endif()
  endfunction()
  find_package(nlohmann_json 3.9 QUIET)
  if(NOT nlohmann_json_FOUND)
    list(APPEND vendored json)
  endif()
  find_package(ZLIB QUIET)
  if(NOT ZLIB_FOUND)
    list(APPEND vendored zlib)
  endif()
  lmfusion_system_library(libzip LIBZIP libzip)
  lmfusion_system_library(pcre2 PCRE2 libpcre2-8)
  lmfusion_system_library(utf8proc UTF8PROC libutf8proc)
  if(LMFUSION_SENTENCEPIECE)
    lmfusion_system_library(sentencepiece SENTENCEPIECE sentencepiece)
  endif()
endif()
if(NOT LMFUSION_SENTENCEPIECE)
  list(REMOVE_ITEM vendored sentencepiece)
endif()

if(vendored AND LMFUSION_VENDORED STREQUAL "OFF")
  message(FATAL_ERROR "LMFUSION_VENDORED=OFF, and the system has none of: ${vendored}. "
    "debian-packages.txt names Debian's packages; LMFUSION_VENDORED=AUTO builds them from third_party.")
endif()
if(vendored)
  message(STATUS "built from third_party: ${vendored}")
  add_subdirectory(${CMAKE_CURRENT_LIST_DIR} third_party)
endif()
