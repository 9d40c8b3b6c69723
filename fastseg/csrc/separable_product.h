/* Products of rows of pixels with packed weights, in registers; part of separable_body.h. */

/* The left operand of a product: `segments` of `length` units for each pixel. */
typedef struct {
    const unit *start;
    int64_t pixel_stride, segments, segment_stride, length;
} pixels;

/* Where a product goes: LANES outputs of a pixel into a ring of floats, or into a map of elements. */
typedef struct {
    float *ring;
    element *map;
    const element *addend;
    pixels side;
    int64_t pixel_stride, vector_stride, channels, relu;
} target;

/* PIXELS or 1 pixels by 1..PANEL vectors of outputs, in registers. */
TARGET static inline __attribute__((always_inline)) void multiply_block(
    const int count, const int vectors, const pixels *in, int64_t pixel, const unit *weight, const float *bias,
    const target *out, int64_t vector)
{
    vec sum[PIXELS][PANEL];
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++)
#pragma GCC unroll 16
        for (int p = 0; p < count; p++) sum[p][v] = vec_load(bias + v * LANES);
    const pixels *operand = in;
    for (int i = 0; i < 2; i++, operand = &out->side) {
        const int64_t stride = operand->pixel_stride;
        const unit *row = operand->start + pixel * stride;
        for (int64_t s = 0; s < operand->segments; s++, row += operand->segment_stride) {
            for (int64_t k = 0; k < operand->length; k++, weight += vectors * LANES) {
#pragma GCC unroll 16
                for (int p = 0; p < count; p++)
#pragma GCC unroll 8
                    for (int v = 0; v < vectors; v++)
                        sum[p][v] = vec_multiply_add(row[p * stride + k], weight + v * LANES, sum[p][v]);
            }
        }
    }
#pragma GCC unroll 16
    for (int p = 0; p < count; p++) {
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) {
            const int64_t place = (pixel + p) * out->pixel_stride + (vector + v) * out->vector_stride;
            const int64_t channels = out->channels - (vector + v) * LANES;
            vec result = sum[p][v];
            if (out->addend) result = vec_add(element_load(out->addend + place, channels), result);
            if (out->relu) result = vec_relu(result);
            if (out->map) element_store(out->map + place, result, channels);
            else vec_store(out->ring + place, result);
        }
    }
}

TARGET static inline __attribute__((always_inline)) void multiply_panel(
    const int vectors, const pixels *in, int64_t count, const unit *weight, const float *bias, const target *out,
    int64_t vector)
{
    if (count < PIXELS) {
        for (int64_t p = 0; p < count; p++) multiply_block(1, vectors, in, p, weight, bias, out, vector);
        return;
    }
    for (int64_t p = 0; p < count; p += PIXELS) /* the last block may repeat some pixels of the one before */
        multiply_block(PIXELS, vectors, in, smaller(p, count - PIXELS), weight, bias, out, vector);
}

/* A row of `count` pixels by all outputs. */
TARGET static void multiply_row(const pixels *in, int64_t count, const void *weights, const float *bias,
                                const target *out)
{
    const int64_t vectors = round_up(out->channels, LANES) / LANES;
    const unit *weight = weights;
    for (int64_t v = 0; v < vectors; v += PANEL) {
        switch (smaller(vectors - v, PANEL)) {
        case 4: multiply_panel(4, in, count, weight, bias, out, v); break;
        case 3: multiply_panel(3, in, count, weight, bias, out, v); break;
        case 2: multiply_panel(2, in, count, weight, bias, out, v); break;
        default: multiply_panel(1, in, count, weight, bias, out, v);
        }
        weight += (in->segments * in->length + out->side.segments * out->side.length) * PANEL * LANES;
        bias += PANEL * LANES;
    }
}
