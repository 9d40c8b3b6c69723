/* The kernels of fused separable convolutions that this processor can run. */

#include "separable.h"

enum { FLOAT32 = 1, BFLOAT16 = 2 };

/* A sum of the above. */
int fastseg_separable_precisions(void)
{
    int found = 0;
#ifdef FASTSEG_AVX512
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        found = __builtin_cpu_supports("avx512bf16") ? FLOAT32 | BFLOAT16 : FLOAT32;
#endif
    return found;
}

/* Runs a chain whose maps and weights have the precision given. Returns 0, 1 where there is no memory, or 2 where the
 * processor lacks the instructions. */
int fastseg_separable(const fastseg_chain *chain, int precision)
{
    if (!(fastseg_separable_precisions() & precision)) return 2;
#ifdef FASTSEG_AVX512
    return precision == FLOAT32 ? fastseg_separable_avx512(chain) : fastseg_separable_bf16(chain);
#else
    (void)chain;
    return 2;
#endif
}
