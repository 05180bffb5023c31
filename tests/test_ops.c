/*
 * Every operator against its own cases (grammar in runtime/cases.h): inference, host evaluation, two runs on the device
 * (inputs aligned, and inputs as unaligned views) whose outputs must agree with the host's, and the gradient graph
 * against central differences in float64; of every backward rule at five or more shapes with an odd extent.
 *
 * `test_ops` runs all operators, `test_ops Relu Add` those, `test_ops 2/4` the second quarter of all. Without a device
 * the host part still runs and the exit code is 77. Device memory is poisoned and plans are checked unless
 * HILLOCK_DEBUG says otherwise. HILLOCK_TEST_DIRECTIONS: gradients are compared along so many random directions alone,
 * where the same code has been, or will be, checked element by element.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ops/infer.h"
#include "ops/step.h"
#include "runtime/cases.h"
#include "runtime/element_types.h"
#include "runtime/host.h"
#include "tests/support/device.h"
#include "tests/support/gradient_cases.h"
#include "tests/support/program.h"
#include "train/gradient.h"

enum {
    EXIT_NO_DEVICE = 77,
    EXACT_ELEMENTS = 300, /* inputs up to this size are checked element by element, larger ones in random directions */
    DIRECTIONS = 8,
};
static const double epsilon = 1e-5, gradient_tolerance = 1e-6;

/* The same step block that tests/support/device.c gives the device. */
static const hk_step test_step = {.seed = {7, 9}, .step = 3, .lr = 1e-3f, .grad_scale = 1};

typedef struct bench {
    hk_context *ctx;
    hk_device *device; /* NULL: none */
} bench;

typedef struct op_test {
    bench *bench;
    const hk_op *op;
} op_test;

/* The first cases of an operator whose shapes differ; their contents are gone. */
typedef struct op_shapes {
    op_case cases[MIN_SHAPES];
    size_t count;
} op_shapes;

/* What one case needs, released together. */
typedef struct run {
    bench *b;
    hk_arena *arena;
    op_case c;
    const hk_tensor *tensors[CASE_MAX_INPUTS];
    const hk_tensor *wide[CASE_MAX_INPUTS];
} run;

/* ---- reporting */

static bool report(const run *r, const char *format, ...) HK_PRINTF(2, 3);
static bool report(const run *r, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    print_error("%s \"%s\" (seed %llu): %s\n", r->c.op->type, r->c.text, (unsigned long long)r->c.seed, text);
    return false;
}

static bool report_status(const run *r, const char *what, hk_status st)
{
    return report(r, "%s failed with '%s': %s", what, hk_status_text(st), hk_context_error(r->b->ctx));
}

/* ---- comparing */

/* Norm of the difference over the reference's; infinities and NaN must stand at the same places. */
static bool floats_agree(const run *r, const char *what, const hk_tensor *got, const hk_tensor *want)
{
    double difference = 0, norm = 0, worst = -1;
    int64_t where = 0, count = hk_tensor_count(want);
    for (int64_t i = 0; i < count; i++) {
        double a = hk_get_double(got, i), b = hk_get_double(want, i);
        if (isnan(a) && isnan(b))
            continue;
        if (!isfinite(a) || !isfinite(b)) {
            if (isnan(a) != isnan(b) || a != b)
                return report(r, "%s: element %lld is %g, expected %g", what, (long long)i, a, b);
            continue;
        }
        difference += (a - b) * (a - b);
        norm += b * b;
        if (fabs(a - b) > worst) {
            worst = fabs(a - b);
            where = i;
        }
    }
    difference = sqrt(difference);
    norm = sqrt(norm);
    if (norm > 0 || r->c.tolerance == 0 ? difference <= r->c.tolerance * norm : difference <= 1e-7)
        return true;
    return report(r, "%s: relative norm error %.3g, allowed %.3g; worst element %lld is %.9g, expected %.9g", what,
                  norm > 0 ? difference / norm : difference, r->c.tolerance, (long long)where,
                  hk_get_double(got, where), hk_get_double(want, where));
}

static bool tensors_agree(const run *r, const char *what, const hk_tensor *got, const hk_tensor *want)
{
    hk_shape a = hk_tensor_shape(got), b = hk_tensor_shape(want);
    hk_shape_text ta, tb;
    if (got->dtype != want->dtype || !hk_shape_equal(&a, &b))
        return report(r, "%s is %s %s, expected %s %s", what, hk_dtype_name(got->dtype), hk_shape_print(&a, &ta),
                      hk_dtype_name(want->dtype), hk_shape_print(&b, &tb));
    if (hk_dtype_is_float(want->dtype))
        return floats_agree(r, what, got, want);
    int64_t count = hk_tensor_count(want);
    for (int64_t i = 0; i < count; i++)
        if (hk_get_int(got, i) != hk_get_int(want, i))
            return report(r, "%s: element %lld is %lld, expected %lld", what, (long long)i,
                          (long long)hk_get_int(got, i), (long long)hk_get_int(want, i));
    return true;
}

/* ---- forward */

/* What inference promised is what evaluation gave. */
static bool inferred_right(const run *r, const case_graph *g, hk_tensor *const *outputs)
{
    for (size_t i = 0; i < g->graph->output_count; i++) {
        const hk_value *v = g->graph->outputs[i];
        hk_shape s = hk_tensor_shape(outputs[i]);
        hk_shape_text a, b;
        bool fits = v->dtype == outputs[i]->dtype && (v->shape.rank < 0 || v->shape.rank == s.rank);
        for (int32_t d = 0; fits && d < v->shape.rank; d++)
            fits = v->shape.dim[d] < 0 || v->shape.dim[d] == s.dim[d];
        if (!fits)
            return report(r, "output %zu was inferred as %s %s and evaluates to %s %s", i, hk_dtype_name(v->dtype),
                          hk_shape_print(&v->shape, &a), hk_dtype_name(outputs[i]->dtype), hk_shape_print(&s, &b));
    }
    return true;
}

static bool run_device(const run *r, const char *how, case_graph *g, const hk_tensor *const *feeds,
                       hk_tensor *const *want)
{
    hk_tensor **got = hk_arena_array(r->arena, g->graph->output_count, sizeof *got);
    if (!got)
        return report(r, "out of memory");
    hk_status st = hk_test_run_graph(r->b->device, g->graph, feeds, got, r->arena);
    if (st != HK_OK)
        return report_status(r, how, st);
    bool ok = true;
    for (size_t i = 0; i < g->graph->output_count; i++) {
        char what[64];
        snprintf(what, sizeof what, "%s, output %zu", how, i);
        ok &= tensors_agree(r, what, got[i], want[i]);
    }
    return ok;
}

/* Makes graph input k a view, one element behind the start of a flat input: then it is not aligned to 16 bytes, which
 * no kernel may take for granted. */
static hk_status shift_input(const run *r, case_graph *g, size_t k, const hk_tensor **feed)
{
    hk_graph *graph = g->graph;
    hk_value *old = graph->inputs[k], *view;
    int64_t count = hk_shape_count(&old->shape);
    hk_shape flat_shape = {.rank = 1, .dim = {count + 1}};
    hk_tensor *flat = hk_tensor_new(r->arena, (*feed)->dtype, &flat_shape);
    hk_value *v = hk_graph_value(graph, "flat", HK_VALUE_INPUT, old->dtype, &flat_shape);
    if (!flat || !v)
        return hk_out_of_memory(graph->ctx, "a shifted input");
    size_t bytes = hk_dtype_bytes(flat->dtype);
    memcpy((char *)flat->data + bytes, (*feed)->data, (size_t)count * bytes);
    const hk_attr_value attrs[] = {HK_SET_INT("offset", 1), HK_SET_INTS("shape", old->shape.dim, old->shape.rank), {0}};
    HK_TRY(hk_build(graph, "hk.View", attrs, &v, 1, &view, 1));
    for (int32_t i = 0; i < g->node->in_count; i++)
        if (g->node->in[i] == old)
            g->node->in[i] = view;
    graph->inputs[k] = v;
    *feed = flat;
    return HK_OK;
}

/* The same case with every input a view that is aligned to one element only. */
static bool run_shifted(const run *r, hk_tensor *const *want)
{
    case_graph g = {0};
    const hk_tensor *feeds[CASE_MAX_INPUTS];
    hk_status st = case_build(r->b->ctx, &r->c, r->tensors, false, &g);
    bool any = false, ok = true;
    if (st == HK_OK)
        case_feeds(&g, &r->c, r->tensors, feeds);
    for (size_t k = 0; st == HK_OK && k < g.graph->input_count; k++)
        if (hk_dtype_device_bytes(g.graph->inputs[k]->dtype) >= 4 && hk_shape_count(&g.graph->inputs[k]->shape) > 0) {
            st = shift_input(r, &g, k, &feeds[k]);
            any = true;
        }
    if (st != HK_OK)
        ok = report_status(r, "shifting inputs", st);
    else if (any)
        ok = run_device(r, "device, inputs as unaligned views", &g, feeds, want);
    hk_graph_destroy(&g.graph);
    return ok;
}

static bool run_forward(run *r)
{
    case_graph g;
    hk_status st = case_contents(r->b->ctx, r->arena, &r->c, false, r->tensors);
    if (st == HK_OK)
        st = case_build(r->b->ctx, &r->c, r->tensors, false, &g);
    if (st != HK_OK)
        return report_status(r, "inference", st);
    const hk_tensor *feeds[CASE_MAX_INPUTS];
    hk_tensor **outputs = hk_arena_array(r->arena, g.graph->output_count + 1, sizeof *outputs);
    case_feeds(&g, &r->c, r->tensors, feeds);
    st = outputs ? hk_host_run(g.graph, r->arena, feeds, outputs, &test_step) : HK_STATUS_OUT_OF_MEMORY;
    bool ok = st == HK_OK ? inferred_right(r, &g, outputs) : report_status(r, "host evaluation", st);
    bool on_device = r->b->device && case_on_device(&r->c, &g, hk_device_get_info(r->b->device));
    if (ok && on_device)
        ok = run_device(r, "device", &g, feeds, outputs) && run_shifted(r, outputs);
    hk_graph_destroy(&g.graph);
    return ok;
}

/* ---- gradients */

static bool is_checked(const case_graph *g, int32_t i)
{
    const hk_value *v = g->inputs[i];
    return v && v->kind == HK_VALUE_INPUT && v->dtype == HK_FLOAT32;
}

/* The loss is a node of the test's own, so that it leans on no operator under test: inputs y0, r0, y1, r1, ...; the sum
 * of all y * r. Nothing lies behind it but what differentiation starts with, a 1. */
static hk_status dot_infer(hk_infer *in)
{
    return hk_infer_output(in, 0, HK_FLOAT32, &HK_SCALAR);
}

static hk_status dot_eval(hk_eval *e)
{
    hk_tensor *y = hk_eval_output(e, 0, HK_FLOAT64, &HK_SCALAR);
    double sum = 0;
    if (!y)
        return hk_out_of_memory(e->ctx, "a test's loss");
    for (int32_t k = 0; k + 1 < e->node->in_count; k += 2)
        for (int64_t i = 0; i < hk_tensor_count(e->in[k]); i++)
            sum += hk_get_double(e->in[k], i) * hk_get_double(e->in[k + 1], i);
    hk_set_double(y, 0, sum);
    return HK_OK;
}

static hk_status dot_backward(hk_gradient *g, hk_node *n)
{
    for (int32_t k = 0; k + 1 < n->in_count; k += 2)
        HK_TRY(hk_gradient_add(g, n->in[k], n->in[k + 1]));
    return HK_OK;
}

static const hk_op dot_op = {.type = "test.Dot",
                             .in_max = -1,
                             .out_min = 1,
                             .out_max = 1,
                             .infer = dot_infer,
                             .eval = dot_eval,
                             .backward = dot_backward};

/* A graph under gradient test: the case's, with a loss behind it. */
typedef struct loss_graph {
    case_graph g;
    hk_value *loss;
    const hk_tensor *feeds[2 * CASE_MAX_INPUTS];
} loss_graph;

/* Through the first output, or all float outputs with `gradall`; the weights r are random, the same in every call, and
 * graph inputs, so that they can be float64. */
static hk_status add_loss(const run *r, loss_graph *l)
{
    hk_graph *graph = l->g.graph;
    case_random random = {.state = r->c.seed ^ 0x9e3779b97f4a7c15u};
    hk_value *in[2 * CASE_MAX_INPUTS];
    int32_t count = 0;
    case_feeds(&l->g, &r->c, r->wide, l->feeds);
    for (size_t k = 0; k < (r->c.grad_all ? graph->output_count : 1) && count < CASE_MAX_INPUTS; k++) {
        hk_value *y = graph->outputs[k];
        if (!hk_dtype_is_float(y->dtype))
            continue;
        hk_tensor *weights = hk_tensor_new(r->arena, HK_FLOAT64, &y->shape);
        hk_value *w = hk_graph_value(graph, "weights", HK_VALUE_INPUT, y->dtype, &y->shape);
        if (!weights || !w || !hk_graph_add_input(graph, w))
            return hk_out_of_memory(graph->ctx, "a test's loss (is the output's shape known?)");
        for (int64_t i = 0; i < hk_tensor_count(weights); i++)
            hk_set_double(weights, i, case_normal(&random));
        l->feeds[graph->input_count - 1] = weights;
        in[count++] = y;
        in[count++] = w;
    }
    hk_node *n = hk_graph_node(graph, "loss", dot_op.type, &dot_op, NULL, in, count, 1);
    if (!n)
        return HK_STATUS_OUT_OF_MEMORY;
    HK_TRY(hk_node_infer(graph, n));
    l->loss = n->out[0];
    graph->output_count = 0;
    return hk_graph_add_output(graph, l->loss) ? HK_OK : HK_STATUS_OUT_OF_MEMORY;
}

/* The loss at the present wide inputs. */
static hk_status loss_at(const run *r, loss_graph *l, double *loss)
{
    hk_tensor *out[1];
    hk_arena *arena = hk_arena_create(r->b->ctx);
    if (!arena)
        return HK_STATUS_OUT_OF_MEMORY;
    hk_status st = hk_host_run(l->g.graph, arena, l->feeds, out, &test_step);
    if (st == HK_OK)
        *loss = hk_get_double(out[0], 0);
    hk_arena_destroy(&arena);
    return st;
}

/* (loss(x + eps d) - loss(x - eps d)) / (2 eps) for a direction d over input i. */
static hk_status slope(const run *r, loss_graph *g, int32_t i, const double *d, double *out)
{
    double *x = r->wide[i]->data, plus = 0, minus = 0;
    int64_t count = hk_tensor_count(r->wide[i]);
    double *saved = malloc((size_t)count * sizeof *saved);
    if (!saved)
        return HK_STATUS_OUT_OF_MEMORY;
    memcpy(saved, x, (size_t)count * sizeof *saved);
    for (int64_t k = 0; k < count; k++)
        x[k] = saved[k] + epsilon * d[k];
    hk_status st = loss_at(r, g, &plus);
    for (int64_t k = 0; k < count; k++)
        x[k] = saved[k] - epsilon * d[k];
    if (st == HK_OK)
        st = loss_at(r, g, &minus);
    memcpy(x, saved, (size_t)count * sizeof *saved);
    free(saved);
    *out = (plus - minus) / (2 * epsilon);
    return st;
}

/* Compares dloss/dinput with slopes along every element, or along random directions if there are many. */
static bool check_input(const run *r, loss_graph *forward, int32_t i, const hk_tensor *gradient)
{
    const char *wish = getenv("HILLOCK_TEST_DIRECTIONS");
    int64_t directions = wish && atoi(wish) > 0 ? atoi(wish) : DIRECTIONS;
    int64_t count = hk_tensor_count(r->wide[i]);
    if (gradient && hk_tensor_count(gradient) != count)
        return report(r, "the gradient of input %d has %lld elements, expected %lld", (int)i,
                      (long long)hk_tensor_count(gradient), (long long)count);
    bool exact = !wish && count <= EXACT_ELEMENTS;
    double *d = calloc((size_t)count + 1, sizeof *d), difference = 0, norm = 0, worst = -1, got_worst = 0,
           want_worst = 0;
    int64_t where = 0;
    case_random random = {.state = r->c.seed ^ (0xd1b54a32d192ed03u + (uint64_t)i)};
    hk_status st = d ? HK_OK : HK_STATUS_OUT_OF_MEMORY;
    for (int64_t k = 0; st == HK_OK && k < (exact ? count : directions); k++) {
        double got = 0, want = 0;
        for (int64_t e = 0; e < count; e++)
            d[e] = exact ? e == k : case_normal(&random);
        st = slope(r, forward, i, d, &want);
        for (int64_t e = 0; gradient && e < count; e++)
            got += d[e] != 0 ? d[e] * hk_get_double(gradient, e) : 0;
        difference += (got - want) * (got - want);
        norm += want * want;
        if (!(fabs(got - want) <= worst)) {
            worst = fabs(got - want);
            got_worst = got;
            want_worst = want;
            where = k;
        }
    }
    free(d);
    if (st != HK_OK)
        return report_status(r, "evaluating the loss", st);
    difference = sqrt(difference);
    norm = sqrt(norm);
    if (difference <= gradient_tolerance * norm || difference <= 1e-9)
        return true;
    return report(
        r, "gradient of input %d: relative norm error %.3g, allowed %.3g; %s %lld is %.9g, central difference %.9g%s",
        (int)i, norm > 0 ? difference / norm : difference, gradient_tolerance, exact ? "element" : "direction",
        (long long)where, got_worst, want_worst, gradient ? "" : " (no gradient reaches it)");
}

/* gradients[i] is that of input i, NULL where none reaches it. */
static hk_status run_backward(const run *r, loss_graph *l, const hk_tensor **gradients)
{
    hk_graph *graph = l->g.graph;
    hk_value *wrt[CASE_MAX_INPUTS], *found[CASE_MAX_INPUTS];
    hk_tensor *outputs[CASE_MAX_INPUTS + 1];
    int32_t which[CASE_MAX_INPUTS];
    size_t count = 0, next = 1;
    for (int32_t i = 0; i < r->c.input_count; i++)
        if (is_checked(&l->g, i)) {
            which[count] = i;
            wrt[count++] = l->g.inputs[i];
        }
    if (r->c.op->expand)
        HK_TRY(hk_infer_graph(graph));
    HK_TRY(hk_differentiate(graph, l->loss, wrt, count, found));
    for (size_t k = 0; k < count; k++)
        if (found[k] && !hk_graph_add_output(graph, found[k]))
            return HK_STATUS_OUT_OF_MEMORY;
    HK_TRY(hk_host_run(graph, r->arena, l->feeds, outputs, &test_step));
    for (size_t k = 0; k < count; k++)
        gradients[which[k]] = found[k] ? outputs[next++] : NULL;
    return HK_OK;
}

static hk_status build_both(const run *r, loss_graph *forward, loss_graph *backward)
{
    HK_TRY(case_build(r->b->ctx, &r->c, r->wide, true, &forward->g));
    HK_TRY(case_build(r->b->ctx, &r->c, r->wide, true, &backward->g));
    HK_TRY(add_loss(r, forward));
    return add_loss(r, backward);
}

static bool check_gradients(run *r, loss_graph *forward, loss_graph *backward)
{
    const hk_tensor *gradients[CASE_MAX_INPUTS] = {0};
    hk_status st = case_contents(r->b->ctx, r->arena, &r->c, true, r->wide);
    if (st == HK_OK)
        st = build_both(r, forward, backward);
    if (st != HK_OK)
        return report_status(r, "building for gradients", st);
    bool any = false, ok = true;
    for (int32_t i = 0; i < r->c.input_count; i++)
        any |= is_checked(&forward->g, i);
    if (!any || forward->loss->producer->in_count == 0)
        return true; /* nothing to differentiate */
    if (!r->c.op->backward && !r->c.op->expand)
        return report(r, "no backward rule: write one, or mark the case nograd");
    st = run_backward(r, backward, gradients);
    if (st != HK_OK)
        return report_status(r, "the gradient graph", st);
    for (int32_t i = 0; i < r->c.input_count; i++)
        if (is_checked(&forward->g, i))
            ok &= check_input(r, forward, i, gradients[i]);
    return ok;
}

static bool run_gradients(run *r)
{
    loss_graph *graphs = calloc(2, sizeof *graphs);
    bool ok = graphs && check_gradients(r, &graphs[0], &graphs[1]);
    if (graphs) {
        hk_graph_destroy(&graphs[0].g.graph);
        hk_graph_destroy(&graphs[1].g.graph);
    }
    free(graphs);
    return ok;
}

/* ---- one operator */

/* Inputs that are differentiated, and their shapes. */
static bool is_random(const case_input *in)
{
    return !in->absent && (!in->contents || in->parameter);
}

static bool same_shapes(const op_case *a, const op_case *b)
{
    bool same = a->input_count == b->input_count;
    for (int32_t i = 0; same && i < a->input_count; i++)
        same = hk_shape_equal(&a->inputs[i].shape, &b->inputs[i].shape);
    return same;
}

/* Whether the case's gradient is checked at an odd extent: of a float, or of an index that is not written out. */
static bool has_odd_extent(const op_case *c)
{
    bool odd = false;
    for (int32_t i = 0; i < c->input_count; i++)
        for (int32_t d = 0; is_random(&c->inputs[i]) && d < c->inputs[i].shape.rank; d++)
            odd |= c->inputs[i].shape.dim[d] >= 3 && c->inputs[i].shape.dim[d] % 2 == 1;
    return odd && !c->nograd;
}

static void count_shapes(op_shapes *s, const op_case *c)
{
    bool known = !has_odd_extent(c);
    for (size_t i = 0; i < s->count && !known; i++)
        known = same_shapes(&s->cases[i], c);
    if (!known && s->count < MIN_SHAPES)
        s->cases[s->count++] = *c;
}

static bool run_case(bench *b, const hk_op *op, const char *text, bool gradient_alone, op_shapes *shapes)
{
    run *r = calloc(1, sizeof *r); /* large, and reported from everywhere below */
    bool ok = false;
    if (!r)
        return false;
    *r = (run){.b = b, .arena = hk_arena_create(b->ctx)};
    r->c = (op_case){.op = op, .text = text};
    hk_status st = r->arena ? case_parse(b->ctx, r->arena, op, text, &r->c) : HK_STATUS_OUT_OF_MEMORY;
    if (st != HK_OK)
        report_status(r, "parsing", st);
    else
        ok = (gradient_alone || run_forward(r)) && (r->c.nograd || run_gradients(r));
    if (ok)
        count_shapes(shapes, &r->c);
    hk_arena_destroy(&r->arena);
    free(r);
    return ok;
}

static bool is_one_of(const char *type, const char *types)
{
    size_t n = strlen(type);
    for (const char *at = types; (at = strstr(at, type)) != NULL; at += n)
        if ((at == types || at[-1] == ' ') && (at[n] == ' ' || at[n] == '\0'))
            return true;
    return false;
}

/* The number of failures; shapes then holds at least MIN_SHAPES, or that is one. */
static size_t run_more_gradients(bench *b, const hk_op *op, op_shapes *shapes)
{
    size_t failed = 0;
    for (size_t i = 0; i < HK_COUNT(surrogate_rules); i++)
        if (!strcmp(op->type, surrogate_rules[i]))
            return 0;
    for (size_t i = 0; i < HK_COUNT(more_gradient_cases); i++) {
        const gradient_cases *more = &more_gradient_cases[i];
        if (is_one_of(op->type, more->types) && (more->since == 0 || more->since == op->since))
            for (size_t k = 0; k < MORE_CASES && more->list[k]; k++)
                failed += !run_case(b, op, more->list[k], true, shapes);
    }
    if (shapes->count < MIN_SHAPES) {
        print_error("%s (version %d): gradients checked at %zu shapes with an odd extent, expected %d: add cases to "
                    "tests/support/gradient_cases.h\n",
                    op->type, op->since, shapes->count, MIN_SHAPES);
        failed++;
    }
    return failed;
}

static void test_op(void **state)
{
    const op_test *t = *state;
    const hk_op *op = t->op;
    size_t count = 0, failed = 0;
    op_shapes *shapes = calloc(1, sizeof *shapes);
    assert_non_null(shapes);
    for (; op->cases && op->cases[count]; count++)
        failed += !run_case(t->bench, op, op->cases[count], false, shapes);
    if (op->backward)
        failed += run_more_gradients(t->bench, op, shapes);
    free(shapes);
    if (count == 0 && !(op->flags & (HK_OP_CONTROL | HK_OP_LIST))) /* tested by test_control */
        fail_msg("%s (version %d): no cases", op->type, op->since);
    print_message("%s (version %d): %zu cases%s\n", op->type, op->since, count, failed ? "" : ", all good");
    if (failed)
        fail_msg("%s (version %d): %zu failures in %zu cases", op->type, op->since, failed, count);
}

/* ---- the program */

/* Operators are named, or every part_count-th is taken: neighbours, which cost alike, go to different parts. */
static bool chosen(const hk_op *op, size_t index, int argc, char **argv)
{
    size_t part = 0, part_count = 0;
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], op->type) ||
            (sscanf(argv[i], "%zu/%zu", &part, &part_count) == 2 && part_count && index % part_count == part - 1))
            return true;
    return argc < 2;
}

static int run_all(bench *b, int argc, char **argv)
{
    size_t total = 0, count = 0;
    while (hk_op_at(total))
        total++;
    struct CMUnitTest *tests = calloc(total + 1, sizeof *tests);
    op_test *states = calloc(total + 1, sizeof *states);
    int result = 1;
    if (tests && states) {
        for (size_t i = 0; i < total; i++) {
            const hk_op *op = hk_op_at(i);
            if (!chosen(op, i, argc, argv))
                continue;
            states[count] = (op_test){b, op};
            tests[count] = (struct CMUnitTest){.name = op->type, .test_func = test_op, .initial_state = &states[count]};
            count++;
        }
        if (count == 0)
            fprintf(stderr, "test_ops: no operator of that name\n");
        else
            result = _cmocka_run_group_tests("operators", tests, count, NULL, NULL) != 0;
    }
    free(tests);
    free(states);
    return result;
}

int main(int argc, char **argv)
{
    bench b = {0};
    hk_status st = hk_context_create(&(hk_context_params){.size = sizeof(hk_context_params)}, &b.ctx);
    if (st == HK_OK)
        st = hk_device_open(
            b.ctx, &(hk_device_params){.size = sizeof(hk_device_params), .debug = test_modes("check-plan,poison")},
            &b.device);
    int result = 1;
    if (st == HK_OK || st == HK_STATUS_NO_DEVICE) {
        result = run_all(&b, argc, argv);
        if (result == 0 && st == HK_STATUS_NO_DEVICE) {
            fprintf(stderr, "test_ops: the host part passed; no device: %s\n", hk_context_error(b.ctx));
            result = EXIT_NO_DEVICE;
        }
    } else {
        fprintf(stderr, "test_ops: %s: %s\n", hk_status_text(st), b.ctx ? hk_context_error(b.ctx) : "");
    }
    hk_device_close(&b.device);
    hk_context_destroy(&b.ctx);
    return result;
}
