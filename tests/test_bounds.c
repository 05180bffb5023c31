/*
 * Bytes → plan in bounded time and memory: files of about 1 MiB that aim at whatever is not linear in them, and small
 * ones that ask for more than there is.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/hostile.h"

enum { MIB = 1 << 20, ENOUGH = MIB - 4096 };

/* Builds the graph of a case into an open GraphProto with input x [2,3] and output y. */
typedef struct shape_of_graph {
    const char *name;
    void (*build)(onnx_bytes *b);
    const char *says; /* the problem that is expected; NULL: none */
} shape_of_graph;

/* A float of any shape: field 11 or 12 of a graph. */
static void any_shape(onnx_bytes *b, uint32_t number, const char *name)
{
    ob_open(b, number);
    ob_text(b, 1, name);
    ob_open(b, 2);
    ob_open(b, 1);
    ob_int(b, 1, HK_FLOAT32);
    ob_close(b);
    ob_close(b);
    ob_close(b);
}

static void begin(onnx_bytes *b)
{
    ob_model(b, 17);
    ob_open(b, 7);
    ob_text(b, 2, "bounds");
    ob_input(b, "x", "2,3");
    any_shape(b, 12, "y");
}

static const char *numbered(char text[24], const char *prefix, int i)
{
    snprintf(text, 24, "%s%x", prefix, (unsigned)i);
    return text;
}

static void ints(onnx_bytes *b, const char *name, const char *dims, const int64_t *x, size_t count)
{
    ob_tensor_open(b, 5, name, HK_INT64, dims);
    ob_blob(b, 9, x, count * sizeof *x);
    ob_close(b);
}

/* ---- long */

static void chain_of(onnx_bytes *b, const char *type, const char *more)
{
    char in[24], out[24], list[64];
    int i = 0;
    for (; b->count < ENOUGH; i++) {
        snprintf(list, sizeof list, "%s%s", i == 0 ? "x" : numbered(in, "n", i), more);
        ob_node(b, 1, type, list, numbered(out, "n", i + 1));
    }
    snprintf(list, sizeof list, "%s", numbered(in, "n", i));
    ob_node(b, 1, "Relu", list, "y");
}

static void pointwise_chain(onnx_bytes *b)
{
    chain_of(b, "Abs", "");
}

static void move_chain(onnx_bytes *b)
{
    chain_of(b, "Transpose", "");
}

static void product_chain(onnx_bytes *b)
{
    static const float w[9] = {1, 0, 0, 0, 1, 0, 0, 0, 1};
    ob_floats(b, 5, "w", "3,3", w, 9);
    chain_of(b, "MatMul", ",w");
}

static void view_chain(onnx_bytes *b)
{
    chain_of(b, "Identity", "");
}

/* h = h + relu(h): each step has two results. */
static void residual_chain(onnx_bytes *b)
{
    char h[24], r[24], next[24], list[64];
    int i = 0;
    ob_node(b, 1, "Relu", "x", "h0");
    for (; b->count < ENOUGH; i++) {
        ob_node(b, 1, "Relu", numbered(h, "h", i), numbered(r, "r", i));
        snprintf(list, sizeof list, "%s,%s", h, r);
        ob_node(b, 1, "Add", list, numbered(next, "h", i + 1));
    }
    ob_node(b, 1, "Relu", numbered(h, "h", i), "y");
}

static void product_and_activation(onnx_bytes *b)
{
    static const float w[9] = {1, 0, 0, 0, 1, 0, 0, 0, 1};
    char h[24], r[24], list[64];
    int i = 0;
    ob_floats(b, 5, "w", "3,3", w, 9);
    ob_node(b, 1, "Relu", "x", "h0");
    for (; b->count < ENOUGH; i++) {
        snprintf(list, sizeof list, "%s,w", numbered(h, "h", i));
        ob_node(b, 1, "MatMul", list, numbered(r, "r", i));
        ob_node(b, 1, "Relu", r, numbered(h, "h", i + 1));
    }
    ob_node(b, 1, "Relu", numbered(h, "h", i), "y");
}

/* ---- wide */

static void each_of(onnx_bytes *b, const char *type, const char *in, int count)
{
    char out[24];
    for (int i = 0; i < count; i++)
        ob_node(b, 1, type, in, numbered(out, "n", i));
}

static void open_joining(onnx_bytes *b, const char *type, int count, bool same)
{
    char in[24];
    ob_open(b, 1);
    for (int i = 0; i < count; i++)
        ob_text(b, 1, same ? "x" : numbered(in, "n", i));
    ob_text(b, 2, "y");
    ob_text(b, 4, type);
}

static void fan_and_concat(onnx_bytes *b)
{
    enum { COUNT = 30000 };
    each_of(b, "Relu", "x", COUNT);
    open_joining(b, "Concat", COUNT, false);
    ob_attr_int(b, "axis", 0);
    ob_close(b);
}

static void fan_and_sum(onnx_bytes *b)
{
    enum { COUNT = 30000 };
    each_of(b, "Transpose", "x", COUNT);
    open_joining(b, "Sum", COUNT, false);
    ob_close(b);
}

static void concat_of_one(onnx_bytes *b)
{
    open_joining(b, "Concat", 200000, true);
    ob_attr_int(b, "axis", 0);
    ob_close(b);
}

static void many_outputs(onnx_bytes *b)
{
    char name[24];
    ob_node(b, 1, "Relu", "x", "y");
    for (int i = 0; b->count < ENOUGH; i++) {
        ob_node(b, 1, "Transpose", "x", numbered(name, "n", i));
        any_shape(b, 12, name);
    }
}

static void many_inputs(onnx_bytes *b)
{
    char name[24], list[64];
    int i = 0;
    ob_node(b, 1, "Relu", "x", "s0");
    for (; b->count < ENOUGH; i++) {
        char in[24], out[24];
        ob_input(b, numbered(name, "i", i), "2,3");
        snprintf(list, sizeof list, "%s,%s", numbered(in, "s", i), name);
        ob_node(b, 1, "Add", list, numbered(out, "s", i + 1));
    }
    ob_node(b, 1, "Relu", numbered(name, "s", i), "y");
}

static void many_weights(onnx_bytes *b)
{
    static const float w[6] = {1, 2, 3, 4, 5, 6};
    char name[24], in[24], out[24], list[64];
    int i = 0;
    ob_node(b, 1, "Relu", "x", "s0");
    for (; b->count < ENOUGH; i++) {
        ob_floats(b, 5, numbered(name, "w", i), "2,3", w, 6);
        snprintf(list, sizeof list, "%s,%s", numbered(in, "s", i), name);
        ob_node(b, 1, "Add", list, numbered(out, "s", i + 1));
    }
    ob_node(b, 1, "Relu", numbered(name, "s", i), "y");
}

/* One value that every node uses, and that every node could take into its chain. */
static void shared_operand(onnx_bytes *b)
{
    char out[24];
    ob_node(b, 1, "Add", "x,x", "p");
    ob_node(b, 1, "Relu", "p", "y");
    for (int i = 0; b->count < ENOUGH; i++) {
        ob_node(b, 1, "Relu", "p", numbered(out, "n", i));
        any_shape(b, 12, out);
    }
}

static void split_in_many(onnx_bytes *b)
{
    char name[24];
    enum { COUNT = 50000 };
    ob_input(b, "wide", "50000,3");
    ob_open(b, 1);
    ob_text(b, 1, "wide");
    for (int i = 0; i < COUNT; i++)
        ob_text(b, 2, numbered(name, "n", i));
    ob_text(b, 4, "Split");
    ob_close(b);
    ob_node(b, 1, "Add", "n1,x", "y");
}

/* ---- deep */

static void known_branches(onnx_bytes *b)
{
    char h[24], next[24];
    int i = 0;
    ob_tensor_open(b, 5, "c", HK_BOOL, "");
    ob_blob(b, 9, "\1", 1);
    ob_close(b);
    ob_node(b, 1, "Relu", "x", "h0");
    for (; b->count < ENOUGH; i++) {
        ob_node_open(b, 1, "If", "c", numbered(next, "h", i + 1));
        for (int branch = 0; branch < 2; branch++) {
            ob_attr_open(b, branch == 0 ? "then_branch" : "else_branch", 5);
            ob_open(b, 6);
            any_shape(b, 12, "o");
            ob_node(b, 1, branch == 0 ? "Relu" : "Abs", numbered(h, "h", i), "o");
            ob_close(b);
            ob_close(b);
        }
        ob_close(b);
    }
    ob_node(b, 1, "Relu", numbered(h, "h", i), "y");
}

static void branches_in_branches(onnx_bytes *b)
{
    ob_tensor_open(b, 5, "c", HK_BOOL, "");
    ob_blob(b, 9, "\1", 1);
    ob_close(b);
    int open = 0;
    for (; open < 19; open++) {
        char name[24];
        for (int k = 0; k < 1500; k++)
            ob_node(b, 1, "Relu", "x", numbered(name, "r", open * 1500 + k));
        ob_node_open(b, 1, "If", "c", open == 0 ? "y" : "o");
        ob_attr_open(b, "else_branch", 5);
        ob_open(b, 6);
        any_shape(b, 12, "o");
        ob_node(b, 1, "Relu", "x", "o");
        ob_close(b);
        ob_close(b);
        ob_attr_open(b, "then_branch", 5);
        ob_open(b, 6);
        any_shape(b, 12, "o");
    }
    ob_node(b, 1, "Relu", "x", "o");
    for (; open > 0; open--) {
        ob_close(b);
        ob_close(b);
        ob_close(b);
    }
}

enum { LEVELS = 17 };

static const char *list_of(char text[512], const char *begin, const char *prefix)
{
    size_t used = (size_t)snprintf(text, 512, "%s", begin);
    for (int k = 0; k < LEVELS; k++)
        used += (size_t)snprintf(text + used, 512 - used, "%s%s%d", used ? "," : "", prefix, k);
    return text;
}

/* Each loop changes the shape of one of the values that all carry, so each looks at its body twice, and the innermost
 * body would be looked at 2^17 times. */
static void loops_that_change_shapes(onnx_bytes *b)
{
    char name[64], in[512], out[512];
    ob_value(b, 11, "n", HK_INT64, "");
    ob_value(b, 11, "c", HK_BOOL, "");
    for (int i = 0; i < LEVELS; i++) {
        snprintf(name, sizeof name, "v%d", i);
        ob_node(b, 1, "Relu", "x", name);
    }
    for (int i = 0; i < LEVELS; i++) {
        if (i == 0)
            ob_node(b, 1, "Relu", "x", "y");
        ob_node_open(b, 1, "Loop", list_of(in, "n,c", "v"), list_of(out, "", "w"));
        ob_attr_open(b, "body", 5);
        ob_open(b, 6);
        ob_value(b, 11, "i", HK_INT64, "");
        ob_value(b, 11, "in", HK_BOOL, "");
        ob_value(b, 12, "go", HK_BOOL, "");
        ob_node(b, 1, "Identity", "in", "go");
        for (int k = 0; k < LEVELS; k++) {
            char v[24], o[24];
            snprintf(v, sizeof v, "v%d", k);
            snprintf(o, sizeof o, "o%d", k);
            any_shape(b, 11, v);
            any_shape(b, 12, o);
            snprintf(name, sizeof name, "%s,%s", v, v);
            ob_node_open(b, 1, k == i ? "Concat" : "Identity", k == i ? name : v, o);
            if (k == i)
                ob_attr_int(b, "axis", 0);
            ob_close(b);
        }
    }
    for (int i = 0; i < LEVELS; i++) {
        ob_close(b);
        ob_close(b);
        ob_close(b);
    }
}

/* ---- folding */

static void fold_products(onnx_bytes *b)
{
    const int64_t shape[2] = {256, 256};
    char out[24];
    ints(b, "s", "2", shape, 2);
    ob_node(b, 1, "ConstantOfShape", "s", "m");
    ob_node(b, 1, "MatMul", "m,m", "n0");
    for (int i = 0; i < 5000; i++) {
        char in[24], list[64];
        snprintf(list, sizeof list, "%s,m", numbered(in, "n", i));
        ob_node(b, 1, "MatMul", list, numbered(out, "n", i + 1));
    }
    ob_node(b, 1, "Relu", out, "y");
}

static void fold_large_results(onnx_bytes *b)
{
    const int64_t shape[1] = {65536};
    char name[24], out[24], list[64];
    int i = 0;
    ints(b, "s", "1", shape, 1);
    ob_node(b, 1, "ConstantOfShape", "s", "n0");
    for (; b->count < ENOUGH; i++) {
        snprintf(list, sizeof list, "%s,n0", numbered(name, "n", i));
        ob_node(b, 1, "Add", list, numbered(out, "n", i + 1));
    }
    ob_node(b, 1, "Relu", out, "y");
}

/* ---- sizes */

static void ask(onnx_bytes *b, const char *type, const char *inputs, const char *name, const int64_t *x, size_t count)
{
    char dims[8];
    snprintf(dims, sizeof dims, "%zu", count);
    ints(b, name, dims, x, count);
    ob_node(b, 1, type, inputs, "y");
}

static void huge_constant(onnx_bytes *b)
{
    ask(b, "ConstantOfShape", "s", "s", (const int64_t[]){1 << 30, 1 << 30, 4}, 3);
}

static void huge_expand(onnx_bytes *b)
{
    ask(b, "Expand", "x,s", "s", (const int64_t[]){(int64_t)1 << 61, 2, 3}, 3);
}

static void huge_tile(onnx_bytes *b)
{
    ask(b, "Tile", "x,s", "s", (const int64_t[]){(int64_t)1 << 60, (int64_t)1 << 60}, 2);
}

static void huge_pad(onnx_bytes *b)
{
    ask(b, "Pad", "x,s", "s", (const int64_t[]){(int64_t)1 << 62, 0, (int64_t)1 << 62, 0}, 4);
}

static void huge_range(onnx_bytes *b)
{
    const int64_t zero = 0, one = 1, end = (int64_t)1 << 62;
    ints(b, "zero", "", &zero, 1);
    ints(b, "one", "", &one, 1);
    ints(b, "end", "", &end, 1);
    ob_node(b, 1, "Range", "zero,end,one", "y");
}

static void huge_resize(onnx_bytes *b)
{
    ints(b, "s", "2", (const int64_t[]){(int64_t)1 << 62, 3}, 2);
    ob_node(b, 1, "Resize", "x,,,s", "y");
}

static void huge_one_hot(onnx_bytes *b)
{
    static const float values[2] = {0, 1};
    const int64_t depth = (int64_t)1 << 62, index[2] = {0, 1};
    ints(b, "d", "", &depth, 1);
    ints(b, "i", "2", index, 2);
    ob_floats(b, 5, "v", "2", values, 2);
    ob_node(b, 1, "OneHot", "i,d,v", "y");
}

static const shape_of_graph graphs[] = {
    {"a chain of elementwise nodes", pointwise_chain, NULL},
    {"a chain of transposes", move_chain, NULL},
    {"a chain of products", product_chain, NULL},
    {"a chain of views", view_chain, NULL},
    {"residual sums", residual_chain, NULL},
    {"products with activations", product_and_activation, NULL},
    {"a fan into one Concat", fan_and_concat, NULL},
    {"a fan into one Sum", fan_and_sum, NULL},
    {"one value joined 200,000 times", concat_of_one, NULL},
    {"many outputs", many_outputs, NULL},
    {"many inputs", many_inputs, NULL},
    {"many weights", many_weights, NULL},
    {"an operand that all share", shared_operand, NULL},
    {"a split in 50,000", split_in_many, "expected 1 to 4096"},
    {"branches with known conditions", known_branches, NULL},
    {"branches in branches", branches_in_branches, NULL},
    {"loops that change shapes", loops_that_change_shapes, "finding shapes takes too long"},
    {"folding products", fold_products, NULL},
    {"folding large results", fold_large_results, NULL},
    {"ConstantOfShape 2^62", huge_constant, "2^31 - 1"},
    {"Expand to 2^62", huge_expand, "2^31 - 1"},
    {"Tile to 2^122", huge_tile, ""},
    {"Pad to 2^63", huge_pad, ""},
    {"Range to 2^62", huge_range, "2^31 - 1"},
    {"Resize to 2^62", huge_resize, "size from 0 to 2^31"},
    {"OneHot to 2^62", huge_one_hot, "2^31 - 1"},
};

static void test_graphs(void **state)
{
    (void)state;
    const char *only = getenv("HILLOCK_TEST_CASE");
    onnx_bytes *b = calloc(1, sizeof *b);
    bool kept = true;
    assert_non_null(b);
    for (size_t i = 0; i < HK_COUNT(graphs); i++) {
        const shape_of_graph *g = &graphs[i];
        hostile_load h;
        char text[160];
        if (only != NULL && strstr(g->name, only) == NULL)
            continue;
        b->count = 0;
        begin(b);
        g->build(b);
        ob_close(b);
        assert_true(b->count < MIB);
        hostile_open(&h, NULL, b->data, b->count);
        const char *broken = hostile_bounds(&h, b->count, text);
        bool expected = g->says == NULL ? h.status == HK_OK && h.problems == 0
                                        : (h.status != HK_OK || h.problems != 0) && strstr(h.error, g->says) != NULL;
        print_message("%-34s %5.2f s %4zu MiB %6zu nodes: %s\n", g->name, h.seconds, h.peak_bytes / MIB, h.nodes,
                      broken != NULL ? broken : h.error);
        kept = kept && broken == NULL && expected;
    }
    ob_free(b);
    free(b);
    assert_true(kept);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_graphs)};
    return cmocka_run_group_tests_name("bounds", tests, NULL, NULL);
}
