# Fails where an object file that was compiled for an instruction set defines a symbol that the
# linker may take for another's: a copy of an inline function or template outside its own namespace
# (Note [Lanes] in src/kernels/simd/lanes.h).
#   cmake -DNM=nm -DNAMESPACE=avx2 -DOBJECTS=a.o,b.o -P check_kernel_symbols.cmake
string(REPLACE "," ";" objects "${OBJECTS}")
list(LENGTH objects count)
if(count EQUAL 0)
  message(FATAL_ERROR "no object files of ${NAMESPACE} given")
endif()
foreach(object IN LISTS objects)
  execute_process(COMMAND ${NM} --demangle --defined-only ${object}
                  OUTPUT_VARIABLE symbols RESULT_VARIABLE failed)
  if(failed OR symbols STREQUAL "")
    message(FATAL_ERROR "${NM} reads no symbols of ${object}")
  endif()
  # Weak functions and variables (W, V), unique ones (u).
  string(REGEX MATCHALL "[0-9a-f]+ [WVu] [^\n]*" shared "${symbols}")
  foreach(symbol IN LISTS shared)
    if(NOT symbol MATCHES " [WVu] ([a-z]+ )?([^(]* )?lmfusion::${NAMESPACE}::")
      message(SEND_ERROR "${object} defines ${symbol}")
    endif()
  endforeach()
endforeach()
