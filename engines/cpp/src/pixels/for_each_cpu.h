// Functions over many bytes that are compiled for each instruction set.
#pragma once

// The dynamic loader chooses, before sanitizers could be initialised.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define PAGE4D_FOR_EACH_CPU __attribute__((target_clones("avx2", "default")))
#else
#define PAGE4D_FOR_EACH_CPU
#endif
