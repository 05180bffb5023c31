/* The dispatches of spiking neurons. */
#include "ops/support/neuron_lower.h"

#include <string.h>

#include "kernels.h"
#include "ops/support/move.h"
#include "ops/support/reduce.h"
#include "shaders/batchnorm_neuron_grad.push.h"
#include "shaders/neuron.push.h"
#include "shaders/neuron_grad.push.h"

size_t hk_neuron_list(const hk_neuron_attrs *a, hk_attr_value *list)
{
    const hk_attr_value all[] = {HK_SET_INT("steps", a->steps),
                                 HK_SET_STRING("kind", a->kind),
                                 HK_SET_FLOAT("tau", a->tau),
                                 HK_SET_INT("decay_input", a->decay_input),
                                 HK_SET_STRING("reset", a->reset),
                                 HK_SET_FLOAT("v_reset", a->v_reset),
                                 HK_SET_FLOAT("v_threshold", a->v_threshold),
                                 HK_SET_INT("detach_reset", a->detach_reset),
                                 HK_SET_STRING("surrogate", a->surrogate),
                                 HK_SET_FLOAT("alpha", a->alpha),
                                 {0}};
    memcpy(list, all, sizeof all);
    return HK_COUNT(all) - 1;
}

/* Specialization constants and bits of shaders/neuron.glsl and the kernels. */
enum { SPEC_KIND, SPEC_DECAY_INPUT, SPEC_SOFT, SPEC_THRESHOLD, SPEC_PRESENT, SPEC_RULE };
enum { SPEC_OWN = HK_TEAM_SPEC + SPEC_RULE };
enum { SPEC_BATCH = SPEC_OWN, SPEC_NORM };
enum { SPEC_DETACH = SPEC_OWN, SPEC_SURROGATE, SPEC_HEIGHT, SPEC_SLOPE, SPEC_SEGMENT };
enum { SPEC_MANY = SPEC_SEGMENT + 1, SPEC_RAGGED, SPEC_AHEAD };
enum { SPEC_SUMS = SPEC_AHEAD + 1, SPEC_PARAMETERS };
enum { PRESENT_V0, PRESENT_S, PRESENT_V, PRESENT_V_SEQ };
enum { PRESENT_GS = 1, PRESENT_GV, PRESENT_GV_SEQ, PRESENT_GX, PRESENT_GV0, PRESENT_GW, PRESENT_GTHETA };

/* Values that a GPU's lane keeps per neuron: with 4 neurons half its registers. A lane of one neuron could keep more,
 * but on the H200 segments are as fast at T = 64 and faster at T = 100, for the longer code. */
#define MOST_HELD 32

static uint32_t bit(const hk_value *v, int shift)
{
    return v ? 1u << shift : 0;
}

/* Neurons per invocation: 4 with 16-byte accesses where every operand allows them, unless that leaves a GPU idle; with
 * pooling the 4 of a window. */
static int64_t pick_vec(const hk_lower *l, const hk_neuron_job *j)
{
    const hk_value *const operands[] = {j->x,  j->v0,     j->s,  j->v,   j->v_seq, j->gs,
                                        j->gv, j->gv_seq, j->gx, j->gv0, j->norm};
    bool few = !l->cpu && j->neurons / 4 < (int64_t)l->compute_units_hint * 128;
    if (j->pool_width)
        return 4;
    return j->neurons % 4 == 0 && !few && hk_aligned_all(operands, HK_COUNT(operands)) ? 4 : 1;
}

static void emit_grid(hk_lower *l, hk_record *r, int64_t lanes)
{
    int64_t group = l->cpu ? 64 : 128;
    if (!l->cpu && lanes < (int64_t)l->compute_units_hint * 128)
        group = 32; /* few neurons: spread them over the device */
    group = HK_MIN(group, (int64_t)l->device->max_invocations);
    hk_workgroup(r, (uint32_t)group, 1, 1);
    hk_grid_1d(l, r, (uint64_t)((lanes + group - 1) / group));
}

void hk_neuron_specs(hk_record *r, uint32_t first, const hk_neuron_rule *rule, const hk_neuron_job *j, uint32_t present)
{
    hk_spec(r, first + SPEC_KIND, rule->kind);
    hk_spec(r, first + SPEC_DECAY_INPUT, rule->kind != HK_NEURON_IF && rule->decay_input);
    hk_spec(r, first + SPEC_SOFT, rule->soft);
    hk_spec(r, first + SPEC_THRESHOLD, j->thetas == 0 ? 0 : j->thetas == 1 ? 1 : 2);
    hk_spec(r, first + SPEC_PRESENT, present);
}

static void spec_rule(hk_record *r, const hk_neuron_rule *rule, const hk_neuron_job *j, uint32_t present)
{
    hk_neuron_specs(r, HK_TEAM_SPEC, rule, j, present);
}

/* What lies side by side, in units of an invocation's walk: neurons, with pooling windows. */
static uint32_t inner_of(const hk_neuron_job *j)
{
    return (uint32_t)(j->pool_width ? j->inner / 4 : j->inner);
}

static hk_record *emit_forward(hk_lower *l, const hk_neuron_job *j, int64_t vec)
{
    bool halves = hk_stores_halves(j->s);
    if (j->pool_width)
        return hk_emit(l, halves ? &hk_kernel_neuron_half_pool : &hk_kernel_neuron_pool, "neuron+pool");
    if (vec == 4)
        return hk_emit(l, halves ? &hk_kernel_neuron_half_x4 : &hk_kernel_neuron_x4, "neuron x4");
    return hk_emit(l, halves ? &hk_kernel_neuron_half : &hk_kernel_neuron, "neuron");
}

hk_status hk_emit_neuron(hk_lower *l, const hk_neuron_job *j)
{
    hk_neuron_rule rule = hk_neuron_rule_of(j->attrs, true);
    if (j->neurons == 0)
        return HK_OK;
    int64_t vec = pick_vec(l, j);
    struct neuron_push push = {.lanes = (uint32_t)(j->neurons / vec),
                               .steps = (uint32_t)j->steps,
                               .inner = inner_of(j),
                               .channels = (uint32_t)j->channels,
                               .width = (uint32_t)HK_MAX(j->pool_width / 2, 1),
                               .rate = (float)rule.rate,
                               .rest = (float)rule.rest,
                               .threshold = j->attrs->v_threshold};
    hk_record *r = emit_forward(l, j, vec);
    hk_push(r, &push, sizeof push);
    spec_rule(r, &rule, j,
              bit(j->v0, PRESENT_V0) | bit(j->s, PRESENT_S) | bit(j->v, PRESENT_V) | bit(j->v_seq, PRESENT_V_SEQ));
    hk_spec(r, SPEC_BATCH, l->cpu || j->steps == 1 ? 1 : j->steps < 8 ? 4 : 8);
    hk_spec(r, SPEC_NORM, j->norm != NULL);
    emit_grid(l, r, push.lanes);
    hk_use(r, j->x, HK_READ, offsetof(struct neuron_push, x));
    hk_use(r, j->norm, HK_READ, offsetof(struct neuron_push, norm));
    hk_use(r, j->v0, HK_READ, offsetof(struct neuron_push, v0));
    hk_use(r, j->w, HK_READ, offsetof(struct neuron_push, w));
    hk_use(r, j->theta, HK_READ, offsetof(struct neuron_push, theta));
    hk_use(r, j->s, HK_WRITE, offsetof(struct neuron_push, s));
    hk_use(r, j->v, HK_WRITE, offsetof(struct neuron_push, v));
    hk_use(r, j->v_seq, HK_WRITE, offsetof(struct neuron_push, v_seq));
    r->flops = 6.0 * (double)j->neurons * (double)j->steps;
    return HK_OK;
}

/* How time is cut for the backward kernel. */
typedef struct cut {
    int64_t vec, segment, segments;
} cut;

static cut pick_cut(const hk_lower *l, const hk_neuron_job *j, bool keep_x)
{
    cut c = {.vec = pick_vec(l, j), .segment = j->steps, .segments = 1};
    if (!l->cpu && j->steps * (keep_x ? 2 : 1) > MOST_HELD) {
        /* A divisor of T leaves no short segment, whose steps would each need a test. */
        int64_t most = keep_x ? 10 : 20;
        c.segment = keep_x ? 8 : 16;
        for (int64_t s = most; s > most / 2; s--)
            if (j->steps % s == 0) {
                c.segment = s;
                break;
            }
    }
    c.segments = (j->steps + c.segment - 1) / c.segment;
    return c;
}

static const hk_kernel *pick_grad_kernel(const hk_lower *l, const cut *c)
{
    if (l->cpu)
        return c->vec == 4 ? &hk_kernel_neuron_grad_cpu_x4 : &hk_kernel_neuron_grad_cpu;
    return c->vec == 4 ? &hk_kernel_neuron_grad_x4 : &hk_kernel_neuron_grad;
}

static void spec_grad(const hk_lower *l, hk_record *r, const hk_neuron_rule *rule, const hk_neuron_job *j, const cut *c)
{
    hk_spec(r, SPEC_DETACH, rule->detach_reset);
    hk_spec(r, SPEC_SURROGATE, rule->form);
    hk_spec_float(r, SPEC_HEIGHT, (float)rule->height);
    hk_spec_float(r, SPEC_SLOPE, (float)rule->slope);
    hk_spec(r, SPEC_SEGMENT, l->cpu ? 1 : (uint32_t)c->segment); /* a CPU needs no pipeline per T */
    hk_spec(r, SPEC_MANY, c->segments > 1);
    hk_spec(r, SPEC_RAGGED, j->steps % c->segment != 0);
    hk_spec(r, SPEC_AHEAD, l->cpu ? 1 : (uint32_t)HK_MIN(c->segment, 8));
}

/* Ends gtheta and gw, whose parts lie in sums in this order. */
static hk_status emit_sums(hk_lower *l, const hk_neuron_job *j, int64_t lanes, hk_value *sums)
{
    int64_t thetas = !j->gtheta ? 0 : j->thetas > 1 ? j->neurons : lanes;
    hk_reduction sum = {.x = sums, .y = j->gw, .x_first = thetas, .rank = 1, .extent = {lanes}, .axes = 1};
    if (j->gw)
        HK_TRY(hk_emit_reduction(l, &sum));
    if (!j->gtheta)
        return HK_OK;
    sum.y = j->gtheta;
    sum.x_first = 0;
    if (j->thetas > 1) {
        sum.rank = 3;
        sum.axes = 5;
        sum.extent[0] = j->neurons / (j->channels * j->inner);
        sum.extent[1] = j->channels;
        sum.extent[2] = j->inner;
    }
    return hk_emit_reduction(l, &sum);
}

static void use_grad(const hk_neuron_job *j, hk_record *r, hk_value *kept, hk_value *sums)
{
    hk_use(r, j->x, HK_READ, offsetof(struct neuron_grad_push, x));
    hk_use(r, j->v0, HK_READ, offsetof(struct neuron_grad_push, v0));
    hk_use(r, j->w, HK_READ, offsetof(struct neuron_grad_push, w));
    hk_use(r, j->theta, HK_READ, offsetof(struct neuron_grad_push, theta));
    hk_use(r, j->gs, HK_READ, offsetof(struct neuron_grad_push, gs));
    hk_use(r, j->gv, HK_READ, offsetof(struct neuron_grad_push, gv));
    hk_use(r, j->gv_seq, HK_READ, offsetof(struct neuron_grad_push, gv_seq));
    hk_use(r, j->gx, HK_WRITE, offsetof(struct neuron_grad_push, gx));
    hk_use(r, j->gv0, HK_WRITE, offsetof(struct neuron_grad_push, gv0));
    hk_use(r, sums, HK_WRITE, offsetof(struct neuron_grad_push, sums));
    hk_use(r, kept, HK_READ_WRITE, offsetof(struct neuron_grad_push, kept));
}

/* Scratch: the potentials between segments, on a CPU H of all steps, which gx is as good as; and the parts of sums. */
static bool make_scratch(hk_lower *l, const hk_neuron_job *j, const cut *c, hk_value **kept, hk_value **sums)
{
    int64_t lanes = j->neurons / c->vec;
    int64_t kept_count = l->cpu ? j->steps * j->neurons : (c->segments - 1) * j->neurons;
    int64_t sum_count = (j->gw ? lanes : 0) + (!j->gtheta ? 0 : j->thetas > 1 ? j->neurons : lanes);
    *kept = l->cpu ? j->gx : NULL;
    if (!*kept && kept_count)
        *kept = hk_scratch(l, HK_FLOAT32, kept_count);
    *sums = sum_count ? hk_scratch(l, HK_FLOAT32, sum_count) : NULL;
    return !l->failed;
}

hk_status hk_emit_neuron_grad(hk_lower *l, const hk_neuron_job *j)
{
    hk_neuron_rule rule = hk_neuron_rule_of(j->attrs, true);
    hk_value *kept = NULL, *sums = NULL;
    if (j->neurons == 0) {
        if (j->gw)
            hk_emit_fill(l, j->gw, 0);
        if (j->gtheta)
            hk_emit_fill(l, j->gtheta, 0);
        return HK_OK;
    }
    cut c = pick_cut(l, j, rule.kind == HK_NEURON_PARAMETRIC_LIF && rule.decay_input);
    int64_t lanes = j->neurons / c.vec;
    if (!make_scratch(l, j, &c, &kept, &sums))
        return hk_out_of_memory(l->ctx, "scratch of spiking neurons");
    struct neuron_grad_push push = {.lanes = (uint32_t)lanes,
                                    .steps = (uint32_t)j->steps,
                                    .inner = (uint32_t)j->inner,
                                    .channels = (uint32_t)j->channels,
                                    .width = 1,
                                    .rate = (float)rule.rate,
                                    .rest = (float)rule.rest,
                                    .threshold = j->attrs->v_threshold};
    hk_record *r = hk_emit(l, pick_grad_kernel(l, &c),
                           c.segments > 1 ? "neuron backward, segments" : "neuron backward");
    hk_push(r, &push, sizeof push);
    spec_rule(r, &rule, j,
              bit(j->v0, PRESENT_V0) | bit(j->gs, PRESENT_GS) | bit(j->gv, PRESENT_GV) |
                  bit(j->gv_seq, PRESENT_GV_SEQ) | bit(j->gx, PRESENT_GX) | bit(j->gv0, PRESENT_GV0) |
                  bit(j->gw, PRESENT_GW) | bit(j->gtheta, PRESENT_GTHETA));
    spec_grad(l, r, &rule, j, &c);
    emit_grid(l, r, lanes);
    use_grad(j, r, kept, sums);
    r->flops = 20.0 * (double)j->neurons * (double)j->steps;
    return emit_sums(l, j, lanes, sums);
}

/* ---- with normalization */

enum {
    CHUNKS_MOST = 64,      /* of a channel: parts that each team of the second pass adds up */
    WAVES = 16,            /* workgroups for each unit of the device: a channel's chunks end at about the same time */
    CPU_CHUNKS = 64,       /* of all channels */
    CPU_UNITS_LEAST = 256, /* of a chunk on a CPU */
};

/* How both passes run. */
typedef struct norm_walk {
    cut c;
    hk_team team;
    struct batchnorm_neuron_grad_push push;
    hk_value *kept, *sums;
} norm_walk;

/* Neurons of one image and channel side by side, in units. */
static int64_t norm_inner(const hk_neuron_job *j, int64_t vec)
{
    return j->inner / vec;
}

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static norm_walk plan_norm(const hk_lower *l, const hk_neuron_job *j, const hk_neuron_rule *rule)
{
    norm_walk w = {.c = pick_cut(l, j, true)};
    if (!j->pool_width && j->inner % 4) /* a unit stays in its channel */
        w.c.vec = 1;
    int64_t inner = norm_inner(j, w.c.vec), units = j->neurons / j->channels / w.c.vec;
    w.team = inner > 1 ? hk_team_rows(l, j->channels, units) : hk_team_columns(l, j->channels, units);
    int64_t lanes = w.team.lanes, groups = ceil_div(j->channels, w.team.items), most = units;
    int64_t chunks = WAVES * (int64_t)l->compute_units_hint / groups;
    if (l->cpu) {
        chunks = ceil_div(CPU_CHUNKS, j->channels);
        most = units / CPU_UNITS_LEAST;
    }
    chunks = HK_MAX(HK_MIN(HK_MIN(chunks, most), CHUNKS_MOST), 1);
    int64_t chunk = ceil_div(ceil_div(units, chunks), lanes) * lanes;
    w.push = (struct batchnorm_neuron_grad_push){.lanes = (uint32_t)(j->neurons / w.c.vec),
                                                 .steps = (uint32_t)j->steps,
                                                 .inner = (uint32_t)inner,
                                                 .channels = (uint32_t)j->channels,
                                                 .width = (uint32_t)HK_MAX(j->pool_width / 2, 1),
                                                 .units = (uint32_t)units,
                                                 .chunks = (uint32_t)ceil_div(units, chunk),
                                                 .chunk = (uint32_t)chunk,
                                                 .rate = (float)rule->rate,
                                                 .rest = (float)rule->rest,
                                                 .threshold = j->attrs->v_threshold};
    return w;
}

static const hk_kernel *norm_kernel(const hk_lower *l, const hk_neuron_job *j, const cut *c)
{
    if (j->pool_width)
        return l->cpu ? &hk_kernel_batchnorm_neuron_grad_cpu_pool : &hk_kernel_batchnorm_neuron_grad_pool;
    if (l->cpu)
        return c->vec == 4 ? &hk_kernel_batchnorm_neuron_grad_cpu_x4 : &hk_kernel_batchnorm_neuron_grad_cpu;
    return c->vec == 4 ? &hk_kernel_batchnorm_neuron_grad_x4 : &hk_kernel_batchnorm_neuron_grad;
}

static hk_record *emit_norm_walk(hk_lower *l, const hk_neuron_norm_job *n, const hk_neuron_rule *rule,
                                 const norm_walk *w, bool sums)
{
    const hk_neuron_job *j = &n->neurons;
    int64_t items = (int64_t)w->push.channels * w->push.chunks;
    hk_record *r = hk_team_emit(l, &w->team, (hk_team_kernel){.plain = norm_kernel(l, j, &w->c)},
                                sums ? "batchnorm+neuron backward sums" : "batchnorm+neuron backward", items, &w->push,
                                sizeof w->push);
    spec_rule(r, rule, j, 0);
    spec_grad(l, r, rule, j, &w->c);
    hk_spec(r, SPEC_SUMS, sums);
    hk_use(r, j->x, HK_READ, offsetof(struct batchnorm_neuron_grad_push, x));
    hk_use(r, j->norm, HK_READ, offsetof(struct batchnorm_neuron_grad_push, norm));
    hk_use(r, n->deviation, HK_READ, offsetof(struct batchnorm_neuron_grad_push, deviation));
    hk_use(r, j->w, HK_READ, offsetof(struct batchnorm_neuron_grad_push, w));
    hk_use(r, j->gs, HK_READ, offsetof(struct batchnorm_neuron_grad_push, gs));
    hk_use(r, w->kept, HK_READ_WRITE, offsetof(struct batchnorm_neuron_grad_push, kept));
    hk_use(r, w->sums, sums ? HK_WRITE : HK_READ, offsetof(struct batchnorm_neuron_grad_push, sums));
    r->flops = 20.0 * (double)j->neurons * (double)j->steps;
    return r;
}

/* A plane of the sums, over the chunks, or over everything. */
static hk_status emit_plane(hk_lower *l, const norm_walk *w, int64_t plane, bool all, hk_value *y)
{
    int64_t chunks = w->push.chunks, channels = w->push.channels;
    if (!y)
        return HK_OK;
    return hk_emit_reduction(l, &(hk_reduction){.x = w->sums,
                                                .y = y,
                                                .x_first = plane * chunks * channels,
                                                .rank = 2,
                                                .extent = {chunks, channels},
                                                .axes = all ? 3 : 1});
}

static void fill_empty(hk_lower *l, hk_value *v)
{
    if (v && hk_shape_count(&v->shape) > 0)
        hk_emit_fill(l, v, 0);
}

hk_status hk_emit_neuron_norm_grad(hk_lower *l, const hk_neuron_norm_job *n)
{
    const hk_neuron_job *j = &n->neurons;
    hk_neuron_rule rule = hk_neuron_rule_of(j->attrs, true);
    if (j->neurons == 0) {
        fill_empty(l, j->gw);
        fill_empty(l, n->gscale);
        fill_empty(l, n->gbias);
        return HK_OK;
    }
    norm_walk w = plan_norm(l, j, &rule);
    int64_t kept = l->cpu ? j->steps * j->neurons : (w.c.segments - 1) * j->neurons;
    w.kept = l->cpu ? j->gx : NULL;
    if (!w.kept && kept)
        w.kept = hk_scratch(l, HK_FLOAT32, kept);
    w.sums = hk_scratch(l, HK_FLOAT32, 3 * (int64_t)w.push.channels * w.push.chunks);
    if (l->failed)
        return hk_out_of_memory(l->ctx, "scratch of spiking neurons");
    bool parameters = j->gx && n->gscale && n->gbias;
    emit_norm_walk(l, n, &rule, &w, true);
    HK_TRY(emit_plane(l, &w, 2, true, j->gw));
    if (j->gx) {
        hk_record *r = emit_norm_walk(l, n, &rule, &w, false);
        hk_spec(r, SPEC_PARAMETERS, parameters);
        hk_use(r, j->gx, HK_WRITE, offsetof(struct batchnorm_neuron_grad_push, gx));
        if (parameters) {
            hk_use(r, n->gscale, HK_WRITE, offsetof(struct batchnorm_neuron_grad_push, gscale));
            hk_use(r, n->gbias, HK_WRITE, offsetof(struct batchnorm_neuron_grad_push, gbias));
            return HK_OK;
        }
    }
    HK_TRY(emit_plane(l, &w, 0, false, n->gbias));
    return emit_plane(l, &w, 1, false, n->gscale);
}
