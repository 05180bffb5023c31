/*
 * What exported pipelines put around a network: TensorScatter (a cache's update), TfIdfVectorizer on integers, and of
 * ai.onnx.ml the two operators that are none of a classical model's, ArrayFeatureExtractor and Binarizer.
 */
#include <string.h>

#include "ops/op.h"
#include "ops/support/build.h"

typedef struct ml_attrs {
    int64_t axis, max_gram_length, max_skip_count, min_gram_length;
    float threshold;
    const char *mode;
    hk_ints ngram_counts, ngram_indexes, pool_int64s;
    hk_floats weights;
} ml_attrs;

static const ml_attrs *attrs_of(const hk_node *n)
{
    return n->attrs;
}

/* ---- TensorScatter: update [batch, ..., count, ...] written into past_cache along an axis, from write_indices[batch]
 * on */

enum { IN_PAST, IN_UPDATE, IN_FROM };

static const hk_attr scatter_list[] = {HK_INT_ATTR(ml_attrs, axis, -2), HK_STRING_ATTR(ml_attrs, mode, "linear"), {0}};

static bool is_circular(const hk_node *n)
{
    return !strcmp(attrs_of(n)->mode, "circular");
}

static hk_status scatter_infer(hk_infer *in)
{
    const hk_node *n = in->node;
    const hk_value *past = n->in[IN_PAST], *update = n->in[IN_UPDATE], *from = hk_in(n, IN_FROM);
    hk_shape_text a, b;
    if (past->dtype != update->dtype)
        return hk_infer_fail(in, HK_STATUS_INVALID, "the cache is %s, the update %s", hk_dtype_name(past->dtype),
                             hk_dtype_name(update->dtype));
    if (!is_circular(n) && strcmp(attrs_of(n)->mode, "linear") != 0)
        return hk_infer_fail(in, HK_STATUS_INVALID, "mode is '%s', expected linear or circular", attrs_of(n)->mode);
    if (past->shape.rank >= 0 && update->shape.rank >= 0) {
        int32_t axis = hk_axis(attrs_of(n)->axis, past->shape.rank);
        bool fits = axis > 0 && past->shape.rank == update->shape.rank;
        for (int32_t i = 0; i < past->shape.rank && fits; i++) {
            int64_t x = past->shape.dim[i], y = update->shape.dim[i];
            fits = x < 0 || y < 0 || x == y || (i == axis && y < x);
        }
        if (!fits)
            return hk_infer_fail(in, HK_STATUS_INVALID, "an update of shape %s does not fit the cache's %s",
                                 hk_shape_print(&update->shape, &a), hk_shape_print(&past->shape, &b));
    }
    if (from && (from->dtype != HK_INT64 || (from->shape.rank >= 0 && from->shape.rank != 1)))
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected write_indices as int64 [batch]");
    return hk_infer_output(in, 0, past->dtype, &past->shape);
}

/* Outside of the cache nothing is written. */
static hk_status scatter_eval(hk_eval *e)
{
    const hk_node *n = e->node;
    const hk_tensor *past = e->in[IN_PAST], *update = e->in[IN_UPDATE],
                    *from = n->in_count > IN_FROM ? e->in[IN_FROM] : NULL;
    hk_shape ps = hk_tensor_shape(past), us = hk_tensor_shape(update);
    int32_t axis = hk_axis(attrs_of(n)->axis, ps.rank);
    hk_tensor *y = hk_eval_output(e, 0, past->dtype, &ps);
    if (!y)
        return hk_out_of_memory(e->ctx, "a cache");
    size_t size = hk_dtype_bytes(past->dtype);
    memcpy(y->data, past->data, (size_t)hk_tensor_bytes(past));
    int64_t inner = hk_shape_span(&us, axis + 1, us.rank), rows = us.dim[axis], extent = ps.dim[axis];
    int64_t outer = hk_shape_span(&us, 0, axis), per_batch = us.dim[0] > 0 ? outer / us.dim[0] : 1;
    for (int64_t o = 0; o < outer; o++)
        for (int64_t r = 0; r < rows; r++) {
            int64_t at = (from ? hk_get_int(from, o / per_batch) : 0) + r;
            at = is_circular(n) ? (at % extent + extent) % extent : at < 0 ? 0 : at < extent ? at : extent - 1;
            memcpy((char *)y->data + (size_t)((o * extent + at) * inner) * size,
                   (const char *)update->data + (size_t)((o * rows + r) * inner) * size, (size_t)inner * size);
        }
    return HK_OK;
}

/* An index for every element of the update: 8 bytes each. */
static hk_status scatter_expand(hk_graph *g, const hk_node *n, hk_value **out)
{
    hk_value *past = n->in[IN_PAST], *update = n->in[IN_UPDATE], *from = hk_in(n, IN_FROM);
    int32_t rank = past->shape.rank, axis = hk_axis(attrs_of(n)->axis, rank);
    int64_t rows = update->shape.dim[axis];
    hk_value *shape = hk_graph_ints(g, update->shape.dim, rank), *at = NULL;
    hk_value *range[] = {hk_graph_scalar(g, HK_INT64, 0), hk_graph_scalar(g, HK_INT64, (double)rows),
                         hk_graph_scalar(g, HK_INT64, 1)};
    if (!shape || !range[0] || !range[1] || !range[2])
        return hk_out_of_memory(g->ctx, "a cache's update");
    HK_TRY(hk_build(g, "Range", NULL, range, 3, &at, 1));
    hk_shape along = {.rank = rank}, batches = {.rank = rank};
    for (int32_t i = 0; i < rank; i++) {
        along.dim[i] = i == axis ? rows : 1;
        batches.dim[i] = i == 0 ? past->shape.dim[0] : 1;
    }
    HK_TRY(hk_build_reshape(g, at, &along, &at));
    if (from) {
        HK_TRY(hk_build_reshape(g, from, &batches, &from));
        HK_TRY(hk_build_binary(g, "Add", at, from, &at));
    }
    if (is_circular(n))
        HK_TRY(hk_build_scalar(g, "Mod", at, (double)past->shape.dim[axis], &at));
    HK_TRY(hk_build_binary(g, "Expand", at, shape, &at));
    const hk_attr_value attrs[] = {HK_SET_INT("axis", axis), {0}};
    return hk_build(g, "ScatterElements", attrs, (hk_value *[]){past, at, update}, 3, out, 1);
}

/* ---- TfIdfVectorizer: counts n-grams of a pool in rows of integers */

static const hk_attr tfidf_list[] = {
    {.name = "max_gram_length", .kind = HK_ATTR_INT, .offset = offsetof(ml_attrs, max_gram_length), .required = true},
    {.name = "max_skip_count", .kind = HK_ATTR_INT, .offset = offsetof(ml_attrs, max_skip_count), .required = true},
    {.name = "min_gram_length", .kind = HK_ATTR_INT, .offset = offsetof(ml_attrs, min_gram_length), .required = true},
    {.name = "mode", .kind = HK_ATTR_STRING, .offset = offsetof(ml_attrs, mode), .required = true},
    {.name = "ngram_counts", .kind = HK_ATTR_INTS, .offset = offsetof(ml_attrs, ngram_counts), .required = true},
    {.name = "ngram_indexes", .kind = HK_ATTR_INTS, .offset = offsetof(ml_attrs, ngram_indexes), .required = true},
    {.name = "pool_int64s", .kind = HK_ATTR_INTS, .offset = offsetof(ml_attrs, pool_int64s), .required = true},
    {.name = "weights", .kind = HK_ATTR_FLOATS, .offset = offsetof(ml_attrs, weights)},
    {0}};

/* The pool's n-grams of `length` are [first, end) in numbers, the first of them is entry `entry` of ngram_indexes. */
static void grams_of(const ml_attrs *a, int64_t length, int64_t *first, int64_t *end, int64_t *entry)
{
    *entry = 0;
    for (int64_t k = 1; k <= length; k++) {
        *first = k <= a->ngram_counts.count ? a->ngram_counts.v[k - 1] : a->pool_int64s.count;
        *end = k < a->ngram_counts.count ? a->ngram_counts.v[k] : a->pool_int64s.count;
        *entry += k < length ? (*end - *first) / k : 0;
    }
}

static hk_status check_pool(hk_infer *in, const ml_attrs *a)
{
    int64_t before = 0, grams = 0;
    bool fits = a->min_gram_length >= 1 && a->max_gram_length >= a->min_gram_length && a->max_gram_length <= 1024 &&
                a->max_skip_count >= 0 && a->max_skip_count <= INT32_MAX;
    for (int32_t i = 0; i < a->ngram_counts.count && fits; i++) {
        int64_t start = a->ngram_counts.v[i];
        int64_t end = i + 1 < a->ngram_counts.count ? a->ngram_counts.v[i + 1] : a->pool_int64s.count;
        fits = start >= before && end >= start && end <= a->pool_int64s.count && (end - start) % (i + 1) == 0;
        grams += fits ? (end - start) / (i + 1) : 0;
        before = start;
    }
    for (int32_t i = 0; i < a->ngram_indexes.count && fits; i++)
        fits = a->ngram_indexes.v[i] >= 0 && a->ngram_indexes.v[i] < 1 << 24;
    if (!fits || grams != a->ngram_indexes.count || (a->weights.v && a->weights.count != grams))
        return hk_infer_fail(in, HK_STATUS_INVALID,
                             "its pool of n-grams, their counts, indexes and weights do not fit");
    if (strcmp(a->mode, "TF") != 0 && strcmp(a->mode, "IDF") != 0 && strcmp(a->mode, "TFIDF") != 0)
        return hk_infer_fail(in, HK_STATUS_INVALID, "mode is '%s', expected TF, IDF or TFIDF", a->mode);
    return HK_OK;
}

static int64_t vector_length(const ml_attrs *a)
{
    int64_t most = -1;
    for (int32_t i = 0; i < a->ngram_indexes.count; i++)
        most = HK_MAX(most, a->ngram_indexes.v[i]);
    return most + 1;
}

static hk_status tfidf_infer(hk_infer *in)
{
    const hk_node *n = in->node;
    const hk_value *x = n->in[0];
    HK_TRY(check_pool(in, attrs_of(n)));
    if ((x->dtype != HK_INT32 && x->dtype != HK_INT64) || x->shape.rank == 0 || x->shape.rank > 2)
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected int32 or int64 of rank 1 or 2, found %s of rank %d",
                             hk_dtype_name(x->dtype), (int)x->shape.rank);
    hk_shape y = x->shape;
    if (y.rank > 0)
        y.dim[y.rank - 1] = vector_length(attrs_of(n));
    return hk_infer_output(in, 0, HK_FLOAT32, &y);
}

/* Counts the pool's n-grams of one length in a row, its elements `step` apart. */
static void count_grams(const ml_attrs *a, const hk_tensor *x, int64_t row, int64_t columns, int64_t length,
                        int64_t step, hk_tensor *y)
{
    int64_t first = 0, end = 0, entry = 0, vector = vector_length(a);
    grams_of(a, length, &first, &end, &entry);
    for (int64_t start = 0; start + (length - 1) * step < columns; start++)
        for (int64_t g = first; g < end; g += length) {
            bool same = true;
            for (int64_t k = 0; k < length && same; k++)
                same = hk_get_int(x, row * columns + start + k * step) == a->pool_int64s.v[g + k];
            int64_t at = row * vector + a->ngram_indexes.v[entry + (g - first) / length];
            if (same)
                hk_set_double(y, at, hk_get_double(y, at) + 1);
        }
}

static hk_status tfidf_eval(hk_eval *e)
{
    const ml_attrs *a = e->node->attrs;
    const hk_tensor *x = e->in[0];
    hk_shape ys = hk_tensor_shape(x);
    int64_t columns = ys.dim[ys.rank - 1], rows = ys.rank > 1 ? ys.dim[0] : 1;
    ys.dim[ys.rank - 1] = vector_length(a);
    hk_tensor *y = hk_eval_output(e, 0, HK_FLOAT32, &ys);
    if (!y)
        return hk_out_of_memory(e->ctx, "counts");
    for (int64_t r = 0; r < rows; r++)
        for (int64_t length = a->min_gram_length; length <= a->max_gram_length; length++)
            for (int64_t skip = 0; skip <= (length == 1 ? 0 : HK_MIN(a->max_skip_count, columns)); skip++)
                count_grams(a, x, r, columns, length, skip + 1, y);
    if (!strcmp(a->mode, "TF"))
        return HK_OK;
    for (int64_t r = 0; r < rows; r++)
        for (int32_t i = 0; i < a->ngram_indexes.count; i++) {
            int64_t at = r * ys.dim[ys.rank - 1] + a->ngram_indexes.v[i];
            double count = hk_get_double(y, at), weight = a->weights.v ? (double)a->weights.v[i] : 1.0;
            hk_set_double(y, at, (strcmp(a->mode, "IDF") ? count : (double)(count > 0)) * weight);
        }
    return HK_OK;
}

/* ---- ai.onnx.ml */

static const hk_attr binarizer_list[] = {HK_FLOAT_ATTR(ml_attrs, threshold, 0), {0}};

static hk_status binarizer_infer(hk_infer *in)
{
    return hk_infer_output(in, 0, in->node->in[0]->dtype, &in->node->in[0]->shape);
}

static hk_status binarizer_eval(hk_eval *e)
{
    hk_shape shape = hk_tensor_shape(e->in[0]);
    hk_tensor *y = hk_eval_output(e, 0, e->in[0]->dtype, &shape);
    if (!y)
        return hk_out_of_memory(e->ctx, "ones and zeros");
    for (int64_t i = 0, count = hk_shape_count(&shape); i < count; i++)
        hk_set_double(y, i, hk_get_double(e->in[0], i) > (double)attrs_of(e->node)->threshold);
    return HK_OK;
}

static hk_status binarizer_expand(hk_graph *g, const hk_node *n, hk_value **out)
{
    hk_value *x = n->in[0];
    if (!hk_dtype_is_float(x->dtype))
        HK_TRY(hk_build_cast(g, x, HK_FLOAT32, &x));
    HK_TRY(hk_build_scalar(g, "Greater", x, (double)attrs_of(n)->threshold, &x));
    return hk_build_cast(g, x, n->in[0]->dtype, out);
}

/* Columns y of x [..., columns]; a vector is one row. */
static hk_status extractor_infer(hk_infer *in)
{
    const hk_value *x = in->node->in[0], *y = in->node->in[1];
    hk_shape s = x->shape;
    if (y->dtype != HK_INT64 || s.rank == 0)
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected an array and int64 indices");
    if (s.rank == 1)
        s = (hk_shape){.rank = 2, .dim = {1, s.dim[0]}};
    if (s.rank > 0)
        s.dim[s.rank - 1] = hk_shape_known(&y->shape) ? hk_shape_count(&y->shape) : -1;
    return hk_infer_output(in, 0, x->dtype, &s);
}

static hk_status extractor_eval(hk_eval *e)
{
    const hk_tensor *x = e->in[0], *at = e->in[1];
    hk_shape s = hk_tensor_shape(x);
    int64_t columns = s.dim[s.rank - 1], count = hk_tensor_count(at);
    if (s.rank == 1)
        s = (hk_shape){.rank = 2, .dim = {1, columns}};
    s.dim[s.rank - 1] = count;
    hk_tensor *y = hk_eval_output(e, 0, x->dtype, &s);
    if (!y)
        return hk_out_of_memory(e->ctx, "columns");
    size_t size = hk_dtype_bytes(x->dtype);
    for (int64_t i = 0; i < hk_shape_count(&s); i++) {
        int64_t k = hk_get_int(at, i % count);
        if (k < -columns || k >= columns)
            return hk_eval_fail(e, HK_STATUS_INVALID, "index %lld is outside of %lld columns", (long long)k,
                                (long long)columns);
        memcpy((char *)y->data + (size_t)i * size,
               (const char *)x->data + (size_t)(i / count * columns + (k < 0 ? k + columns : k)) * size, size);
    }
    return HK_OK;
}

static hk_status extractor_expand(hk_graph *g, const hk_node *n, hk_value **out)
{
    hk_value *x = n->in[0], *y = NULL;
    const hk_attr_value attrs[] = {HK_SET_INT("axis", -1), {0}};
    hk_shape flat = {.rank = 1, .dim = {hk_shape_count(&n->in[1]->shape)}};
    HK_TRY(hk_build_reshape(g, n->in[1], &flat, &y));
    HK_TRY(hk_build(g, "Gather", attrs, (hk_value *[]){x, y}, 2, &x, 1));
    return hk_build_reshape(g, x, &n->out[0]->shape, out);
}

/* ---- the table */

static const char *const scatter_cases[] = {"f32[2,3,4,5] f32[2,3,1,5] i64[2]<4",
                                            "f32[3,4,5] f32[3,2,5] i64={1,0,2}",
                                            "f32[2,1,4,5] f32[2,1,3,5] i64={3,2} ; mode=\"circular\"",
                                            "f32[2,4,5] f32[2,2,5]",
                                            "i64[2,6] i64[2,2] i64={1,4} ; axis=-1",
                                            NULL};
static const char *const tfidf_cases[] = {
    "i32[12]<2:9 ; max_gram_length=2 max_skip_count=5 min_gram_length=1 mode=\"TF\" ngram_counts=[0,4] "
    "ngram_indexes=[0,1,2,3,4,5,6] pool_int64s=[2,3,5,4,5,6,7,8,6,7]",
    "i64[3,9]<2:6 ; max_gram_length=2 max_skip_count=1 min_gram_length=2 mode=\"TFIDF\" ngram_counts=[0,0] "
    "ngram_indexes=[1,0] pool_int64s=[2,3,3,5] weights=[0.5,2.0]",
    NULL};
static const char *const binarizer_cases[] = {"f32[3,4] ; threshold=0.3 ; nograd", "i64[9]<-3:3", NULL};
static const char *const extractor_cases[] = {"f32[3,4] i64={0,2,2} ; ; nograd", "i32[5] i64[1,2]={1,4}", NULL};

#define OP(name, of_domain, first, least, most, flag, list, fn)                                                        \
    {                                                                                                                  \
        .type = name, .domain = of_domain, .since = first, .in_min = least, .in_max = most, .out_min = 1,              \
        .out_max = 1, .flags = flag, .attrs_bytes = sizeof(ml_attrs), .attrs = list, .infer = fn##_infer,              \
        .eval = fn##_eval, .expand = fn##_expand, .cases = fn##_cases                                                  \
    }
#define tfidf_expand NULL

const hk_op hk_ops_onnx_ml[] = {
    OP("TensorScatter", NULL, 24, 2, 3, 0, scatter_list, scatter),
    OP("TfIdfVectorizer", NULL, 9, 1, 1, HK_OP_HOST, tfidf_list, tfidf),
    OP("Binarizer", "ai.onnx.ml", 1, 1, 1, 0, binarizer_list, binarizer),
    OP("ArrayFeatureExtractor", "ai.onnx.ml", 1, 2, 2, 0, NULL, extractor),
    {0},
};
