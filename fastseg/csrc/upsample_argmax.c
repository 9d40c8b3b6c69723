/* Labels of bilinearly upsampled logits: the same as those of fastseg/ops/uniform_cells.py, where the proof stands.
 *
 * Cells of the map whose four corners have one label are filled. In the others, classes that a corner's label beats at
 * all corners are dropped, and only those left are interpolated: in double, with whole numbers as weights.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fastseg.h"

#ifdef _OPENMP
#include <omp.h>
#define THREAD omp_get_thread_num()
#else
#define THREAD 0
#endif

#define INLINE static inline __attribute__((always_inline)) /* into every clone */
#define LANES 16                                            /* pixels that go through the classes together */
#define PIECE 8                                             /* pixels of a row that are interpolated together */

typedef double values __attribute__((vector_size(8 * PIECE)));
typedef int64_t integers __attribute__((vector_size(8 * PIECE)));
typedef uint16_t words __attribute__((vector_size(2 * PIECE)));
typedef uint8_t bytes __attribute__((vector_size(PIECE)));

/* Neighbouring pixels of the image, `begin` to `end`, that lie between two of the map. */
struct run {
    int64_t begin, end;
    int64_t first, second;
    int exact; /* whether every pixel is one of the map's */
};

struct side {
    struct run *runs;
    int64_t count;
    double *weights[2]; /* of every pixel of the image, for the first and the second of its run */
};

struct maps {
    const float *logits;
    int64_t n, k, h, w, height, width;
    int64_t stride_n, stride_k, stride_y, stride_x;
    void *labels;
    int label_size;    /* in bytes, 1 or 2 */
    uint16_t *corners; /* labels (n,h,w) of the map */
    struct side rows, columns;
};

/* What a thread works with. */
struct room {
    float *corners[4]; /* logits (k) of a cell's corners, in the order of writing */
    int32_t *beaten;   /* (k) */
    int32_t *left;     /* classes that are not beaten, in ascending order */
    uint16_t *line;    /* labels (width), and place for a piece more */
};

/* Coordinates as in torch.nn.functional.interpolate, in parts of 1 / unit. Returns 0 where there is no memory. */
static int make_side(struct side *side, int64_t length, int64_t out, int align_corners)
{
    int64_t unit = align_corners ? (out > 1 ? out - 1 : 1) : 2 * out;
    int64_t last = -2;
    side->runs = malloc(sizeof(struct run) * (size_t)out);
    side->weights[0] = calloc(2 * (size_t)(out + PIECE), sizeof(double));
    if (side->runs == NULL || side->weights[0] == NULL) {
        return 0;
    }
    side->weights[1] = side->weights[0] + out + PIECE;
    for (int64_t i = 0; i < out; i++) {
        int64_t position = align_corners ? i * (length - 1) : (2 * i + 1) * length - out;
        int64_t cell = position < 0 ? -1 : position / unit; /* no position is a whole unit before the map */
        int64_t rest = position - cell * unit;
        side->weights[0][i] = (double)(unit - rest);
        side->weights[1][i] = (double)rest;
        if (cell != last) {
            struct run *run = side->runs + side->count++;
            run->begin = i;
            run->first = cell < 0 ? 0 : cell;
            run->second = cell + 1 < length ? cell + 1 : length - 1;
            run->exact = 1;
            last = cell;
        }
        struct run *run = side->runs + side->count - 1;
        run->end = i + 1;
        run->exact = run->exact && (rest == 0 || run->first == run->second);
    }
    return 1;
}

/* The lowest of the classes with the largest logit, for `count` pixels side by side. */
INLINE void first_of_largest(const float *logits, int64_t k, int64_t stride_k, int64_t stride_x, int count,
                             uint16_t *labels)
{
    float best[LANES];
    int32_t label[LANES];
    for (int j = 0; j < count; j++) {
        best[j] = logits[j * stride_x];
        label[j] = 0;
    }
    for (int32_t class = 1; class < (int32_t)k; class++) {
        const float *x = logits + class * stride_k;
        for (int j = 0; j < count; j++) {
            float value = x[j * stride_x];
            label[j] = value > best[j] ? class : label[j];
            best[j] = value > best[j] ? value : best[j];
        }
    }
    for (int j = 0; j < count; j++) {
        labels[j] = (uint16_t)label[j];
    }
}

/* The labels of row i of the n * h rows of the map. */
FASTSEG_CLONES
static void label_row(const struct maps *maps, int64_t i)
{
    const float *row = maps->logits + i / maps->h * maps->stride_n + i % maps->h * maps->stride_y;
    uint16_t *labels = maps->corners + i * maps->w;
    int64_t x = 0, stride = maps->stride_x;
    if (stride == 1) {
        for (; x + LANES <= maps->w; x += LANES) {
            first_of_largest(row + x, maps->k, maps->stride_k, 1, LANES, labels + x);
        }
    }
    for (; x + LANES <= maps->w; x += LANES) {
        first_of_largest(row + x * stride, maps->k, maps->stride_k, stride, LANES, labels + x);
    }
    for (; x < maps->w; x++) {
        first_of_largest(row + x * stride, maps->k, maps->stride_k, 1, 1, labels + x);
    }
}

/* Marks the classes that `winner` beats: below it at all corners, or nowhere above it and of higher index. */
INLINE void beat(float *const corners[4], int32_t k, int32_t winner, int32_t *restrict beaten)
{
    const float *restrict a = corners[0], *restrict b = corners[1], *restrict c = corners[2], *restrict d = corners[3];
    float of_a = a[winner], of_b = b[winner], of_c = c[winner], of_d = d[winner];
    for (int32_t j = 0; j < k; j++) {
        int32_t above = (of_a > a[j]) & (of_b > b[j]) & (of_c > c[j]) & (of_d > d[j]);
        int32_t not_below = (of_a >= a[j]) & (of_b >= b[j]) & (of_c >= c[j]) & (of_d >= d[j]);
        beaten[j] |= above | (not_below & (j > winner));
    }
}

/* Finds the classes that may win in a cell with these labels at its corners; returns their number. */
INLINE int64_t find_left(const struct room *room, int32_t k, const uint16_t labels[4])
{
    int64_t count = 0;
    memset(room->beaten, 0, sizeof(int32_t) * (size_t)k);
    for (int i = 0; i < 4; i++) {
        int seen = 0;
        for (int j = 0; j < i; j++) {
            seen |= labels[j] == labels[i];
        }
        if (!seen) {
            beat(room->corners, k, labels[i], room->beaten);
        }
    }
    for (int32_t j = 0; j < k; j++) {
        room->left[count] = j;
        count += !room->beaten[j];
    }
    return count;
}

/* Labels of PIECE pixels of a row of a cell: `up` and `down` are the row's weights, `w0` and `w1` the pixels'. */
INLINE void interpolate(const struct room *room, int64_t left, double up, double down, const double *w0,
                        const double *w1, integers *labels)
{
    float *const *corners = room->corners;
    values first, second;
    memcpy(&first, w0, sizeof first);
    memcpy(&second, w1, sizeof second);
    if (left == 2) { /* the sign of the difference: one interpolation instead of two */
        int64_t a = room->left[0], b = room->left[1];
        double lead[4];
        for (int i = 0; i < 4; i++) {
            lead[i] = (double)corners[i][b] - (double)corners[i][a];
        }
        integers above = first * (up * lead[0] + down * lead[2]) + second * (up * lead[1] + down * lead[3]) > 0;
        *labels = (above & (a ^ b)) ^ a;
        return;
    }
    values best = (values){0} - (double)INFINITY;
    *labels = (integers){0} + room->left[0];
    for (int64_t i = 0; i < left; i++) {
        int64_t class = room->left[i];
        double start = up * corners[0][class] + down * corners[2][class];
        double stop = up * corners[1][class] + down * corners[3][class];
        values value = first * start + second * stop;
        integers above = value > best;
        *labels ^= above & (*labels ^ class);
        best = (values)(((integers)best & ~above) | ((integers)value & above));
    }
}

/* Writes the first `count` of these labels. */
INLINE void put(const struct maps *maps, int64_t at, const integers *labels, int64_t count)
{
    if (maps->label_size == 2) {
        words narrow = __builtin_convertvector(*labels, words);
        memcpy((uint16_t *)maps->labels + at, &narrow, 2 * (size_t)(count < PIECE ? count : PIECE));
    } else {
        bytes narrow = __builtin_convertvector(*labels, bytes);
        if (count >= PIECE) {
            memcpy((uint8_t *)maps->labels + at, &narrow, PIECE);
        } else {
            memcpy((uint8_t *)maps->labels + at, &narrow, (size_t)count);
        }
    }
}

/* Fills the rows of a run, every cell with the label of its first corner. */
INLINE void fill_rows(const struct maps *maps, const uint16_t *above, const struct run *row, int64_t at, uint16_t *line)
{
    size_t size = (size_t)maps->label_size;
    for (int64_t r = 0; r < maps->columns.count; r++) {
        const struct run *column = maps->columns.runs + r;
        words label = (words){0} + above[column->first];
        for (int64_t x = column->begin; x < column->end; x += PIECE) { /* the next run replaces what is too much */
            memcpy(line + x, &label, sizeof label);
        }
    }
    char *first = (char *)maps->labels + (size_t)at * size;
    if (size == 2) {
        memcpy(first, line, 2 * (size_t)maps->width);
    } else {
        for (int64_t x = 0; x < maps->width; x++) {
            ((uint8_t *)first)[x] = (uint8_t)line[x];
        }
    }
    for (int64_t y = 1; y < row->end - row->begin; y++) {
        memcpy(first + (size_t)(y * maps->width) * size, first, (size_t)maps->width * size);
    }
}

/* Labels the image's rows of run i of the n images' runs. */
FASTSEG_CLONES
static void label_run(const struct maps *maps, int64_t i, const struct room *room)
{
    const struct run *row = maps->rows.runs + i % maps->rows.count;
    int64_t image = i / maps->rows.count;
    const float *logits = maps->logits + image * maps->stride_n;
    const uint16_t *above = maps->corners + (image * maps->h + row->first) * maps->w;
    const uint16_t *below = maps->corners + (image * maps->h + row->second) * maps->w;
    int64_t at = (image * maps->height + row->begin) * maps->width;
    fill_rows(maps, above, row, at, room->line);
    for (int64_t r = 0; r < maps->columns.count; r++) {
        const struct run *column = maps->columns.runs + r;
        uint16_t labels[4] = {above[column->first], above[column->second], below[column->first], below[column->second]};
        if (labels[0] == labels[1] && labels[0] == labels[2] && labels[0] == labels[3]) {
            continue;
        }
        if (row->exact && column->exact) { /* a map of the image's size has no other cells */
            continue;
        }
        for (int j = 0; j < 4; j++) {
            int64_t y = j < 2 ? row->first : row->second, x = j % 2 ? column->second : column->first;
            const float *corner = logits + y * maps->stride_y + x * maps->stride_x;
            for (int64_t class = 0; class < maps->k; class++) {
                room->corners[j][class] = corner[class * maps->stride_k];
            }
        }
        int64_t left = find_left(room, (int32_t)maps->k, labels);
        for (int64_t y = row->begin; y < row->end; y++) {
            for (int64_t x = column->begin; x < column->end; x += PIECE) {
                integers found;
                interpolate(room, left, maps->rows.weights[0][y], maps->rows.weights[1][y],
                            maps->columns.weights[0] + x, maps->columns.weights[1] + x, &found);
                put(maps, at + (y - row->begin) * maps->width + x, &found, column->end - x);
            }
        }
    }
}

/* Logits (n,k,h,w) to labels (n,height,width) of `label_size` bytes, 1 or 2. `sizes` are these six numbers, `strides`
 * those of the logits in elements. Returns 0, or -1 where there is no memory. */
int fastseg_upsample_argmax(const float *logits, const int64_t sizes[6], const int64_t strides[4], int align_corners,
                            void *labels, int label_size, int threads)
{
    struct maps maps = {
        .logits = logits,
        .n = sizes[0], .k = sizes[1], .h = sizes[2], .w = sizes[3], .height = sizes[4], .width = sizes[5],
        .stride_n = strides[0], .stride_k = strides[1], .stride_y = strides[2], .stride_x = strides[3],
        .labels = labels, .label_size = label_size,
    };
    size_t of_classes = 4 * (size_t)maps.k; /* float and int32_t alike */
    size_t of_room = (6 * of_classes + sizeof(uint16_t) * (size_t)(maps.width + PIECE) + 127) / 64 * 64;
    char *rooms = malloc(of_room * (size_t)threads);
    maps.corners = malloc(sizeof(uint16_t) * (size_t)(maps.n * maps.h * maps.w));
    int ready = make_side(&maps.rows, maps.h, maps.height, align_corners);
    ready = make_side(&maps.columns, maps.w, maps.width, align_corners) && ready && rooms != NULL && maps.corners != NULL;
    if (ready) {
#pragma omp parallel num_threads(threads)
        {
            char *mine = rooms + of_room * (size_t)THREAD;
            struct room room;
            for (int j = 0; j < 4; j++) {
                room.corners[j] = (float *)(mine + (size_t)j * of_classes);
            }
            room.beaten = (int32_t *)(mine + 4 * of_classes);
            room.left = (int32_t *)(mine + 5 * of_classes);
            room.line = (uint16_t *)(mine + 6 * of_classes);
#pragma omp for schedule(static)
            for (int64_t i = 0; i < maps.n * maps.h; i++) {
                label_row(&maps, i);
            }
#pragma omp for schedule(dynamic, 1)
            for (int64_t i = 0; i < maps.n * maps.rows.count; i++) {
                label_run(&maps, i, &room);
            }
        }
    }
    free(rooms);
    free(maps.corners);
    free(maps.rows.runs);
    free(maps.rows.weights[0]);
    free(maps.columns.runs);
    free(maps.columns.weights[0]);
    return ready ? 0 : -1;
}
