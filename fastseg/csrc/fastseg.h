/* What the kernels share. Plain C11 for GCC and Clang; every file also compiles for machines without vectors. */
#ifndef FASTSEG_H
#define FASTSEG_H

#include <stddef.h>
#include <stdint.h>

/* One body, compiled for several generations of x86-64; the loader chooses. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define FASTSEG_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FASTSEG_CLONES
#endif

#endif
