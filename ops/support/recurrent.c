/* Reading a recurrent node, and its equations on the host. */
#include "ops/support/recurrent.h"

#include <ctype.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "ops/support/conv_geometry.h"

const hk_attr hk_recurrent_attr_list[] = {
    HK_FLOATS_ATTR(hk_recurrent_attrs, activation_alpha),
    HK_FLOATS_ATTR(hk_recurrent_attrs, activation_beta),
    HK_STRINGS_ATTR(hk_recurrent_attrs, activations),
    HK_FLOAT_ATTR(hk_recurrent_attrs, clip, -1),
    HK_STRING_ATTR(hk_recurrent_attrs, direction, "forward"),
    HK_INT_ATTR(hk_recurrent_attrs, hidden_size, 0),
    HK_INT_ATTR(hk_recurrent_attrs, input_forget, 0),
    HK_INT_ATTR(hk_recurrent_attrs, linear_before_reset, 0),
    HK_INT_ATTR(hk_recurrent_attrs, layout, 0),
    HK_INT_ATTR(hk_recurrent_attrs, output_sequence, 0),
    {0},
};

/* ---- activations */

typedef struct gate_row {
    const char *name;
    bool alpha, beta; /* takes it from the node's list */
    float alpha_default, beta_default;
} gate_row;

static const gate_row gate_rows[HK_GATE_COUNT] = {
    [HK_GATE_TANH] = {"Tanh", false, false, 0, 0},
    [HK_GATE_SIGMOID] = {"Sigmoid", false, false, 0, 0},
    [HK_GATE_RELU] = {"Relu", false, false, 0, 0},
    [HK_GATE_AFFINE] = {"Affine", true, true, 1.0f, 0},
    [HK_GATE_LEAKY_RELU] = {"LeakyRelu", true, false, 0.01f, 0},
    [HK_GATE_THRESHOLDED_RELU] = {"ThresholdedRelu", true, false, 1.0f, 0},
    [HK_GATE_SCALED_TANH] = {"ScaledTanh", true, true, 1.0f, 1.0f},
    [HK_GATE_HARD_SIGMOID] = {"HardSigmoid", true, true, 0.2f, 0.5f},
    [HK_GATE_ELU] = {"Elu", true, false, 1.0f, 0},
    [HK_GATE_SOFTSIGN] = {"Softsign", false, false, 0, 0},
    [HK_GATE_SOFTPLUS] = {"Softplus", false, false, 0, 0},
};

const char *hk_gate_name(hk_gate_function f)
{
    return gate_rows[f].name;
}

static bool same_name(const char *a, const char *b)
{
    for (; *a && *b; a++, b++)
        if (tolower((unsigned char)*a) != tolower((unsigned char)*b))
            return false;
    return *a == *b;
}

/* Parameters are consumed in the order of the activations that take one; a list with an entry for every activation is
 * read by place instead. */
static float parameter(hk_floats list, bool takes, int32_t place, int32_t places, int32_t *used, float otherwise)
{
    if (!takes)
        return otherwise;
    int32_t i = list.count == places ? place : (*used)++;
    return list.v && i < list.count ? list.v[i] : otherwise;
}

static const char *read_gates(hk_arena *arena, const hk_recurrent_attrs *a, hk_recurrent *p)
{
    static const hk_gate_function defaults[3][3] = {
        [HK_CELL_RNN] = {HK_GATE_TANH},
        [HK_CELL_LSTM] = {HK_GATE_SIGMOID, HK_GATE_TANH, HK_GATE_TANH},
        [HK_CELL_GRU] = {HK_GATE_SIGMOID, HK_GATE_TANH},
    };
    int32_t each = p->cell == HK_CELL_LSTM ? 3 : p->cell == HK_CELL_GRU ? 2 : 1, count = each * p->directions;
    int32_t alphas = 0, betas = 0;
    if (a->activations.v && a->activations.count != count)
        return hk_arena_format(arena, "has %d activations, expected %d", (int)a->activations.count, (int)count);
    for (int32_t i = 0; i < count; i++) {
        hk_gate_function f = defaults[p->cell][i % each];
        for (int32_t k = 0; a->activations.v && k <= HK_GATE_COUNT; k++) {
            if (k == HK_GATE_COUNT)
                return hk_arena_format(arena, "activation '%s' is none of the standard's", a->activations.v[i]);
            f = (hk_gate_function)k;
            if (same_name(a->activations.v[i], gate_rows[k].name))
                break;
        }
        const gate_row *row = &gate_rows[f];
        p->gate[i / each][i % each] = (hk_gate){
            .function = f,
            .alpha = parameter(a->activation_alpha, row->alpha, i, count, &alphas, row->alpha_default),
            .beta = parameter(a->activation_beta, row->beta, i, count, &betas, row->beta_default)};
    }
    return NULL;
}

const char *hk_recurrent_read(hk_arena *arena, const hk_node *n, const hk_shape *x, const hk_shape *r, hk_recurrent *p)
{
    const hk_recurrent_attrs *a = n->attrs;
    bool forward = !strcmp(a->direction, "forward"), both = !strcmp(a->direction, "bidirectional");
    *p = (hk_recurrent){.cell = strstr(n->op->type, "LSTM")  ? HK_CELL_LSTM
                                : strstr(n->op->type, "GRU") ? HK_CELL_GRU
                                                             : HK_CELL_RNN,
                        .batch_first = a->layout != 0,
                        .input_forget = a->input_forget != 0,
                        .directions = both ? 2 : 1,
                        .clip = a->clip,
                        .steps = -1,
                        .batch = -1,
                        .input = -1,
                        .hidden = -1};
    if (!forward && !both && strcmp(a->direction, "reverse") != 0)
        return hk_arena_format(arena, "direction is \"%s\", expected \"forward\", \"reverse\" or \"bidirectional\"",
                               a->direction);
    p->reverse = !forward && !both;
    p->gates = p->cell == HK_CELL_LSTM ? 4 : p->cell == HK_CELL_GRU ? 3 : 1;
    p->reset_first = p->cell == HK_CELL_GRU && !a->linear_before_reset;
    if (x->rank >= 0) {
        p->steps = x->dim[p->batch_first ? 1 : 0];
        p->batch = x->dim[p->batch_first ? 0 : 1];
        p->input = x->dim[2];
    }
    if (r->rank >= 0)
        p->hidden = r->dim[2];
    return read_gates(arena, a, p);
}

static double gate_value(const hk_gate *g, double x)
{
    double a = (double)g->alpha, b = (double)g->beta;
    switch (g->function) {
    case HK_GATE_TANH: return tanh(x);
    case HK_GATE_SIGMOID: return 1.0 / (1.0 + exp(-x));
    case HK_GATE_RELU: return x < 0.0 ? 0.0 : x;
    case HK_GATE_AFFINE: return a * x + b;
    case HK_GATE_LEAKY_RELU: return x < 0.0 ? a * x : x;
    case HK_GATE_THRESHOLDED_RELU: return x > a ? x : isnan(x) ? x : 0.0;
    case HK_GATE_SCALED_TANH: return a * tanh(b * x);
    case HK_GATE_HARD_SIGMOID: return fmin(fmax(a * x + b, 0.0), 1.0);
    case HK_GATE_ELU: return x < 0.0 ? a * expm1(x) : x;
    case HK_GATE_SOFTSIGN: return x / (1.0 + fabs(x));
    case HK_GATE_SOFTPLUS: return fmax(x, 0.0) + log1p(exp(-fabs(x)));
    case HK_GATE_COUNT: break;
    }
    return x;
}

static double gate_slope(const hk_gate *g, double x)
{
    double a = (double)g->alpha, b = (double)g->beta, y;
    switch (g->function) {
    case HK_GATE_TANH: y = tanh(x); return 1.0 - y * y;
    case HK_GATE_SIGMOID: y = 1.0 / (1.0 + exp(-x)); return y * (1.0 - y);
    case HK_GATE_RELU: return x > 0.0 ? 1.0 : 0.0;
    case HK_GATE_AFFINE: return a;
    case HK_GATE_LEAKY_RELU: return x < 0.0 ? a : 1.0;
    case HK_GATE_THRESHOLDED_RELU: return x > a ? 1.0 : 0.0;
    case HK_GATE_SCALED_TANH: y = tanh(b * x); return a * b * (1.0 - y * y);
    case HK_GATE_HARD_SIGMOID: y = a * x + b; return y > 0.0 && y < 1.0 ? a : 0.0;
    case HK_GATE_ELU: return x < 0.0 ? a * exp(x) : 1.0;
    case HK_GATE_SOFTSIGN: y = 1.0 + fabs(x); return 1.0 / (y * y);
    case HK_GATE_SOFTPLUS: return 1.0 / (1.0 + exp(-x));
    case HK_GATE_COUNT: break;
    }
    return 1.0;
}

static double clipped(const hk_recurrent *p, double x)
{
    double c = (double)p->clip;
    return c < 0.0 ? x : x < -c ? -c : x > c ? c : x;
}

static double activate(const hk_recurrent *p, int32_t d, int32_t which, double x)
{
    return gate_value(&p->gate[d][which], clipped(p, x));
}

static double slope(const hk_recurrent *p, int32_t d, int32_t which, double x)
{
    double c = (double)p->clip;
    return c >= 0.0 && fabs(x) > c ? 0.0 : gate_slope(&p->gate[d][which], x);
}

/* ---- operands of an evaluation, as doubles; NULL where absent */

typedef struct host {
    hk_recurrent p;
    double *x, *w, *r, *bias, *h0, *c0, *peephole;
    const hk_tensor *lengths;
    double *h, *c;       /* the state of one sequence and direction */
    double *sums, *next; /* [G H], [H] of one step */
    double *extra;       /* [H] */
} host;

static bool open_host(hk_eval *e, host *m)
{
    double **to[HK_RNN_INPUTS] = {&m->x, &m->w, &m->r, &m->bias, NULL, &m->h0, &m->c0, &m->peephole};
    for (int32_t i = 0; i < HK_RNN_INPUTS; i++)
        if (to[i] && hk_in(e->node, i) && !(*to[i] = hk_tensor_doubles(e->arena, e->in[i])))
            return false;
    m->lengths = hk_in(e->node, HK_RNN_LENGTHS) ? e->in[HK_RNN_LENGTHS] : NULL;
    size_t hidden = (size_t)m->p.hidden + 1;
    m->h = hk_arena_array(e->arena, hidden, sizeof *m->h);
    m->c = hk_arena_array(e->arena, hidden, sizeof *m->c);
    m->next = hk_arena_array(e->arena, hidden, sizeof *m->next);
    m->extra = hk_arena_array(e->arena, hidden, sizeof *m->extra);
    m->sums = hk_arena_array(e->arena, 4 * hidden, sizeof *m->sums);
    return m->h && m->c && m->next && m->extra && m->sums;
}

static int64_t length_of(const host *m, int64_t b)
{
    if (!m->lengths)
        return m->p.steps;
    int64_t n = hk_get_int(m->lengths, b);
    return HK_MIN(HK_MAX(n, 0), m->p.steps);
}

static bool is_reverse(const hk_recurrent *p, int32_t d)
{
    return d == 1 || p->reverse;
}

static int64_t time_of(const hk_recurrent *p, int32_t d, int64_t s, int64_t length)
{
    return is_reverse(p, d) && s < length ? length - 1 - s : s;
}

static int64_t state_at(const hk_recurrent *p, int32_t d, int64_t b)
{
    return (p->batch_first ? b * p->directions + d : d * p->batch + b) * p->hidden;
}

/* Y is [T][D][B][H] or [B][T][D][H]. */
static int64_t output_at(const hk_recurrent *p, int64_t t, int32_t d, int64_t b)
{
    int64_t row = p->batch_first ? (b * p->steps + t) * p->directions + d : (t * p->directions + d) * p->batch + b;
    return row * p->hidden;
}

static double bias_of(const host *m, int32_t d, int64_t gate_row_index, bool recurrent)
{
    int64_t gh = m->p.gates * m->p.hidden;
    return m->bias ? m->bias[d * 2 * gh + (recurrent ? gh : 0) + gate_row_index] : 0.0;
}

static double r_dot(const host *m, int32_t d, int64_t row, const double *v)
{
    const double *r = m->r + (d * m->p.gates * m->p.hidden + row) * m->p.hidden;
    double sum = 0.0;
    for (int64_t k = 0; k < m->p.hidden; k++)
        sum += r[k] * v[k];
    return sum;
}

/* ---- forward */

/* sums: X W + Wb + h R + Rb of every gate; the candidate of a GRU gets its linear part only in the cell. */
static void gate_sums(host *m, int32_t d, int64_t row)
{
    const hk_recurrent *p = &m->p;
    int64_t plain = p->cell == HK_CELL_GRU ? 2 * p->hidden : p->gates * p->hidden;
    for (int64_t i = 0; i < p->gates * p->hidden; i++) {
        const double *w = m->w + (d * p->gates * p->hidden + i) * p->input, *x = m->x + row * p->input;
        double sum = bias_of(m, d, i, false);
        for (int64_t k = 0; k < p->input; k++)
            sum += w[k] * x[k];
        if (i < plain)
            sum += r_dot(m, d, i, m->h) + bias_of(m, d, i, true);
        m->sums[i] = sum;
    }
}

static void lstm_cell(host *m, int32_t d)
{
    const hk_recurrent *p = &m->p;
    int64_t n = p->hidden;
    const double *pw = m->peephole ? m->peephole + d * 3 * n : NULL;
    for (int64_t j = 0; j < n; j++) {
        double *in = &m->sums[j], *out = &m->sums[n + j], *forget = &m->sums[2 * n + j], *cell = &m->sums[3 * n + j];
        *in += pw ? pw[j] * m->c[j] : 0.0;
        *forget += pw ? pw[2 * n + j] * m->c[j] : 0.0;
        double i = activate(p, d, 0, *in), f = p->input_forget ? 1.0 - i : activate(p, d, 0, *forget);
        double c = f * m->c[j] + i * activate(p, d, 1, *cell);
        *out += pw ? pw[n + j] * c : 0.0;
        m->extra[j] = m->c[j];
        m->c[j] = c;
        m->next[j] = activate(p, d, 0, *out) * activate(p, d, 2, c);
    }
}

static void gru_cell(host *m, int32_t d)
{
    const hk_recurrent *p = &m->p;
    int64_t n = p->hidden;
    if (p->reset_first)
        for (int64_t j = 0; j < n; j++)
            m->extra[j] = activate(p, d, 0, m->sums[n + j]) * m->h[j];
    for (int64_t j = 0; j < n; j++) {
        double linear = r_dot(m, d, 2 * n + j, p->reset_first ? m->extra : m->h) + bias_of(m, d, 2 * n + j, true);
        if (!p->reset_first) {
            m->extra[j] = linear;
            linear *= activate(p, d, 0, m->sums[n + j]);
        }
        m->sums[2 * n + j] += linear;
        double z = activate(p, d, 0, m->sums[j]);
        m->next[j] = (1.0 - z) * activate(p, d, 1, m->sums[2 * n + j]) + z * m->h[j];
    }
}

static void put(hk_tensor *t, int64_t at, const double *v, int64_t count)
{
    for (int64_t i = 0; t && i < count; i++)
        hk_set_double(t, at + i, v[i]);
}

static void run_sequence(host *m, hk_tensor *const *out, int32_t d, int64_t b)
{
    const hk_recurrent *p = &m->p;
    int64_t n = p->hidden, length = length_of(m, b), state = state_at(p, d, b);
    for (int64_t j = 0; j < n; j++) {
        m->h[j] = m->h0 ? m->h0[state + j] : 0.0;
        m->c[j] = m->c0 ? m->c0[state + j] : 0.0;
    }
    for (int64_t s = 0; s < length; s++) {
        int64_t t = time_of(p, d, s, length), row = hk_recurrent_row(p, t, b) * p->directions + d;
        gate_sums(m, d, hk_recurrent_row(p, t, b));
        if (p->cell == HK_CELL_LSTM)
            lstm_cell(m, d);
        else if (p->cell == HK_CELL_GRU)
            gru_cell(m, d);
        else
            for (int64_t j = 0; j < n; j++)
                m->next[j] = activate(p, d, 0, m->sums[j]);
        put(out[HK_RNN_SUMS], row * p->gates * n, m->sums, p->gates * n);
        put(out[HK_RNN_ENTRY], row * n, m->h, n);
        put(out[HK_RNN_EXTRA], row * n, m->extra, n);
        memcpy(m->h, m->next, (size_t)n * sizeof *m->h);
        put(out[HK_RNN_Y], output_at(p, t, d, b), m->h, n);
    }
    put(out[HK_RNN_YH], state, m->h, n);
    put(out[HK_RNN_YC], state, m->c, n);
}

/* Rows beyond a sequence's end stay zero in every output. */
hk_status hk_recurrent_eval(hk_eval *e)
{
    const hk_node *n = e->node;
    host m = {0};
    hk_tensor *out[HK_RNN_OUTPUTS] = {NULL};
    const hk_shape x = hk_tensor_shape(e->in[HK_RNN_X]), r = hk_tensor_shape(e->in[HK_RNN_R]);
    const char *wrong = hk_recurrent_read(e->arena, n, &x, &r, &m.p);
    if (wrong)
        return hk_eval_fail(e, HK_STATUS_INVALID, "%s", wrong);
    for (int32_t i = 0; i < n->out_count; i++)
        if (n->out[i] && !(out[i] = hk_eval_output(e, i, e->in[0]->dtype, &n->out[i]->shape)))
            return hk_out_of_memory(e->ctx, "a recurrent network");
    if (!open_host(e, &m))
        return hk_out_of_memory(e->ctx, "a recurrent network");
    for (int32_t d = 0; d < m.p.directions; d++)
        for (int64_t b = 0; b < m.p.batch; b++)
            run_sequence(&m, out, d, b);
    return HK_OK;
}

/* ---- backward: dh and dc run from the last step to the first */

typedef struct host_grad {
    host m;
    double *sums, *entry, *extra, *dy, *dyh, *dyc;
    double *dh, *dc; /* of the state that leaves the step, then of the one that enters */
    double *d_sums, *d_linear;
} host_grad;

/* dh += R' v over the gate rows first .. first + count - 1. */
static void add_r_transposed(const host *m, int32_t d, int64_t first, int64_t count, const double *v, double *dh)
{
    int64_t n = m->p.hidden;
    for (int64_t i = 0; i < count; i++) {
        const double *r = m->r + (d * m->p.gates * n + first + i) * n;
        for (int64_t k = 0; k < n; k++)
            dh[k] += v[i] * r[k];
    }
}

static void lstm_back(host_grad *g, int32_t d, const double *sums, const double *c_in, double *cells)
{
    const hk_recurrent *p = &g->m.p;
    int64_t n = p->hidden;
    const double *pw = g->m.peephole ? g->m.peephole + d * 3 * n : NULL;
    for (int64_t j = 0; j < n; j++) {
        double i = activate(p, d, 0, sums[j]), o = activate(p, d, 0, sums[n + j]);
        double f = p->input_forget ? 1.0 - i : activate(p, d, 0, sums[2 * n + j]);
        double candidate = activate(p, d, 1, sums[3 * n + j]), c = f * c_in[j] + i * candidate;
        double d_out = g->dh[j] * activate(p, d, 2, c) * slope(p, d, 0, sums[n + j]);
        double dc = g->dc[j] + g->dh[j] * o * slope(p, d, 2, c) + (pw ? pw[n + j] * d_out : 0.0);
        double di = dc * candidate, df = dc * c_in[j];
        if (p->input_forget) {
            di -= df;
            df = 0.0;
        }
        g->d_sums[j] = di * slope(p, d, 0, sums[j]);
        g->d_sums[n + j] = d_out;
        g->d_sums[2 * n + j] = p->input_forget ? 0.0 : df * slope(p, d, 0, sums[2 * n + j]);
        g->d_sums[3 * n + j] = dc * i * slope(p, d, 1, sums[3 * n + j]);
        g->dc[j] = dc * f + (pw ? pw[j] * g->d_sums[j] + pw[2 * n + j] * g->d_sums[2 * n + j] : 0.0);
        g->dh[j] = 0.0;
        cells[j] = c;
    }
    add_r_transposed(&g->m, d, 0, 4 * n, g->d_sums, g->dh);
}

static void gru_back(host_grad *g, int32_t d, const double *sums, const double *h_in, const double *extra)
{
    const hk_recurrent *p = &g->m.p;
    int64_t n = p->hidden;
    double *reset = g->m.next; /* dL/d(r h) with reset_first */
    memset(reset, 0, (size_t)n * sizeof *reset);
    for (int64_t j = 0; j < n; j++) {
        double z = activate(p, d, 0, sums[j]), candidate = activate(p, d, 1, sums[2 * n + j]);
        g->d_sums[j] = g->dh[j] * (h_in[j] - candidate) * slope(p, d, 0, sums[j]);
        g->d_sums[2 * n + j] = g->dh[j] * (1.0 - z) * slope(p, d, 1, sums[2 * n + j]);
        g->dh[j] *= z;
    }
    if (p->reset_first)
        add_r_transposed(&g->m, d, 2 * n, n, g->d_sums + 2 * n, reset);
    for (int64_t j = 0; j < n; j++) {
        double r = activate(p, d, 0, sums[n + j]), dn = g->d_sums[2 * n + j];
        double dr = p->reset_first ? reset[j] * h_in[j] : dn * extra[j];
        g->d_sums[n + j] = dr * slope(p, d, 0, sums[n + j]);
        g->dh[j] += p->reset_first ? reset[j] * r : 0.0;
        g->d_linear[j] = g->d_sums[j];
        g->d_linear[n + j] = g->d_sums[n + j];
        g->d_linear[2 * n + j] = p->reset_first ? dn : dn * r;
    }
    add_r_transposed(&g->m, d, 0, p->reset_first ? 2 * n : 3 * n, g->d_linear, g->dh);
}

static void walk_back(host_grad *g, hk_tensor *const *out, int32_t d, int64_t b)
{
    const hk_recurrent *p = &g->m.p;
    int64_t n = p->hidden, gh = p->gates * n, length = length_of(&g->m, b), state = state_at(p, d, b);
    for (int64_t j = 0; j < n; j++) {
        g->dh[j] = g->dyh ? g->dyh[state + j] : 0.0;
        g->dc[j] = g->dyc ? g->dyc[state + j] : 0.0;
    }
    for (int64_t s = length; s-- > 0;) {
        int64_t t = time_of(p, d, s, length), row = hk_recurrent_row(p, t, b) * p->directions + d;
        for (int64_t j = 0; g->dy && j < n; j++)
            g->dh[j] += g->dy[output_at(p, t, d, b) + j];
        const double *sums = g->sums + row * gh;
        if (p->cell == HK_CELL_LSTM) {
            lstm_back(g, d, sums, g->extra + row * n, g->m.next);
            put(out[HK_RNN_D_CELLS], row * n, g->m.next, n);
        } else if (p->cell == HK_CELL_GRU) {
            gru_back(g, d, sums, g->entry + row * n, g->extra + row * n);
        } else {
            for (int64_t j = 0; j < n; j++)
                g->d_sums[j] = g->dh[j] * slope(p, d, 0, sums[j]);
            memset(g->dh, 0, (size_t)n * sizeof *g->dh);
            add_r_transposed(&g->m, d, 0, n, g->d_sums, g->dh);
        }
        put(out[HK_RNN_D_SUMS], row * gh, g->d_sums, gh);
        put(out[HK_RNN_D_LINEAR], row * gh, p->cell == HK_CELL_GRU ? g->d_linear : g->d_sums, gh);
    }
    put(out[HK_RNN_D_H0], state, g->dh, n);
    put(out[HK_RNN_D_C0], state, g->dc, n);
}

hk_status hk_recurrent_grad_eval(hk_eval *e)
{
    const hk_node *n = e->node;
    host_grad g = {0};
    hk_tensor *out[HK_RNN_D_OUTPUTS] = {NULL};
    const hk_shape x = hk_tensor_shape(e->in[HK_RNN_X]), r = hk_tensor_shape(e->in[HK_RNN_R]);
    const char *wrong = hk_recurrent_read(e->arena, n, &x, &r, &g.m.p);
    if (wrong)
        return hk_eval_fail(e, HK_STATUS_INVALID, "%s", wrong);
    double **to[] = {&g.sums, &g.entry, &g.extra, &g.dy, &g.dyh, &g.dyc};
    bool ok = open_host(e, &g.m);
    for (int32_t i = 0; i < (int32_t)HK_COUNT(to) && ok; i++)
        ok = !hk_in(n, HK_RNN_G_SUMS + i) || (*to[i] = hk_tensor_doubles(e->arena, e->in[HK_RNN_G_SUMS + i])) != NULL;
    for (int32_t i = 0; i < n->out_count && ok; i++)
        ok = !n->out[i] || (out[i] = hk_eval_output(e, i, e->in[0]->dtype, &n->out[i]->shape)) != NULL;
    size_t hidden = (size_t)g.m.p.hidden + 1;
    g.dh = hk_arena_array(e->arena, hidden, sizeof *g.dh);
    g.dc = hk_arena_array(e->arena, hidden, sizeof *g.dc);
    g.d_sums = hk_arena_array(e->arena, 4 * hidden, sizeof *g.d_sums);
    g.d_linear = hk_arena_array(e->arena, 4 * hidden, sizeof *g.d_linear);
    if (!ok || !g.dh || !g.dc || !g.d_sums || !g.d_linear)
        return hk_out_of_memory(e->ctx, "a recurrent network's gradient");
    for (int32_t d = 0; d < g.m.p.directions; d++)
        for (int64_t b = 0; b < g.m.p.batch; b++)
            walk_back(&g, out, d, b);
    return HK_OK;
}
