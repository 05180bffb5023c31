/*
 * Recurrent networks on the device. The products of X with W, of all steps and directions at once, are one GEMM; then
 * every step is one dispatch (shaders/recurrent.comp) in which many workgroups share the product with R and finish the
 * cell, so a step costs little more than its barrier. When R is so small that one workgroup reads it from its own cache
 * in less time than that, a workgroup walks all steps of its sequences alone, in one dispatch.
 */
#include <stddef.h>

#include "kernels.h"
#include "ops/support/choice.h"
#include "ops/support/gemm.h"
#include "ops/support/move.h"
#include "ops/support/recurrent.h"
#include "ops/support/reduce.h"
#include "shaders/recurrent.push.h"
#include "shaders/recurrent_grad.push.h"

enum { PHASE_WHOLE, PHASE_GATES, PHASE_CANDIDATE };
/* Bits of FLAGS in shaders/recurrent.glsl. */
enum {
    HAS_BIAS = 1,
    HAS_LENGTHS = 2,
    HAS_PEEPHOLE = 4,
    INPUT_FORGET = 8,
    HAS_Y = 16,
    SAVE_SUMS = 32,
    SAVE_ENTRY = 64,
    HAS_EXTRA = 128,
    HAS_LINEAR = 256,
    HAS_CELLS = 512
};
enum {
    PERSISTENT_BYTES = 160 * 1024, /* of R in one direction: what a workgroup's cache holds */
    PERSISTENT_FLOATS = 2048,      /* of shared memory: with a team's sums no more than the 16 KiB of every device */
    THREADS_MOST = 512,
    ROWS_MOST = 8,
    STEPS_MOST = 1 << 16, /* records of one node; a hostile file may ask for any number */
};

typedef struct steps_plan {
    hk_team team;
    uint32_t rows;
    bool persistent, vector;
    int64_t tiles;
} steps_plan;

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* vector: floats that a step hands to the next for one sequence; units: of hidden ones in a team's hands. */
static steps_plan plan_steps(const hk_lower *l, const hk_recurrent *p, int64_t vector, int64_t units)
{
    steps_plan s = {.rows = 1, .vector = p->hidden % 4 == 0};
    int64_t fill = HK_MAX((int64_t)l->compute_units_hint, 1), r_bytes = 4 * p->gates * p->hidden * p->hidden;
    uint32_t width = HK_MAX(l->device->subgroup_size, 8u);
    uint32_t limit = HK_MIN(HK_MIN(l->device->max_invocations, (uint32_t)THREADS_MOST),
                            16 * width); /* devices promise few subgroups */
    s.persistent = !l->cpu && !p->reset_first && p->steps > 1 && r_bytes <= PERSISTENT_BYTES &&
                   2 * vector <= PERSISTENT_FLOATS;
    while (s.rows < ROWS_MOST && s.rows < p->batch &&
           (!s.persistent || (p->directions * p->batch > fill * s.rows && 4 * s.rows * vector <= PERSISTENT_FLOATS)))
        s.rows *= 2;
    s.tiles = ceil_div(p->batch, s.rows);
    if (l->cpu) {
        s.team = (hk_team){.items = 8, .lanes = 1};
        return s;
    }
    s.team.lanes = 1;
    while (s.team.lanes < HK_MIN(width, 32u) && s.team.lanes * 16 < vector)
        s.team.lanes *= 2;
    s.team.items = 1;
    uint32_t most = (s.persistent ? limit : HK_MIN(limit, 128u)) / s.team.lanes;
    while (s.team.items * 2 <= most && (int64_t)s.team.items * units < p->hidden)
        s.team.items *= 2;
    return s;
}

typedef struct kernels {
    hk_team_kernel step, persistent;
} kernels;

/* A dispatch with all constants that the problem decides. */
static hk_record *emit_steps(hk_lower *l, const hk_recurrent *p, const steps_plan *s, const kernels *k,
                             const char *variant, int64_t units, uint32_t phase, uint32_t flags, int64_t vector,
                             const void *push, size_t bytes)
{
    int64_t items = s->persistent ? s->tiles * p->directions * s->team.items
                                  : ceil_div(p->hidden, units) * s->tiles * p->directions;
    hk_record *r = hk_team_emit(l, &s->team, s->persistent ? k->persistent : k->step, variant, items, push, bytes);
    const uint32_t spec[] = {(uint32_t)p->cell,       phase,      s->rows,        flags,
                             (uint32_t)p->directions, p->reverse, p->batch_first, s->vector};
    for (uint32_t i = 0; i < HK_COUNT(spec); i++)
        hk_spec(r, HK_TEAM_SPEC + i, spec[i]);
    hk_spec_float(r, 16, p->clip);
    for (uint32_t i = 0; i < 6; i++) {
        const hk_gate *g = &p->gate[i / 3][i % 3];
        hk_spec(r, 17 + i, g->function);
        hk_spec_float(r, 23 + i, g->alpha);
        hk_spec_float(r, 29 + i, g->beta);
    }
    uint32_t space = 1;
    while (s->persistent && space < 2 * s->rows * (uint32_t)vector)
        space *= 2;
    hk_spec(r, 35, space);
    return r;
}

static hk_status read_problem(hk_lower *l, hk_recurrent *p)
{
    const hk_node *n = l->node;
    const char *wrong = hk_recurrent_read(l->arena, n, &n->in[HK_RNN_X]->shape, &n->in[HK_RNN_R]->shape, p);
    if (wrong)
        return hk_fail(l->ctx, HK_STATUS_INVALID, "node '%s' (%s): %s", n->name, n->type, wrong);
    if (p->steps > STEPS_MOST)
        return hk_fail(l->ctx, HK_STATUS_UNSUPPORTED, "node '%s' (%s): %lld steps, at most %d are supported", n->name,
                       n->type, (long long)p->steps, STEPS_MOST);
    for (int32_t i = 0; i < n->in_count; i++)
        if (i != HK_RNN_LENGTHS)
            HK_TRY(hk_require_float32(l, n->in[i]));
    return HK_OK;
}

/* to = from, or zeros without one. */
static void emit_initial(hk_lower *l, hk_value *from, hk_value *to)
{
    if (from)
        hk_emit_copy(l, from, 0, to, 0, hk_value_bytes(to));
    else
        hk_emit_fill(l, to, 0);
}

/* ---- forward */

typedef struct forward {
    hk_recurrent p;
    hk_value *sums, *extra, *h[2], *c_in, *c; /* h: the states between steps, in turn */
    uint32_t flags;
} forward;

static int64_t row_count(const hk_recurrent *p, int64_t each)
{
    return p->steps * p->batch * p->directions * each;
}

static void emit_projections(hk_lower *l, const forward *f)
{
    const hk_recurrent *p = &f->p;
    hk_gemm g = {.a = l->node->in[HK_RNN_X],
                 .b = l->node->in[HK_RNN_W],
                 .c = f->sums,
                 .m = p->steps * p->batch,
                 .n = p->directions * p->gates * p->hidden,
                 .k = p->input,
                 .lda = p->input,
                 .ldb = p->input,
                 .trans_b = true,
                 .alpha = 1.0f,
                 .beta = 1.0f};
    hk_gemm_simplify(&g);
    uint32_t splits;
    const hk_gemm_variant *v = hk_gemm_choose(l, &g, &splits);
    hk_gemm_emit(l, &g, v, splits);
    hk_choice_leave(l, HK_CHOICE_TILE);
}

/* Values that the steps need and the node does not output are scratch. */
static void open_forward(hk_lower *l, forward *f)
{
    const hk_node *n = l->node;
    const hk_recurrent *p = &f->p;
    int64_t state = p->directions * p->batch * p->hidden;
    f->sums = hk_out(n, HK_RNN_SUMS);
    f->extra = hk_out(n, HK_RNN_EXTRA);
    f->flags = (hk_in(n, HK_RNN_B) ? HAS_BIAS : 0u) | (hk_in(n, HK_RNN_LENGTHS) ? HAS_LENGTHS : 0u) |
               (p->cell == HK_CELL_LSTM && hk_in(n, HK_RNN_P) ? HAS_PEEPHOLE : 0u) |
               (p->input_forget ? INPUT_FORGET : 0u) | (hk_out(n, HK_RNN_Y) ? HAS_Y : 0u) | (f->sums ? SAVE_SUMS : 0u) |
               (hk_out(n, HK_RNN_ENTRY) ? SAVE_ENTRY : 0u);
    if (!f->sums)
        f->sums = hk_scratch(l, HK_FLOAT32, row_count(p, p->gates * p->hidden));
    if (!f->extra && p->reset_first)
        f->extra = hk_scratch(l, HK_FLOAT32, row_count(p, p->hidden));
    f->flags |= f->extra ? HAS_EXTRA : 0u;
    hk_value *last = hk_out(n, HK_RNN_YH), *other = hk_scratch(l, HK_FLOAT32, state);
    if (!last)
        last = hk_scratch(l, HK_FLOAT32, state);
    f->h[p->steps % 2] = last; /* the state after step s is h[(s + 1) % 2] */
    f->h[(p->steps + 1) % 2] = other;
    if (p->cell == HK_CELL_LSTM) {
        f->c = hk_out(n, HK_RNN_YC) ? hk_out(n, HK_RNN_YC) : hk_scratch(l, HK_FLOAT32, state);
        f->c_in = hk_in(n, HK_RNN_C0);
    }
}

static void emit_forward(hk_lower *l, const forward *f, const steps_plan *s, hk_value *h_in, hk_value *h_out,
                         int64_t step, int64_t end, uint32_t phase)
{
    static const kernels kernel = {{&hk_kernel_recurrent, &hk_kernel_recurrent_subgroup},
                                   {&hk_kernel_recurrent_persistent, &hk_kernel_recurrent_persistent_subgroup}};
    const hk_recurrent *p = &f->p;
    const hk_node *n = l->node;
    const struct recurrent_push push = {.steps = (uint32_t)p->steps,
                                        .batch = (uint32_t)p->batch,
                                        .hidden = (uint32_t)p->hidden,
                                        .step = (uint32_t)step,
                                        .step_end = (uint32_t)end};
    int64_t units = p->cell == HK_CELL_RNN || phase == PHASE_CANDIDATE ? 4 : 1;
    hk_record *r = emit_steps(l, p, s, &kernel, s->persistent ? "recurrent all steps" : "recurrent step", units, phase,
                              f->flags, p->hidden, &push, sizeof push);
    bool initial = step == 0 && f->c_in;
    hk_use(r, f->sums, HK_READ_WRITE, offsetof(struct recurrent_push, sums));
    hk_use(r, n->in[HK_RNN_R], HK_READ, offsetof(struct recurrent_push, r));
    hk_use(r, hk_in(n, HK_RNN_B), HK_READ, offsetof(struct recurrent_push, bias));
    hk_use(r, h_in, HK_READ, offsetof(struct recurrent_push, h_in));
    hk_use(r, phase == PHASE_GATES ? NULL : h_out, HK_WRITE, offsetof(struct recurrent_push, h_out));
    hk_use(r, initial ? f->c_in : f->c, HK_READ, offsetof(struct recurrent_push, c_in));
    hk_use(r, f->c, HK_READ_WRITE, offsetof(struct recurrent_push, c_out));
    hk_use(r, hk_out(n, HK_RNN_Y), HK_READ_WRITE, offsetof(struct recurrent_push, y));
    hk_use(r, hk_out(n, HK_RNN_ENTRY), HK_READ_WRITE, offsetof(struct recurrent_push, entry));
    hk_use(r, f->extra, HK_READ_WRITE, offsetof(struct recurrent_push, extra));
    hk_use(r, hk_in(n, HK_RNN_LENGTHS), HK_READ, offsetof(struct recurrent_push, lengths));
    hk_use(r, hk_in(n, HK_RNN_P), HK_READ, offsetof(struct recurrent_push, peephole));
    r->flops = 2.0 * (double)(end - step) * (double)(p->directions * p->batch * p->hidden) *
               (double)(p->hidden * (phase == PHASE_GATES       ? 2
                                     : phase == PHASE_CANDIDATE ? 1
                                                                : p->gates));
}

hk_status hk_recurrent_lower(hk_lower *l)
{
    const hk_node *n = l->node;
    forward f = {0};
    HK_TRY(read_problem(l, &f.p));
    const hk_recurrent *p = &f.p;
    if (p->batch * p->hidden == 0)
        return HK_OK;
    if (p->steps == 0) {
        if (hk_out(n, HK_RNN_YH))
            emit_initial(l, hk_in(n, HK_RNN_H0), n->out[HK_RNN_YH]);
        if (hk_out(n, HK_RNN_YC))
            emit_initial(l, hk_in(n, HK_RNN_C0), n->out[HK_RNN_YC]);
        return HK_OK;
    }
    open_forward(l, &f);
    if (l->failed)
        return HK_OK;
    if (p->input == 0)
        hk_emit_fill(l, f.sums, 0);
    else
        emit_projections(l, &f);
    hk_value *h_in = hk_in(n, HK_RNN_H0);
    steps_plan s = plan_steps(l, p, p->hidden, p->cell == HK_CELL_RNN ? 4 : 1);
    s.vector &= hk_aligned_all((const hk_value *[]){n->in[HK_RNN_R], h_in, f.h[0], f.h[1], f.extra}, 5);
    if (!h_in)
        hk_emit_fill(l, h_in = f.h[s.persistent ? (p->steps + 1) % 2 : 0], 0);
    if (f.c && !f.c_in)
        hk_emit_fill(l, f.c, 0);
    if (s.persistent) {
        emit_forward(l, &f, &s, h_in, f.h[p->steps % 2], 0, p->steps, PHASE_WHOLE);
        return HK_OK;
    }
    for (int64_t i = 0; i < p->steps; i++) {
        hk_value *out = f.h[(i + 1) % 2];
        if (p->reset_first) {
            emit_forward(l, &f, &s, h_in, out, i, i + 1, PHASE_GATES);
            emit_forward(l, &f, &s, h_in, out, i, i + 1, PHASE_CANDIDATE);
        } else {
            emit_forward(l, &f, &s, h_in, out, i, i + 1, PHASE_WHOLE);
        }
        h_in = out;
    }
    return HK_OK;
}

/* ---- backward */

typedef struct backward {
    hk_recurrent p;
    hk_value *r, *dh, *dc, *d_sums, *d_linear;
    uint32_t flags;
} backward;

/* R as [D][H][G H]: what the gate gradients are multiplied with lies side by side. */
static hk_status transpose_r(hk_lower *l, backward *b)
{
    const hk_recurrent *p = &b->p;
    int64_t gh = p->gates * p->hidden;
    b->r = hk_scratch(l, HK_FLOAT32, p->directions * gh * p->hidden);
    if (!b->r)
        return HK_OK;
    hk_move m = {0};
    hk_move_add(&m, p->directions, gh * p->hidden, gh * p->hidden);
    hk_move_add(&m, p->hidden, 1, gh);
    hk_move_add(&m, gh, p->hidden, 1);
    return hk_emit_move(l, &m, l->node->in[HK_RNN_R], b->r);
}

static void emit_backward(hk_lower *l, const backward *b, const steps_plan *s, int64_t step, int64_t end,
                          uint32_t phase)
{
    static const kernels kernel = {
        {&hk_kernel_recurrent_grad, &hk_kernel_recurrent_grad_subgroup},
        {&hk_kernel_recurrent_grad_persistent, &hk_kernel_recurrent_grad_persistent_subgroup}};
    const hk_recurrent *p = &b->p;
    const hk_node *n = l->node;
    const struct recurrent_grad_push push = {.steps = (uint32_t)p->steps,
                                             .batch = (uint32_t)p->batch,
                                             .hidden = (uint32_t)p->hidden,
                                             .step = (int32_t)step,
                                             .step_end = (int32_t)end};
    hk_record *r = emit_steps(l, p, s, &kernel, s->persistent ? "recurrent_grad all steps" : "recurrent_grad step", 4,
                              phase, b->flags, p->gates * p->hidden, &push, sizeof push);
    hk_use(r, n->in[HK_RNN_G_SUMS], HK_READ, offsetof(struct recurrent_grad_push, sums));
    hk_use(r, b->r, HK_READ, offsetof(struct recurrent_grad_push, r));
    hk_use(r, n->in[HK_RNN_G_ENTRY], HK_READ, offsetof(struct recurrent_grad_push, entry));
    hk_use(r, hk_in(n, HK_RNN_G_EXTRA), HK_READ, offsetof(struct recurrent_grad_push, extra));
    hk_use(r, hk_in(n, HK_RNN_G_Y), HK_READ, offsetof(struct recurrent_grad_push, dy));
    hk_use(r, b->dh, HK_READ_WRITE, offsetof(struct recurrent_grad_push, dh));
    hk_use(r, b->dc, HK_READ_WRITE, offsetof(struct recurrent_grad_push, dc));
    hk_use(r, b->d_sums, HK_READ_WRITE, offsetof(struct recurrent_grad_push, d_sums));
    hk_use(r, b->d_linear, HK_READ_WRITE, offsetof(struct recurrent_grad_push, d_linear));
    hk_use(r, hk_out(n, HK_RNN_D_CELLS), HK_READ_WRITE, offsetof(struct recurrent_grad_push, cells));
    hk_use(r, hk_in(n, HK_RNN_LENGTHS), HK_READ, offsetof(struct recurrent_grad_push, lengths));
    hk_use(r, hk_in(n, HK_RNN_P), HK_READ, offsetof(struct recurrent_grad_push, peephole));
    r->flops = 2.0 * (double)(step - end + 1) * (double)(p->directions * p->batch * p->hidden) *
               (double)(p->hidden * p->gates);
}

static void open_backward(hk_lower *l, backward *b)
{
    const hk_node *n = l->node;
    const hk_recurrent *p = &b->p;
    int64_t state = p->directions * p->batch * p->hidden;
    b->d_linear = hk_out(n, HK_RNN_D_LINEAR);
    if (!b->d_linear && p->cell == HK_CELL_GRU && !p->reset_first)
        b->d_linear = hk_scratch(l, HK_FLOAT32, row_count(p, p->gates * p->hidden));
    b->d_sums = hk_out(n, HK_RNN_D_SUMS);
    if (!b->d_sums)
        b->d_sums = hk_scratch(l, HK_FLOAT32, row_count(p, p->gates * p->hidden));
    b->dh = hk_out(n, HK_RNN_D_H0);
    if (!b->dh)
        b->dh = hk_scratch(l, HK_FLOAT32, state);
    b->dc = hk_out(n, HK_RNN_D_C0);
    if (!b->dc && p->cell == HK_CELL_LSTM)
        b->dc = hk_scratch(l, HK_FLOAT32, state);
    b->flags = (hk_in(n, HK_RNN_LENGTHS) ? HAS_LENGTHS : 0u) | (hk_in(n, HK_RNN_P) ? HAS_PEEPHOLE : 0u) |
               (p->input_forget ? INPUT_FORGET : 0u) | (hk_in(n, HK_RNN_G_Y) ? HAS_Y : 0u) |
               (b->d_linear ? HAS_LINEAR : 0u) | (hk_out(n, HK_RNN_D_CELLS) ? HAS_CELLS : 0u);
}

hk_status hk_recurrent_grad_lower(hk_lower *l)
{
    const hk_node *n = l->node;
    backward b = {0};
    HK_TRY(read_problem(l, &b.p));
    const hk_recurrent *p = &b.p;
    if (p->batch * p->hidden == 0)
        return HK_OK;
    open_backward(l, &b);
    if (l->failed)
        return HK_OK;
    emit_initial(l, hk_in(n, HK_RNN_G_YH), b.dh);
    if (b.dc)
        emit_initial(l, hk_in(n, HK_RNN_G_YC), b.dc);
    if (p->steps == 0)
        return HK_OK;
    HK_TRY(transpose_r(l, &b));
    steps_plan s = plan_steps(l, p, p->gates * p->hidden, 4);
    s.vector &= hk_aligned_all((const hk_value *[]){b.d_sums, b.d_linear}, 2);
    int64_t last = hk_out(n, HK_RNN_D_H0) ? -1 : 0; /* the initial state's gradient needs what step 0 owes */
    if (s.persistent) {
        emit_backward(l, &b, &s, p->steps - 1, last, PHASE_WHOLE);
        return HK_OK;
    }
    for (int64_t i = p->steps - 1; i >= last; i--) {
        emit_backward(l, &b, &s, i, i, p->reset_first ? PHASE_GATES : PHASE_WHOLE);
        if (p->reset_first && i >= 0)
            emit_backward(l, &b, &s, i, i, PHASE_CANDIDATE);
    }
    return HK_OK;
}
