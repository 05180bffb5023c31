/*
 * The importer: graphs inside graphs, the bodies of nodes and local functions, and refused ones.
 */
#include "tests/support/importer_bench.h"

/* ---- bodies */

/* If x[0] decides between a branch that uses a value around it and one that hands one on. */
static void write_if(bench *b, const char *captured)
{
    const char *branches[] = {"then_branch", "else_branch"};
    ob_model(&b->o, 17);
    ob_open(&b->o, 7);
    ob_value(&b->o, 11, "cond", HK_BOOL, "");
    ob_input(&b->o, "x", "2,3");
    ob_output(&b->o, "y", "2,3");
    ob_node_open(&b->o, 1, "If", "cond", "y");
    for (int i = 1; i >= 0; i--) { /* in the other order than the operator's table */
        ob_attr_open(&b->o, branches[i], 5);
        ob_open(&b->o, 6);
        ob_text(&b->o, 2, branches[i]);
        if (i == 0) {
            ob_node(&b->o, 1, "Relu", captured, "out");
            ob_output(&b->o, "out", "2,3");
        } else {
            ob_output(&b->o, captured, "2,3");
        }
        ob_close(&b->o);
        ob_close(&b->o);
    }
    ob_close(&b->o);
    ob_node(&b->o, 1, "Relu", "x", "r");
}

static void test_bodies(void **state)
{
    bench *b = *state;
    write_if(b, "r"); /* its producer stands behind the If */
    import_bytes(b);
    assert_ok(b);
    const hk_graph *g = b->r->graph;
    assert_int_equal(g->node_count, 2);
    assert_string_equal(g->nodes[0]->type, "Relu");
    const hk_node *n = g->nodes[1];
    assert_int_equal(n->body_count, 2);
    assert_string_equal(n->bodies[0]->name, "then_branch");
    assert_ptr_equal(n->bodies[0]->nodes[0]->in[0], value(b, "r"));
    assert_string_equal(n->bodies[1]->nodes[0]->type, "Identity");
    assert_ptr_equal(n->bodies[1]->outputs[0]->graph, n->bodies[1]);
    restart(b);
    write_if(b, "y"); /* its own output */
    import_bytes(b);
    assert_fails(b, HK_STATUS_INVALID, "cycle");
}

/* ---- functions */

/* Opens function d.name with inputs, outputs and one attribute "alpha". */
static void open_function(bench *b, const char *name, const char *overload, const char *inputs, const char *outputs)
{
    ob_open(&b->o, 25);
    ob_text(&b->o, 1, name);
    ob_text(&b->o, 10, "d");
    ob_text(&b->o, 13, overload);
    ob_opset(&b->o, 9, "", 17);
    ob_opset(&b->o, 9, "d", 1);
    char item[2] = "";
    for (; *inputs != '\0'; inputs++)
        ob_text(&b->o, 4, (item[0] = *inputs, item));
    for (; *outputs != '\0'; outputs++)
        ob_text(&b->o, 5, (item[0] = *outputs, item));
}

static void call_open(bench *b, uint32_t number, const char *name, const char *overload, const char *inputs,
                      const char *outputs)
{
    ob_node_open(&b->o, number, name, inputs, outputs);
    ob_text(&b->o, 7, "d");
    ob_text(&b->o, 8, overload);
}

static void test_functions(void **state)
{
    bench *b = *state;
    /* F(a, c) = LeakyRelu(a, alpha = @alpha, default 0.5), a; F:two(a) = F(F(a)) with its own alpha handed on. */
    open_function(b, "F", "", "ac", "ba");
    ob_open(&b->o, 11);
    ob_text(&b->o, 1, "alpha");
    ob_int(&b->o, 20, 1);
    ob_float(&b->o, 2, 0.5f);
    ob_close(&b->o);
    ob_node_open(&b->o, 7, "LeakyRelu", "a", "b");
    ob_attr_ref(&b->o, "alpha", "alpha", 1);
    ob_close(&b->o);
    ob_close(&b->o);
    open_function(b, "F", "two", "a", "c");
    ob_text(&b->o, 6, "beta");
    call_open(b, 7, "F", "", "a", "b,");
    ob_attr_ref(&b->o, "alpha", "beta", 1);
    ob_close(&b->o);
    call_open(b, 7, "F", "", "b", "c,d");
    ob_attr_ref(&b->o, "alpha", "missing", 1);
    ob_close(&b->o);
    ob_close(&b->o);
    ob_opset(&b->o, 8, "d", 1);
    ob_small(&b->o);
    call_open(b, 1, "F", "two", "y", "z");
    ob_text(&b->o, 3, "call");
    ob_attr_open(&b->o, "beta", 1);
    ob_float(&b->o, 2, 0.25f);
    ob_close(&b->o);
    ob_close(&b->o);
    ob_output(&b->o, "z", "2,3");
    import_bytes(b);
    assert_ok(b);
    const hk_graph *g = b->r->graph;
    assert_int_equal(g->node_count, 4); /* Relu, two LeakyRelu, the copy of b to d */
    assert_string_equal(value(b, "z")->producer->type, "LeakyRelu");
    const hk_node *second = value(b, "z")->producer, *first = second->in[0]->producer;
    assert_float_equal(*(const float *)((const char *)first->attrs + first->op->attrs[0].offset), 0.25f, 0);
    assert_float_equal(*(const float *)((const char *)second->attrs + second->op->attrs[0].offset), 0.5f, 0);
    assert_string_equal(first->out[0]->name, "call/b");
    assert_int_equal(b->r->problem_count, 0);
}

static void test_functions_refused(void **state)
{
    bench *b = *state;
    for (int kind = 0; kind < 6; kind++) {
        restart(b);
        const char *inner = kind == 0 ? "F" : kind == 1 ? "G" : "Relu";
        open_function(b, "F", "", "a", "b");
        if (kind < 2)
            call_open(b, 7, inner, "", "a", "b");
        else
            ob_node_open(&b->o, 7, "Relu", kind == 2 ? "x" : "a", kind == 3 ? "q" : "b");
        ob_close(&b->o);
        ob_close(&b->o);
        open_function(b, kind == 4 ? "F" : "G", "", "a", "b");
        call_open(b, 7, "F", "", "a", "b");
        ob_close(&b->o);
        ob_close(&b->o);
        ob_opset(&b->o, 8, "d", 1);
        ob_small(&b->o);
        call_open(b, 1, "F", "", kind == 5 ? "x,x" : "x", "z");
        ob_close(&b->o);
        import_bytes(b);
        const char *says[] = {"'F' calls itself",
                              "calls itself",
                              "'x' is not defined", /* a function does not see around it */
                              "output 'b' is not defined",
                              "'F' is defined twice",
                              "has 2 inputs"};
        assert_fails(b, HK_STATUS_INVALID, says[kind]);
    }
    /* Each of 24 functions calls the next 4 times: 4^24 nodes. */
    restart(b);
    for (int i = 0; i < 24; i++) {
        char name[8], next[8];
        snprintf(name, sizeof name, "F%d", i);
        snprintf(next, sizeof next, "F%d", i + 1);
        open_function(b, name, "", "a", "e");
        const char *chain[] = {"a", "b", "c", "d", "e"};
        for (int k = 0; k < 4; k++) {
            if (i < 23)
                call_open(b, 7, next, "", chain[k], chain[k + 1]);
            else
                ob_node_open(&b->o, 7, "Relu", chain[k], chain[k + 1]);
            ob_close(&b->o);
        }
        ob_close(&b->o);
    }
    ob_opset(&b->o, 8, "d", 1);
    ob_small(&b->o);
    call_open(b, 1, "F0", "", "x", "z");
    import_bytes(b);
    assert_fails(b, HK_STATUS_UNSUPPORTED, "functions grow too much");
    assert_true(b->memory.peak < (size_t)256 << 20);
    assert_true(b->seconds < 1.0 * SLOWER);
}

/* An argument is a pattern of test names to run. */
int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_bodies, start, stop),
        cmocka_unit_test_setup_teardown(test_functions, start, stop),
        cmocka_unit_test_setup_teardown(test_functions_refused, start, stop),
    };
    return cmocka_run_group_tests_name("import functions", tests, NULL, NULL);
}
