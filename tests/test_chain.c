/*
 * Chains of elementwise operators: fused graphs compute what unfused ones do, to the last bit on the host; the pass
 * merges what it should, keeps outputs and makes no cycles; and the kernel reads views and broadcasts where one node's
 * cases cannot reach.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ops/pointwise.h"
#include "runtime/cases.h"
#include "runtime/fuse_chain.h"
#include "runtime/host.h"
#include "runtime/objects.h"
#include "runtime/passes.h"
#include "tests/support/device.h"
#include "tests/support/program.h"
#include "tests/support/records.h"
#include "train/gradient.h"

enum { MAX_FEEDS = 8, MAX_OUTPUTS = 8, MAX_POOL = 64 };

#define SHAPE(...) (&(hk_shape){.rank = sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), .dim = {__VA_ARGS__}})

/* ---- a graph and contents for its inputs */

typedef struct problem {
    hk_arena *arena;
    hk_graph *g;
    const hk_tensor *feeds[MAX_FEEDS];
    case_random random;
} problem;

static problem begin(uint64_t seed)
{
    problem p = {.arena = hk_arena_create(ctx), .random = {.state = seed * 0x9e3779b97f4a7c15u + 1}};
    assert_non_null(p.arena);
    OK(hk_graph_create(ctx, "test", &p.g));
    return p;
}

static void end(problem *p)
{
    hk_graph_destroy(&p->g);
    hk_arena_destroy(&p->arena);
}

static hk_value *input(problem *p, hk_dtype dtype, const hk_shape *shape)
{
    hk_value *v = hk_graph_value(p->g, "x", HK_VALUE_INPUT, dtype, shape);
    hk_tensor *t = hk_tensor_new(p->arena, dtype, shape);
    assert_true(v && t && p->g->input_count < MAX_FEEDS);
    for (int64_t i = 0; i < hk_tensor_count(t); i++)
        hk_set_double(t, i, dtype == HK_FLOAT32 ? case_normal(&p->random) : floor(9 * case_uniform(&p->random)) - 4);
    p->feeds[p->g->input_count] = t;
    assert_true(hk_graph_add_input(p->g, v));
    return v;
}

static hk_value *build(problem *p, const char *type, const hk_attr_value *attrs, hk_value *a, hk_value *b, hk_value *c)
{
    hk_value *in[3] = {a, b, c}, *out = NULL;
    OK(hk_build(p->g, type, attrs, in, c ? 3 : b ? 2 : 1, &out, 1));
    return out;
}

static void output(problem *p, hk_value *v)
{
    for (size_t i = 0; i < p->g->output_count; i++)
        if (p->g->outputs[i] == v)
            return;
    assert_true(p->g->output_count < MAX_OUTPUTS && hk_graph_add_output(p->g, v));
}

static size_t count_nodes(const hk_graph *g, const char *type)
{
    size_t count = 0;
    for (size_t i = 0; i < g->node_count; i++)
        count += !type || !strcmp(g->nodes[i]->type, type);
    return count;
}

/* Every node's inputs are defined before it, every output once, by the node that says so. */
static void check_ssa(hk_graph *g)
{
    OK(hk_graph_sort(g));
    for (size_t i = 0; i < g->node_count; i++)
        for (int32_t k = 0; k < g->nodes[i]->in_count; k++) {
            const hk_value *v = g->nodes[i]->in[k];
            assert_true(!v || !v->producer || v->producer->id < i);
            assert_true(!v || v->kind != HK_VALUE_ACTIVATION || v->producer);
        }
    for (size_t i = 0; i < g->value_count; i++) {
        const hk_node *n = g->values[i]->producer;
        bool listed = !n;
        for (int32_t k = 0; n && k < n->out_count; k++)
            listed |= n->out[k] == g->values[i];
        assert_true(listed);
    }
}

/* ---- comparing */

static bool same_bits(const hk_tensor *a, const hk_tensor *b)
{
    assert_int_equal(a->dtype, b->dtype);
    assert_int_equal(hk_tensor_count(a), hk_tensor_count(b));
    for (int64_t i = 0; i < hk_tensor_count(a); i++) {
        double x = hk_get_double(a, i), y = hk_get_double(b, i);
        if (x != y && !(isnan(x) && isnan(y)))
            return false;
    }
    return true;
}

static double distance(const hk_tensor *a, const hk_tensor *b)
{
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < hk_tensor_count(a); i++) {
        double x = hk_get_double(a, i), y = hk_get_double(b, i);
        difference += (x - y) * (x - y);
        norm += y * y;
    }
    return sqrt(difference) / (norm > 0 ? sqrt(norm) : 1);
}

/* Host and device runs of the fused graph against the host's of the unfused one. */
static void check_fused(problem *p, size_t nodes_at_most)
{
    hk_tensor *before[MAX_OUTPUTS], *after[MAX_OUTPUTS];
    const char *names[MAX_OUTPUTS];
    for (size_t i = 0; i < p->g->output_count; i++)
        names[i] = p->g->outputs[i]->name;
    OK(hk_host_run(p->g, p->arena, p->feeds, before, NULL));
    OK(hk_fuse_chains(p->g));
    check_ssa(p->g);
    assert_true(count_nodes(p->g, NULL) <= nodes_at_most);
    OK(hk_host_run(p->g, p->arena, p->feeds, after, NULL));
    for (size_t i = 0; i < p->g->output_count; i++) {
        assert_string_equal(p->g->outputs[i]->name, names[i]);
        if (!same_bits(after[i], before[i]))
            fail_msg("output %zu: %.3g between fused and unfused", i, distance(after[i], before[i]));
    }
    if (!dev)
        return;
    OK(hk_test_run_graph(dev, p->g, p->feeds, after, p->arena));
    for (size_t i = 0; i < p->g->output_count; i++) {
        bool exact = !hk_dtype_is_float(after[i]->dtype);
        if (exact ? !same_bits(after[i], before[i]) : !(distance(after[i], before[i]) < 2e-6))
            fail_msg("output %zu: %.3g between device and host", i, distance(after[i], before[i]));
    }
}

/* ---- the table */

static void test_every_row_is_encoded(void **state)
{
    (void)state;
    size_t rows = 0;
    const hk_op *op;
    for (size_t i = 0; (op = hk_op_at(i)); i++)
        if (op->flags & HK_OP_POINTWISE) {
            rows++;
            assert_true(hk_pointwise_types_of(&(hk_node){.op = op}).takes);
        }
    assert_true(rows > 60);
}

static void test_programs_survive_encoding(void **state)
{
    (void)state;
    hk_chain_build b = {0};
    hk_value x = {.dtype = HK_FLOAT32}, y = {.dtype = HK_INT64};
    uint8_t rx = hk_chain_input(&b, &x), ry = hk_chain_input(&b, &y), half = hk_chain_immediate(&b, HK_FLOAT32, 0.1);
    uint8_t f = hk_chain_add(&b, HK_CHAIN_TO_FLOAT, HK_CLASS_LONG, ry, 0, 0);
    uint8_t z = hk_chain_add(&b, HK_CHAIN_CLIP, HK_CLASS_FLOAT, rx, half, f);
    hk_chain_output(&b, z, HK_FLOAT32);
    int64_t words[HK_CHAIN_WORDS];
    hk_ints list = {words, hk_chain_encode(&b.chain, words)};
    hk_chain c;
    assert_true(hk_chain_decode(list, &c));
    assert_memory_equal(c.step, b.chain.step, sizeof c.step);
    assert_true(c.immediate[0].f == 0.1 && c.in_dtype[1] == HK_INT64 && c.out[0] == z);
    list.count--; /* too short, and then a register that no step has written */
    assert_false(hk_chain_decode(list, &c));
    list.count++;
    words[list.count - 2] = z + 1;
    assert_false(hk_chain_decode(list, &c));
}

/* ---- the pass */

static void test_line(void **state)
{
    (void)state;
    problem p = begin(1);
    hk_value *x = input(&p, HK_FLOAT32, SHAPE(3, 5, 7)), *bias = input(&p, HK_FLOAT32, SHAPE(5, 1));
    hk_value *y = build(&p, "Add", NULL, x, bias, NULL);
    y = build(&p, "Mul", NULL, y, hk_graph_scalar(p.g, HK_FLOAT32, 0.125), NULL);
    y = build(&p, "Gelu", NULL, y, NULL, NULL);
    y = build(&p, "Sub", NULL, y, x, NULL);
    output(&p, y);
    check_fused(&p, 1);
    assert_string_equal(p.g->nodes[0]->type, "hk.Chain");
    assert_int_equal(p.g->nodes[0]->in_count, 2); /* the scalar became an immediate */
    assert_non_null(strchr(p.g->nodes[0]->name, '+'));
    end(&p);
}

/* An inverted bottleneck with squeeze-and-excitation: every gate goes into the convolution before it, the scale into
 * the one behind it, and of two convolutions that are added the later takes the sum. */
static void test_convolutions_take_their_neighbours(void **state)
{
    (void)state;
    problem p = begin(14);
    hk_tensor *before[1], *after[1];
    const hk_attr_value depthwise[] = {HK_SET_INTS("pads", ((int64_t[]){1, 1, 1, 1}), 4), HK_SET_INT("group", 12), {0}};
    const hk_attr_value sixth[] = {HK_SET_FLOAT("alpha", 1.0f / 6.0f), HK_SET_FLOAT("beta", 0.5f), {0}};
    hk_value *x = input(&p, HK_FLOAT32, SHAPE(2, 10, 6, 6)), *w = input(&p, HK_FLOAT32, SHAPE(12, 10, 1, 1));
    hk_value *dw = input(&p, HK_FLOAT32, SHAPE(12, 1, 3, 3)), *se = input(&p, HK_FLOAT32, SHAPE(12, 12, 1, 1));
    hk_value *y = build(&p, "Conv", NULL, x, w, NULL);
    y = build(&p, "Mul", NULL, y, build(&p, "Sigmoid", NULL, y, NULL, NULL), NULL);
    y = build(&p, "Conv", depthwise, y, dw, NULL);
    y = build(&p, "Mul", NULL, build(&p, "HardSigmoid", sixth, y, NULL, NULL), y, NULL);
    hk_value *s = build(&p, "Conv", NULL, build(&p, "GlobalAveragePool", NULL, y, NULL, NULL), se, NULL);
    y = build(&p, "Mul", NULL, y, build(&p, "Sigmoid", NULL, s, NULL, NULL), NULL);
    y = build(&p, "Conv", NULL, y, se, NULL);
    y = build(&p, "Add", NULL, y, build(&p, "Conv", NULL, x, w, NULL), NULL);
    output(&p, build(&p, "Relu", NULL, y, NULL, NULL));
    OK(hk_host_run(p.g, p.arena, p.feeds, before, NULL));
    OK(hk_fuse_epilogues(p.g));
    check_ssa(p.g);
    assert_int_equal(count_nodes(p.g, "hk.Conv"), 5);
    assert_int_equal(count_nodes(p.g, "GlobalAveragePool"), 1);
    assert_true(count_nodes(p.g, NULL) <= 7); /* the last convolution may stay a Conv */
    OK(hk_host_run(p.g, p.arena, p.feeds, after, NULL));
    assert_true(distance(after[0], before[0]) < 1e-6);
    if (dev) {
        OK(hk_test_run_graph(dev, p.g, p.feeds, after, p.arena));
        assert_true(distance(after[0], before[0]) < 2e-6);
    }
    end(&p);
}

/* A value that is used again becomes a second result. */
static void test_second_result(void **state)
{
    (void)state;
    problem p = begin(2);
    hk_value *a = input(&p, HK_FLOAT32, SHAPE(4, 9)), *b = input(&p, HK_FLOAT32, SHAPE(4, 9));
    hk_value *sum = build(&p, "Add", NULL, a, b, NULL);
    output(&p, build(&p, "Relu", NULL, sum, NULL, NULL));
    output(&p, build(&p, "Softmax", NULL, sum, NULL, NULL));
    check_fused(&p, 2);
    assert_int_equal(count_nodes(p.g, "hk.Chain"), 1);
    end(&p);
}

/* relu → softmax → add(relu): taking relu into the add's chain as a second result would make a cycle. */
static void test_no_cycle(void **state)
{
    (void)state;
    problem p = begin(3);
    hk_value *x = input(&p, HK_FLOAT32, SHAPE(4, 9));
    hk_value *e = build(&p, "Exp", NULL, x, NULL, NULL), *s = build(&p, "Softmax", NULL, e, NULL, NULL);
    output(&p, build(&p, "Add", NULL, e, s, NULL));
    check_fused(&p, 3);
    assert_int_equal(count_nodes(p.g, "hk.Chain"), 0);
    end(&p);
}

/* Two groups, each with a second result that the other uses: each alone makes no cycle, both together would. */
static void test_no_cycle_between_groups(void **state)
{
    (void)state;
    problem p = begin(4);
    hk_value *x = input(&p, HK_FLOAT32, SHAPE(4, 9)), *y = input(&p, HK_FLOAT32, SHAPE(4, 9));
    hk_value *a = build(&p, "Exp", NULL, x, NULL, NULL), *b = build(&p, "Tanh", NULL, y, NULL, NULL);
    hk_value *sa = build(&p, "Softmax", NULL, a, NULL, NULL), *sb = build(&p, "Softmax", NULL, b, NULL, NULL);
    output(&p, build(&p, "Add", NULL, a, sb, NULL));
    output(&p, build(&p, "Mul", NULL, b, sa, NULL));
    check_fused(&p, 6);
    end(&p);
}

/* A comparison of a small operand is computed again for each of its users instead of being stored. */
static void test_recompute(void **state)
{
    (void)state;
    problem p = begin(5);
    hk_value *x = input(&p, HK_FLOAT32, SHAPE(4, 9)), *mask = input(&p, HK_INT64, SHAPE(1, 9));
    hk_value *keep = build(&p, "Equal", NULL, mask, hk_graph_scalar(p.g, HK_INT64, 1), NULL);
    hk_value *low = hk_graph_scalar(p.g, HK_FLOAT32, -1e4);
    hk_value *y = build(&p, "Softmax", NULL, build(&p, "Where", NULL, keep, x, low), NULL, NULL);
    output(&p, build(&p, "Where", NULL, keep, y, low));
    check_fused(&p, 3);
    assert_int_equal(count_nodes(p.g, "Equal"), 0);
    end(&p);
}

/* Neg is computed again for the first sum, but has no room in the second chain and stays: then what it reads stays too.
 */
static void test_copied_node_stays(void **state)
{
    (void)state;
    problem p = begin(10);
    hk_value *x = input(&p, HK_FLOAT32, SHAPE(1, 9)), *y = input(&p, HK_FLOAT32, SHAPE(4, 9));
    hk_value *neg = build(&p, "Neg", NULL, build(&p, "Exp", NULL, x, NULL, NULL), NULL, NULL);
    hk_value *sum = build(&p, "Add", NULL, neg, y, NULL), *other = build(&p, "Sub", NULL, neg, y, NULL);
    for (int i = 0; i < CHAIN_STEPS - 1; i++)
        sum = build(&p, "Abs", NULL, sum, NULL, NULL);
    output(&p, sum);
    output(&p, other);
    check_fused(&p, 4);
    end(&p);
}

/* A constant with more dimensions than the rest decides the result's rank: it must stay an operand. */
static void test_constant_gives_rank(void **state)
{
    (void)state;
    problem p = begin(6);
    hk_value *x = input(&p, HK_FLOAT32, SHAPE(5));
    hk_tensor *one = hk_tensor_new(p.g->arena, HK_FLOAT32, SHAPE(1, 1, 1));
    assert_non_null(one);
    hk_set_double(one, 0, 3);
    hk_value *y = build(&p, "Neg", NULL, build(&p, "Mul", NULL, x, hk_graph_constant(p.g, "one", one), NULL), NULL,
                        NULL);
    output(&p, y);
    check_fused(&p, 1);
    assert_int_equal(p.g->outputs[0]->shape.rank, 3);
    end(&p);
}

/* ---- random graphs. Functions that decide (comparisons, conversions to integers) take graph inputs, so that rounding
 * on the device cannot turn a decision. */

static uint32_t pick(problem *p, uint32_t n)
{
    uint32_t k = (uint32_t)(case_uniform(&p->random) * n);
    return k < n ? k : n - 1;
}

static hk_value *pick_of(problem *p, hk_value *const *pool, size_t count, hk_dtype dtype)
{
    for (;;) {
        hk_value *v = pool[pick(p, (uint32_t)count)];
        if (v->dtype == dtype)
            return v;
    }
}

static const hk_shape *pick_shape(problem *p, hk_shape *s)
{
    static const int64_t full[] = {2, 3, 8, 4};
    *s = (hk_shape){.rank = 4 - (int32_t)pick(p, 3)};
    for (int32_t d = 0; d < s->rank; d++)
        s->dim[d] = pick(p, 3) ? full[4 - s->rank + d] : 1;
    return s;
}

static hk_value *random_node(problem *p, hk_value *const *pool, size_t count, size_t inputs)
{
    static const char *const unary[] = {"Relu", "Tanh",      "Sigmoid",   "Neg",     "Abs",
                                        "Gelu", "HardSwish", "LeakyRelu", "Softplus"};
    static const char *const binary[] = {"Add", "Sub", "Mul", "Max", "Min"};
    static const char *const integer[] = {"Add", "Sub", "Mul", "Max", "Min", "Mod"};
    const hk_attr_value to_float[] = {HK_SET_INT("to", HK_FLOAT32), {0}}, to_long[] = {HK_SET_INT("to", HK_INT64), {0}};
    hk_value *a = pick_of(p, pool, count, HK_FLOAT32), *b = pick_of(p, pool, count, HK_FLOAT32);
    switch (pick(p, 10)) {
    case 0:
    case 1: return build(p, unary[pick(p, HK_COUNT(unary))], NULL, a, NULL, NULL);
    case 2: return build(p, "Softmax", NULL, a, NULL, NULL);
    case 3:
        return build(p, "Less", NULL, pick_of(p, pool, inputs, HK_FLOAT32), pick_of(p, pool, inputs, HK_FLOAT32), NULL);
    case 4: return build(p, "Where", NULL, pick_of(p, pool, count, HK_BOOL), a, b);
    case 5: return build(p, "Cast", to_float, pick_of(p, pool, count, HK_INT64), NULL, NULL);
    case 6: return build(p, "Cast", to_long, pick_of(p, pool, inputs, HK_FLOAT32), NULL, NULL);
    case 7:
        return build(p, integer[pick(p, HK_COUNT(integer))], NULL, pick_of(p, pool, count, HK_INT64),
                     pick_of(p, pool, count, HK_INT64), NULL);
    case 8: return build(p, "Mul", NULL, a, hk_graph_scalar(p->g, HK_FLOAT32, 0.5), NULL);
    default: return build(p, binary[pick(p, HK_COUNT(binary))], NULL, a, b, NULL);
    }
}

/* Nodes before and after fusion. */
static void random_graph(uint64_t seed, uint32_t nodes, size_t *before, size_t *after)
{
    problem p = begin(seed);
    hk_value *pool[MAX_POOL];
    hk_shape s;
    size_t count = 0;
    for (int i = 0; i < 3; i++)
        pool[count++] = input(&p, HK_FLOAT32, pick_shape(&p, &s));
    pool[count++] = input(&p, HK_INT64, pick_shape(&p, &s));
    pool[count++] = input(&p, HK_BOOL, pick_shape(&p, &s));
    size_t inputs = count;
    while (count < inputs + nodes) {
        pool[count] = random_node(&p, pool, count, inputs);
        count++;
    }
    output(&p, pool[count - 1]);
    for (int i = 0; i < 3; i++)
        output(&p, pool[inputs + pick(&p, nodes)]);
    OK(hk_graph_prune(p.g));
    *before += p.g->node_count;
    check_fused(&p, p.g->node_count);
    *after += p.g->node_count;
    end(&p);
}

static void test_random_graphs(void **state)
{
    (void)state;
    size_t before = 0, after = 0;
    for (uint64_t seed = 1; seed <= 40; seed++)
        random_graph(seed, 6 + (uint32_t)seed % 25, &before, &after);
    print_message("%zu nodes became %zu\n", before, after);
    assert_true(after * 4 < before * 3); /* there was something to fuse */
}

/* ---- the kernel */

/* A view that starts 4 bytes past a multiple of 16: no 16-byte loads. */
static void test_unaligned_view(void **state)
{
    (void)state;
    problem p = begin(7);
    hk_value *x = input(&p, HK_FLOAT32, SHAPE(41)), *y = input(&p, HK_FLOAT32, SHAPE(40));
    hk_value *in[] = {x, hk_graph_ints(p.g, &(int64_t){1}, 1), hk_graph_ints(p.g, &(int64_t){41}, 1)}, *view = NULL;
    OK(hk_build(p.g, "Slice", NULL, in, 3, &view, 1));
    assert_true(hk_node_view_offset(view->producer) == 1);
    output(&p, build(&p, "Mul", NULL, build(&p, "Add", NULL, view, y, NULL), view, NULL));
    check_fused(&p, 2);
    end(&p);
}

/* More dimensions and immediates than the push block holds. */
static void test_parameter_block(void **state)
{
    (void)state;
    problem p = begin(8);
    hk_value *y = input(&p, HK_FLOAT32, SHAPE(2, 3, 2, 3, 2, 4)), *b = input(&p, HK_FLOAT32, SHAPE(3, 1, 3, 1, 4));
    for (int i = 0; i < 5; i++) {
        hk_value *low = hk_graph_scalar(p.g, HK_FLOAT32, -2.5 - i), *high = hk_graph_scalar(p.g, HK_FLOAT32, 2.25 + i);
        y = build(&p, "Clip", NULL, build(&p, "Add", NULL, y, b, NULL), low, high);
    }
    output(&p, y);
    check_fused(&p, 1);
    end(&p);
}

/* As on a GPU, whose invocations take two units of large tensors, and with a grid that folds into two dimensions. */
static hk_status lower_on_small_grid(hk_lower *l, void *user)
{
    hk_device_info info = *l->device;
    info.max_grid = 100;
    l->device = &info;
    hk_status st = l->node->op->lower(l);
    *(uint32_t *)user = l->records[l->record_count - 1]->grid[1];
    return st;
}

static void check_large(const hk_shape *x_shape, const hk_shape *y_shape)
{
    problem p = begin(11);
    uint32_t rows = 0;
    output(&p, build(&p, "Mul", NULL, input(&p, HK_FLOAT32, x_shape), input(&p, HK_FLOAT32, y_shape), NULL));
    hk_records_run run = {.gpu_tuning = true, .feeds = p.feeds, .lower = lower_on_small_grid, .user = &rows};
    OK(hk_test_records(dev->gpu, p.g, &run));
    assert_true(run.error < 1e-7 && rows > 1);
    end(&p);
}

static void test_large(void **state)
{
    (void)state;
    if (!dev)
        return;
    check_large(SHAPE(1031, 1021), SHAPE(1021)); /* an odd row and an odd end */
    check_large(SHAPE(520, 4, 512), SHAPE(4, 1));
    check_large(SHAPE(1048579), SHAPE(1048579));
}

/* Quotients are the correctly rounded ones, and zero keeps its sign. */
static void test_division(void **state)
{
    (void)state;
    enum { N = 4096 };
    static const float special[][2] = {{-0.0f, 3}, {0, -3}, {-0.0f, -3}, {INFINITY, -2}, {3, -INFINITY}, {-5, 0}};
    problem p = begin(12);
    hk_value *a = input(&p, HK_FLOAT32, SHAPE(N)), *b = input(&p, HK_FLOAT32, SHAPE(N));
    float *x = p.feeds[0]->data, *y = p.feeds[1]->data;
    hk_tensor *out[1];
    for (size_t i = 0; i < HK_COUNT(special); i++) {
        x[i] = special[i][0];
        y[i] = special[i][1];
    }
    output(&p, build(&p, "Div", NULL, a, b, NULL));
    if (dev) {
        OK(hk_test_run_graph(dev, p.g, p.feeds, out, p.arena));
        for (int i = 0; i < N; i++) {
            float want = x[i] / y[i], got = ((float *)out[0]->data)[i];
            if (memcmp(&want, &got, sizeof got) != 0)
                fail_msg("%a / %a is %a, expected %a", (double)x[i], (double)y[i], (double)got, (double)want);
        }
    }
    end(&p);
}

/* ---- gradients at ties, where differences do not help: PyTorch's maximum gives each of two a half */

static void test_tied_maximum(void **state)
{
    (void)state;
    problem p = begin(9);
    hk_value *a = input(&p, HK_FLOAT32, SHAPE(3)), *b = input(&p, HK_FLOAT32, SHAPE(3)),
             *c = input(&p, HK_FLOAT32, SHAPE(3));
    static const float contents[3][3] = {{1, 5, 2}, {1, 3, 2}, {0, 4, 2}};
    static const double expected[3][3] = {{0.5, 1, 1 / 3.}, {0.5, 0, 1 / 3.}, {0, 0, 1 / 3.}};
    for (int i = 0; i < 3; i++)
        memcpy(p.feeds[i]->data, contents[i], sizeof contents[i]);
    hk_value *loss = build(&p, "ReduceSum", NULL, build(&p, "Max", NULL, a, b, c), NULL, NULL), *grads[3];
    const hk_attr_value flat[] = {HK_SET_INT("keepdims", 0), {0}};
    loss = build(&p, "ReduceSum", flat, loss, NULL, NULL);
    OK(hk_differentiate(p.g, loss, (hk_value *[]){a, b, c}, 3, grads));
    for (int i = 0; i < 3; i++)
        output(&p, grads[i]);
    hk_tensor *out[3];
    OK(hk_host_run(p.g, p.arena, p.feeds, out, NULL));
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < 3; k++)
            assert_true(fabs(hk_get_double(out[i], k) - expected[i][k]) < 1e-6);
    end(&p);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_row_is_encoded),
        cmocka_unit_test(test_programs_survive_encoding),
        cmocka_unit_test(test_line),
        cmocka_unit_test(test_convolutions_take_their_neighbours),
        cmocka_unit_test(test_second_result),
        cmocka_unit_test(test_no_cycle),
        cmocka_unit_test(test_no_cycle_between_groups),
        cmocka_unit_test(test_recompute),
        cmocka_unit_test(test_copied_node_stays),
        cmocka_unit_test(test_constant_gives_rank),
        cmocka_unit_test(test_random_graphs),
        cmocka_unit_test(test_unaligned_view),
        cmocka_unit_test(test_parameter_block),
        cmocka_unit_test(test_large),
        cmocka_unit_test(test_division),
        cmocka_unit_test(test_tied_maximum),
    };
    return test_main(
        argc, argv,
        &(test_program){.name = "chains", TESTS(tests), .debug = "check-plan,poison", .device = TEST_USES_DEVICE});
}
