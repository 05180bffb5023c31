/*
 * Einsum: products of any number of tensors, summed over the labels that the output lacks. It becomes other operators:
 * diagonals are strided slices, labels of one operand alone are summed, and each pair of operands is a MatMul over
 * [shared and kept][own of the left][contracted] x [...][contracted][own of the right], or a Mul where nothing is
 * contracted. Operands are contracted from left to right.
 */
#include <ctype.h>
#include <string.h>

#include "ops/support/build.h"
#include "ops/support/move_args.h"

typedef struct einsum_attrs {
    const char *equation;
} einsum_attrs;
static const hk_attr attr_list[] = {
    {.name = "equation", .kind = HK_ATTR_STRING, .offset = offsetof(einsum_attrs, equation), .required = true}, {0}};

enum {
    LETTERS = 52,
    LABELS = LETTERS + HK_MAX_RANK, /* letters, then the dimensions of "...", LABELS - 1 the last of them */
    OPERANDS = 32,
};

typedef struct term {
    int32_t count;
    int32_t label[HK_MAX_RANK];
} term;

typedef struct equation {
    int32_t operands;
    term in[OPERANDS], out;
    int64_t extent[LABELS]; /* -1: unknown; 0 labels never used too */
    bool used[LABELS];
    bool known; /* ranks of all operands that have "..." */
} equation;

static int32_t letter(char c)
{
    return c >= 'a' && c <= 'z' ? c - 'a' + 26 : c >= 'A' && c <= 'Z' ? c - 'A' : -1; /* 'A' sorts before 'a' */
}

/* Reads labels up to ',', '-' or the end. dots: the dimensions that "..." stands for; -1: unknown, then it is left out.
 */
static hk_status read_term(const hk_args *a, const char **at, int32_t dots, term *t, bool *has_dots)
{
    const char *s = *at;
    *t = (term){0};
    *has_dots = false;
    for (; *s && *s != ',' && *s != '-'; s++) {
        int32_t l = letter(*s), first = l, count = 1;
        if (isspace((unsigned char)*s))
            continue;
        if (*s == '.' && s[1] == '.' && s[2] == '.' && !*has_dots) {
            *has_dots = true;
            s += 2;
            count = HK_MAX(dots, 0);
            first = LABELS - count;
        } else if (l < 0) {
            return hk_args_fail(a, "equation \"%s\" has '%c' where a label, ',' or '->' was expected",
                                ((const einsum_attrs *)a->node->attrs)->equation, *s);
        }
        for (int32_t i = 0; i < count; i++) {
            if (t->count == HK_MAX_RANK)
                return hk_args_fail(a, "a term of its equation has more than %d dimensions", HK_MAX_RANK);
            t->label[t->count++] = first + i;
        }
    }
    *at = s;
    return HK_OK;
}

/* Letters of the term at s, without "...". */
static int32_t count_letters(const char *s)
{
    int32_t n = 0;
    for (; *s && *s != ',' && *s != '-'; s++)
        n += letter(*s) >= 0;
    return n;
}

static hk_status add_operand(const hk_args *a, equation *q, int32_t i, const char **at)
{
    hk_shape s = hk_args_shape(a, i);
    int32_t dots = s.rank < 0 ? -1 : s.rank - count_letters(*at);
    bool has_dots;
    term *t = &q->in[i];
    HK_TRY(read_term(a, at, dots, t, &has_dots));
    if (s.rank < 0) {
        q->known &= !has_dots;
        for (int32_t d = 0; d < t->count; d++)
            q->used[t->label[d]] = true;
        return HK_OK;
    }
    if (s.rank != t->count)
        return hk_args_fail(a, "operand %d has %d dimensions, its term of the equation %d", (int)i, (int)s.rank,
                            (int)t->count);
    for (int32_t d = 0; d < t->count; d++) {
        int64_t *extent = &q->extent[t->label[d]];
        bool seen = q->used[t->label[d]];
        if (seen && *extent > 1 && s.dim[d] > 1 && *extent != s.dim[d])
            return hk_args_fail(a, "operand %d has extent %lld in dimension %d, where the same label is %lld elsewhere",
                                (int)i, (long long)s.dim[d], (int)d, (long long)*extent);
        if (!seen || *extent == 1)
            *extent = s.dim[d];
        else if (*extent < 0 && s.dim[d] > 1)
            *extent = s.dim[d];
        q->used[t->label[d]] = true;
    }
    return HK_OK;
}

/* Without "->" the output has the dimensions of "..." and, in alphabetical order, the labels that occur once. */
static hk_status implicit_output(const hk_args *a, equation *q)
{
    int32_t times[LABELS] = {0};
    for (int32_t i = 0; i < q->operands; i++)
        for (int32_t d = 0; d < q->in[i].count; d++)
            times[q->in[i].label[d]]++;
    for (int32_t l = LETTERS; l < LABELS + LETTERS; l++) {
        int32_t label = l < LABELS ? l : l - LABELS;
        if (times[label] != 1 && (label < LETTERS || !times[label]))
            continue;
        if (q->out.count == HK_MAX_RANK)
            return hk_args_fail(a, "its output has more than %d dimensions", HK_MAX_RANK);
        q->out.label[q->out.count++] = label;
    }
    return HK_OK;
}

static hk_status read_equation(const hk_args *a, equation *q)
{
    const char *s = ((const einsum_attrs *)a->node->attrs)->equation;
    *q = (equation){.known = true};
    int32_t inputs = a->node->in_count;
    if (inputs > OPERANDS)
        return hk_args_fail(a, "has %d operands, at most %d are supported", (int)inputs, OPERANDS);
    for (;;) {
        if (q->operands == inputs)
            return hk_args_fail(a, "its equation has more terms than there are operands, %d", (int)inputs);
        HK_TRY(add_operand(a, q, q->operands++, &s));
        if (*s != ',')
            break;
        s++;
    }
    if (q->operands != inputs)
        return hk_args_fail(a, "its equation has %d terms for %d operands", (int)q->operands, (int)inputs);
    if (!*s)
        return implicit_output(a, q);
    bool has_dots;
    int32_t dots = 0;
    for (int32_t l = LETTERS; l < LABELS; l++)
        dots += q->used[l];
    if (s[1] != '>')
        return hk_args_fail(a, "its equation has '-' without '>'");
    s += 2;
    HK_TRY(read_term(a, &s, dots, &q->out, &has_dots));
    for (int32_t d = 0; d < q->out.count; d++)
        for (int32_t k = 0; k <= d; k++)
            if (!q->used[q->out.label[d]] || (k < d && q->out.label[k] == q->out.label[d]))
                return hk_args_fail(a, "a label of its equation's output is %s",
                                    k < d ? "there twice" : "in no operand");
    if (*s)
        return hk_args_fail(a, "its equation goes on after the output");
    return HK_OK;
}

static hk_shape output_shape(const equation *q)
{
    hk_shape s = {.rank = q->out.count};
    for (int32_t d = 0; d < s.rank; d++)
        s.dim[d] = q->extent[q->out.label[d]];
    return q->known ? s : HK_SHAPE_UNKNOWN;
}

static hk_status infer(hk_infer *in)
{
    hk_args a = hk_infer_args(in);
    equation q;
    HK_TRY(read_equation(&a, &q));
    for (int32_t i = 1; i < in->node->in_count; i++)
        if (!in->node->in[i] || in->node->in[i]->dtype != in->node->in[0]->dtype)
            return hk_infer_fail(in, HK_STATUS_INVALID, "expected operands of one type");
    for (int32_t i = 0; i < q.operands; i++) /* an operand of unknown rank leaves its labels' extents open */
        for (int32_t d = 0; d < q.in[i].count && in->node->in[i]->shape.rank < 0; d++)
            if (q.extent[q.in[i].label[d]] == 0 || q.extent[q.in[i].label[d]] == 1)
                q.extent[q.in[i].label[d]] = -1;
    hk_shape y = output_shape(&q);
    return hk_infer_output(in, 0, in->node->in[0]->dtype, &y);
}

/* ---- host: every combination of all labels */

static hk_status eval(hk_eval *e)
{
    hk_args a = hk_eval_args(e);
    equation q;
    int32_t labels[LABELS], count = 0;
    int64_t at[LABELS] = {0}, stride[OPERANDS + 1][LABELS] = {{0}}, combinations = 1;
    HK_TRY(read_equation(&a, &q));
    hk_shape shape = output_shape(&q);
    hk_tensor *y = hk_eval_output(e, 0, e->in[0]->dtype, &shape);
    if (!y)
        return hk_out_of_memory(e->ctx, "an Einsum");
    for (int32_t l = 0; l < LABELS; l++)
        if (q.used[l]) {
            labels[count++] = l;
            combinations *= q.extent[l];
        }
    for (int32_t i = 0; i <= q.operands; i++) {
        const term *t = i < q.operands ? &q.in[i] : &q.out;
        hk_shape s = i < q.operands ? hk_tensor_shape(e->in[i]) : shape;
        int64_t strides[HK_MAX_RANK];
        hk_shape_strides(&s, strides);
        for (int32_t d = 0; d < t->count; d++)
            stride[i][t->label[d]] += s.dim[d] == 1 ? 0 : strides[d];
    }
    bool floats = hk_dtype_is_float(y->dtype);
    double *sums = hk_arena_array(e->arena, (size_t)hk_tensor_count(y) + 1, sizeof *sums);
    if (!sums)
        return hk_out_of_memory(e->ctx, "an Einsum");
    for (int64_t c = 0; c < combinations; c++) {
        double product = 1.0;
        uint64_t whole = 1;
        int64_t to = 0;
        for (int32_t i = 0; i <= q.operands; i++) {
            int64_t from = 0;
            for (int32_t k = 0; k < count; k++)
                from += at[labels[k]] * stride[i][labels[k]];
            to = from;
            if (i < q.operands && floats)
                product *= hk_get_double(e->in[i], from);
            else if (i < q.operands)
                whole *= (uint64_t)hk_get_int(e->in[i], from);
        }
        sums[to] += product;
        if (!floats)
            hk_set_int(y, to, (int64_t)((uint64_t)hk_get_int(y, to) + whole));
        for (int32_t k = count - 1; k >= 0 && ++at[labels[k]] == q.extent[labels[k]]; k--)
            at[labels[k]] = 0;
    }
    for (int64_t i = 0; floats && i < hk_tensor_count(y); i++)
        hk_set_double(y, i, sums[i]);
    return HK_OK;
}

/* ---- expansion */

/* A tensor whose dimensions are labelled, each label once. */
typedef struct part {
    hk_value *v;
    term t;
} part;

static int32_t place_of(const term *t, int32_t label)
{
    for (int32_t d = 0; d < t->count; d++)
        if (t->label[d] == label)
            return d;
    return -1;
}

/* Puts the dimensions in the order given. */
static hk_status order(hk_graph *g, part *p, const term *wanted)
{
    int64_t perm[HK_MAX_RANK];
    bool same = true;
    for (int32_t d = 0; d < wanted->count; d++) {
        perm[d] = place_of(&p->t, wanted->label[d]);
        same &= perm[d] == d;
    }
    p->t = *wanted;
    return same ? HK_OK : hk_build_transpose(g, p->v, perm, wanted->count, &p->v);
}

/* Dimensions a < b become their diagonal, at the end: of [..., n, n] as [..., n n] every (n + 1)st element. */
static hk_status diagonal(hk_graph *g, part *p, int32_t a, int32_t b)
{
    int64_t perm[HK_MAX_RANK];
    int32_t rank = p->t.count, label = p->t.label[a], kept = 0;
    term t = {0};
    for (int32_t d = 0; d < rank; d++)
        if (d != a && d != b) {
            perm[kept++] = d;
            t.label[t.count++] = p->t.label[d];
        }
    perm[kept] = a;
    perm[kept + 1] = b;
    t.label[t.count++] = label;
    HK_TRY(hk_build_transpose(g, p->v, perm, rank, &p->v));
    hk_shape s = p->v->shape;
    int64_t n = HK_MIN(s.dim[rank - 2], s.dim[rank - 1]), first = s.dim[rank - 2], second = s.dim[rank - 1];
    s.rank--;
    s.dim[rank - 2] = first * second;
    HK_TRY(hk_build_reshape(g, p->v, &s, &p->v));
    /* An extent of 1 beside n is broadcast: all n elements then. */
    int64_t step = first == second ? n + 1 : 1;
    hk_value *in[] = {p->v, hk_graph_ints(g, (const int64_t[]){0}, 1), hk_graph_ints(g, &s.dim[rank - 2], 1),
                      hk_graph_ints(g, (const int64_t[]){-1}, 1), hk_graph_ints(g, &step, 1)};
    for (int i = 0; i < 5; i++)
        if (!in[i])
            return hk_out_of_memory(g->ctx, "a diagonal");
    p->t = t;
    return first * second == 0 ? HK_OK : hk_build(g, "Slice", NULL, in, 5, &p->v, 1);
}

static hk_status take_diagonals(hk_graph *g, part *p)
{
    for (int32_t b = 1; b < p->t.count; b++) {
        int32_t a = place_of(&p->t, p->t.label[b]);
        if (a == b)
            continue;
        HK_TRY(diagonal(g, p, a, b));
        b = 0; /* labels have moved */
    }
    return HK_OK;
}

/* Sums over the labels that nobody needs any more. */
static hk_status sum_out(hk_graph *g, part *p, const bool needed[LABELS])
{
    int64_t axes[HK_MAX_RANK];
    int32_t count = 0;
    term t = {0};
    hk_shape s = {0};
    for (int32_t d = 0; d < p->t.count; d++) {
        if (!needed[p->t.label[d]]) {
            axes[count++] = d;
            continue;
        }
        t.label[t.count++] = p->t.label[d];
        s.dim[s.rank++] = p->v->shape.dim[d];
    }
    if (!count)
        return HK_OK;
    p->t = t;
    HK_TRY(hk_build_reduce(g, "ReduceSum", p->v, axes, count, &p->v));
    return hk_build_reshape(g, p->v, &s, &p->v);
}

/* Labels of both parts get one extent: where it is summed over, the larger side is summed alone first; else the smaller
 * one is repeated. */
static hk_status equalize(hk_graph *g, part *a, part *b, const bool kept[LABELS])
{
    for (int32_t d = 0; d < a->t.count; d++) {
        int32_t other = place_of(&b->t, a->t.label[d]);
        if (other < 0 || a->v->shape.dim[d] == b->v->shape.dim[other])
            continue;
        bool first = a->v->shape.dim[d] == 1; /* is the smaller */
        part *small = first ? a : b, *large = first ? b : a;
        int64_t at_small = first ? d : other, at_large = first ? other : d;
        if (!kept[a->t.label[d]]) {
            HK_TRY(hk_build_reduce(g, "ReduceSum", large->v, &at_large, 1, &large->v));
            continue;
        }
        hk_shape s = small->v->shape;
        s.dim[at_small] = large->v->shape.dim[at_large];
        hk_value *shape = hk_graph_ints(g, s.dim, s.rank);
        if (!shape)
            return hk_out_of_memory(g->ctx, "an Einsum");
        HK_TRY(hk_build(g, "Expand", NULL, (hk_value *[]){small->v, shape}, 2, &small->v, 1));
    }
    return HK_OK;
}

static void append(term *t, int32_t label)
{
    t->label[t->count++] = label;
}

static int64_t extent_of(const part *p, const term *t)
{
    int64_t n = 1;
    for (int32_t d = 0; d < t->count; d++)
        n *= p->v->shape.dim[place_of(&p->t, t->label[d])];
    return n;
}

/* a times b where labels not kept are summed. */
static hk_status multiply(hk_graph *g, part *a, part *b, const bool kept[LABELS], part *y)
{
    term shared = {0}, own_a = {0}, own_b = {0}, summed = {0}, left, right;
    hk_shape s = {0};
    HK_TRY(equalize(g, a, b, kept));
    for (int32_t d = 0; d < a->t.count; d++) {
        int32_t l = a->t.label[d];
        append(place_of(&b->t, l) < 0 ? &own_a : kept[l] ? &shared : &summed, l);
    }
    for (int32_t d = 0; d < b->t.count; d++)
        if (place_of(&a->t, b->t.label[d]) < 0)
            append(&own_b, b->t.label[d]);
    if (shared.count + own_a.count + own_b.count > HK_MAX_RANK)
        return hk_fail(g->ctx, HK_STATUS_UNSUPPORTED, "an Einsum needs more than %d dimensions between two operands",
                       HK_MAX_RANK);
    int64_t batch = extent_of(a, &shared), m = extent_of(a, &own_a), k = extent_of(a, &summed),
            n = extent_of(b, &own_b);
    const term *names[] = {&shared, &own_a, &own_b};
    y->t = (term){0};
    for (int32_t i = 0; i < 3; i++)
        for (int32_t d = 0; d < names[i]->count; d++) {
            const part *p = i == 2 ? b : a;
            s.dim[s.rank++] = p->v->shape.dim[place_of(&p->t, names[i]->label[d])];
            append(&y->t, names[i]->label[d]);
        }
    left = right = shared;
    for (int32_t d = 0; d < own_a.count; d++)
        append(&left, own_a.label[d]);
    for (int32_t d = 0; d < summed.count; d++) {
        append(&left, summed.label[d]);
        append(&right, summed.label[d]);
    }
    for (int32_t d = 0; d < own_b.count; d++)
        append(&right, own_b.label[d]);
    HK_TRY(order(g, a, &left));
    HK_TRY(order(g, b, &right));
    HK_TRY(hk_build_reshape(g, a->v, &(hk_shape){.rank = 3, .dim = {batch, m, k}}, &a->v));
    HK_TRY(hk_build_reshape(g, b->v, &(hk_shape){.rank = 3, .dim = {batch, k, n}}, &b->v));
    HK_TRY(hk_build_binary(g, summed.count ? "MatMul" : "Mul", a->v, b->v, &y->v));
    return hk_build_reshape(g, y->v, &s, &y->v);
}

static hk_status expand(hk_graph *g, const hk_node *n, hk_value **out)
{
    hk_args a = hk_node_args(g->ctx, n);
    equation q;
    part sum = {0};
    HK_TRY(read_equation(&a, &q));
    for (int32_t i = 0; i < q.operands; i++) {
        part next = {n->in[i], q.in[i]};
        bool kept[LABELS] = {false}, needed[LABELS];
        for (int32_t d = 0; d < q.out.count; d++)
            kept[q.out.label[d]] = true;
        for (int32_t k = i + 1; k < q.operands; k++)
            for (int32_t d = 0; d < q.in[k].count; d++)
                kept[q.in[k].label[d]] = true;
        memcpy(needed, kept, sizeof needed);
        for (int32_t d = 0; d < sum.t.count; d++)
            needed[sum.t.label[d]] = true;
        HK_TRY(take_diagonals(g, &next));
        HK_TRY(sum_out(g, &next, needed));
        if (i > 0) {
            memcpy(needed, kept, sizeof needed);
            for (int32_t d = 0; d < next.t.count; d++)
                needed[next.t.label[d]] = true;
            HK_TRY(sum_out(g, &sum, needed));
            part left = sum;
            HK_TRY(multiply(g, &left, &next, kept, &sum));
        } else {
            sum = next;
        }
    }
    HK_TRY(order(g, &sum, &q.out));
    *out = sum.v;
    return HK_OK;
}

#define CASES(name, ...) static const char *const name[] = {__VA_ARGS__, NULL}

CASES(cases, "f16[3,4] f16[4,5] ; equation=\"ij,jk->ik\" ; nograd tol=1e-3",
      "f64[3,4] f64[4,5] ; equation=\"ij,jk->ik\" ; nograd", "f32[3,4] f32[4,5] ; equation=\"ij,jk->ik\"",
      "f32[3,4] ; equation=\"ij->ji\"", "f32[3,4] ; equation=\"ij->i\"", "f32[3,4] ; equation=\"ij->\"",
      "f32[5] f32[5] ; equation=\"i,i\"", "f32[2,3,4] f32[2,4,5] ; equation=\"bij, bjk -> bik\"",
      "f32[3,5,5] ; equation=\"...ii ->...i\"", "f32[4,4] ; equation=\"ii\"", "f32[3,4,3,3] ; equation=\"ijii->ji\"",
      "f32[] ; equation=\"->\"", "f32[3] f32[4] ; equation=\"i,j->ji\"", "f32[2,3,4] f32[4] ; equation=\"...j,j\"",
      "f32[2,1,3,4] f32[5,4,2] ; equation=\"...ij,...jk->...ik\"",
      "f32[2,3,4,5] f32[2,6,4,5] ; equation=\"bqhd,bkhd->bhqk\"",
      "f32[2,3] f32[3,4] f32[4,2] ; equation=\"ab,bc,cd->ad\"", "f32[3,4] f32[3,4] f32[4] ; equation=\"ij,ij,j->i\"",
      "f32[1,4] f32[3,4] ; equation=\"ij,ij->j\"", "f32[3,1] f32[3,4] ; equation=\"ij,ij->ij\"",
      "f32[4,3] f32[3,2] ; equation=\"zb,ba\"", "f32[2,0] f32[0,3] ; equation=\"ij,jk->ik\" ; nograd",
      "f32[0,0] ; equation=\"ii->i\" ; nograd", "i32[3,4]<-5:5 i32[4,2]<-5:5 ; equation=\"ij,jk->ik\"");

const hk_op hk_ops_einsum[] = {
    {.type = "Einsum",
     .since = 12,
     .in_min = 1,
     .in_max = -1,
     .out_min = 1,
     .out_max = 1,
     .flags = HK_OP_PARTS_FOLD,
     .parameters = ~0u,
     .attrs_bytes = sizeof(einsum_attrs),
     .attrs = attr_list,
     .infer = infer,
     .eval = eval,
     .expand = expand,
     .cases = cases},
    {0},
};
