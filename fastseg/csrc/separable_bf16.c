/* Fused separable convolutions in bfloat16, for x86-64 with AVX-512 and its bfloat16 products; sums are float32. */

#include "separable.h"

#ifdef FASTSEG_AVX512
#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma")))
#include "separable_avx512.h"

enum { UNITS = LANES / 2 };
typedef uint16_t element;
typedef uint32_t __attribute__((may_alias, aligned(2))) unit;

INLINE vec element_load(const element *from, int64_t count)
{
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first(count), from));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
INLINE void element_store(element *to, vec value, int64_t count)
{
    _mm256_mask_storeu_epi16(to, first(count), (__m256i)_mm512_cvtneps_pbh(value));
}
INLINE vec vec_multiply_add(unit input, const unit *weight, vec sum)
{
    return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32((int)input), (__m512bh)_mm512_loadu_si512(weight));
}

#include "separable_body.h"

int fastseg_separable_bf16(const fastseg_chain *chain) { return run_chain(chain); }
#endif
