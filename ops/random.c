/*
 * Random numbers. Everything expands into hk.Random, which is uniform, normal or Gumbel in float32, and primitives that
 * round nothing or exactly: Bernoulli compares, Multinomial takes the largest of scores with Gumbel noise (batch *
 * samples * classes numbers).
 *
 * Words are Philox(seed of the session, {index in its sample / 4, global number of the sample, stream, step}), as in
 * ops/dropout.c, and what is made of them has the same bits on host and device (shaders/random_math.push.h),
 * independent of how work is divided. The stream is the node's name, or hk.stream; ONNX's seed makes another stream of
 * it. Samples are counted along the first dimension.
 */
#include <math.h>
#include <string.h>

#include "core/philox.h"
#include "kernels.h"
#include "ops/divisor.h"
#include "ops/op.h"
#include "ops/step.h"
#include "ops/support/build.h"
#include "shaders/random.push.h"
#include "shaders/random_math.push.h"

typedef struct random_attrs {
    hk_ints shape;
    float a, b, seed, mean, scale, low, high;
    int64_t distribution, stream, dtype, sample_size;
} random_attrs;

enum { WORKGROUP = 128 };

#define SEED HK_FLOAT_ATTR(random_attrs, seed, NAN)
#define STREAM                                                                                                         \
    {                                                                                                                  \
        .name = "hk.stream", .kind = HK_ATTR_INT, .offset = offsetof(random_attrs, stream), .number = -1               \
    }
static const hk_attr base_list[] = {HK_INTS_ATTR(random_attrs, shape),
                                    HK_FLOAT_ATTR(random_attrs, a, 0),
                                    HK_FLOAT_ATTR(random_attrs, b, 1),
                                    HK_INT_ATTR(random_attrs, distribution, RANDOM_UNIFORM),
                                    STREAM,
                                    {0}};
#define SHAPE                                                                                                          \
    {                                                                                                                  \
        .name = "shape", .kind = HK_ATTR_INTS, .offset = offsetof(random_attrs, shape), .required = true               \
    }
#define UNIFORM HK_FLOAT_ATTR(random_attrs, low, 0), HK_FLOAT_ATTR(random_attrs, high, 1)
#define NORMAL HK_FLOAT_ATTR(random_attrs, mean, 0), HK_FLOAT_ATTR(random_attrs, scale, 1)
static const hk_attr uniform_list[] = {SHAPE, UNIFORM, SEED, STREAM, HK_INT_ATTR(random_attrs, dtype, 1), {0}};
static const hk_attr normal_list[] = {SHAPE, NORMAL, SEED, STREAM, HK_INT_ATTR(random_attrs, dtype, 1), {0}};
static const hk_attr uniform_like_list[] = {UNIFORM, SEED, STREAM, HK_INT_ATTR(random_attrs, dtype, 0), {0}};
static const hk_attr normal_like_list[] = {NORMAL, SEED, STREAM, HK_INT_ATTR(random_attrs, dtype, 0), {0}};
static const hk_attr bernoulli_list[] = {SEED, STREAM, HK_INT_ATTR(random_attrs, dtype, 0), {0}};
static const hk_attr multinomial_list[] = {
    SEED, STREAM, HK_INT_ATTR(random_attrs, dtype, 6), HK_INT_ATTR(random_attrs, sample_size, 1), {0}};

static const random_attrs *attrs_of(const hk_node *n)
{
    return n->attrs;
}

/* A stable number for the node: of its name, unless given. */
static uint32_t stream_of(const hk_node *n)
{
    const random_attrs *a = n->attrs;
    uint32_t h = a->stream >= 0 ? (uint32_t)a->stream : hk_philox_stream(n->name), seed;
    memcpy(&seed, &a->seed, sizeof seed);
    bool given = a->seed == a->seed && strcmp(n->op->type, "hk.Random") != 0;
    return given ? h ^ (uint32_t)((uint64_t)(seed + 1u) * 0x9E3779B97F4A7C15u >> 32) : h;
}

static bool is_normal(const hk_node *n)
{
    return !strncmp(n->op->type, "RandomNormal", 12);
}

/* ---- the numbers on the host */

typedef struct stream {
    const hk_step *step;
    uint32_t number;
    int64_t distribution;
    float a, b;
} stream;

/* Element i of sample `sample`: y = a + b x. */
static float draw(const stream *s, int64_t sample, int64_t i)
{
    uint32_t w[4];
    hk_philox(s->step->seed,
              (const uint32_t[4]){(uint32_t)(i / 4), s->step->sample + (uint32_t)sample, s->number, s->step->step}, w);
    const uint32_t *pair = &w[i % 4 / 2 * 2], own = w[i % 4];
    float x = s->distribution == RANDOM_NORMAL   ? random_normal(pair[0], pair[1], i % 2 == 0)
              : s->distribution == RANDOM_GUMBEL ? random_gumbel(own)
                                                 : random_unit(own);
    return x * s->b + s->a;
}

static int64_t sample_elements(const hk_shape *s)
{
    return s->rank > 0 ? hk_shape_span(s, 1, s->rank) : 1;
}

static float draw_at(const stream *s, const hk_shape *shape, int64_t i)
{
    int64_t size = sample_elements(shape);
    return draw(s, i / size, i % size);
}

/* ---- hk.Random */

static hk_status attr_shape(hk_infer *in, hk_shape *out)
{
    hk_ints s = attrs_of(in->node)->shape;
    if (s.count > HK_MAX_RANK)
        return hk_infer_fail(in, HK_STATUS_UNSUPPORTED, "its shape has rank %d, at most %d is supported", (int)s.count,
                             HK_MAX_RANK);
    *out = (hk_shape){.rank = s.count};
    for (int32_t i = 0; i < s.count; i++) {
        out->dim[i] = s.v[i];
        if (s.v[i] < 0)
            return hk_infer_fail(in, HK_STATUS_INVALID, "dimension %d of its shape is %lld", (int)i, (long long)s.v[i]);
    }
    return HK_OK;
}

static hk_status base_infer(hk_infer *in)
{
    hk_shape shape;
    HK_TRY(attr_shape(in, &shape));
    return hk_infer_output(in, 0, HK_FLOAT32, &shape);
}

static hk_status fill(hk_eval *e, hk_dtype dtype, const hk_shape *shape, const stream *s)
{
    hk_tensor *y = hk_eval_output(e, 0, dtype, shape);
    if (!y)
        return hk_out_of_memory(e->ctx, "random numbers");
    for (int64_t i = 0, count = hk_shape_count(shape); i < count; i++)
        hk_set_double(y, i, (double)draw_at(s, shape, i));
    return HK_OK;
}

static hk_status base_eval(hk_eval *e)
{
    const random_attrs *a = e->node->attrs;
    stream s = {e->step, stream_of(e->node), a->distribution, a->a, a->b};
    return fill(e, HK_FLOAT32, &e->node->out[0]->shape, &s);
}

static hk_status base_lower(hk_lower *l)
{
    static const char *const names[] = {"random uniform", "random normal", "random gumbel"};
    const random_attrs *a = l->node->attrs;
    hk_value *y = l->node->out[0], *step = hk_graph_step(l->graph);
    int64_t count = hk_shape_count(&y->shape), size = sample_elements(&y->shape);
    if (!step)
        return HK_STATUS_OUT_OF_MEMORY;
    if (count == 0)
        return HK_OK;
    int64_t per_sample = (size + 3) / 4, quads = per_sample * (count / size);
    hk_divisor by = hk_divisor_of(per_sample);
    struct random_push push = {.quads = (uint32_t)quads,
                               .size = (uint32_t)size,
                               .per_sample = (uint32_t)per_sample,
                               .multiplier = by.multiplier,
                               .shift = by.shift,
                               .stream = stream_of(l->node),
                               .a = a->a,
                               .b = a->b};
    hk_record *r = hk_emit(l, &hk_kernel_random, names[a->distribution]);
    hk_push(r, &push, sizeof push);
    hk_use(r, y, HK_WRITE, offsetof(struct random_push, y));
    hk_use(r, step, HK_READ, offsetof(struct random_push, step));
    hk_workgroup(r, WORKGROUP, 1, 1);
    hk_spec(r, 3, (uint32_t)a->distribution);
    hk_spec(r, 4, size % 4 == 0 && hk_value_alignment(y) == 16);
    hk_grid_1d(l, r, (uint64_t)((quads + WORKGROUP - 1) / WORKGROUP));
    return HK_OK;
}

static hk_status build_random(hk_graph *g, const hk_shape *shape, const stream *s, hk_value **out)
{
    const hk_attr_value attrs[] = {HK_SET_INTS("shape", shape->dim, shape->rank),
                                   HK_SET_INT("distribution", s->distribution),
                                   HK_SET_INT("hk.stream", s->number),
                                   HK_SET_FLOAT("a", s->a),
                                   HK_SET_FLOAT("b", s->b),
                                   {0}};
    return hk_build(g, "hk.Random", attrs, NULL, 0, out, 1);
}

/* ---- RandomUniform, RandomNormal and their likes */

/* dtype 0: the input's. */
static hk_dtype dtype_of(const hk_node *n)
{
    return attrs_of(n)->dtype ? (hk_dtype)attrs_of(n)->dtype : n->in[0]->dtype;
}

static stream stream_made(const hk_node *n, const hk_step *step)
{
    const random_attrs *a = n->attrs;
    if (is_normal(n))
        return (stream){step, stream_of(n), RANDOM_NORMAL, a->mean, a->scale};
    return (stream){step, stream_of(n), RANDOM_UNIFORM, a->low, a->high - a->low};
}

static hk_status random_infer(hk_infer *in)
{
    const hk_node *n = in->node;
    hk_shape shape = n->in_count ? n->in[0]->shape : HK_SCALAR;
    hk_dtype t = dtype_of(n);
    if (!n->in_count)
        HK_TRY(attr_shape(in, &shape));
    if (!hk_dtype_is_float(t))
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected floats to make, found %s", hk_dtype_name(t));
    return hk_infer_output(in, 0, t, &shape);
}

static hk_status random_eval(hk_eval *e)
{
    const hk_node *n = e->node;
    stream s = stream_made(n, e->step);
    hk_shape shape = n->in_count ? hk_tensor_shape(e->in[0]) : n->out[0]->shape;
    return fill(e, dtype_of(n), &shape, &s);
}

static hk_status random_expand(hk_graph *g, const hk_node *n, hk_value **out)
{
    stream s = stream_made(n, NULL);
    HK_TRY(build_random(g, &n->out[0]->shape, &s, out));
    return n->out[0]->dtype == HK_FLOAT32 ? HK_OK : hk_build_cast(g, *out, n->out[0]->dtype, out);
}

/* ---- Bernoulli: 1 with probability x */

static hk_status bernoulli_infer(hk_infer *in)
{
    const hk_node *n = in->node;
    if (!hk_dtype_is_float(n->in[0]->dtype))
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected probabilities, found %s", hk_dtype_name(n->in[0]->dtype));
    return hk_infer_output(in, 0, dtype_of(n), &n->in[0]->shape);
}

static hk_status bernoulli_eval(hk_eval *e)
{
    stream s = {e->step, stream_of(e->node), RANDOM_UNIFORM, 0, 1};
    hk_shape shape = hk_tensor_shape(e->in[0]);
    hk_tensor *y = hk_eval_output(e, 0, dtype_of(e->node), &shape);
    if (!y)
        return hk_out_of_memory(e->ctx, "random numbers");
    for (int64_t i = 0, count = hk_shape_count(&shape); i < count; i++)
        hk_set_double(y, i, draw_at(&s, &shape, i) < (float)hk_get_double(e->in[0], i));
    return HK_OK;
}

static hk_status bernoulli_expand(hk_graph *g, const hk_node *n, hk_value **out)
{
    const stream s = {NULL, stream_of(n), RANDOM_UNIFORM, 0, 1};
    hk_value *p = n->in[0], *u = NULL;
    HK_TRY(build_random(g, &p->shape, &s, &u));
    if (p->dtype != HK_FLOAT32)
        HK_TRY(hk_build_cast(g, p, HK_FLOAT32, &p));
    HK_TRY(hk_build_binary(g, "Less", u, p, &u));
    *out = u;
    return dtype_of(n) == HK_BOOL ? HK_OK : hk_build_cast(g, u, dtype_of(n), out);
}

/* ---- Multinomial: classes drawn from unnormalized logarithms of probabilities [batch, classes] */

static hk_status multinomial_infer(hk_infer *in)
{
    const hk_node *n = in->node;
    const hk_shape *x = &n->in[0]->shape;
    hk_dtype t = dtype_of(n);
    if (t != HK_INT32 && t != HK_INT64)
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected int32 or int64 to make, found %s", hk_dtype_name(t));
    if (!hk_dtype_is_float(n->in[0]->dtype) || (x->rank >= 0 && x->rank != 2) || attrs_of(n)->sample_size < 0 ||
        (x->rank == 2 && x->dim[1] == 0))
        return hk_infer_fail(in, HK_STATUS_INVALID, "expected floats [batch, classes] with at least one class");
    hk_shape y = {.rank = 2, .dim = {x->rank == 2 ? x->dim[0] : -1, attrs_of(n)->sample_size}};
    return hk_infer_output(in, 0, t, &y);
}

static hk_status multinomial_eval(hk_eval *e)
{
    const hk_tensor *x = e->in[0];
    int64_t batch = x->shape[0], classes = x->shape[1], samples = attrs_of(e->node)->sample_size;
    stream s = {e->step, stream_of(e->node), RANDOM_GUMBEL, 0, 1};
    hk_shape shape = {.rank = 2, .dim = {batch, samples}}, noise = {.rank = 3, .dim = {batch, samples, classes}};
    hk_tensor *y = hk_eval_output(e, 0, dtype_of(e->node), &shape);
    if (!y)
        return hk_out_of_memory(e->ctx, "random numbers");
    for (int64_t i = 0; i < batch * samples; i++) {
        float most = -INFINITY;
        for (int64_t c = 0; c < classes; c++) {
            float score = draw_at(&s, &noise, i * classes + c) + (float)hk_get_double(x, i / samples * classes + c);
            if (score > most || c == 0) {
                most = score;
                hk_set_int(y, i, c);
            }
        }
    }
    return HK_OK;
}

static hk_status multinomial_expand(hk_graph *g, const hk_node *n, hk_value **out)
{
    const stream s = {NULL, stream_of(n), RANDOM_GUMBEL, 0, 1};
    hk_value *x = n->in[0], *u = NULL;
    int64_t classes = x->shape.dim[1];
    hk_shape noise = {.rank = 3, .dim = {x->shape.dim[0], attrs_of(n)->sample_size, classes}};
    hk_shape rows = {.rank = 3, .dim = {x->shape.dim[0], 1, classes}};
    HK_TRY(build_random(g, &noise, &s, &u));
    if (x->dtype != HK_FLOAT32)
        HK_TRY(hk_build_cast(g, x, HK_FLOAT32, &x));
    HK_TRY(hk_build_reshape(g, x, &rows, &x));
    HK_TRY(hk_build_binary(g, "Add", u, x, &u));
    const hk_attr_value attrs[] = {HK_SET_INT("axis", 2), HK_SET_INT("keepdims", 0), {0}};
    HK_TRY(hk_build(g, "ArgMax", attrs, &u, 1, out, 1));
    return dtype_of(n) == HK_INT64 ? HK_OK : hk_build_cast(g, *out, dtype_of(n), out);
}

/* ---- the table */

static const char *const base_cases[] = {" ; shape=[3,5]",
                                         " ; shape=[]",
                                         " ; shape=[7] distribution=1",
                                         " ; shape=[2,3,8] a=-1.0 b=2.0",
                                         " ; shape=[2,1030] distribution=1 a=0.5 b=3.0",
                                         " ; shape=[16,4096] distribution=1",
                                         " ; shape=[16,4099] distribution=2 a=0.3 b=0.7",
                                         " ; shape=[3,4097] a=-0.3 b=0.7",
                                         " ; shape=[0,4]",
                                         NULL};
static const char *const uniform_cases[] = {" ; shape=[3,5]", " ; shape=[40] low=-2.0 high=3.0 seed=4.0",
                                            " ; shape=[9] dtype=10", " ; shape=[9] dtype=11", NULL};
static const char *const normal_cases[] = {" ; shape=[3,5]", " ; shape=[40] mean=-2.0 scale=3.0 seed=4.0",
                                           " ; shape=[9] dtype=16", NULL};
static const char *const uniform_like_cases[] = {"f32[3,5] ; ; nograd", "i32[2,6] ; dtype=1 low=3.0 high=4.0", NULL};
static const char *const normal_like_cases[] = {"f32[3,5] ; ; nograd", "f32[2,6] ; mean=7.0 seed=1.0 ; nograd", NULL};
static const char *const bernoulli_cases[] = {"f32[3,500]+ ; ; nograd", "f32[40]+ ; dtype=9 ; nograd",
                                              "f16[40]+ ; dtype=6 seed=2.0 ; nograd", NULL};
static const char *const multinomial_cases[] = {
    "f32[3,5] ; sample_size=40 ; nograd", "f32[7,300] ; sample_size=90 ; nograd", "f32[2,3] ; dtype=7 ; nograd", NULL};

#define OP(name, first, ins, list, fn, case_list)                                                                      \
    {                                                                                                                  \
        .type = name, .since = first, .in_min = ins, .in_max = ins, .out_min = 1, .out_max = 1, .flags = HK_OP_RANDOM, \
        .attrs_bytes = sizeof(random_attrs), .attrs = list, .infer = fn##_infer, .eval = fn##_eval,                    \
        .expand = fn##_expand, .cases = case_list                                                                      \
    }

const hk_op hk_ops_random[] = {
    {.type = "hk.Random",
     .since = 1,
     .in_min = 0,
     .in_max = 0,
     .out_min = 1,
     .out_max = 1,
     .flags = HK_OP_RANDOM,
     .attrs_bytes = sizeof(random_attrs),
     .attrs = base_list,
     .infer = base_infer,
     .eval = base_eval,
     .lower = base_lower,
     .cases = base_cases},
    OP("RandomUniform", 1, 0, uniform_list, random, uniform_cases),
    OP("RandomNormal", 1, 0, normal_list, random, normal_cases),
    OP("RandomUniformLike", 1, 1, uniform_like_list, random, uniform_like_cases),
    OP("RandomNormalLike", 1, 1, normal_like_list, random, normal_like_cases),
    OP("Bernoulli", 15, 1, bernoulli_list, bernoulli, bernoulli_cases),
    OP("Multinomial", 7, 1, multinomial_list, multinomial, multinomial_cases),
    {0},
};
