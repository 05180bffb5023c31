/* The dispatches of spiking neurons. */
#include "ops/support/neuron_lower.h"

#include <string.h>

#include "kernels.h"
#include "ops/support/move.h"
#include "ops/support/reduce.h"
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

/* Specialization constants and bits of shaders/neuron.glsl and the two kernels. */
enum { SPEC_KIND = 3, SPEC_DECAY_INPUT, SPEC_SOFT, SPEC_THRESHOLD, SPEC_PRESENT, SPEC_NORM, SPEC_OWN };
enum { SPEC_BATCH = SPEC_OWN };
enum { SPEC_DETACH = SPEC_OWN, SPEC_SURROGATE, SPEC_HEIGHT, SPEC_SLOPE, SPEC_SEGMENT };
enum { SPEC_MANY = SPEC_SEGMENT + 1, SPEC_RAGGED, SPEC_AHEAD };
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

static void spec_rule(hk_record *r, const hk_neuron_rule *rule, const hk_neuron_job *j, uint32_t present)
{
    hk_spec(r, SPEC_KIND, rule->kind);
    hk_spec(r, SPEC_DECAY_INPUT, rule->kind != HK_NEURON_IF && rule->decay_input);
    hk_spec(r, SPEC_SOFT, rule->soft);
    hk_spec(r, SPEC_THRESHOLD, j->thetas == 0 ? 0 : j->thetas == 1 ? 1 : 2);
    hk_spec(r, SPEC_PRESENT, present);
    hk_spec(r, SPEC_NORM, j->norm != NULL);
}

/* What lies side by side, in units of an invocation's walk: neurons, with pooling windows. */
static uint32_t inner_of(const hk_neuron_job *j)
{
    return (uint32_t)(j->pool_width ? j->inner / 4 : j->inner);
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
    hk_record *r = j->pool_width ? hk_emit(l, &hk_kernel_neuron_pool, "neuron+pool")
                   : vec == 4    ? hk_emit(l, &hk_kernel_neuron_x4, "neuron x4")
                                 : hk_emit(l, &hk_kernel_neuron, "neuron");
    hk_push(r, &push, sizeof push);
    spec_rule(r, &rule, j,
              bit(j->v0, PRESENT_V0) | bit(j->s, PRESENT_S) | bit(j->v, PRESENT_V) | bit(j->v_seq, PRESENT_V_SEQ));
    hk_spec(r, SPEC_BATCH, l->cpu || j->steps == 1 ? 1 : j->steps < 8 ? 4 : 8);
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

static const hk_kernel *pick_grad_kernel(const hk_lower *l, const hk_neuron_job *j, const cut *c)
{
    if (j->pool_width)
        return l->cpu ? &hk_kernel_neuron_grad_cpu_pool : &hk_kernel_neuron_grad_pool;
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
    hk_use(r, j->norm, HK_READ, offsetof(struct neuron_grad_push, norm));
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
                                    .inner = inner_of(j),
                                    .channels = (uint32_t)j->channels,
                                    .width = (uint32_t)HK_MAX(j->pool_width / 2, 1),
                                    .rate = (float)rule.rate,
                                    .rest = (float)rule.rest,
                                    .threshold = j->attrs->v_threshold};
    hk_record *r = hk_emit(l, pick_grad_kernel(l, j, &c),
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
