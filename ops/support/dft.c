/* The discrete Fourier transform as matrix products (Cooley and Tukey for long ones). */
#include "ops/support/dft.h"

#include <math.h>

#include "ops/support/build.h"

enum { DIRECT = 256, RADIX = 32, TABLE = 1 << 24 /* elements of a matrix made on the host, at most */ };

/* exp(-+2 pi i k / n), with the index reduced exactly. */
static void turn(int64_t k, int64_t n, bool inverse, double *re, double *im)
{
    double angle = 6.28318530717958647692 * (double)(k % n) / (double)n;
    *re = cos(angle);
    *im = inverse ? sin(angle) : -sin(angle);
}

void hk_dft_reference(const hk_dft *d, const double *x, int parts, double *y)
{
    int64_t results = d->onesided ? d->length / 2 + 1 : d->length;
    double factor = d->inverse ? 1.0 / (double)d->length : 1.0;
    for (int64_t k = 0; k < results; k++) {
        double re = 0, im = 0;
        for (int64_t j = 0; j < d->length; j++) {
            double c, s, a = x[j * parts], b = parts > 1 ? x[j * parts + 1] : 0;
            turn(j * k, d->length, d->inverse, &c, &s);
            re += a * c - b * s;
            im += a * s + b * c;
        }
        y[2 * k] = re * factor;
        y[2 * k + 1] = im * factor;
    }
}

/* Rows: (j, part of x), columns: (k, part of y). */
static void fill(hk_tensor *m, int64_t at, int parts, int64_t row, int64_t column, int64_t columns, double c, double s)
{
    int64_t first = at + row * parts * 2 * columns + 2 * column;
    hk_set_double(m, first, c);
    hk_set_double(m, first + 1, s);
    if (parts > 1) {
        hk_set_double(m, first + 2 * columns, -s);
        hk_set_double(m, first + 2 * columns + 1, c);
    }
}

static hk_status direct(hk_graph *g, hk_value *x, const hk_dft *d, hk_value **out)
{
    int parts = (int)x->shape.dim[2];
    int64_t n = d->length, results = d->onesided ? n / 2 + 1 : n, batch = x->shape.dim[0];
    hk_shape shape = {.rank = 2, .dim = {n * parts, 2 * results}};
    if (n > TABLE || n * parts * 2 * results > TABLE)
        return hk_fail(
            g->ctx, HK_STATUS_UNSUPPORTED,
            "a Fourier transform of length %lld needs a table of more than %d elements: choose a length with "
            "small divisors",
            (long long)n, TABLE);
    hk_tensor *m = hk_tensor_new(g->arena, HK_FLOAT32, &shape);
    for (int64_t j = 0; m && j < n; j++)
        for (int64_t k = 0; k < results; k++) {
            double c, s, factor = d->inverse ? 1.0 / (double)n : 1.0;
            turn(j * k, n, d->inverse, &c, &s);
            fill(m, 0, parts, j, k, results, c * factor, s * factor);
        }
    hk_value *matrix = m ? hk_graph_constant(g, NULL, m) : NULL;
    if (!matrix)
        return hk_out_of_memory(g->ctx, "a Fourier transform");
    HK_TRY(hk_build_reshape(g, x, &(hk_shape){.rank = 2, .dim = {batch, n * parts}}, &x));
    HK_TRY(hk_build_binary(g, "MatMul", x, matrix, &x));
    return hk_build_reshape(g, x, &(hk_shape){.rank = 3, .dim = {batch, results, 2}}, out);
}

/* 1: none of which the table is small enough. */
static int64_t largest_divisor(int64_t n)
{
    for (int64_t d = RADIX; d > 1; d--)
        if (n % d == 0 && n <= TABLE / 4 / d)
            return d;
    return 1;
}

/* Transforms of length a, one matrix for each of the b positions j2: with the turn by j2 k1 that follows them. */
static hk_value *turned_matrices(hk_graph *g, int64_t a, int64_t b, bool inverse)
{
    hk_shape shape = {.rank = 3, .dim = {b, 2 * a, 2 * a}};
    hk_tensor *m = hk_tensor_new(g->arena, HK_FLOAT32, &shape);
    for (int64_t j2 = 0; m && j2 < b; j2++)
        for (int64_t j1 = 0; j1 < a; j1++)
            for (int64_t k = 0; k < a; k++) {
                double c, s, factor = inverse ? 1.0 / (double)a : 1.0;
                turn((j1 * b + j2) % (a * b) * k, a * b, inverse, &c, &s);
                fill(m, j2 * 4 * a * a, 2, j1, k, a, c * factor, s * factor);
            }
    return m ? hk_graph_constant(g, NULL, m) : NULL;
}

/* x [batch, n, 2], all of the results: with j = b j1 + j2 and k = k1 + a k2,
 * X[k] = sum over j2 of (turn by j2 k1 / n of the transform over j1) turned by j2 k2 / b. */
static hk_status transform(hk_graph *g, hk_value *x, int64_t n, bool inverse, hk_value **out)
{
    static const int64_t by_position[] = {2, 0, 1, 3}, by_result[] = {1, 2, 0, 3}, in_order[] = {0, 2, 1, 3};
    int64_t batch = x->shape.dim[0], a = largest_divisor(n), b = n / a;
    if (n <= DIRECT || a == 1)
        return direct(g, x, &(hk_dft){n, inverse, false}, out);
    hk_value *matrices = turned_matrices(g, a, b, inverse);
    if (!matrices)
        return hk_out_of_memory(g->ctx, "a Fourier transform");
    HK_TRY(hk_build_reshape(g, x, &(hk_shape){.rank = 4, .dim = {batch, a, b, 2}}, &x));
    HK_TRY(hk_build_transpose(g, x, by_position, 4, &x)); /* [b, batch, a, 2] */
    HK_TRY(hk_build_reshape(g, x, &(hk_shape){.rank = 3, .dim = {b, batch, 2 * a}}, &x));
    HK_TRY(hk_build_binary(g, "MatMul", x, matrices, &x));
    HK_TRY(hk_build_reshape(g, x, &(hk_shape){.rank = 4, .dim = {b, batch, a, 2}}, &x));
    HK_TRY(hk_build_transpose(g, x, by_result, 4, &x)); /* [batch, k1, j2, 2] */
    HK_TRY(hk_build_reshape(g, x, &(hk_shape){.rank = 3, .dim = {batch * a, b, 2}}, &x));
    HK_TRY(transform(g, x, b, inverse, &x));
    HK_TRY(hk_build_reshape(g, x, &(hk_shape){.rank = 4, .dim = {batch, a, b, 2}}, &x));
    HK_TRY(hk_build_transpose(g, x, in_order, 4, &x)); /* [batch, k2, k1, 2] */
    return hk_build_reshape(g, x, &(hk_shape){.rank = 3, .dim = {batch, n, 2}}, out);
}

hk_status hk_build_dft(hk_graph *g, hk_value *x, const hk_dft *d, hk_value **out)
{
    const int64_t pads[] = {0, 0, 0, 0, 0, 1};
    if (d->length <= DIRECT || largest_divisor(d->length) == 1)
        return direct(g, x, d, out);
    if (x->shape.dim[2] == 1)
        HK_TRY(hk_build_pad(g, x, pads, &x));
    HK_TRY(transform(g, x, d->length, d->inverse, out));
    const int64_t crop[] = {0, 0, 0, 0, d->length / 2 + 1 - d->length, 0};
    return d->onesided ? hk_build_pad(g, *out, crop, out) : HK_OK;
}
