#pragma once

// Before a function of plain loops: one clone of it for each instruction set; the loader picks the
// widest that the machine has.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__)
#define LMFUSION_CLONES \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define LMFUSION_CLONES
#endif

// Of functions that those above call: part of each clone.
#if defined(__GNUC__)
#define LMFUSION_INLINE __attribute__((always_inline)) inline
#else
#define LMFUSION_INLINE inline
#endif
