/*
 * Times a layer of spiking neurons alone, forward and with backpropagation through time, its operands on the device:
 *
 *     neurons STEPS BATCH FEATURES [SECONDS]
 *
 * LIF with tau 2, no decay of the input, ATan. Prints device milliseconds between two timestamps around the whole
 * recording (the median of its runs), and of each kernel.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "ops/op.h"
#include "ops/support/build.h"
#include "runtime/exec.h"
#include "runtime/objects.h"

enum { RUNS = 2000, RECORDS = 16 };

typedef struct bench {
    hk_context *ctx;
    hk_device *dev;
    hk_shape shape;
    hk_tensor numbers; /* contents of x and of the spikes' gradient */
    double seconds;
} bench;

/* Numbers in [-1, 2): a third of the neurons fires at a step or so. */
static bool fill(hk_tensor *t, int64_t count)
{
    uint32_t random = 1;
    float *x = malloc((size_t)count * sizeof *x);
    t->data = x;
    for (int64_t i = 0; x && i < count; i++) {
        random = random * 1664525u + 1013904223u;
        x[i] = (float)(random >> 8) * 0x3p-24f - 1;
    }
    return x != NULL;
}

/* A value that lies on the device and keeps its contents. */
static hk_value *resident(bench *b, hk_graph *g, const char *name)
{
    hk_state *s = hk_graph_state(g, name, HK_FLOAT32, &b->shape, &b->numbers);
    return s ? s->first : NULL;
}

/* Results go to states too: an output of the graph would be copied to the host. */
static hk_status keep(bench *b, hk_graph *g, const char *name, hk_value *v)
{
    hk_state *s = hk_graph_state(g, name, HK_FLOAT32, &b->shape, NULL);
    if (!s)
        return hk_out_of_memory(b->ctx, "a bench");
    v->state = s;
    s->last = v;
    return HK_OK;
}

static hk_status make_graph(bench *b, bool backward, hk_graph **out)
{
    const hk_attr_value attrs[] = {HK_SET_INT("steps", b->shape.dim[0]), {0}};
    HK_TRY(hk_graph_create(b->ctx, "neurons", out));
    hk_value *in[5] = {resident(b, *out, "x")}, *y = NULL;
    if (!in[0])
        return hk_out_of_memory(b->ctx, "a bench");
    HK_TRY(hk_build(*out, "hk.Neuron", attrs, in, 1, &y, 1));
    HK_TRY(keep(b, *out, "s", y));
    if (!backward)
        return HK_OK;
    in[4] = resident(b, *out, "gs");
    if (!in[4])
        return hk_out_of_memory(b->ctx, "a bench");
    HK_TRY(hk_build(*out, "hk.NeuronGrad", attrs, in, 5, &y, 1));
    return keep(b, *out, "gx", y);
}

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static hk_status run_once(hk_exec *e, uint64_t *body_ns, uint64_t *ns)
{
    const hk_step step = {.step = 1};
    uint64_t ticket = 0;
    HK_TRY(hk_exec_submit(e, NULL, &step, &ticket));
    HK_TRY(hk_exec_wait(e, ticket));
    return hk_exec_profile(e, body_ns, ns);
}

/* The median of device times, or, with each, the kernels of the last run. The first half second does not count: the
 * clock ramps up. */
static hk_status time_runs(bench *b, hk_exec *e, const char *what, bool each)
{
    static uint64_t body[RUNS];
    const hk_plan *p = hk_exec_plan(e);
    uint64_t ns[RECORDS] = {0};
    size_t count = 0;
    if (p->record_count > RECORDS)
        return hk_fail(b->ctx, HK_STATUS_INTERNAL, "%zu records", p->record_count);
    for (double start = now(); now() - start < 0.5;)
        HK_TRY(run_once(e, body, ns));
    for (double start = now(); count == 0 || (count < RUNS && now() - start < b->seconds); count++)
        HK_TRY(run_once(e, &body[count], ns));
    qsort(body, count, sizeof *body, ascending);
    if (!each)
        printf("%s %.4f ms (%zu runs)\n", what, (double)body[count / 2] * 1e-6, count);
    for (size_t i = 0; i < p->record_count && each; i++)
        printf("kernel %s %.4f ms\n", p->records[i]->kernel->name, (double)ns[i] * 1e-6);
    return HK_OK;
}

static hk_status measure(bench *b, hk_env *env, bool backward, hk_profile profile)
{
    hk_graph *g = NULL;
    hk_exec *e = NULL;
    hk_status st = make_graph(b, backward, &g);
    if (st != HK_OK) {
        hk_graph_destroy(&g);
        return st;
    }
    env->profile = profile;
    HK_TRY(hk_exec_create(env, g, &e));
    st = time_runs(b, e, backward ? "forward and backward" : "forward", profile == HK_PROFILE_DISPATCHES);
    hk_exec_destroy(&e);
    return st;
}

static hk_status run(bench *b)
{
    hk_graph *base = NULL;
    hk_env *env = NULL;
    HK_TRY(hk_device_open(b->ctx, NULL, &b->dev));
    printf("device %s\n", hk_device_get_info(b->dev)->name);
    HK_TRY(hk_graph_create(b->ctx, "base", &base));
    hk_status st = hk_env_create(b->dev->gpu, base, &env);
    for (int backward = 0; backward < 2 && st == HK_OK; backward++)
        st = measure(b, env, backward, HK_PROFILE_RUNS);
    if (st == HK_OK)
        st = measure(b, env, true, HK_PROFILE_DISPATCHES);
    hk_env_destroy(&env);
    hk_graph_destroy(&base);
    return st;
}

int main(int argc, char **argv)
{
    bench b = {.seconds = argc > 4 ? atof(argv[4]) : 1};
    if (argc < 4) {
        fprintf(stderr, "usage: neurons STEPS BATCH FEATURES [SECONDS]\n");
        return 64;
    }
    b.shape = (hk_shape){.rank = 3, .dim = {atoll(argv[1]), atoll(argv[2]), atoll(argv[3])}};
    b.numbers = (hk_tensor){.dtype = HK_FLOAT32, .rank = 3, .shape = {b.shape.dim[0], b.shape.dim[1], b.shape.dim[2]}};
    if (!fill(&b.numbers, hk_shape_count(&b.shape)) || hk_context_create(NULL, &b.ctx) != HK_OK)
        return 71;
    hk_status st = run(&b);
    if (st != HK_OK)
        fprintf(stderr, "neurons: %s\n", hk_context_error(b.ctx));
    hk_device_close(&b.dev);
    hk_context_destroy(&b.ctx);
    free(b.numbers.data);
    return hk_status_exit_code(st);
}
