/* What the fused separable convolutions share: the stages of a chain, as Python describes them. */
#ifndef FASTSEG_SEPARABLE_H
#define FASTSEG_SEPARABLE_H

#include "fastseg.h"

/* What fills a stage's ring of rows. All but the first stage of a chain take what the stage before produces. */
enum {
    FASTSEG_COPY,    /* the input map */
    FASTSEG_EXPAND,  /* a 1x1 product of the input map */
    FASTSEG_PATCHES, /* the input map as it is, for a product that takes 3x3 pixels with all their channels */
    FASTSEG_RESIZE,  /* the input map resized bilinearly */
};

/* One block: [ring] -> [depthwise 3x3] -> product, each with its bias and, if asked, ReLU.
 *
 * Channels are counted in vectors of LANES; counts that are no multiple are padded with zero weights. Weights of the
 * products stand in panels of up to PANEL vectors of outputs, [panel][input][output]; depthwise weights and biases as
 * [vector][9][LANES] and [vector][LANES]. The product adds that of a second map, `side`, whose inputs come last. */
typedef struct {
    const void *expand_weight;
    const float *expand_bias;
    const float *depthwise_weight; /* NULL: the product takes the ring itself; stride 1, dilation 0 unless patches */
    const float *depthwise_bias;
    const void *product_weight;
    const float *product_bias;
    int64_t source, in_channels, middle_channels, side_channels, out_channels;
    int64_t stride, dilation;
    int64_t expand_relu, depthwise_relu, product_relu;
} fastseg_stage;

/* A map (N,H,W,C) through a chain of stages; `side` and `addend` (either may be NULL) belong to the last of them.
 * `addend` has the output's shape and is added before the last ReLU. */
typedef struct {
    const void *input, *side, *addend;
    void *output;
    int64_t images, height, width;
    int64_t source_height, source_width, align_corners; /* of FASTSEG_RESIZE, which makes height x width of them */
    const fastseg_stage *stages;
    int64_t count, threads;
} fastseg_chain;

enum { FASTSEG_MAX_STAGES = 4 };

#if defined(__x86_64__) && defined(__GNUC__) && __GNUC__ >= 11 && defined(_OPENMP)
#define FASTSEG_AVX512
int fastseg_separable_avx512(const fastseg_chain *chain);
int fastseg_separable_bf16(const fastseg_chain *chain);
#endif

#endif
