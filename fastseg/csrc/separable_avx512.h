/* Vectors of 16 floats; the including file defines TARGET, the instructions that it may use. */

#include <immintrin.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#define INLINE TARGET static inline __attribute__((always_inline))

enum { LANES = 16, PANEL = 4, PIXELS = 6 };
typedef __m512 vec;

INLINE vec vec_load(const float *from) { return _mm512_loadu_ps(from); }
INLINE vec vec_set(float value) { return _mm512_set1_ps(value); }
INLINE vec vec_add(vec a, vec b) { return _mm512_add_ps(a, b); }
INLINE vec vec_fma(vec a, vec b, vec sum) { return _mm512_fmadd_ps(a, b, sum); }
INLINE vec vec_relu(vec value) { return _mm512_max_ps(_mm512_setzero_ps(), value); } /* NaN stays NaN */
INLINE void vec_store(float *to, vec value) { _mm512_storeu_ps(to, value); }

/* The first `count` lanes, at most all of them. */
INLINE __mmask16 first(int64_t count) { return count >= LANES ? 0xffff : (__mmask16)((1u << count) - 1); }
INLINE void vec_store_some(float *to, vec value, int64_t count) { _mm512_mask_storeu_ps(to, first(count), value); }
