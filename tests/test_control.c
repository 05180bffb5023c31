/*
 * Sequences, optionals, If, Loop and Scan, and shapes fed at run time: models of tests/data/control (made by
 * tools/fixtures/control.py) on the device and by the host interpreter, where their parts run, and what is refused.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/host.h"
#include "runtime/model.h"
#include "tests/support/data.h"
#include "tests/support/onnx_bytes.h"
#include "tests/support/program.h"

#define DATA HK_TEST_DATA "/control/"

static const double bound = 1e-6;

static const char *const names[] = {"sequence_static", "sequence_fed", "sequence_computed", "sequence_map",
                                    "sequence_loop",   "if_shapes",    "optional_inside",   "loop_forms",
                                    "scan_forms",      "sequence_io",  "shapes_fed"};

typedef struct opened {
    char folder[512];
    hk_model *model;
    hk_session *session;
} opened;

static opened open_model(const char *name, const hk_session_params *params)
{
    opened o = {0};
    char path[600];
    snprintf(o.folder, sizeof o.folder, DATA "%s", name);
    snprintf(path, sizeof path, "%s/model.onnx", o.folder);
    OK(hk_model_load(ctx, path, NULL, &o.model));
    OK(hk_session_create(dev, o.model, params, &o.session));
    return o;
}

static void close_model(opened *o)
{
    hk_session_destroy(&o->session);
    hk_model_destroy(&o->model);
}

static void run_set(opened *o, int set)
{
    double error = 0;
    if (!data_run_set(ctx, o->session, o->model, o->folder, set, &error))
        fail_msg("%s has no set %d", o->folder, set);
    if (!(error <= bound))
        fail_msg("%s set %d: relative error %.3g, allowed %.3g", o->folder, set, error, bound);
}

static int count_sets(const opened *o)
{
    char path[600];
    for (int set = 0;; set++) {
        snprintf(path, sizeof path, "%s/test_data_set_%d", o->folder, set);
        if (access(path, R_OK) != 0)
            return set;
    }
}

/* Every set, in both orders, in one session: continuations of another length or condition must not be mistaken. */
static void on_the_device(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        for (int off = 0; off < 2; off++) {
            opened o = open_model(names[i], &(hk_session_params){.size = sizeof(hk_session_params), .no_fusion = off});
            int sets = count_sets(&o);
            assert_true(sets > 1);
            for (int set = 0; set < sets; set++)
                run_set(&o, set);
            for (int set = sets; set-- > 0;)
                run_set(&o, set);
            close_model(&o);
        }
}

static hk_tensor load(const opened *o, int set, const char *kind, size_t i, hk_dtype dtype)
{
    char path[700];
    hk_tensor t = {.dtype = dtype};
    snprintf(path, sizeof path, "%s/test_data_set_%d/%s_%zu.pb", o->folder, set, kind, i);
    OK(hk_tensor_load(ctx, path, &t));
    return t;
}

/* The oracle has its own way: lists are tensors of tensors, nothing is replaced. */
static void on_the_host(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        opened o = open_model(names[k], NULL);
        for (int set = 0; set < count_sets(&o); set++) {
            hk_graph *g = NULL;
            OK(hk_graph_clone(hk_model_graph(o.model), &g));
            hk_tensor inputs[8] = {{0}};
            const hk_tensor *in[8];
            hk_tensor *out[8] = {NULL};
            for (size_t i = 0; i < g->input_count; i++) {
                inputs[i] = load(&o, set, "input", i, g->inputs[i]->dtype);
                in[i] = &inputs[i];
                g->inputs[i]->shape = hk_tensor_shape(&inputs[i]);
            }
            for (size_t i = 0; i < g->node_count; i++) /* what no iteration gives has the shape that was inferred */
                OK(hk_node_infer(g, g->nodes[i]));
            OK(hk_host_run(g, g->arena, in, out, NULL));
            for (size_t i = 0; i < g->output_count; i++) {
                hk_tensor want = load(&o, set, "output", i, g->outputs[i]->dtype);
                double error = data_error(out[i], &want);
                if (!(error <= bound))
                    fail_msg("%s set %d output %zu on the host: relative error %.3g", o.folder, set, i, error);
                hk_tensor_release(&want);
            }
            for (size_t i = 0; i < g->input_count; i++)
                hk_tensor_release(&inputs[i]);
            hk_graph_destroy(&g);
        }
        close_model(&o);
    }
}

/* Known structure leaves nothing to the host; what it does elsewhere is said. */
static void places(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        size_t segments; /* at most */
        const char *where;
    } cases[] = {{"sequence_static", 1, NULL}, {"sequence_map", 1, NULL},      {"sequence_fed", 1, NULL},
                 {"shapes_fed", 1, NULL},      {"sequence_computed", 2, NULL}, {"loop_forms", 1000, "control"},
                 {"if_shapes", 1000, NULL}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        opened o = open_model(cases[i].name, NULL);
        hk_plan_info plan;
        bool found = !cases[i].where;
        run_set(&o, 0);
        OK(hk_session_get_plan(o.session, &plan));
        if (plan.segments > cases[i].segments)
            fail_msg("%s: %zu segments, expected at most %zu", cases[i].name, plan.segments, cases[i].segments);
        for (size_t k = 0; k < plan.row_count; k++) {
            found |= cases[i].where && !strcmp(plan.rows[k].where, cases[i].where);
            if (!strcmp(plan.rows[k].where, "host"))
                fail_msg("%s: node '%s' (%s) ran on the host", cases[i].name, plan.rows[k].node, plan.rows[k].op);
        }
        assert_true(found);
        close_model(&o);
    }
}

/* Shapes A, B, A: the same bits, and once every plan has been made no more memory, however long it goes on. */
static void shapes_come_and_go(void **state)
{
    (void)state;
    static const char *const those[] = {"shapes_fed", "sequence_fed", "if_shapes", "sequence_loop"};
    for (size_t i = 0; i < sizeof those / sizeof *those; i++) {
        opened o = open_model(those[i], NULL);
        hk_device_stats before, after;
        size_t count = 0;
        const hk_value_info *outputs = hk_model_outputs(o.model, &count);
        hk_tensor first = {0}, again = {0};
        int sets = count_sets(&o);
        run_set(&o, 0);
        OK(hk_session_read(o.session, outputs[0].name, &first));
        for (int set = 1; set < sets; set++)
            run_set(&o, set);
        hk_device_get_stats(dev, &before);
        for (int round = 0; round < 10; round++)
            for (int set = sets; set-- > 0;)
                run_set(&o, set);
        hk_device_get_stats(dev, &after);
        assert_int_equal(before.memory_bytes, after.memory_bytes);
        OK(hk_session_read(o.session, outputs[0].name, &again));
        assert_int_equal(hk_tensor_count(&first), hk_tensor_count(&again));
        assert_memory_equal(first.data, again.data, (size_t)hk_tensor_count(&first) * hk_dtype_bytes(first.dtype));
        hk_tensor_release(&first);
        hk_tensor_release(&again);
        close_model(&o);
    }
}

/* More sets of shapes than plans are kept: the oldest go, and their memory with them. */
static void plans_are_bounded(void **state)
{
    (void)state;
    opened o = open_model("shapes_fed", &(hk_session_params){.size = sizeof(hk_session_params), .max_plans = 2});
    uint64_t memory[3] = {0};
    float x[40] = {0};
    for (int i = 0; i < 40; i++)
        x[i] = (float)i - 7;
    for (int round = 0; round < 3; round++) {
        for (int64_t n = 4; n <= 40; n += 4) {
            int64_t shape[] = {-1, 2}, begin = n / 2, repeats = 2, k = n;
            hk_tensor y = {0};
            OK(hk_session_write(o.session, "x", &(hk_tensor){.data = x, .dtype = HK_FLOAT32, .rank = 1, .shape = {n}}));
            OK(hk_session_write(o.session, "shape",
                                &(hk_tensor){.data = shape, .dtype = HK_INT64, .rank = 1, .shape = {2}}));
            OK(hk_session_write(o.session, "begin",
                                &(hk_tensor){.data = &begin, .dtype = HK_INT64, .rank = 1, .shape = {1}}));
            OK(hk_session_write(o.session, "repeats",
                                &(hk_tensor){.data = &repeats, .dtype = HK_INT64, .rank = 1, .shape = {1}}));
            OK(hk_session_write(o.session, "k", &(hk_tensor){.data = &k, .dtype = HK_INT64}));
            OK(hk_session_run(o.session));
            OK(hk_session_read(o.session, "c", &y));
            assert_int_equal(y.shape[0], n - n / 2 + n - n / 2);
            for (int64_t i = 0; i < y.shape[0]; i++) {
                float from = x[n / 2 + i % (n - n / 2)];
                assert_true(((const float *)y.data)[i] == (from > 0 ? from : 0));
            }
            hk_tensor_release(&y);
        }
        hk_device_stats stats;
        hk_device_get_stats(dev, &stats);
        memory[round] = stats.memory_bytes;
    }
    assert_int_equal(memory[1], memory[2]);
    close_model(&o);
}

/* ---- values too large to pass through the host between bodies */

enum { LARGE_ROWS = 40, LARGE_COLUMNS = 50 };

/* Loop(trips; a, b, e): a becomes a c + b, b the old a, e grows by the old a or, if not grows, stays; c lies outside.
 * nested: a If on the parity of the iteration, whose branches use c too, makes a, so that the body is of two
 * recordings. */
static void write_loop(onnx_bytes *o, bool nested, bool grows)
{
    ob_model(o, 17);
    ob_open(o, 7);
    ob_value(o, 11, "trips", HK_INT64, "");
    ob_input(o, "x", "N,50");
    ob_input(o, "w", "N,50");
    ob_node(o, 1, "Sigmoid", "w", "c");
    ob_node(o, 1, "Neg", "x", "n");
    ob_node_open(o, 1, "Loop", "trips,,x,n,x", "a,b,e,rows");
    ob_attr_open(o, "body", 5);
    ob_open(o, 6);
    ob_text(o, 2, "body");
    ob_value(o, 11, "i", HK_INT64, "");
    ob_value(o, 11, "go", HK_BOOL, "");
    const char *const carried[] = {"ai", "bi", "ei"};
    for (int k = 0; k < 3; k++)
        ob_value(o, 11, carried[k], HK_FLOAT32, "M,50");
    ob_node(o, 1, "Mul", "ai,c", "p");
    if (nested) {
        ob_node_open(o, 1, "Cast", "i", "odd");
        ob_attr_int(o, "to", HK_BOOL);
        ob_close(o);
        ob_node_open(o, 1, "If", "odd", "ao");
        static const char *const branches[] = {"then_branch", "else_branch"};
        for (int k = 0; k < 2; k++) {
            ob_attr_open(o, branches[k], 5);
            ob_open(o, 6);
            ob_text(o, 2, branches[k]);
            ob_node(o, 1, k ? "Sub" : "Add", k ? "p,c" : "p,bi", "r");
            ob_value(o, 12, "r", HK_FLOAT32, "M,50");
            ob_close(o);
            ob_close(o);
        }
        ob_close(o);
    } else {
        ob_node(o, 1, "Add", "p,bi", "ao");
    }
    ob_node(o, 1, "Identity", "ai", "bo");
    ob_node_open(o, 1, grows ? "Concat" : "Identity", grows ? "ei,ai" : "ei", "eo");
    if (grows)
        ob_attr_int(o, "axis", 0);
    ob_close(o);
    ob_node(o, 1, "Identity", "go", "on");
    ob_node(o, 1, "Identity", "p", "row");
    ob_value(o, 12, "on", HK_BOOL, "");
    const char *const results[] = {"ao", "bo", "eo", "row"};
    for (int k = 0; k < 4; k++)
        ob_value(o, 12, results[k], HK_FLOAT32, "M,50");
    ob_close(o);
    ob_close(o);
    ob_close(o);
    ob_node(o, 1, "Add", "a,c", "y");
    ob_value(o, 12, "y", HK_FLOAT32, "A,50");
    ob_value(o, 12, "b", HK_FLOAT32, "B,50");
    ob_value(o, 12, "e", HK_FLOAT32, "E,50");
    ob_value(o, 12, "rows", HK_FLOAT32, "T,R,50");
    while (o->depth > 0)
        ob_close(o);
}

static void compare_with_host(hk_session *s, const hk_model *m, const hk_tensor *const *in)
{
    hk_graph *g = NULL;
    hk_tensor *want[4] = {NULL};
    OK(hk_graph_clone(hk_model_graph(m), &g));
    for (size_t i = 0; i < g->input_count; i++) {
        OK(hk_session_write(s, g->inputs[i]->name, in[i]));
        g->inputs[i]->shape = hk_tensor_shape(in[i]);
    }
    OK(hk_session_run(s));
    for (size_t i = 0; i < g->node_count; i++)
        OK(hk_node_infer(g, g->nodes[i]));
    OK(hk_host_run(g, g->arena, in, want, NULL));
    for (size_t i = 0; i < g->output_count; i++) {
        hk_tensor got = {0};
        OK(hk_session_read(s, g->outputs[i]->name, &got));
        double error = data_error(&got, want[i]);
        if (!(error <= bound))
            fail_msg("output '%s' after %lld iterations: relative error %.3g", g->outputs[i]->name,
                     (long long)*(const int64_t *)in[0]->data, error);
        hk_tensor_release(&got);
    }
    hk_graph_destroy(&g);
}

static void large_values(void **state)
{
    (void)state;
    static float x[LARGE_ROWS * LARGE_COLUMNS], w[LARGE_ROWS * LARGE_COLUMNS];
    for (int i = 0; i < LARGE_ROWS * LARGE_COLUMNS; i++) {
        x[i] = (float)(i * 37 % 101) / 50 - 1;
        w[i] = (float)(i * 53 % 89) / 20 - 2;
    }
    for (uint32_t form = 0; form < 8; form++) {
        onnx_bytes *o = calloc(1, sizeof *o);
        hk_model *m = NULL;
        hk_session *s = NULL;
        assert_non_null(o);
        write_loop(o, form & 1u, form & 2u);
        OK(hk_model_load_memory(ctx, o->data, o->count, NULL, &m));
        ob_free(o);
        free(o);
        const hk_session_params params = {.size = sizeof params,
                                          .max_plans = form / 4}; /* one: plans push others out */
        OK(hk_session_create(dev, m, &params, &s));
        static const struct {
            int64_t trips, rows;
        } runs[] = {{5, LARGE_ROWS}, {0, LARGE_ROWS}, {1, 10}, {4, LARGE_ROWS}, {3, 25}};
        for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
            int64_t trips = runs[i].trips;
            const hk_tensor n = {.data = &trips, .dtype = HK_INT64};
            const hk_tensor tx = {.data = x, .dtype = HK_FLOAT32, .rank = 2, .shape = {runs[i].rows, 50}};
            const hk_tensor tw = {.data = w, .dtype = HK_FLOAT32, .rank = 2, .shape = {runs[i].rows, 50}};
            compare_with_host(s, m, (const hk_tensor *[]){&n, &tx, &tw});
        }
        hk_session_destroy(&s);
        hk_model_destroy(&m);
    }
}

/* ---- what is refused */

static void expect_failure(opened *o, hk_status expected, const char *says)
{
    hk_status st = hk_session_run(o->session);
    if (st != expected || !strstr(hk_context_error(ctx), says))
        fail_msg("%s: %s '%s', expected %s with '%s'", o->folder, hk_status_text(st), hk_context_error(ctx),
                 hk_status_text(expected), says);
}

static void write_int(opened *o, const char *name, int64_t x)
{
    OK(hk_session_write(o->session, name, &(hk_tensor){.data = &x, .dtype = HK_INT64}));
}

static void refuses(void **state)
{
    (void)state;
    opened o = open_model("sequence_fed", NULL);
    run_set(&o, 0);
    write_int(&o, "at", 3);
    expect_failure(&o, HK_STATUS_INVALID, "position 3 in a sequence of 3");
    write_int(&o, "at", -4);
    expect_failure(&o, HK_STATUS_INVALID, "position -4");
    write_int(&o, "at", 0);
    write_int(&o, "where", 4);
    expect_failure(&o, HK_STATUS_INVALID, "expected -3 to 3");
    int64_t sizes[] = {1, 2, 4};
    OK(hk_session_write(o.session, "sizes", &(hk_tensor){.data = sizes, .dtype = HK_INT64, .rank = 1, .shape = {3}}));
    expect_failure(&o, HK_STATUS_INVALID, "entry 2 of split is 4");
    run_set(&o, 0); /* and goes on */
    close_model(&o);
}

static void loops_are_bounded(void **state)
{
    (void)state;
    opened o = open_model("loop_forms", &(hk_session_params){.size = sizeof(hk_session_params), .max_iterations = 5});
    run_set(&o, 0);
    write_int(&o, "trips", 6);
    expect_failure(&o, HK_STATUS_UNSUPPORTED, "does not end after 5 iterations");
    write_int(&o, "trips", 5);
    OK(hk_session_run(o.session));
    close_model(&o);
}

/* A small file cannot ask for lists without end. */
static void lists_are_bounded(void **state)
{
    (void)state;
    static const char *const says[] = {"splits into 5000 pieces, at most 4096", "in all lists of a graph"};
    for (size_t i = 0; i < 2; i++) {
        onnx_bytes *o = calloc(1, sizeof *o);
        char in[64], out[32];
        assert_non_null(o);
        ob_model(o, 17);
        ob_open(o, 7);
        ob_input(o, "x", "N");
        ob_node(o, 1, "SplitToSequence", "x", "s0");
        for (int k = 0; k < 90; k++) {
            snprintf(in, sizeof in, "s%d,x", k);
            snprintf(out, sizeof out, "s%d", k + 1);
            ob_node(o, 1, "SequenceInsert", in, out);
        }
        ob_node(o, 1, "SequenceLength", "s90", "n");
        ob_value(o, 12, "n", HK_INT64, "");
        while (o->depth > 0)
            ob_close(o);
        hk_model *m = NULL;
        hk_session *s = NULL;
        OK(hk_model_load_memory(ctx, o->data, o->count, NULL, &m));
        ob_free(o);
        free(o);
        OK(hk_session_create(dev, m, NULL, &s));
        static float x[5000];
        OK(hk_session_write(s, "x",
                            &(hk_tensor){.data = x, .dtype = HK_FLOAT32, .rank = 1, .shape = {i ? 4000 : 5000}}));
        assert_int_equal(hk_session_run(s), i ? HK_STATUS_UNSUPPORTED : HK_STATUS_INVALID);
        if (!strstr(hk_context_error(ctx), says[i]))
            fail_msg("'%s', expected '%s'", hk_context_error(ctx), says[i]);
        hk_session_destroy(&s);
        hk_model_destroy(&m);
    }
}

static void lists_are_checked(void **state)
{
    (void)state;
    opened o = open_model("sequence_io", NULL);
    size_t count = 0;
    const hk_value_info *inputs = hk_model_inputs(o.model, &count);
    assert_int_equal(inputs[0].dtype, HK_SEQUENCE);
    assert_int_equal(inputs[0].item, HK_FLOAT32);
    assert_int_equal(inputs[1].dtype, HK_OPTIONAL);
    float x[4] = {1, -2, 3, -4};
    int64_t k[4] = {0};
    hk_tensor items[] = {{.data = x, .dtype = HK_FLOAT32, .rank = 2, .shape = {2, 2}},
                         {.data = k, .dtype = HK_INT64, .rank = 2, .shape = {2, 2}}};
    hk_tensor list = {.data = items, .dtype = HK_SEQUENCE, .rank = 1, .shape = {2}};
    assert_int_equal(hk_session_write(o.session, "s", &list), HK_STATUS_USAGE);
    assert_non_null(strstr(hk_context_error(ctx), "item 1 is no usable float32"));
    assert_int_equal(hk_session_write(o.session, "s", &items[0]), HK_STATUS_USAGE);
    assert_int_equal(hk_session_write(o.session, "x", &list), HK_STATUS_USAGE);
    list.shape[0] = 1;
    OK(hk_session_write(o.session, "s", &list));
    OK(hk_session_write(o.session, "x", &(hk_tensor){.data = x, .dtype = HK_FLOAT32, .rank = 1, .shape = {4}}));
    OK(hk_session_run(o.session)); /* the optional was never written: it is empty */
    hk_tensor y = {0}, t = {0};
    OK(hk_session_read(o.session, "y", &y));
    assert_true(((const float *)y.data)[1] == 2);
    OK(hk_session_read(o.session, "t", &t));
    assert_int_equal(t.dtype, HK_SEQUENCE);
    assert_int_equal(t.shape[0], 1);
    assert_true(((const float *)((const hk_tensor *)t.data)->data)[3] == 16);
    hk_tensor_release(&y);
    hk_tensor_release(&t);
    close_model(&o);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(on_the_device),     cmocka_unit_test(on_the_host),        cmocka_unit_test(places),
        cmocka_unit_test(large_values),      cmocka_unit_test(shapes_come_and_go), cmocka_unit_test(plans_are_bounded),
        cmocka_unit_test(refuses),           cmocka_unit_test(loops_are_bounded),  cmocka_unit_test(lists_are_checked),
        cmocka_unit_test(lists_are_bounded),
    };
    return test_main(argc, argv, &(test_program){.name = "control", TESTS(tests)});
}
