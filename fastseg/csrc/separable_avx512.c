/* Fused separable convolutions in float32, for x86-64 with AVX-512. */

#include "separable.h"

#ifdef FASTSEG_AVX512
#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,fma")))
#include "separable_avx512.h"

enum { UNITS = LANES };
typedef float element;
typedef float unit;

INLINE vec element_load(const element *from, int64_t count) { return _mm512_maskz_loadu_ps(first(count), from); }
INLINE void element_store(element *to, vec value, int64_t count) { vec_store_some(to, value, count); }
INLINE vec vec_multiply_add(unit input, const unit *weight, vec sum)
{
    return _mm512_fmadd_ps(_mm512_set1_ps(input), _mm512_loadu_ps(weight), sum);
}

#include "separable_body.h"

int fastseg_separable_avx512(const fastseg_chain *chain) { return run_chain(chain); }
#endif
