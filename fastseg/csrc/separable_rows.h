/* Single rows of a stage: copied, resized, narrowed, convolved; part of separable_body.h. */

/* A row of the ring, or zeros where there is none. */
static inline const float *ring_row(const level *at, int64_t row)
{
    return row < 0 || row >= at->height ? at->zeros : at->ring + row % at->rows * at->row_size;
}

/* One row of the depthwise convolution: ring -> middle. */
TARGET static void depthwise_row(const level *at, int64_t row)
{
    const fastseg_stage *stage = at->stage;
    const int64_t count = at->end - at->begin, step = stage->stride * LANES, hole = stage->dilation * LANES;
    const float *rows[3];
    for (int k = 0; k < 3; k++) rows[k] = ring_row(at, row * stage->stride + (k - 1) * stage->dilation);
    for (int64_t v = 0; v < at->vectors; v++) {
        const float *source[3];
        for (int k = 0; k < 3; k++) source[k] = rows[k] + v * at->columns * LANES;
        vec weight[9];
        for (int k = 0; k < 9; k++) weight[k] = vec_load(stage->depthwise_weight + (v * 9 + k) * LANES);
        const vec bias = vec_load(stage->depthwise_bias + v * LANES);
        element *out = at->middle + v * count * LANES;
        int64_t x = 0;
        for (; x + 4 <= count; x += 4) {
            vec sum[4] = {bias, bias, bias, bias};
#pragma GCC unroll 9
            for (int k = 0; k < 9; k++)
#pragma GCC unroll 4
                for (int p = 0; p < 4; p++)
                    sum[p] = vec_fma(vec_load(source[k / 3] + (x + p) * step + k % 3 * hole), weight[k], sum[p]);
#pragma GCC unroll 4
            for (int p = 0; p < 4; p++)
                element_store(out + (x + p) * LANES, stage->depthwise_relu ? vec_relu(sum[p]) : sum[p], LANES);
        }
        for (; x < count; x++) {
            vec sum = bias;
            for (int k = 0; k < 9; k++)
                sum = vec_fma(vec_load(source[k / 3] + x * step + k % 3 * hole), weight[k], sum);
            element_store(out + x * LANES, stage->depthwise_relu ? vec_relu(sum) : sum, LANES);
        }
    }
}

/* Rows of the ring as elements, one after another: what a product takes where there is no depthwise convolution. */
TARGET static void narrow_rows(const level *at, int64_t row, int64_t count)
{
    for (int64_t k = 0; k < count; k++) {
        const float *from = ring_row(at, row + k);
        for (int64_t i = 0; i < at->row_size; i += LANES)
            element_store(at->middle + k * at->row_size + i, vec_load(from + i), LANES);
    }
}

/* A row of the map into the ring, in the order of memory for the sake of prefetching. */
TARGET static void copy_row(const level *at, const element *input, int64_t count, float *slot)
{
    const int64_t channels = at->stage->in_channels;
    for (int64_t x = 0; x < count; x++)
        for (int64_t v = 0; v < at->vectors; v++)
            vec_store(slot + (v * at->columns + x) * LANES,
                      element_load(input + x * channels + v * LANES, channels - v * LANES));
}

/* A row of the map without a change of layout. */
TARGET static void copy_values(const element *input, int64_t count, float *slot)
{
    for (int64_t i = 0; i < count; i += LANES)
        vec_store_some(slot + i, element_load(input + i, count - i), count - i);
}

/* Where pixel `index` of `size` lies between two of `source` pixels, as torch has it. */
static void source_pixels(int64_t index, int64_t size, int64_t source, int64_t align_corners, int64_t *before,
                          int64_t *after, float *share)
{
    float place;
    if (align_corners) place = size > 1 ? (float)(source - 1) / (float)(size - 1) * (float)index : 0.0f;
    else place = (float)source / (float)size * ((float)index + 0.5f) - 0.5f;
    if (place < 0.0f) place = 0.0f;
    *before = smaller((int64_t)place, source - 1);
    *after = smaller(*before + 1, source - 1);
    *share = place - (float)*before;
}

/* A row of the resized map, columns begin..end. */
TARGET static void resize_row(const tile *work, int64_t row, int64_t begin, int64_t end, float *slot)
{
    const fastseg_chain *chain = work->chain;
    const level *at = &work->levels[0];
    const int64_t channels = at->stage->in_channels, width = chain->source_width;
    int64_t above, below, left, right;
    float down, across;
    source_pixels(row, at->height, chain->source_height, chain->align_corners, &above, &below, &down);
    const element *map = (const element *)chain->input + work->image * chain->source_height * width * channels;
    for (int64_t x = begin; x < end; x++) {
        source_pixels(x, at->width, width, chain->align_corners, &left, &right, &across);
        const element *corners[4] = {map + (above * width + left) * channels, map + (above * width + right) * channels,
                                     map + (below * width + left) * channels, map + (below * width + right) * channels};
        const vec shares[4] = {vec_set((1 - down) * (1 - across)), vec_set((1 - down) * across),
                               vec_set(down * (1 - across)), vec_set(down * across)};
        for (int64_t v = 0; v < at->vectors; v++) {
            const int64_t count = channels - v * LANES;
            vec sum = vec_set(0);
            for (int c = 0; c < 4; c++) sum = vec_fma(element_load(corners[c] + v * LANES, count), shares[c], sum);
            vec_store(slot + (v * at->columns + x - begin) * LANES, sum);
        }
    }
}
