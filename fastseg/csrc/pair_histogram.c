/* How often every pair of label and prediction occurs: what a confusion matrix counts.
 *
 * Maps have runs: where 64 pixels in a row hold one pair, as an inner part of an object does, one addition counts them,
 * else the same is tried for 8. Single pixels go round four tables, since an addition to a counter has to wait for the
 * one before it to the same counter.
 */
#include <string.h>

#include "fastseg.h"

#define TABLES 4
#define LONG_RUN 64
#define SHORT_RUN 8
#define VOID_LABEL 255

/* Where a byte's counts stand: labels by row, the void one at K and others that are no class at K+1; predictions by
 * column, those that are no class at K. */
struct places {
    int64_t row[256];
    int64_t column[256];
};

static int one_pair(const uint8_t *labels, const uint8_t *predictions, int64_t count)
{
    uint8_t differs = 0;
    for (int64_t i = 0; i < count; i++) {
        differs |= (labels[i] ^ labels[0]) | (predictions[i] ^ predictions[0]);
    }
    return differs == 0;
}

FASTSEG_CLONES
static void count_part(const uint8_t *labels, const uint8_t *predictions, int64_t count, const struct places *places,
                       int64_t *tables, int64_t table_size)
{
    int64_t i = 0;
    while (i + LONG_RUN <= count) {
        if (one_pair(labels + i, predictions + i, LONG_RUN)) {
            tables[places->row[labels[i]] + places->column[predictions[i]]] += LONG_RUN;
            i += LONG_RUN;
            continue;
        }
        for (int64_t end = i + LONG_RUN; i < end; i += SHORT_RUN) {
            if (one_pair(labels + i, predictions + i, SHORT_RUN)) {
                tables[places->row[labels[i]] + places->column[predictions[i]]] += SHORT_RUN;
                continue;
            }
            for (int64_t j = 0; j < SHORT_RUN; j++) {
                tables[(j % TABLES) * table_size + places->row[labels[i + j]] + places->column[predictions[i + j]]]++;
            }
        }
    }
    for (; i < count; i++) {
        tables[places->row[labels[i]] + places->column[predictions[i]]]++;
    }
}

/* Adds the pairs of `count` bytes to `tables`, (threads, TABLES, num_classes + 2, num_classes + 1), whose sum over the
 * first two dimensions is the answer: rows of the classes, of the void label 255 and of other labels; columns of the
 * classes and of predictions that are none. */
void fastseg_pair_histogram(const uint8_t *labels, const uint8_t *predictions, int64_t count, int num_classes,
                            int64_t *tables, int threads)
{
    struct places places;
    int64_t columns = num_classes + 1;
    int64_t table_size = (num_classes + 2) * columns;
    int64_t part = (count / threads / LONG_RUN + 1) * LONG_RUN;

    for (int value = 0; value < 256; value++) {
        int row = value < num_classes ? value : value == VOID_LABEL ? num_classes : num_classes + 1;
        places.row[value] = row * columns;
        places.column[value] = value < num_classes ? value : num_classes;
    }
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int thread = 0; thread < threads; thread++) {
        int64_t begin = thread * part;
        int64_t length = count - begin < part ? count - begin : part;
        if (length > 0) {
            count_part(labels + begin, predictions + begin, length, &places,
                       tables + thread * TABLES * table_size, table_size);
        }
    }
}
