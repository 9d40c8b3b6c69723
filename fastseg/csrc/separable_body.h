/* Fused separable convolutions, written once and compiled for each kind of vector and element.
 *
 * The map is cut into tiles of some output columns and a band of output rows; a tile belongs to one thread, which goes
 * down its rows. Each stage keeps the last few rows of its depthwise input in a ring, small enough for the processor's
 * cache, as [row][vector][column][LANES] floats with zeros where the map ends. An output row is: fill the ring up to
 * the last input row needed (by the expanding product, by a copy of the map, or by the stage before), convolve into
 * `middle` ([vector][column][LANES] elements), multiply into the next ring or the output map.
 *
 * Every output is computed by the same operations in the same order whatever the tile, so neither tiles nor threads
 * change a bit.
 *
 * The including file defines: TARGET, LANES, PANEL, PIXELS, element (of maps and weights), unit (what one multiply-add
 * takes of an input pixel: one float, or two halves), UNITS (units in LANES elements), vec, and the vec_ functions. */

enum { CACHE_FLOATS = 1 << 19, MIN_COLUMNS = 32 }; /* 2 MB: larger tiles lose less by their halos than by the cache */

static inline int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }
static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

typedef struct {
    const fastseg_stage *stage;
    int64_t height, width;         /* of its input map */
    int64_t out_height, out_width; /* of its output map */
    int64_t vectors, rows;         /* of the ring */
    int64_t row_size;              /* floats in a row of the ring */
    int64_t first, columns;        /* of the ring, in the map: may begin before and end after it */
    int64_t begin, end;            /* of the columns that it produces */
    int64_t next;                  /* the first row that is not in the ring yet */
    float *ring, *zeros;           /* `zeros` is a row of the ring that stands for those outside the map */
    element *middle;
} level;

typedef struct {
    const fastseg_chain *chain;
    int64_t image;
    level levels[FASTSEG_MAX_STAGES];
} tile;

#include "separable_product.h"
#include "separable_rows.h"

static void produce_row(tile *work, int64_t index, int64_t row, const target *out);

/* The next row of a stage's ring. */
TARGET static void fill_row(tile *work, int64_t index)
{
    level *at = &work->levels[index];
    const fastseg_stage *stage = at->stage;
    const fastseg_chain *chain = work->chain;
    const int64_t row = at->next++, channels = stage->in_channels;
    const int64_t begin = larger(at->first, 0), end = smaller(at->first + at->columns, at->width);
    const int64_t start = ((work->image * at->height + row) * at->width + begin) * channels; /* in the input map */
    float *slot = at->ring + row % at->rows * at->row_size;
    const element *input = (const element *)chain->input + start;
    target out = {.ring = slot + (begin - at->first) * LANES,
                  .pixel_stride = LANES,
                  .vector_stride = at->columns * LANES,
                  .channels = at->vectors * LANES};
    if (index > 0) {
        out.relu = stage[-1].product_relu;
        produce_row(work, index - 1, row, &out);
        return;
    }
    switch (stage->source) {
    case FASTSEG_EXPAND: {
        const int64_t length = channels * UNITS / LANES;
        const pixels in = {(const unit *)input, length, 1, 0, length};
        out.relu = stage->expand_relu;
        multiply_row(&in, end - begin, stage->expand_weight, stage->expand_bias, &out);
        break;
    }
    case FASTSEG_PATCHES:
        copy_values(input, (end - begin) * channels, slot + (begin - at->first) * channels);
        break;
    case FASTSEG_RESIZE: resize_row(work, row, begin, end, out.ring); break;
    default: copy_row(at, input, end - begin, out.ring);
    }
}

/* One output row of a stage, in the columns of its tile. */
TARGET static void produce_row(tile *work, int64_t index, int64_t row, const target *out)
{
    level *at = &work->levels[index];
    const fastseg_stage *stage = at->stage;
    const int64_t last = smaller(row * stage->stride + stage->dilation, at->height - 1);
    while (at->next <= last) fill_row(work, index);
    const int64_t count = at->end - at->begin;
    pixels in = {(const unit *)at->middle, UNITS, at->vectors, count * UNITS, UNITS};
    if (stage->depthwise_weight) {
        depthwise_row(at, row);
    } else if (stage->source == FASTSEG_PATCHES) {
        narrow_rows(at, row * stage->stride - 1, 3);
        in.pixel_stride = stage->stride * stage->in_channels * UNITS / LANES;
        in.segments = 3;
        in.segment_stride = at->row_size * UNITS / LANES;
        in.length = (3 * stage->in_channels * UNITS + LANES - 1) / LANES;
    } else {
        narrow_rows(at, row, 1);
    }
    multiply_row(&in, count, stage->product_weight, stage->product_bias, out);
}

/* The columns outside the map are zero; no row that is filled later touches them. */
static void clear_borders(level *at)
{
    const int64_t left = larger(-at->first, 0), right = larger(at->first + at->columns - at->width, 0);
    memset(at->zeros, 0, (size_t)at->row_size * sizeof(float));
    if (at->stage->source == FASTSEG_PATCHES) { /* [column][channel], and some floats that complete a vector */
        memset(at->ring, 0, (size_t)(at->rows * at->row_size) * sizeof(float));
        return;
    }
    for (int64_t i = 0; i < at->rows * at->vectors; i++) {
        float *row = at->ring + i * at->columns * LANES;
        memset(row, 0, (size_t)(left * LANES) * sizeof(float));
        memset(row + (at->columns - right) * LANES, 0, (size_t)(right * LANES) * sizeof(float));
    }
}

/* Sizes of all stages for the output columns begin..end; returns the floats that rings and middles take. */
static int64_t lay_out(tile *work, int64_t begin, int64_t end, float *memory)
{
    const fastseg_chain *chain = work->chain;
    int64_t height = chain->height, width = chain->width, used = 0;
    for (int64_t i = 0; i < chain->count; i++) {
        level *at = &work->levels[i];
        at->stage = &chain->stages[i];
        at->height = height;
        at->width = width;
        at->out_height = height = (height - 1) / at->stage->stride + 1;
        at->out_width = width = (width - 1) / at->stage->stride + 1;
    }
    for (int64_t i = chain->count - 1; i >= 0; i--) {
        level *at = &work->levels[i];
        const fastseg_stage *stage = at->stage;
        at->begin = begin;
        at->end = end;
        at->first = begin * stage->stride - stage->dilation;
        at->columns = (end - begin - 1) * stage->stride + 2 * stage->dilation + 1;
        at->vectors = round_up(stage->middle_channels, LANES) / LANES;
        at->rows = 2 * stage->dilation + 1;
        begin = larger(at->first, 0);
        end = smaller(at->first + at->columns, at->width);
        const int patches = stage->source == FASTSEG_PATCHES;
        at->row_size = patches ? round_up(at->columns * stage->in_channels + 1, LANES) /* halves come in pairs */
                               : at->vectors * at->columns * LANES;
        if (memory) {
            at->ring = memory + used;
            at->zeros = at->ring + at->rows * at->row_size;
            at->middle = (element *)(at->zeros + at->row_size);
        }
        used += (at->rows + 1 + (patches ? 3 : 1)) * at->row_size;
    }
    return used;
}

static void run_tile(tile *work, int64_t begin, int64_t end, int64_t top, int64_t bottom, float *memory)
{
    const fastseg_chain *chain = work->chain;
    lay_out(work, begin, end, memory);
    int64_t row = top;
    for (int64_t i = chain->count - 1; i >= 0; i--) {
        level *at = &work->levels[i];
        clear_borders(at);
        at->next = row = larger(row * at->stage->stride - at->stage->dilation, 0);
    }
    const level *last = &work->levels[chain->count - 1];
    const int64_t channels = last->stage->out_channels;
    for (row = top; row < bottom; row++) {
        const int64_t place = ((work->image * last->out_height + row) * last->out_width + begin) * channels;
        const int64_t side = last->stage->side_channels, length = side * UNITS / LANES;
        const unit *beside = (const unit *)((const element *)chain->side + place / channels * side);
        const target out = {
            .side = {beside, length, side > 0, 0, length},
            .map = (element *)chain->output + place,
            .addend = chain->addend ? (const element *)chain->addend + place : NULL,
            .pixel_stride = channels,
            .vector_stride = LANES,
            .channels = channels,
            .relu = last->stage->product_relu,
        };
        produce_row(work, chain->count - 1, row, &out);
    }
}

/* Columns and bands of the tiles: rings that fit the cache, a tile for every thread, few rows and columns computed
 * twice. Returns the floats that a tile takes. */
static int64_t divide(tile *sizes, int64_t *columns, int64_t *bands)
{
    const fastseg_chain *chain = sizes->chain;
    const level *last = &sizes->levels[chain->count - 1];
    lay_out(sizes, 0, 1, NULL);
    const int64_t height = last->out_height, width = last->out_width;
    int64_t across = 1, size = 0;
    *bands = 1;
    while (width / across > MIN_COLUMNS && lay_out(sizes, 0, (width - 1) / across + 1, NULL) > CACHE_FLOATS) across++;
    while (chain->images * across * *bands < chain->threads && (*bands < height || width / across > MIN_COLUMNS)) {
        if (width / across > MIN_COLUMNS && width / across > 4 * (height / *bands)) across++;
        else if (*bands < height) ++*bands;
        else across++;
    }
    while (*bands < height && chain->images * across * *bands % chain->threads) ++*bands;
    *columns = (width - 1) / across + 1;
    for (int64_t begin = 0; begin < width; begin += *columns)
        size = larger(size, lay_out(sizes, begin, smaller(begin + *columns, width), NULL));
    return round_up(size, LANES);
}

/* Returns 0, or 1 where there is no memory. */
static int run_chain(const fastseg_chain *chain)
{
    tile sizes = {.chain = chain};
    int64_t columns, bands;
    const int64_t size = divide(&sizes, &columns, &bands);
    const int64_t height = sizes.levels[chain->count - 1].out_height, width = sizes.levels[chain->count - 1].out_width;
    const int64_t across = (width - 1) / columns + 1, tiles = chain->images * across * bands;
    float *memory = aligned_alloc(LANES * sizeof(float), (size_t)(size * chain->threads) * sizeof(float));
    if (!memory) return 1;
#pragma omp parallel for num_threads(chain->threads) schedule(static)
    for (int64_t i = 0; i < tiles; i++) {
        tile work = {.chain = chain, .image = i / bands / across};
        const int64_t begin = i / bands % across * columns, band = i % bands;
        run_tile(&work, begin, smaller(begin + columns, width), band * height / bands, (band + 1) * height / bands,
                 memory + size * omp_get_thread_num());
    }
    free(memory);
    return 0;
}
