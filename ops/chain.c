/*
 * hk.Chain: elementwise functions of several nodes in one pass. How a program is written down (as the operator's
 * attribute, and as specialization constants of shaders/chain.comp) is known here and in that shader alone.
 */
#include "ops/pointwise.h"

#include <string.h>

#include "kernels.h"
#include "ops/divisor.h"
#include "shaders/chain.push.h"

/* Specialization constants of chain.comp. */
enum {
    SPEC_UNITS = 3,
    SPEC_BLOCK = 4,
    SPEC_STRIDED = 5,
    SPEC_IMMEDIATES = 6,
    SPEC_OUTPUT = 7,
    SPEC_INPUT_COUNT = 9,
    SPEC_INPUT = 10,
    SPEC_STEP_COUNT = 16,
    SPEC_STEP = 17,
};

enum {
    WORKGROUP = 128,
    LARGE = 1 << 20, /* elements from which an invocation of a GPU computes two units, whose loads overlap */
    DIM_WORDS = 3,
    BLOCK_WORDS = CHAIN_IMMEDIATES + HK_MAX_RANK * DIM_WORDS,
};

/* ---- the attribute: counts, then inputs' types, immediates (type, float bits, integer), steps, results (register,
 * type) */

static int64_t bits_of(double x)
{
    int64_t i;
    memcpy(&i, &x, sizeof i);
    return i;
}

static double double_of(int64_t i)
{
    double x;
    memcpy(&x, &i, sizeof x);
    return x;
}

static uint32_t step_word(const hk_chain_step *s)
{
    return (uint32_t)s->code | (uint32_t)s->class << 7 | (uint32_t)s->operand[0] << 10 | (uint32_t)s->operand[1] << 15 |
           (uint32_t)s->operand[2] << 20;
}

int32_t hk_chain_encode(const hk_chain *c, int64_t words[HK_CHAIN_WORDS])
{
    int32_t n = 0;
    words[n++] = c->input_count;
    words[n++] = c->immediate_count;
    words[n++] = c->step_count;
    words[n++] = c->output_count;
    for (int32_t i = 0; i < c->input_count; i++)
        words[n++] = c->in_dtype[i];
    for (int32_t i = 0; i < c->immediate_count; i++) {
        words[n++] = c->immediate_dtype[i];
        words[n++] = bits_of(c->immediate[i].f);
        words[n++] = c->immediate[i].i;
    }
    for (int32_t i = 0; i < c->step_count; i++)
        words[n++] = step_word(&c->step[i]);
    for (int32_t i = 0; i < c->output_count; i++) {
        words[n++] = c->out[i];
        words[n++] = c->out_dtype[i];
    }
    return n;
}

/* Is a register written before step `step`? */
static bool is_defined(const hk_chain *c, uint8_t reg, int32_t step)
{
    if (reg < CHAIN_FIRST_IMMEDIATE)
        return reg < c->input_count;
    if (reg < CHAIN_FIRST_STEP)
        return reg < CHAIN_FIRST_IMMEDIATE + c->immediate_count;
    return reg < CHAIN_FIRST_STEP + step;
}

static bool is_valid(const hk_chain *c)
{
    for (int32_t i = 0; i < c->step_count; i++)
        for (int32_t k = 0; k < 3; k++)
            if (c->step[i].code >= HK_CHAIN_CODE_COUNT || !is_defined(c, c->step[i].operand[k], i))
                return false;
    for (int32_t i = 0; i < c->output_count; i++)
        if (!is_defined(c, c->out[i], c->step_count))
            return false;
    return true;
}

static bool decode_counts(hk_ints w, hk_chain *c)
{
    static const int64_t most[4] = {CHAIN_INPUTS, CHAIN_IMMEDIATES, CHAIN_STEPS, CHAIN_OUTPUTS};
    *c = (hk_chain){0};
    if (!w.v || w.count < 4)
        return false;
    for (int32_t i = 0; i < 4; i++)
        if (w.v[i] < 0 || w.v[i] > most[i])
            return false;
    c->input_count = (int32_t)w.v[0];
    c->immediate_count = (int32_t)w.v[1];
    c->step_count = (int32_t)w.v[2];
    c->output_count = (int32_t)w.v[3];
    return c->output_count > 0 &&
           w.count == 4 + c->input_count + 3 * c->immediate_count + c->step_count + 2 * c->output_count;
}

bool hk_chain_decode(hk_ints w, hk_chain *c)
{
    if (!decode_counts(w, c))
        return false;
    const int64_t *p = w.v + 4;
    for (int32_t i = 0; i < c->input_count; i++)
        c->in_dtype[i] = (hk_dtype)*p++;
    for (int32_t i = 0; i < c->immediate_count; i++, p += 3) {
        c->immediate_dtype[i] = (hk_dtype)p[0];
        c->immediate[i] = (hk_register){.f = double_of(p[1]), .i = p[2]};
    }
    for (int32_t i = 0; i < c->step_count; i++, p++)
        c->step[i] = (hk_chain_step){
            .code = *p & 127, .class = *p >> 7 & 7, .operand = {*p >> 10 & 31, *p >> 15 & 31, *p >> 20 & 31}};
    for (int32_t i = 0; i < c->output_count; i++, p += 2) {
        c->out[i] = (uint8_t)p[0];
        c->out_dtype[i] = (hk_dtype)p[1];
    }
    return is_valid(c);
}

/* ---- the host interpreter */

static bool is_promoted(const hk_chain *c, const hk_tensor *const *in)
{
    for (int32_t i = 0; i < c->input_count; i++)
        if (in[i]->dtype == HK_FLOAT64 && c->in_dtype[i] == HK_FLOAT32)
            return true;
    return false;
}

hk_dtype hk_chain_out_dtype(const hk_chain *c, int32_t i, const hk_tensor *const *in)
{
    return c->out_dtype[i] == HK_FLOAT32 && is_promoted(c, in) ? HK_FLOAT64 : c->out_dtype[i];
}

static bool has_double(const hk_chain *c, const hk_tensor *const *in)
{
    bool found = false;
    for (int32_t i = 0; i < c->input_count; i++)
        found |= in[i]->dtype == HK_FLOAT64;
    for (int32_t i = 0; i < c->output_count; i++)
        found |= c->out_dtype[i] == HK_FLOAT64;
    return found;
}

/* float32 apart, because constants of it are what folding meets; weights lie at any address. */
static hk_register read_element(const hk_tensor *t, int64_t i)
{
    if (t->dtype == HK_FLOAT32) {
        float f;
        memcpy(&f, (const char *)t->data + (size_t)i * sizeof f, sizeof f);
        return (hk_register){.f = (double)f};
    }
    if (hk_dtype_is_float(t->dtype))
        return (hk_register){.f = hk_get_double(t, i)};
    return (hk_register){.i = hk_get_int(t, i)};
}

static void write_element(hk_tensor *t, int64_t i, hk_register r)
{
    if (t->dtype == HK_FLOAT32)
        ((float *)t->data)[i] = (float)r.f;
    else if (hk_dtype_is_float(t->dtype))
        hk_set_double(t, i, r.f);
    else
        hk_set_int(t, i, r.i);
}

/* Strides of an input in elements along shape's dimensions, 0 where it broadcasts. */
static void broadcast_strides(const hk_shape *in, const hk_shape *shape, int64_t strides[HK_MAX_RANK])
{
    int64_t own[HK_MAX_RANK];
    hk_shape_strides(in, own);
    for (int32_t d = 0; d < shape->rank; d++) {
        int32_t k = d - (shape->rank - in->rank);
        strides[d] = k < 0 || in->dim[k] == 1 ? 0 : own[k];
    }
}

/* The next element of shape in row-major order: its index and where it lies in each input. */
static void advance(const hk_shape *shape, int64_t strides[][HK_MAX_RANK], int32_t inputs, int64_t index[HK_MAX_RANK],
                    int64_t at[CHAIN_INPUTS])
{
    for (int32_t d = shape->rank - 1; d >= 0; d--) {
        bool wraps = ++index[d] == shape->dim[d];
        for (int32_t i = 0; i < inputs; i++)
            at[i] += wraps ? strides[i][d] * (1 - shape->dim[d]) : strides[i][d];
        if (!wraps)
            return;
        index[d] = 0;
    }
}

void hk_chain_eval(const hk_chain *c, const hk_tensor *const *in, const hk_shape *in_shape, const hk_shape *shape,
                   hk_tensor *const *out)
{
    int64_t strides[CHAIN_INPUTS][HK_MAX_RANK], count = hk_shape_count(shape);
    int64_t index[HK_MAX_RANK] = {0}, at[CHAIN_INPUTS] = {0};
    hk_register r[CHAIN_FIRST_STEP + CHAIN_STEPS] = {{0}};
    bool rounds = !has_double(c, in); /* as the unfused nodes would */
    for (int32_t i = 0; i < c->input_count; i++)
        broadcast_strides(&in_shape[i], shape, strides[i]);
    for (int32_t i = 0; i < c->immediate_count; i++)
        r[CHAIN_FIRST_IMMEDIATE + i] = c->immediate[i];
    for (int64_t n = 0; n < count; n++, advance(shape, strides, c->input_count, index, at)) {
        for (int32_t i = 0; i < c->input_count; i++)
            r[i] = read_element(in[i], at[i]);
        for (int32_t i = 0; i < c->step_count; i++) {
            const hk_chain_step *s = &c->step[i];
            hk_register *y = &r[CHAIN_FIRST_STEP + i];
            *y = hk_chain_apply(s->code, s->class, r[s->operand[0]], r[s->operand[1]], r[s->operand[2]]);
            y->f = rounds ? (double)(float)y->f : y->f;
        }
        for (int32_t i = 0; i < c->output_count; i++)
            if (out[i])
                write_element(out[i], n, r[c->out[i]]);
    }
}

/* ---- lowering: dimensions */

/* Output dimensions, innermost first, with neighbours merged along which the same inputs vary. */
typedef struct geometry {
    int32_t rank;
    int64_t extent[HK_MAX_RANK];
    uint32_t present[HK_MAX_RANK]; /* bit i: input i varies */
} geometry;

static uint32_t present_along(const hk_chain_job *job, int32_t d)
{
    uint32_t present = 0;
    for (int32_t i = 0; i < job->chain->input_count; i++) {
        int32_t k = d - (job->shape.rank - job->in_shape[i].rank);
        present |= k >= 0 && job->in_shape[i].dim[k] != 1 ? 1u << i : 0;
    }
    return present;
}

static void collapse(const hk_chain_job *job, geometry *g)
{
    g->rank = 0;
    for (int32_t d = job->shape.rank - 1; d >= 0; d--) {
        if (job->shape.dim[d] == 1)
            continue;
        uint32_t present = present_along(job, d);
        if (g->rank > 0 && g->present[g->rank - 1] == present) {
            g->extent[g->rank - 1] *= job->shape.dim[d];
            continue;
        }
        g->extent[g->rank] = job->shape.dim[d];
        g->present[g->rank++] = present;
    }
    if (g->rank == 0) {
        g->extent[0] = 1;
        g->present[g->rank++] = 0;
    }
}

/* ---- lowering: how inputs are read */

static bool is_wide(hk_dtype t)
{
    return !hk_dtype_is_float(t) && hk_dtype_bytes(t) == 8;
}

/* As an input or result of the program is stored; float32 may be stored as float16. */
static hk_dtype stored_as(hk_dtype t, const hk_value *v)
{
    return hk_stores_halves(v) ? HK_FLOAT16 : t;
}

static uint32_t type_flags(hk_dtype t, const hk_value *v)
{
    t = stored_as(t, v);
    return is_wide(t) ? CHAIN_WIDE : t == HK_FLOAT16 ? CHAIN_HALF : t == HK_BFLOAT16 ? CHAIN_BFLOAT : 0;
}

typedef struct access {
    uint32_t word[CHAIN_INPUTS];
    uint32_t strided; /* the specialization constant */
    bool gathers;     /* for the report */
} access;

static void choose_access(const hk_chain_job *job, const geometry *g, access *a)
{
    uint32_t all = 0, any = 0, aligned = 0;
    *a = (access){0};
    for (int32_t i = 0; i < job->chain->input_count; i++) {
        uint32_t along = 0;
        for (int32_t d = 0; d < g->rank; d++)
            along += g->present[d] >> i & 1u;
        all |= along == (uint32_t)g->rank ? 1u << i : 0;
        any |= along > 0 ? 1u << i : 0;
        aligned |= hk_value_alignment(job->in[i]) == 16 ? 1u << i : 0;
    }
    uint32_t strided = any & ~all, vectors = strided & g->present[0];
    if (strided) /* four neighbours lie in one row, and a row of theirs begins at a multiple of four */
        a->strided = g->extent[0] % 4 == 0 && !(vectors & ~aligned) ? 1 : 2;
    for (int32_t i = 0; i < job->chain->input_count; i++) {
        uint32_t bit = 1u << i, how, where = CHAIN_AT_COORDINATES;
        if (!(any & bit)) {
            how = CHAIN_ACCESS_ONE;
            where = CHAIN_AT_ZERO;
        } else if (all & bit) {
            how = aligned & bit ? CHAIN_ACCESS_VECTOR : CHAIN_ACCESS_FOUR;
            where = CHAIN_AT_INDEX;
        } else if (a->strided == 2) {
            how = CHAIN_ACCESS_FOUR;
        } else {
            how = vectors & bit ? CHAIN_ACCESS_VECTOR : CHAIN_ACCESS_ONE;
        }
        a->gathers |= how == CHAIN_ACCESS_FOUR;
        a->word[i] = how | where << 2 | type_flags(job->chain->in_dtype[i], job->in[i]);
    }
}

/* ---- lowering: words, constants, kernel */

static uint32_t immediate_word(const hk_chain *c, int32_t i)
{
    uint32_t word;
    float f = (float)c->immediate[i].f;
    if (hk_chain_class_of(c->immediate_dtype[i]) != HK_CLASS_FLOAT)
        return (uint32_t)(uint64_t)c->immediate[i].i;
    memcpy(&word, &f, sizeof word);
    return word;
}

/* Immediates, then dimensions if any input needs them; see chain.push.h. */
static uint32_t write_words(const hk_chain *c, const geometry *g, bool strided, uint32_t words[BLOCK_WORDS])
{
    uint32_t n = 0;
    for (int32_t i = 0; i < c->immediate_count; i++)
        words[n++] = immediate_word(c, i);
    for (int32_t d = 0; strided && d < g->rank; d++) {
        hk_divisor by = hk_divisor_of(g->extent[d]);
        words[n++] = by.shift | g->present[d] << 8;
        if (d + 1 < g->rank) {
            words[n++] = by.extent;
            words[n++] = by.multiplier;
        }
    }
    return n;
}

static hk_status push_words(hk_lower *l, hk_record *r, struct chain_push *push, const uint32_t *words, uint32_t count,
                            bool in_block)
{
    if (!in_block) {
        memcpy(&push->word0, words, count * sizeof *words);
        return HK_OK;
    }
    uint32_t *block = hk_arena_array(l->arena, count, sizeof *block);
    if (!block)
        return hk_out_of_memory(l->ctx, "a chain's parameters");
    memcpy(block, words, count * sizeof *block);
    r->block = block;
    r->block_bytes = count * (uint32_t)sizeof *block;
    r->block_offset = offsetof(struct chain_push, block);
    return HK_OK;
}

static bool uses_wide(const hk_chain *c)
{
    bool wide = false;
    for (int32_t i = 0; i < c->input_count; i++)
        wide |= is_wide(c->in_dtype[i]);
    for (int32_t i = 0; i < c->output_count; i++)
        wide |= is_wide(c->out_dtype[i]);
    for (int32_t i = 0; i < c->step_count; i++)
        wide |= c->step[i].class == HK_CLASS_LONG || c->step[i].class == HK_CLASS_ULONG ||
                c->step[i].code == HK_CHAIN_TO_LONG || c->step[i].code == HK_CHAIN_TO_ULONG;
    return wide;
}

static bool uses_rare(const hk_chain *c)
{
    bool rare = false;
    for (int32_t i = 0; i < c->step_count; i++)
        rare |= CHAIN_IS_RARE(c->step[i].code);
    return rare;
}

static bool uses_half(const hk_chain_job *job)
{
    const hk_chain *c = job->chain;
    bool half = false;
    for (int32_t i = 0; i < c->input_count; i++)
        half |= hk_dtype_is_half(stored_as(c->in_dtype[i], job->in[i]));
    for (int32_t i = 0; i < c->output_count; i++)
        half |= job->out[i] && hk_dtype_is_half(stored_as(c->out_dtype[i], job->out[i]));
    for (int32_t i = 0; i < c->step_count; i++)
        half |= c->step[i].code == HK_CHAIN_ROUND_HALF || c->step[i].code == HK_CHAIN_ROUND_BFLOAT;
    return half;
}

static const hk_kernel *choose_kernel(const hk_chain_job *job)
{
    const hk_chain *c = job->chain;
    static const int most[4] = {1, 2, 5, 12};
    static const hk_kernel *const kernels[5][4] = {
        {&hk_kernel_chain_1, &hk_kernel_chain_2, &hk_kernel_chain_5, &hk_kernel_chain_12},
        {&hk_kernel_chain_long_1, &hk_kernel_chain_long_2, &hk_kernel_chain_long_5, &hk_kernel_chain_long_12},
        {&hk_kernel_chain_half_1, &hk_kernel_chain_half_2, &hk_kernel_chain_half_5, &hk_kernel_chain_half_12},
        {&hk_kernel_chain_rare_1, &hk_kernel_chain_rare_5, &hk_kernel_chain_rare_5, &hk_kernel_chain_rare_12},
        {&hk_kernel_chain_half_rare_12, &hk_kernel_chain_half_rare_12, &hk_kernel_chain_half_rare_12,
         &hk_kernel_chain_half_rare_12}};
    int family = uses_half(job) ? (uses_rare(c) ? 4 : 2) : uses_rare(c) ? 3 : uses_wide(c) ? 1 : 0;
    int size = 0;
    while (size < 3 && c->step_count > most[size])
        size++;
    return kernels[family][size];
}

static const char *variant_name(const hk_chain_job *job, const access *a)
{
    for (int32_t i = 0; i < job->chain->output_count; i++)
        if (job->out[i] && job->out[i]->layout == HK_LAYOUT_NHWC8)
            return a->strided ? "chain nhwc8 broadcast" : "chain nhwc8";
    static const char *const names[3][3] = {{"chain", "chain broadcast", "chain gather"},
                                            {"chain int64", "chain int64 broadcast", "chain int64 gather"},
                                            {"chain 16-bit", "chain 16-bit broadcast", "chain 16-bit gather"}};
    return names[uses_half(job) ? 2 : uses_wide(job->chain) ? 1 : 0][a->gathers ? 2 : a->strided ? 1 : 0];
}

static hk_status check_value(const hk_lower *l, const hk_value *v)
{
    hk_dtype t = hk_value_storage(v);
    if (t == HK_FLOAT32 || (!hk_dtype_is_float(t) && t != HK_DTYPE_NONE) ||
        (hk_dtype_is_half(t) && hk_lower_has(l, HK_CAP_STORAGE16)))
        return HK_OK;
    return hk_fail(l->ctx, HK_STATUS_UNSUPPORTED,
                   "node '%s' (%s): '%s' is %s, which elementwise operators have no device kernel for; export the "
                   "model in float32",
                   l->node->name, l->node->type, v->name, hk_dtype_name(t));
}

static const size_t in_offset[CHAIN_INPUTS] = {offsetof(struct chain_push, in0), offsetof(struct chain_push, in1),
                                               offsetof(struct chain_push, in2), offsetof(struct chain_push, in3),
                                               offsetof(struct chain_push, in4), offsetof(struct chain_push, in5)};
static const size_t out_offset[CHAIN_OUTPUTS] = {offsetof(struct chain_push, out0), offsetof(struct chain_push, out1)};

static void set_constants(hk_record *r, const hk_chain_job *job, const access *a)
{
    const hk_chain *c = job->chain;
    hk_spec(r, SPEC_STRIDED, a->strided);
    hk_spec(r, SPEC_IMMEDIATES, (uint32_t)c->immediate_count);
    for (int32_t i = 0; i < CHAIN_OUTPUTS; i++) {
        bool present = i < c->output_count && job->out[i];
        hk_spec(r, SPEC_OUTPUT + (uint32_t)i,
                !present ? CHAIN_NONE
                         : c->out[i] | type_flags(c->out_dtype[i], job->out[i]) |
                               (hk_value_alignment(job->out[i]) == 16 ? CHAIN_ALIGNED : 0u));
    }
    hk_spec(r, SPEC_INPUT_COUNT, (uint32_t)c->input_count);
    for (int32_t i = 0; i < CHAIN_INPUTS; i++)
        hk_spec(r, SPEC_INPUT + (uint32_t)i, a->word[i]);
    hk_spec(r, SPEC_STEP_COUNT, (uint32_t)c->step_count);
    for (int32_t i = 0; i < CHAIN_STEPS; i++)
        hk_spec(r, SPEC_STEP + (uint32_t)i, i < c->step_count ? step_word(&c->step[i]) : 0);
}

/* ---- lowering: results in HK_LAYOUT_NHWC8, which lie as contiguous ones of shape (N, ..., C) do, C a multiple of 8 */

static hk_shape channels_last(const hk_shape *s, int32_t rank, bool packed)
{
    hk_shape y = {.rank = rank};
    for (int32_t d = 0; d < rank; d++) {
        int32_t k = d - (rank - s->rank);
        y.dim[d == 1 ? rank - 1 : d > 1 ? d - 1 : 0] = k < 0 ? 1 : s->dim[k];
    }
    if (packed)
        y.dim[rank - 1] = (y.dim[rank - 1] + 7) / 8 * 8;
    return y;
}

/* Whether a contiguous operand has the same elements in the same order when its channels come last. */
static bool keeps_order(const hk_shape *channels_last)
{
    int32_t last = channels_last->rank - 1;
    return channels_last->dim[last] == 1 || hk_shape_span(channels_last, 1, last) == 1;
}

/* All as if contiguous. */
static hk_status turn_job(const hk_lower *l, hk_chain_job *job)
{
    hk_layout layout = HK_LAYOUT_CONTIGUOUS;
    bool fits = true;
    for (int32_t i = 0; i < job->chain->output_count; i++)
        layout = job->out[i] ? job->out[i]->layout : layout;
    for (int32_t i = 0; i < job->chain->output_count; i++)
        fits &= !job->out[i] || job->out[i]->layout == layout;
    const hk_shape shape = job->shape;
    if (layout == HK_LAYOUT_NHWC8)
        job->shape = channels_last(&shape, shape.rank, true);
    for (int32_t i = 0; i < job->chain->input_count; i++) {
        hk_shape *s = &job->in_shape[i];
        bool packed = job->in[i]->layout == HK_LAYOUT_NHWC8, whole = hk_shape_equal(s, &shape);
        fits &= layout == HK_LAYOUT_NHWC8 ? packed == whole : job->in[i]->layout == HK_LAYOUT_CONTIGUOUS;
        if (layout != HK_LAYOUT_NHWC8)
            continue;
        *s = channels_last(s, shape.rank, packed);
        int64_t channels = s->dim[s->rank - 1];
        fits &= packed || (keeps_order(s) && (channels == 1 || channels == job->shape.dim[shape.rank - 1]));
    }
    if (fits)
        return HK_OK;
    return hk_fail(l->ctx, HK_STATUS_INTERNAL,
                   "node '%s' (%s): its operands and results do not lie alike; a relayout is missing", l->node->name,
                   l->node->type);
}

static hk_status check_job(const hk_lower *l, const hk_chain_job *job)
{
    for (int32_t i = 0; i < job->chain->input_count; i++)
        HK_TRY(check_value(l, job->in[i]));
    for (int32_t i = 0; i < job->chain->output_count; i++)
        if (job->out[i])
            HK_TRY(check_value(l, job->out[i]));
    return HK_OK;
}

hk_status hk_chain_lower(hk_lower *l, const hk_chain_job *whole)
{
    hk_chain_job turned = *whole;
    const hk_chain_job *job = &turned;
    const hk_chain *c = job->chain;
    HK_TRY(turn_job(l, &turned));
    HK_TRY(check_job(l, job));
    int64_t count = hk_shape_count(&job->shape);
    if (count == 0)
        return HK_OK;
    geometry g;
    access a;
    collapse(job, &g);
    choose_access(job, &g, &a);
    uint32_t words[BLOCK_WORDS], word_count = write_words(c, &g, a.strided != 0, words);
    bool in_block = word_count > CHAIN_WORDS || (a.strided && g.rank > CHAIN_PUSH_RANK);
    uint32_t units = !l->cpu && count >= LARGE ? 2 : 1;

    hk_record *r = hk_emit(l, choose_kernel(job), variant_name(job, &a));
    struct chain_push push = {.count = (uint32_t)count, .rank = (uint32_t)g.rank};
    HK_TRY(push_words(l, r, &push, words, word_count, in_block));
    hk_push(r, &push, sizeof push);
    for (int32_t i = 0; i < c->input_count; i++)
        hk_use(r, job->in[i], HK_READ, in_offset[i]);
    for (int32_t i = 0; i < c->output_count; i++)
        hk_use(r, job->out[i], HK_WRITE, out_offset[i]);
    hk_spec(r, SPEC_UNITS, units);
    hk_spec(r, SPEC_BLOCK, in_block);
    set_constants(r, job, &a);
    hk_workgroup(r, WORKGROUP, 1, 1);
    int64_t per_group = (int64_t)WORKGROUP * units * 4;
    hk_grid_1d(l, r, (uint64_t)((count + per_group - 1) / per_group));
    r->flops = (double)count * c->step_count;
    return HK_OK;
}

/* ---- the operator */

typedef struct chain_attrs {
    hk_ints program;
} chain_attrs;

static const hk_attr attrs[] = {HK_INTS_ATTR(chain_attrs, program), {0}};

static bool program_of(const hk_node *n, hk_chain *c)
{
    return hk_chain_decode(((const chain_attrs *)n->attrs)->program, c) && c->input_count == n->in_count &&
           n->out_count <= c->output_count;
}

static hk_status infer(hk_infer *in)
{
    const hk_node *n = in->node;
    hk_chain c;
    if (!program_of(n, &c))
        return hk_infer_fail(in, HK_STATUS_INTERNAL, "the program is damaged or does not have %d inputs and %d outputs",
                             (int)n->in_count, (int)n->out_count);
    hk_shape shape = HK_SCALAR;
    for (int32_t i = 0; i < n->in_count; i++) {
        hk_shape_text a, b;
        if (n->in[i]->dtype != c.in_dtype[i])
            return hk_infer_fail(in, HK_STATUS_INTERNAL, "expected input %d as %s, found %s", (int)i,
                                 hk_dtype_name(c.in_dtype[i]), hk_dtype_name(n->in[i]->dtype));
        if (!hk_shape_broadcast(&shape, &n->in[i]->shape, &shape))
            return hk_infer_fail(in, HK_STATUS_INVALID, "%s and %s do not broadcast", hk_shape_print(&shape, &a),
                                 hk_shape_print(&n->in[i]->shape, &b));
    }
    for (int32_t i = 0; i < n->out_count; i++)
        HK_TRY(hk_infer_output(in, i, c.out_dtype[i], &shape));
    return HK_OK;
}

static hk_status eval(hk_eval *e)
{
    hk_chain c;
    hk_shape shape = HK_SCALAR, in_shape[CHAIN_INPUTS];
    hk_tensor *out[CHAIN_OUTPUTS] = {NULL, NULL};
    bool fits = program_of(e->node, &c);
    for (int32_t i = 0; fits && i < c.input_count; i++) {
        in_shape[i] = hk_tensor_shape(e->in[i]);
        fits = hk_shape_broadcast(&shape, &in_shape[i], &shape);
    }
    if (!fits)
        return hk_eval_fail(e, HK_STATUS_INTERNAL, "the program does not fit its inputs");
    for (int32_t i = 0; i < e->node->out_count; i++) {
        if (!hk_out(e->node, i))
            continue;
        out[i] = hk_eval_output(e, i, hk_chain_out_dtype(&c, i, e->in), &shape);
        if (!out[i])
            return hk_out_of_memory(e->ctx, "a chain's result");
    }
    hk_chain_eval(&c, e->in, in_shape, &shape, out);
    return HK_OK;
}

static hk_status lower(hk_lower *l)
{
    const hk_node *n = l->node;
    hk_chain c;
    hk_chain_job job = {.chain = &c};
    if (!program_of(n, &c))
        return hk_fail(l->ctx, HK_STATUS_INTERNAL, "node '%s' (hk.Chain): the program is damaged", n->name);
    for (int32_t i = 0; i < n->in_count; i++) {
        job.in[i] = n->in[i];
        job.in_shape[i] = n->in[i]->shape;
    }
    for (int32_t i = 0; i < n->out_count; i++) {
        job.out[i] = n->out[i];
        job.shape = n->out[i] ? n->out[i]->shape : job.shape;
    }
    return hk_chain_lower(l, &job);
}

/* (x * 0.5 + y) of two float inputs and, as second result, its ReLU; then, for the variants that no single operator is
 * long enough for, max(... (x + y) y - x ..., y) of 4 and 8 steps, the last with an asinh in place of the first
 * product. The fusion pass's test makes all kinds. */
#define HALF_BITS "4602678819172646912"
static const char *const cases[] = {
    "f32[3,5] f32[5] ; program=[2,1,3,2,1,1,1," HALF_BITS ",0,196610,18925568,20565028,19,1,20,1] ; out=2 nograd",
    "i64[3,8]<9 i64[8]<9 ; program=[2,0,4,1,7,7,33152,1639810,19942785,1705351,21,7] ; nograd",
    "i64[3,8]<9 i64[8]<9 ; program=[2,0,8,1,7,7,33152,1639810,19942785,1705351,22041984,1770882,24141185,1836423,25,7] "
    "; "
    "nograd",
    "f16[3,8] f16[8] ; program=[2,0,4,1,10,10,32768,1639426,19942401,1704967,21,10] ; nograd tol=1e-3",
    "bf16[3,8] bf16[8] ; "
    "program=[2,0,8,1,16,16,32768,1639426,19942401,1704967,22041600,1770498,24140801,1836039,25,16] ; "
    "nograd tol=1e-2",
    "f32[3,8] f32[8] ; program=[2,0,8,1,1,1,32768,19482696,19942401,1704967,22041600,1770498,24140801,1836039,25,1] ; "
    "nograd",
    NULL,
};

const hk_op hk_ops_chain[] = {
    {.type = "hk.Chain",
     .since = 1,
     .in_min = 0,
     .in_max = CHAIN_INPUTS,
     .out_min = 1,
     .out_max = CHAIN_OUTPUTS,
     .flags = HK_OP_HALF,
     .half_in = UINT32_MAX,
     .half_out = UINT32_MAX,
     .attrs_bytes = sizeof(chain_attrs),
     .attrs = attrs,
     .infer = infer,
     .eval = eval,
     .lower = lower,
     .cases = cases},
    {0},
};
