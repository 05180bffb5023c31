/*
 * Formulas that are operators: GELU, LayerNormalization and RMSNormalization as exporters write them out.
 *
 * A rule is a formula in text. Names are operators, numbers are constants (scalars, to five digits), letters stand for
 * values, the same letter for the same value, `#` for any constant scalar. Add and Mul match in either order. Square,
 * Cube and Over stand for the several ways to write them, and Mean for ReduceMean over the last dimensions.
 */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/passes.h"

enum { ARGUMENTS = 2, SAME_MOST = 1 << 20 /* elements of a scale of ones that is made */ };

typedef struct match {
    hk_value *letter[26];
    double number; /* # */
    int32_t axis;  /* of Mean: the first; -1: none yet */
    bool has_number;
} match;

typedef struct rule {
    const char *formula, *type; /* the operator that x, and w and b where the formula has them, go into */
    const char *approximate;    /* Gelu's */
} rule;

#define ERF_1(x) "Add(Erf(" x "),1)"
#define GELU(type_, inner, kind)                                                                                       \
    {"Mul(Mul(x," inner "),0.5)", type_, kind}, {"Mul(Mul(x,0.5)," inner ")", type_, kind},                            \
    {                                                                                                                  \
        "Mul(x,Mul(" inner ",0.5))", type_, kind                                                                       \
    }
#define TANH_1 "Add(Tanh(Mul(Add(x,Mul(Cube(x),0.044715)),0.7978846)),1)"
#define CENTERED "Over(Sub(x,Mean(x)),Sqrt(Add(Mean(Square(Sub(x,Mean(x)))),#)))"
#define SCALED "Over(x,Sqrt(Add(Mean(Square(x)),#)))"

/* The largest formulas first. */
static const rule rules[] = {
    GELU("Gelu", ERF_1("Div(x,1.4142136)"), "none"),
    GELU("Gelu", ERF_1("Mul(x,0.70710678)"), "none"),
    GELU("Gelu", TANH_1, "tanh"),
    {"Add(Mul(" CENTERED ",w),b)", "LayerNormalization", NULL},
    {"Mul(" CENTERED ",w)", "LayerNormalization", NULL},
    {CENTERED, "LayerNormalization", NULL},
    {"Mul(" SCALED ",w)", "RMSNormalization", NULL},
    {SCALED, "RMSNormalization", NULL},
};

static bool constant_scalar(const hk_value *v, double *x)
{
    if (!v->data || hk_tensor_count(v->data) != 1 || v->shape.rank > 1)
        return false;
    *x = hk_get_double(v->data, 0);
    return true;
}

/* ---- formulas */

static const char *past(const char *f)
{
    int depth = 0;
    while (*f && (depth > 0 || (*f != ',' && *f != ')'))) {
        depth += *f == '(' ? 1 : *f == ')' ? -1 : 0;
        f++;
    }
    return f;
}

/* Does f begin with this operator? Its arguments' places then. */
static bool reads(const char *f, const char *name, const char *argument[ARGUMENTS])
{
    size_t length = strlen(name);
    if (strncmp(f, name, length) != 0 || f[length] != '(')
        return false;
    argument[0] = f + length + 1;
    const char *end = past(argument[0]);
    argument[1] = *end == ',' ? end + 1 : NULL;
    return true;
}

static bool matches(const char *f, hk_value *v, match *m);

static bool both(const char *f, hk_value *v, const char *g, hk_value *w, match *m)
{
    match before = *m;
    if (matches(f, v, m) && matches(g, w, m))
        return true;
    *m = before;
    return false;
}

static bool matches_letter(char letter, hk_value *v, match *m)
{
    hk_value **bound = &m->letter[letter - 'a'];
    if (*bound)
        return *bound == v;
    *bound = v;
    return true;
}

static bool matches_number(const char *f, const hk_value *v)
{
    double want = strtod(f, NULL), x;
    return constant_scalar(v, &x) && fabs(x - want) <= 1e-5 * fabs(want);
}

/* ReduceMean over the last dimensions, which stay as extents of 1. */
static bool matches_mean(const char *f, hk_node *n, match *m)
{
    const hk_ints *list = hk_node_is(n, "ReduceMean") ? hk_node_attr(n, "axes") : NULL;
    const int64_t *keep = hk_node_is(n, "ReduceMean") ? hk_node_attr(n, "keepdims") : NULL;
    if (!keep || !*keep || !n->in[0] || n->in[0]->shape.rank < 1)
        return false;
    const hk_tensor *given = hk_known(n, 1);
    int64_t count = list && list->v ? list->count : given ? hk_tensor_count(given) : 0;
    int32_t rank = n->in[0]->shape.rank, first = rank;
    uint32_t seen = 0;
    for (int64_t i = 0; i < count; i++) {
        int32_t axis = hk_axis(list && list->v ? list->v[i] : hk_get_int(given, i), rank);
        if (axis < 0)
            return false;
        seen |= 1u << axis;
        first = HK_MIN(first, axis);
    }
    if (!count || seen != (1u << rank) - (1u << first) || (m->axis >= 0 && m->axis != first))
        return false;
    m->axis = first;
    return matches(f, n->in[0], m);
}

/* x times itself. */
static bool matches_square(const char *f, const hk_node *n, match *m)
{
    if (hk_node_is(n, "Mul") && n->in[0] == n->in[1])
        return matches(f, n->in[0], m);
    return hk_node_is(n, "Pow") && both("2", n->in[1], f, n->in[0], m);
}

static bool matches_cube(const char *f, const hk_node *n, match *m)
{
    if (hk_node_is(n, "Pow"))
        return both("3", n->in[1], f, n->in[0], m);
    for (int i = 0; i < 2 && hk_node_is(n, "Mul"); i++) {
        match before = *m;
        if (matches(f, n->in[i], m) && matches_square(f, n->in[1 - i]->producer, m))
            return true;
        *m = before;
    }
    return false;
}

static bool matches_over(const char *const argument[ARGUMENTS], const hk_node *n, match *m)
{
    if (hk_node_is(n, "Div"))
        return both(argument[0], n->in[0], argument[1], n->in[1], m);
    for (int i = 0; i < 2 && hk_node_is(n, "Mul"); i++) {
        const hk_node *inverse = n->in[1 - i]->producer;
        match before = *m;
        if (hk_node_is(inverse, "Reciprocal") && both(argument[0], n->in[i], argument[1], inverse->in[0], m))
            return true;
        if (hk_node_is(inverse, "Div") && matches_number("1", inverse->in[0]) &&
            both(argument[0], n->in[i], argument[1], inverse->in[1], m))
            return true;
        *m = before;
    }
    return false;
}

static bool matches_operator(const char *f, hk_node *n, match *m)
{
    const char *argument[ARGUMENTS];
    if (reads(f, "Mean", argument))
        return matches_mean(argument[0], n, m);
    if (reads(f, "Square", argument))
        return matches_square(argument[0], n, m);
    if (reads(f, "Cube", argument))
        return matches_cube(argument[0], n, m);
    if (reads(f, "Over", argument))
        return matches_over(argument, n, m);
    if (!n->op || n->domain || !reads(f, n->type, argument) || n->in_count != (argument[1] ? 2 : 1))
        return false;
    if (!argument[1])
        return matches(argument[0], n->in[0], m);
    if (both(argument[0], n->in[0], argument[1], n->in[1], m))
        return true;
    return (hk_node_is(n, "Add") || hk_node_is(n, "Mul")) && both(argument[0], n->in[1], argument[1], n->in[0], m);
}

static bool matches(const char *f, hk_value *v, match *m)
{
    if (*f == '#')
        return m->has_number = constant_scalar(v, &m->number);
    if (isdigit((unsigned char)*f))
        return matches_number(f, v);
    if (islower((unsigned char)*f))
        return matches_letter(*f, v, m);
    return v->producer && matches_operator(f, v->producer, m);
}

/* ---- what takes their place */

/* A scale or bias with one element for each element of a row. */
static bool is_affine(const hk_value *v, const hk_shape *x, int32_t axis)
{
    int32_t rank = x->rank - axis;
    if (!v)
        return true;
    if (v->dtype != HK_FLOAT32 || v->shape.rank != rank)
        return false;
    for (int32_t d = 0; d < rank; d++)
        if (v->shape.dim[d] != x->dim[axis + d])
            return false;
    return true;
}

static hk_value *ones(hk_graph *g, const hk_shape *x, int32_t axis)
{
    hk_shape s = {.rank = x->rank - axis};
    memcpy(s.dim, x->dim + axis, (size_t)s.rank * sizeof s.dim[0]);
    hk_tensor *t = hk_tensor_new(g->arena, HK_FLOAT32, &s);
    for (int64_t i = 0; t && i < hk_shape_count(&s); i++)
        hk_set_double(t, i, 1.0);
    return t ? hk_graph_constant(g, "ones", t) : NULL;
}

static hk_status normalization(hk_graph *g, const rule *r, const match *m, hk_value **y)
{
    hk_value *x = m->letter['x' - 'a'], *w = m->letter['w' - 'a'], *b = m->letter['b' - 'a'];
    if (m->axis < 0 || !m->has_number || !is_affine(w, &x->shape, m->axis) || !is_affine(b, &x->shape, m->axis) ||
        hk_shape_span(&x->shape, m->axis, x->shape.rank) > SAME_MOST)
        return HK_OK;
    const hk_attr_value attrs[] = {HK_SET_INT("axis", m->axis), HK_SET_FLOAT("epsilon", (float)m->number), {0}};
    if (!w && !(w = ones(g, &x->shape, m->axis)))
        return HK_STATUS_OUT_OF_MEMORY;
    return hk_build(g, r->type, attrs, (hk_value *[]){x, w, b}, b ? 3 : 2, y, 1);
}

static hk_status replacement(hk_graph *g, const rule *r, const match *m, hk_value **y)
{
    hk_value *x = m->letter['x' - 'a'];
    if (!r->approximate)
        return normalization(g, r, m, y);
    const hk_attr_value attrs[] = {HK_SET_STRING("approximate", r->approximate), {0}};
    return hk_build(g, r->type, attrs, &x, 1, y, 1);
}

hk_status hk_fuse_formulas(hk_graph *g)
{
    size_t count = g->node_count;
    for (size_t i = count; i-- > 0;) { /* backwards: a formula before those inside it */
        hk_node *n = g->nodes[i];
        hk_value *old = n->out_count == 1 ? n->out[0] : NULL, *y = NULL;
        bool candidate = hk_node_is(n, "Add") || hk_node_is(n, "Mul") || hk_node_is(n, "Div");
        for (size_t k = 0; candidate && old && k < HK_COUNT(rules) && !y; k++) {
            match m = {.axis = -1};
            if (!matches(rules[k].formula, old, &m))
                continue;
            const hk_value *x = m.letter['x' - 'a'];
            if (x->dtype == HK_FLOAT32 && hk_shape_known(&x->shape) && hk_shape_equal(&x->shape, &old->shape))
                HK_TRY(replacement(g, &rules[k], &m, &y));
        }
        if (y) {
            y->producer->name = n->name;
            hk_graph_take_over(y, old);
        }
    }
    if (g->node_count == count)
        return HK_OK;
    HK_TRY(hk_graph_sort(g));
    return hk_graph_prune(g);
}
