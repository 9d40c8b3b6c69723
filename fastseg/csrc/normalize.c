/* uint8 pixels of three channels -> (value - mean) / deviation, in the same places: as float32, or rounded to bfloat16.
 * The arithmetic is torch's, so that the results are, too. */
#include <string.h>

#include "fastseg.h"

#define VALUES 48        /* at once: three channels repeat in whole vectors of every width */
#define CHUNK (1 << 14)  /* pixels that a thread takes at a time */

struct statistics {
    float mean[VALUES];
    float deviation[VALUES];
};

/* to the nearest, ties to even; numbers here are finite */
static inline uint16_t to_bfloat16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

FASTSEG_CLONES
static void normalize_float32(const uint8_t *restrict values, float *restrict out, int64_t count,
                              const struct statistics *restrict s)
{
    for (; count >= VALUES; count -= VALUES, values += VALUES, out += VALUES) {
        for (int i = 0; i < VALUES; i++) {
            out[i] = ((float)values[i] - s->mean[i]) / s->deviation[i];
        }
    }
    for (int64_t i = 0; i < count; i++) {
        out[i] = ((float)values[i] - s->mean[i]) / s->deviation[i];
    }
}

FASTSEG_CLONES
static void normalize_bfloat16(const uint8_t *restrict values, uint16_t *restrict out, int64_t count,
                               const struct statistics *restrict s)
{
    for (; count >= VALUES; count -= VALUES, values += VALUES, out += VALUES) {
        for (int i = 0; i < VALUES; i++) {
            out[i] = to_bfloat16(((float)values[i] - s->mean[i]) / s->deviation[i]);
        }
    }
    for (int64_t i = 0; i < count; i++) {
        out[i] = to_bfloat16(((float)values[i] - s->mean[i]) / s->deviation[i]);
    }
}

/* `mean` and `deviation` have three numbers, in units of 0..255; `out` holds float32, or bfloat16 where `half`. */
void fastseg_normalize(const uint8_t *values, void *out, int64_t pixels, const float *mean, const float *deviation,
                       int half, int threads)
{
    struct statistics s;
    for (int i = 0; i < VALUES; i++) {
        s.mean[i] = mean[i % 3];
        s.deviation[i] = deviation[i % 3];
    }
#pragma omp parallel for num_threads(threads)
    for (int64_t start = 0; start < pixels; start += CHUNK) {
        int64_t count = 3 * (pixels - start < CHUNK ? pixels - start : CHUNK);
        if (half) {
            normalize_bfloat16(values + 3 * start, (uint16_t *)out + 3 * start, count, &s);
        } else {
            normalize_float32(values + 3 * start, (float *)out + 3 * start, count, &s);
        }
    }
}
