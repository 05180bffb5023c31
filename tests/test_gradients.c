/*
 * Every operator with a backward rule against gradients of PyTorch in float64 (tools/fixtures/gradients.py, which has
 * the format): kinks, ties, duplicate indices, empty tensors and scalars among them. Each case is differentiated twice:
 * in float64 by the host evaluator and in float32 on the device. A rule without a case fails the test.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ops/infer.h"
#include "ops/step.h"
#include "runtime/cases.h"
#include "runtime/host.h"
#include "tests/support/device.h"
#include "tests/support/onnx_bytes.h"
#include "tests/support/program.h"
#include "train/gradient.h"
#include "train/safetensors.h"

static const double host_tolerance = 1e-6, device_tolerance = 1e-5;

/* The same step block that tests/support/device.c gives the device. */
static const hk_step step = {.seed = {7, 9}, .step = 3, .lr = 1e-3f, .grad_scale = 1};

static hk_safetensors stored;
static int failures;

/* ---- one case */

typedef struct problem {
    const char *name; /* the case's */
    size_t stem;      /* length of the name its tensors have */
    hk_arena *arena;
    op_case c;
} problem;

static void report(const problem *p, const char *format, ...) HK_PRINTF(2, 3);
static void report(const problem *p, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    print_error("%s (%s, %s): %s\n", p->name, p->c.op ? p->c.op->type : "?", p->c.text ? p->c.text : "", text);
    failures++;
}

static void report_status(const problem *p, const char *what, hk_status st)
{
    report(p, "%s: %s: %s", what, hk_status_text(st), hk_context_error(ctx));
}

static const hk_tensor *find(const problem *p, const char *letter, int32_t i)
{
    char name[96];
    snprintf(name, sizeof name, "%.*s.%s%d", (int)p->stem, p->name, letter, (int)i);
    return hk_safetensors_find(&stored, name);
}

static const hk_tensor *widened(hk_arena *arena, const hk_tensor *t)
{
    hk_shape shape = hk_tensor_shape(t);
    hk_tensor *wide = hk_tensor_new(arena, HK_FLOAT64, &shape);
    assert_non_null(wide);
    for (int64_t i = 0; i < hk_tensor_count(t); i++)
        hk_set_double(wide, i, hk_get_double(t, i));
    return wide;
}

/* The sum over outputs of y * g, g being what comes in. */
static hk_status add_loss(const problem *p, bool wide, case_graph *g, const hk_tensor **feeds, hk_value **loss)
{
    hk_graph *graph = g->graph;
    const hk_attr_value flat[] = {HK_SET_INT("keepdims", 0), {0}};
    size_t outputs = graph->output_count;
    *loss = NULL;
    for (size_t k = 0; k < outputs; k++) {
        const hk_tensor *incoming = find(p, "g", (int32_t)k);
        if (!incoming)
            continue;
        hk_shape shape = hk_tensor_shape(incoming);
        hk_value *w = hk_graph_value(graph, "incoming", HK_VALUE_INPUT, HK_FLOAT32, &shape), *term;
        if (!w || !hk_graph_add_input(graph, w))
            return HK_STATUS_OUT_OF_MEMORY;
        feeds[graph->input_count - 1] = wide ? widened(p->arena, incoming) : incoming;
        HK_TRY(hk_build(graph, "Mul", NULL, (hk_value *[]){graph->outputs[k], w}, 2, &term, 1));
        HK_TRY(hk_build(graph, "ReduceSum", flat, &term, 1, &term, 1));
        if (*loss)
            HK_TRY(hk_build(graph, "Add", NULL, (hk_value *[]){*loss, term}, 2, &term, 1));
        *loss = term;
    }
    graph->output_count = 0;
    if (!*loss)
        return hk_fail(ctx, HK_STATUS_USAGE, "nothing comes in");
    return hk_graph_add_output(graph, *loss) ? HK_OK : HK_STATUS_OUT_OF_MEMORY;
}

static bool is_checked(const problem *p, int32_t i)
{
    const case_input *in = &p->c.inputs[i];
    return !in->absent && !in->contents && in->dtype == HK_FLOAT32;
}

/* Random inputs are the stored ones. */
static bool take_inputs(const problem *p, bool wide, const hk_tensor **tensors)
{
    for (int32_t i = 0; i < p->c.input_count; i++) {
        const hk_tensor *t = is_checked(p, i) ? find(p, "", i) : p->c.inputs[i].contents;
        if (!t && !p->c.inputs[i].absent) {
            report(p, "input %d is not in the file", (int)i);
            return false;
        }
        tensors[i] = t && wide && is_checked(p, i) ? widened(p->arena, t) : t;
    }
    return true;
}

/* gradients[i]: NULL where none reaches input i. */
static hk_status differentiate(const problem *p, bool wide, case_graph *g, const hk_tensor *const *tensors,
                               const hk_tensor **gradients)
{
    hk_value *wrt[CASE_MAX_INPUTS], *found[CASE_MAX_INPUTS] = {NULL}, *loss;
    const hk_tensor *feeds[2 * CASE_MAX_INPUTS];
    hk_tensor *outputs[CASE_MAX_INPUTS + 1];
    size_t count = 0, next = 1; /* output 0 is the loss */
    case_feeds(g, &p->c, tensors, feeds);
    HK_TRY(add_loss(p, wide, g, feeds, &loss));
    for (int32_t i = 0; i < p->c.input_count; i++)
        if (is_checked(p, i))
            wrt[count++] = g->inputs[i];
    HK_TRY(hk_infer_graph(g->graph));
    HK_TRY(hk_differentiate(g->graph, loss, wrt, count, found));
    for (size_t k = 0; k < count; k++)
        if (found[k] && !hk_graph_add_output(g->graph, found[k]))
            return HK_STATUS_OUT_OF_MEMORY;
    HK_TRY(hk_graph_sort(g->graph));
    if (wide)
        HK_TRY(hk_host_run(g->graph, p->arena, feeds, outputs, &step));
    else
        HK_TRY(hk_test_run_graph(dev, g->graph, feeds, outputs, p->arena));
    for (int32_t i = 0, k = 0; i < p->c.input_count; i++)
        if (is_checked(p, i))
            gradients[i] = found[k++] ? outputs[next++] : NULL;
    return HK_OK;
}

/* The norm of the difference over PyTorch's; infinities and NaN must stand at the same places. */
static void compare(const problem *p, const char *where, int32_t i, const hk_tensor *got, double tolerance)
{
    const hk_tensor *want = find(p, "d", i), *either = want ? want : got;
    double difference = 0, norm = 0, worst = 0;
    int64_t at = 0;
    if (!either)
        return;
    if (got && want && hk_tensor_count(got) != hk_tensor_count(want)) {
        report(p, "%s, input %d: %lld elements, expected %lld", where, (int)i, (long long)hk_tensor_count(got),
               (long long)hk_tensor_count(want));
        return;
    }
    for (int64_t k = 0; k < hk_tensor_count(either); k++) {
        double a = got ? hk_get_double(got, k) : 0, b = want ? hk_get_double(want, k) : 0;
        if (isfinite(a) && isfinite(b)) {
            difference += (a - b) * (a - b);
            norm += b * b;
            at = fabs(a - b) > worst ? k : at;
            worst = fmax(worst, fabs(a - b));
        } else if (isnan(a) != isnan(b) || (!isnan(a) && a != b)) {
            report(p, "%s, input %d: element %lld is %g, PyTorch's %g", where, (int)i, (long long)k, a, b);
            return;
        }
    }
    if (sqrt(difference) <= tolerance * sqrt(norm))
        return;
    report(p, "%s, input %d: relative error %.3g, allowed %.3g; element %lld is %.9g, PyTorch's %.9g%s", where, (int)i,
           sqrt(difference / norm), tolerance, (long long)at, got ? hk_get_double(got, at) : 0,
           want ? hk_get_double(want, at) : 0, got ? "" : " (no gradient reaches it)");
}

static void check(const problem *p, bool wide)
{
    const hk_tensor *tensors[CASE_MAX_INPUTS] = {NULL}, *gradients[CASE_MAX_INPUTS] = {NULL};
    case_graph g = {0};
    if (!take_inputs(p, wide, tensors))
        return;
    hk_status st = case_build(ctx, &p->c, tensors, true, &g);
    if (st == HK_OK)
        st = differentiate(p, wide, &g, tensors, gradients);
    if (st != HK_OK)
        report_status(p, wide ? "on the host" : "on the device", st);
    for (int32_t i = 0; st == HK_OK && i < p->c.input_count; i++)
        if (is_checked(p, i))
            compare(p, wide ? "host" : "device", i, gradients[i], wide ? host_tolerance : device_tolerance);
    hk_graph_destroy(&g.graph);
}

/* "OPSET TYPE | case" */
static const hk_op *parse(problem *p, const char *text)
{
    char type[64];
    int opset = 0, at = 0;
    const hk_op *op = NULL;
    if (sscanf(text, "%d %63s | %n", &opset, type, &at) == 2 && at > 0)
        op = hk_op_find(NULL, type, opset, NULL);
    hk_status st = op ? case_parse(ctx, p->arena, op, text + at, &p->c) : HK_STATUS_USAGE;
    p->c.opset = opset;
    if (!op)
        report(p, "'%s' names no operator", text);
    else if (st != HK_OK)
        report_status(p, "parsing", st);
    return st == HK_OK ? op : NULL;
}

static const hk_op *one_case(const char *name, const char *text)
{
    problem p = {.name = name, .stem = strcspn(name, "@"), .arena = hk_arena_create(ctx)};
    assert_non_null(p.arena);
    const hk_op *op = parse(&p, text);
    if (op) {
        check(&p, true);
        if (dev)
            check(&p, false);
    }
    hk_arena_destroy(&p.arena);
    return op;
}

/* ---- all of them */

enum { MOST_OPERATORS = 1024 };

/* The cases, or those whose names or operators begin with HILLOCK_TEST_CASE. */
static void test_rules(void **state)
{
    (void)state;
    static bool seen[MOST_OPERATORS];
    const char *wish = getenv("HILLOCK_TEST_CASE");
    size_t rules = 0, cases = 0;
    for (size_t k = 0; k < stored.metadata_count; k++) {
        const hk_metadata *m = &stored.metadata[k];
        const char *type = strchr(m->value, ' ');
        if (wish && strncmp(m->key, wish, strlen(wish)) != 0 && !(type && !strncmp(type + 1, wish, strlen(wish))))
            continue;
        const hk_op *op = one_case(m->key, m->value);
        cases++;
        for (size_t i = 0; op && hk_op_at(i) && i < MOST_OPERATORS; i++)
            seen[i] |= hk_op_at(i) == op;
    }
    for (size_t i = 0; hk_op_at(i); i++) {
        const hk_op *op = hk_op_at(i);
        assert_true(i < MOST_OPERATORS);
        rules += op->backward != NULL;
        if (op->backward && !seen[i] && !wish) {
            print_error("%s (opset %d and later) has a backward rule and no case in tools/fixtures/gradients.py\n",
                        op->type, op->since);
            failures++;
        }
    }
    print_message("%zu cases, %zu operators with a backward rule\n", cases, rules);
    if (failures)
        fail_msg("%d failures", failures);
}

/* ---- accumulation: gradients are added to those of the backward pass before, with a factor of 1 */

static const hk_tensor *accumulated(const char *member)
{
    char name[64];
    snprintf(name, sizeof name, "accumulated.%s", member);
    const hk_tensor *t = hk_safetensors_find(&stored, name);
    assert_non_null(t);
    return t;
}

/* y = x w' + b */
static hk_model *linear_layer(void)
{
    char path[] = "/tmp/hillock-gradients-XXXXXX";
    int fd = mkstemp(path);
    hk_model *m = NULL;
    onnx_bytes b = {0};
    assert_true(fd >= 0);
    close(fd);
    ob_model(&b, 17);
    ob_open(&b, 7);
    ob_input(&b, "x", "4,5");
    ob_output(&b, "y", "4,3");
    ob_floats(&b, 5, "w", "3,5", accumulated("w")->data, 15);
    ob_floats(&b, 5, "b", "3", accumulated("b")->data, 3);
    ob_node_open(&b, 1, "Gemm", "x,w,b", "y");
    ob_attr_int(&b, "transB", 1);
    while (b.depth)
        ob_close(&b);
    ob_save(&b, path);
    ob_free(&b);
    OK(hk_model_load(ctx, path, NULL, &m));
    unlink(path);
    return m;
}

static void same_gradient(hk_trainer *t, const char *parameter, const char *member)
{
    const hk_tensor *want = accumulated(member);
    hk_tensor got = {0};
    double difference = 0, norm = 0;
    OK(hk_trainer_read_gradient(t, parameter, &got));
    assert_int_equal(hk_tensor_count(&got), hk_tensor_count(want));
    for (int64_t i = 0; i < hk_tensor_count(want); i++) {
        difference = hypot(difference, hk_get_double(&got, i) - hk_get_double(want, i));
        norm = hypot(norm, hk_get_double(want, i));
    }
    hk_tensor_release(&got);
    if (!(difference <= device_tolerance * norm))
        fail_msg("%s: relative error %.3g, allowed %.3g", parameter, difference / norm, device_tolerance);
}

static void test_accumulation(void **state)
{
    (void)state;
    if (!dev)
        skip();
    hk_model *m = linear_layer();
    hk_trainer *t = NULL;
    OK(hk_trainer_create(dev, m, NULL, &t));
    for (int again = 0; again < 2; again++) { /* zero_grad begins anew */
        OK(hk_trainer_forward(t, accumulated("x0"), 1));
        OK(hk_trainer_loss(t, accumulated("t0"), HK_REDUCE_MEAN, NULL));
        OK(hk_trainer_backward(t, NULL));
        OK(hk_trainer_forward(t, accumulated("x1"), 1));
        OK(hk_trainer_loss(t, accumulated("t1"), HK_REDUCE_MEAN, NULL));
        OK(hk_trainer_backward(t, NULL));
        same_gradient(t, "w", "dw");
        same_gradient(t, "b", "db");
        hk_trainer_zero_grad(t);
    }
    hk_trainer_destroy(&t);
    hk_model_destroy(&m);
}

static int set_up(void **state)
{
    (void)state;
    return hk_safetensors_read(ctx, HK_TEST_DATA "/gradients/operators.safetensors", &stored) == HK_OK ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    hk_safetensors_finish(&stored);
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rules), cmocka_unit_test(test_accumulation)};
    const test_program program = {.name = "gradients",
                                  TESTS(tests),
                                  .setup = set_up,
                                  .teardown = tear_down,
                                  .device = TEST_USES_DEVICE,
                                  .debug = "check-plan,poison"};
    return test_main(argc, argv, &program);
}
