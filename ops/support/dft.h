/* The discrete Fourier transform as nodes. */
#ifndef HK_DFT_H
#define HK_DFT_H

#include "ops/op.h"

typedef struct hk_dft {
    int64_t length;
    bool inverse;  /* with the factor 1 / length */
    bool onesided; /* the first length / 2 + 1 results */
} hk_dft;

/* x [batch, length, 1 or 2] of float32 → [batch, results, 2]. Lengths up to 256, and those without a divisor up to 32,
 * are one product with a matrix made on the host (4 length results words); longer ones are taken apart by their largest
 * divisor d up to 32, as two rounds of smaller products: length (d + length / d) operations and 4 length d words. */
hk_status hk_build_dft(hk_graph *g, hk_value *x, const hk_dft *dft, hk_value **out);
/* The oracle: one transform of x (of `parts` words an element, stride elements apart) to y (2 words each). */
void hk_dft_reference(const hk_dft *dft, const double *x, int parts, double *y);

#endif
