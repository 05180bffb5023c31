/* Parsing operator test cases and making graphs and contents of them. */
#include "runtime/cases.h"

#include "runtime/element_types.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LIST_MAX = 1024 };

typedef struct parser {
    hk_context *ctx;
    hk_arena *arena;
    const hk_op *op;
    const char *text, *at;
} parser;

static hk_status complain(const parser *p, const char *what)
{
    return hk_fail(p->ctx, HK_STATUS_USAGE, "case of %s: expected %s at '%s' in \"%s\"", p->op->type, what, p->at,
                   p->text);
}

/* ---- words */

static void skip_spaces(parser *p)
{
    while (*p->at == ' ')
        p->at++;
}

static bool end_of_section(parser *p)
{
    skip_spaces(p);
    return *p->at == '\0' || *p->at == ';';
}

static bool take(parser *p, const char *word)
{
    size_t n = strlen(word);
    if (strncmp(p->at, word, n) != 0)
        return false;
    p->at += n;
    return true;
}

static bool end_of_word(const parser *p)
{
    return *p->at == '\0' || *p->at == ' ' || *p->at == ';';
}

static bool take_number(parser *p, double *x, int64_t *i, bool *is_float)
{
    char *end = NULL, *int_end = NULL;
    *x = strtod(p->at, &end);
    *i = strtoll(p->at, &int_end, 10);
    if (end == p->at)
        return false;
    *is_float = int_end != end;
    p->at = end;
    return true;
}

static bool take_int(parser *p, int64_t *i)
{
    double x;
    bool is_float;
    return take_number(p, &x, i, &is_float) && !is_float;
}

/* Numbers up to the closing character, separated by commas; the opening one has been taken. */
static hk_status take_list(parser *p, char close, double *x, int64_t *v, int32_t *count, bool *any_float)
{
    *count = 0;
    *any_float = false;
    while (*p->at != close) {
        bool is_float;
        if (*count == LIST_MAX || !take_number(p, &x[*count], &v[*count], &is_float))
            return complain(p, "a number");
        *any_float |= is_float;
        (*count)++;
        if (*p->at == ',')
            p->at++;
        else if (*p->at != close)
            return complain(p, "',' or the end of the list");
    }
    p->at++;
    return HK_OK;
}

static bool take_dtype(parser *p, hk_dtype *t)
{
    static const struct {
        const char *name;
        hk_dtype dtype;
    } names[] = {{"f32", HK_FLOAT32},
                 {"f64", HK_FLOAT64},
                 {"f16", HK_FLOAT16},
                 {"bf16", HK_BFLOAT16},
                 {"i32", HK_INT32},
                 {"i64", HK_INT64},
                 {"i16", HK_INT16},
                 {"i8", HK_INT8},
                 {"i4", HK_INT4},
                 {"i2", HK_INT2},
                 {"u8", HK_UINT8},
                 {"u16", HK_UINT16},
                 {"u32", HK_UINT32},
                 {"u64", HK_UINT64},
                 {"u4", HK_UINT4},
                 {"u2", HK_UINT2},
                 {"bool", HK_BOOL},
                 {"e4m3fnuz", HK_FLOAT8E4M3FNUZ},
                 {"e4m3fn", HK_FLOAT8E4M3FN},
                 {"e5m2fnuz", HK_FLOAT8E5M2FNUZ},
                 {"e5m2", HK_FLOAT8E5M2},
                 {"e8m0", HK_FLOAT8E8M0},
                 {"e2m1", HK_FLOAT4E2M1}};
    for (size_t i = 0; i < HK_COUNT(names); i++)
        if (take(p, names[i].name)) {
            *t = names[i].dtype;
            return true;
        }
    return false;
}

/* After '=': a number, or {list}; shape NULL gives rank 0 or 1. */
static hk_status take_contents(parser *p, hk_dtype dtype, const hk_shape *shape, const hk_tensor **out)
{
    double x[LIST_MAX];
    int64_t v[LIST_MAX];
    int32_t count = 1;
    bool any_float = false;
    hk_shape s = HK_SCALAR;
    if (take(p, "{")) {
        HK_TRY(take_list(p, '}', x, v, &count, &any_float));
        s = (hk_shape){.rank = 1, .dim = {count}};
    } else if (!take_number(p, x, v, &any_float)) {
        return complain(p, "a number or a {list}");
    }
    if (shape)
        s = *shape;
    hk_tensor *t = hk_tensor_new(p->arena, dtype, &s);
    if (!t)
        return hk_out_of_memory(p->ctx, "a case's contents");
    if (hk_tensor_count(t) != count)
        return complain(p, "as many contents as the shape has elements");
    for (int32_t i = 0; i < count; i++) {
        if (hk_dtype_is_float(dtype))
            hk_set_double(t, i, x[i]);
        else
            hk_set_int(t, i, v[i]);
    }
    *out = t;
    return HK_OK;
}

/* ---- sections */

static hk_status take_shape(parser *p, hk_shape *s)
{
    *s = HK_SCALAR;
    while (*p->at != ']') {
        if (s->rank == HK_MAX_RANK || !take_int(p, &s->dim[s->rank++]))
            return complain(p, "a dimension");
        if (*p->at == ',')
            p->at++;
        else if (*p->at != ']')
            return complain(p, "',' or ']'");
    }
    p->at++;
    return HK_OK;
}

static hk_status take_range(parser *p, case_input *in)
{
    int64_t first;
    if (!take_int(p, &first))
        return complain(p, "a bound");
    in->fill = CASE_INTEGERS;
    in->low = 0;
    in->high = first;
    if (take(p, ":")) {
        in->low = first;
        if (!take_int(p, &in->high))
            return complain(p, "an upper bound");
    }
    return in->high > in->low ? HK_OK : complain(p, "a range that is not empty");
}

static hk_status take_input(parser *p, case_input *in)
{
    *in = (case_input){0};
    if (*p->at == '-' && (p->at[1] == ' ' || p->at[1] == ';' || p->at[1] == '\0')) {
        p->at++;
        in->absent = true;
        return HK_OK;
    }
    if (take(p, "step")) {
        in->step = true;
        return HK_OK;
    }
    in->parameter = take(p, "p.");
    if (!take_dtype(p, &in->dtype))
        return complain(p, "an element type");
    bool shaped = take(p, "[");
    if (shaped)
        HK_TRY(take_shape(p, &in->shape));
    in->fill = hk_dtype_is_float(in->dtype) ? CASE_NORMAL : CASE_INTEGERS;
    in->high = in->dtype == HK_BOOL ? 2 : 10;
    if (take(p, "=")) {
        in->fill = CASE_CONTENTS;
        HK_TRY(take_contents(p, in->dtype, shaped ? &in->shape : NULL, &in->contents));
        in->shape = hk_tensor_shape(in->contents);
    } else if (!shaped) {
        return complain(p, "'[' or '='");
    } else if (take(p, "+")) {
        in->fill = CASE_POSITIVE;
    } else if (take(p, "<")) {
        HK_TRY(take_range(p, in));
    }
    return end_of_word(p) ? HK_OK : complain(p, "the end of an input");
}

/* The table decides between int and float where the text leaves it open. */
static void fit_attr(parser *p, hk_attr_value *a)
{
    for (const hk_attr *t = p->op->attrs; t && t->name; t++) {
        if (strcmp(t->name, a->name) != 0)
            continue;
        if (t->kind == HK_ATTR_FLOAT && a->kind == HK_ATTR_INT) {
            a->kind = HK_ATTR_FLOAT;
            a->f = (float)a->i;
        }
        if (t->kind == HK_ATTR_FLOATS && a->kind == HK_ATTR_INTS) {
            a->kind = HK_ATTR_FLOATS;
            a->floats.count = a->ints.count;
        }
    }
}

static hk_status take_attr_list(parser *p, hk_attr_value *a)
{
    double x[LIST_MAX];
    int64_t v[LIST_MAX];
    int32_t count;
    bool any_float;
    HK_TRY(take_list(p, ']', x, v, &count, &any_float));
    int64_t *ints = hk_arena_array(p->arena, (size_t)count + 1, sizeof *ints);
    float *floats = hk_arena_array(p->arena, (size_t)count + 1, sizeof *floats);
    if (!ints || !floats)
        return hk_out_of_memory(p->ctx, "a case's attribute");
    for (int32_t i = 0; i < count; i++) {
        ints[i] = v[i];
        floats[i] = (float)x[i];
    }
    a->kind = any_float ? HK_ATTR_FLOATS : HK_ATTR_INTS;
    a->ints = (hk_ints){ints, count};
    a->floats = (hk_floats){floats, count};
    return HK_OK;
}

static hk_status take_text(parser *p, const char **out)
{
    const char *end = strchr(p->at, '"');
    if (!end)
        return complain(p, "a closing '\"'");
    char *s = hk_arena_alloc(p->arena, (size_t)(end - p->at) + 1);
    if (!s)
        return hk_out_of_memory(p->ctx, "a case's attribute");
    memcpy(s, p->at, (size_t)(end - p->at));
    p->at = end + 1;
    *out = s;
    return HK_OK;
}

/* The rest of ["a","b"], behind the bracket. */
static hk_status take_texts(parser *p, hk_attr_value *a)
{
    const char **list = hk_arena_array(p->arena, LIST_MAX, sizeof *list);
    if (!list)
        return hk_out_of_memory(p->ctx, "a case's attribute");
    a->kind = HK_ATTR_STRINGS;
    do {
        if (a->strings.count == LIST_MAX || !take(p, "\""))
            return complain(p, "a text");
        HK_TRY(take_text(p, &list[a->strings.count++]));
    } while (take(p, ","));
    a->strings.v = list;
    return take(p, "]") ? HK_OK : complain(p, "']'");
}

static hk_status take_attr(parser *p, hk_attr_value *a)
{
    const char *equals = strchr(p->at, '=');
    size_t n = equals ? (size_t)(equals - p->at) : 0;
    char *name = hk_arena_alloc(p->arena, n + 1);
    if (!equals)
        return complain(p, "name=value");
    if (!name)
        return hk_out_of_memory(p->ctx, "a case's attribute");
    memcpy(name, p->at, n);
    *a = (hk_attr_value){.name = name};
    p->at = equals + 1;
    hk_dtype dtype;
    if (take(p, "\"")) {
        a->kind = HK_ATTR_STRING;
        HK_TRY(take_text(p, &a->s));
    } else if (take(p, "[\"")) {
        p->at--; /* the quotation mark again */
        HK_TRY(take_texts(p, a));
    } else if (take(p, "[")) {
        HK_TRY(take_attr_list(p, a));
    } else if (take_dtype(p, &dtype)) {
        a->kind = HK_ATTR_TENSOR;
        hk_shape shape;
        bool shaped = take(p, "[");
        if (shaped)
            HK_TRY(take_shape(p, &shape));
        if (!take(p, "="))
            return complain(p, "'='");
        HK_TRY(take_contents(p, dtype, shaped ? &shape : NULL, &a->tensor));
    } else {
        double x;
        bool is_float;
        if (!take_number(p, &x, &a->i, &is_float))
            return complain(p, "a value");
        a->kind = is_float ? HK_ATTR_FLOAT : HK_ATTR_INT;
        a->f = (float)x;
    }
    fit_attr(p, a);
    return end_of_word(p) ? HK_OK : complain(p, "the end of an attribute");
}

static hk_status take_option(parser *p, op_case *c)
{
    int64_t i = 0;
    if (take(p, "out=")) {
        if (!take_int(p, &i) || i < 1 || i > 1000)
            return complain(p, "a number of outputs");
        c->out_count = (int32_t)i;
    } else if (take(p, "opset=")) {
        if (!take_int(p, &i))
            return complain(p, "a version");
        c->opset = (int32_t)i;
    } else if (take(p, "tol=")) {
        bool is_float;
        if (!take_number(p, &c->tolerance, &i, &is_float))
            return complain(p, "a tolerance");
    } else if (take(p, "nograd")) {
        c->nograd = true;
    } else if (take(p, "gradall")) {
        c->grad_all = true;
    } else if (take(p, "nodevice")) {
        c->nodevice = true;
    } else if (take(p, "storage16")) {
        c->storage16 = true;
    } else {
        return complain(p, "an option");
    }
    return end_of_word(p) ? HK_OK : complain(p, "the end of an option");
}

static hk_status take_options(parser *p, op_case *c)
{
    while (!end_of_section(p))
        HK_TRY(take_option(p, c));
    return *p->at == '\0' ? HK_OK : complain(p, "the end");
}

static uint64_t hash(uint64_t h, const char *s)
{
    for (; *s; s++)
        h = (h ^ (unsigned char)*s) * 1099511628211u;
    return h;
}

hk_status case_parse(hk_context *ctx, hk_arena *arena, const hk_op *op, const char *text, op_case *c)
{
    parser p = {.ctx = ctx, .arena = arena, .op = op, .text = text, .at = text};
    *c = (op_case){.text = text,
                   .op = op,
                   .out_count = op->out_min,
                   .opset = op->until ? op->until : INT16_MAX,
                   .tolerance = op->flags & HK_OP_RANDOM ? 0 : 5e-6};
    c->seed = hash(hash(14695981039346656037u, op->type), text) | 1;
    for (; !end_of_section(&p); c->input_count++) {
        if (c->input_count == CASE_MAX_INPUTS)
            return complain(&p, "fewer inputs");
        HK_TRY(take_input(&p, &c->inputs[c->input_count]));
    }
    if (take(&p, ";"))
        for (; !end_of_section(&p); c->attr_count++) {
            if (c->attr_count == CASE_MAX_ATTRS)
                return complain(&p, "fewer attributes");
            HK_TRY(take_attr(&p, &c->attrs[c->attr_count]));
        }
    if (take(&p, ";"))
        HK_TRY(take_options(&p, c));
    return *p.at == '\0' ? HK_OK : complain(&p, "the end");
}

/* ---- graphs */

hk_status case_build(hk_context *ctx, const op_case *c, const hk_tensor *const *tensors, bool all_inputs,
                     case_graph *out)
{
    hk_status st = HK_STATUS_OUT_OF_MEMORY;
    *out = (case_graph){0};
    hk_graph *g = NULL;
    HK_TRY(hk_graph_create(ctx, "case", &g));
    for (int32_t i = 0; i < c->input_count; i++) {
        const case_input *in = &c->inputs[i];
        hk_value *v = NULL;
        char name[32];
        snprintf(name, sizeof name, "input%d", (int)i);
        if (in->absent)
            continue;
        if (in->step) {
            v = hk_graph_step(g);
        } else if (in->fill == CASE_CONTENTS && !in->parameter) {
            v = hk_graph_constant(g, name, in->contents);
        } else if (in->parameter && !all_inputs) {
            v = hk_graph_value(g, name, HK_VALUE_PARAMETER, in->dtype, &in->shape);
            if (v)
                v->data = tensors[i];
        } else {
            v = hk_graph_value(g, name, HK_VALUE_INPUT, in->dtype, &in->shape);
            if (v && !hk_graph_add_input(g, v))
                v = NULL;
        }
        if (!v)
            goto fail;
        out->inputs[i] = v;
    }
    void *attrs = NULL;
    st = hk_op_decode(ctx, g->arena, c->op, c->attrs, c->attr_count, &attrs);
    if (st != HK_OK)
        goto fail;
    st = HK_STATUS_OUT_OF_MEMORY;
    hk_node *n = hk_graph_node(g, "node", c->op->type, c->op, attrs, out->inputs, c->input_count, c->out_count);
    if (!n)
        goto fail;
    n->domain = c->op->domain;
    n->opset = c->opset;
    st = hk_node_infer(g, n);
    for (int32_t i = 0; st == HK_OK && i < n->out_count; i++)
        if (n->out[i] && !hk_graph_add_output(g, n->out[i]))
            st = HK_STATUS_OUT_OF_MEMORY;
    if (st != HK_OK)
        goto fail;
    out->graph = g;
    out->node = n;
    return HK_OK;
fail:
    hk_graph_destroy(&g);
    return st;
}

void case_feeds(const case_graph *g, const op_case *c, const hk_tensor *const *tensors, const hk_tensor **feeds)
{
    for (size_t k = 0; k < g->graph->input_count; k++)
        for (int32_t i = 0; i < c->input_count; i++)
            if (g->inputs[i] == g->graph->inputs[k])
                feeds[k] = tensors[i];
}

/* ---- contents */

static uint64_t next(case_random *r)
{
    r->state ^= r->state >> 12;
    r->state ^= r->state << 25;
    r->state ^= r->state >> 27;
    return r->state * 2685821657736338717u;
}

double case_uniform(case_random *r)
{
    return (double)(next(r) >> 11) * 0x1p-53;
}

double case_normal(case_random *r)
{
    double u = 1.0 - case_uniform(r), v = case_uniform(r);
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

/* Floats are representable in 32 bits, so that a run in float64 sees the same numbers, and stay away from 0, where many
 * operators have a kink. */
static double draw(case_random *r, const case_input *in)
{
    double x;
    if (in->fill == CASE_INTEGERS)
        return (double)in->low + floor(case_uniform(r) * ((double)in->high - (double)in->low));
    do
        x = in->fill == CASE_POSITIVE ? 0.1 + 1.9 * case_uniform(r) : case_normal(r);
    while (fabs(x) < 2e-3);
    return (double)(float)x;
}

hk_status case_contents(hk_context *ctx, hk_arena *arena, const op_case *c, bool wide, const hk_tensor **tensors)
{
    case_random r = {.state = c->seed};
    for (int32_t i = 0; i < c->input_count; i++) {
        const case_input *in = &c->inputs[i];
        tensors[i] = in->contents;
        if (in->absent || in->step || (in->contents && !(wide && in->parameter)))
            continue;
        hk_tensor *t = hk_tensor_new(arena, wide && in->dtype == HK_FLOAT32 ? HK_FLOAT64 : in->dtype, &in->shape);
        if (!t)
            return hk_out_of_memory(ctx, "a case's contents");
        int64_t count = hk_tensor_count(t);
        for (int64_t k = 0; k < count; k++)
            hk_set_double(t, k, in->contents ? hk_get_double(in->contents, k) : draw(&r, in));
        tensors[i] = t;
    }
    return HK_OK;
}

bool case_on_device(const op_case *c, const case_graph *g, const hk_device_info *device)
{
    bool storage16 = device->caps >> HK_CAP_STORAGE16 & 1u, taken = !c->nodevice && !(c->op->flags & HK_OP_HOST);
    taken &= storage16 || !c->storage16;
    for (size_t i = 0; i < g->graph->node_count; i++) {
        hk_dtype t = hk_node_lacks(g->graph->nodes[i], device);
        taken &= t == HK_DTYPE_NONE || (storage16 && hk_dtype_is_half(t));
    }
    return taken;
}
