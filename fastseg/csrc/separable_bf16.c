/* Fused separable convolutions in bfloat16, for x86-64 with AVX-512 and its bfloat16 products; sums are float32. */

#include "separable.h"

#ifdef FASTSEG_AVX512
#include <immintrin.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma")))

enum { LANES = 16, UNITS = 8, PANEL = 4, PIXELS = 6 };
typedef uint16_t element;
typedef uint32_t unit;
typedef __m512 vec;

#define INLINE TARGET static inline __attribute__((always_inline))

INLINE vec vec_load(const float *from) { return _mm512_loadu_ps(from); }
INLINE void vec_store(float *to, vec value) { _mm512_storeu_ps(to, value); }
INLINE vec vec_add(vec a, vec b) { return _mm512_add_ps(a, b); }
INLINE vec vec_fma(vec a, vec b, vec sum) { return _mm512_fmadd_ps(a, b, sum); }
INLINE vec vec_relu(vec value) { return _mm512_max_ps(_mm512_setzero_ps(), value); } /* NaN stays NaN */
INLINE vec vec_multiply_add(unit input, const unit *weight, vec sum)
{
    return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32((int)input), (__m512bh)_mm512_loadu_si512(weight));
}
INLINE vec vec_set(float value) { return _mm512_set1_ps(value); }
INLINE __mmask16 first(int64_t count) { return count >= LANES ? 0xffff : (__mmask16)((1u << count) - 1); }
INLINE vec element_load(const element *from, int64_t count)
{
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first(count), from));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
INLINE void element_store(element *to, vec value, int64_t count)
{
    _mm256_mask_storeu_epi16(to, first(count), (__m256i)_mm512_cvtneps_pbh(value));
}
INLINE void vec_store_some(float *to, vec value, int64_t count) { _mm512_mask_storeu_ps(to, first(count), value); }
INLINE vec bytes_load(const uint8_t *from, int64_t count)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(first(count), from)));
}

#include "separable_body.h"

int fastseg_separable_bf16(const fastseg_chain *chain) { return run_chain(chain); }
#endif
