/*
 * Gradients of spatial operators on the device: the whole differentiated graph of sum(y * r) planned and run there,
 * against the host evaluator. test_ops checks the rules on the host and every kernel alone; here they work together,
 * behind expansions, in one plan.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ops/infer.h"
#include "runtime/cases.h"
#include "runtime/host.h"
#include "tests/support/data.h"
#include "tests/support/device.h"
#include "tests/support/program.h"
#include "train/gradient.h"

static const struct {
    const char *type, *text;
    int16_t since; /* of the row of that type */
} cases[] = {
    {"Resize", "f32[2,3,6,8] - - i64={2,3,9,12} ; mode=\"linear\"", 11},
    {"Resize", "f32[1,2,12,9] - - i64={1,2,3,4} ; mode=\"cubic\" antialias=1 exclude_outside=1", 11},
    {"Resize", "f32[1,2,4,5] - f32={1,1,2,3}", 11},
    {"ConvTranspose", "f32[2,12,5,6] f32[12,10,3,3] f32[10] ; strides=[2,2] pads=[1,1,1,1] output_padding=[1,1]", 1},
    {"ConvTranspose", "f32[1,10,3,4,4] f32[10,9,2,3,2] f32[9] ; strides=[2,1,2] pads=[0,1,0,1,0,1]", 1},
    {"ConvTranspose", "f32[1,3,4,4] f32[3,2,2,2] ; dilations=[3,3] strides=[2,2] output_padding=[2,1]", 1},
    {"Conv", "f32[1,10,4,5,6] f32[12,10,3,3,3] f32[12] ; strides=[2,1,1] pads=[1,1,1,1,1,1]", 1},
    {"Conv", "f32[2,4,21] f32[12,4,3] f32[12] ; pads=[1,2] strides=[2]", 1},
    {"GridSample", "f32[2,3,5,4] f32[2,6,7,2] ; padding_mode=\"reflection\"", 16},
    {"GridSample", "f32[1,2,3,4,5] f32[1,2,3,4,3] ; mode=\"linear\" align_corners=1", 16},
    {"DeformConv",
     "f32[1,4,6,5] f32[6,2,3,3] f32[1,36,6,5] f32[6] f32[1,18,6,5] ; group=2 offset_group=2 pads=[1,1,1,1]", 19},
    {"DepthToSpace", "f32[1,8,3,4] ; blocksize=2 mode=\"CRD\"", 1},
    {"MaxPool", "f32[1,2,5,6,7] ; kernel_shape=[2,2,3] strides=[2,1,2] pads=[0,1,1,1,0,1]", 1},
    {"AveragePool", "f32[2,3,17] ; kernel_shape=[4] strides=[3] pads=[1,2] count_include_pad=1", 1},
    {"LpPool", "f32[2,2,8,9] ; kernel_shape=[3,3] strides=[2,2] pads=[1,1,1,1] p=3", 2},
    {"LRN", "f32[2,7,3,4] ; size=3 alpha=0.5", 1},
    {"LpNormalization", "f32[2,5,3] ; axis=1", 1},
    {"MeanVarianceNormalization", "f32[3,2,4,5]", 9},
    {"RoiAlign",
     "f32[2,3,6,7] f32[2,4]={0.5,1.0,4.5,5.0,-1.5,0.0,7.0,3.25} i64={1,0} ; output_height=2 output_width=3 "
     "sampling_ratio=2",
     16},
    {"Col2Im", "f32[2,18,12] i64={5,6} i64={3,3}", 18},
    {"ReverseSequence", "f32[5,3,2] i64[3]<6", 10},
    {"MaxUnpool", "f32[1,1,2,2] i64[1,1,2,2]={5,7,13,15} i64={1,1,5,5} ; kernel_shape=[2,2] strides=[2,2]", 9},
};

static const hk_op *find(const char *type, int16_t since)
{
    for (size_t i = 0; hk_op_at(i); i++)
        if (!strcmp(hk_op_at(i)->type, type) && hk_op_at(i)->since == since)
            return hk_op_at(i);
    fail_msg("no row of %s begins at version %d", type, since);
    return NULL;
}

/* loss = sum(y * r) for fixed r. */
static hk_value *add_loss(hk_graph *g, hk_value *y)
{
    hk_tensor *r = hk_tensor_new(g->arena, HK_FLOAT32, &y->shape);
    assert_non_null(r);
    for (int64_t i = 0; i < hk_tensor_count(r); i++)
        hk_set_double(r, i, sin(1.7 * (double)i + 0.3));
    hk_value *in[] = {y, hk_graph_constant(g, "r", r)}, *product, *loss;
    const hk_attr_value attrs[] = {HK_SET_INT("keepdims", 0), {0}};
    OK(hk_build(g, "Mul", NULL, in, 2, &product, 1));
    OK(hk_build(g, "ReduceSum", attrs, &product, 1, &loss, 1));
    assert_true(hk_graph_add_output(g, loss));
    return loss;
}

static void run_case(size_t k)
{
    hk_arena *arena = hk_arena_create(ctx);
    const hk_op *op = find(cases[k].type, cases[k].since);
    op_case c = {.op = op, .text = cases[k].text};
    const hk_tensor *tensors[CASE_MAX_INPUTS], *feeds[CASE_MAX_INPUTS];
    hk_value *wrt[CASE_MAX_INPUTS], *gradients[CASE_MAX_INPUTS];
    hk_tensor *want[CASE_MAX_INPUTS] = {0}, *got[CASE_MAX_INPUTS] = {0};
    size_t count = 0, reached = 0;
    case_graph g;
    assert_non_null(arena);
    OK(case_parse(ctx, arena, op, cases[k].text, &c));
    OK(case_contents(ctx, arena, &c, false, tensors));
    OK(case_build(ctx, &c, tensors, true, &g));
    case_feeds(&g, &c, tensors, feeds);
    for (int32_t i = 0; i < c.input_count; i++)
        if (g.inputs[i] && g.inputs[i]->kind == HK_VALUE_INPUT && g.inputs[i]->dtype == HK_FLOAT32)
            wrt[count++] = g.inputs[i];
    hk_value *loss = add_loss(g.graph, g.graph->outputs[0]);
    OK(hk_infer_graph(g.graph));
    OK(hk_differentiate(g.graph, loss, wrt, count, gradients));
    for (size_t i = 0; i < count; i++)
        if (gradients[i]) {
            assert_true(hk_graph_add_output(g.graph, gradients[i]));
            reached++;
        }
    assert_int_not_equal(reached, 0);
    OK(hk_host_run(g.graph, arena, feeds, want, NULL));
    OK(hk_test_run_graph(dev, g.graph, feeds, got, arena));
    for (size_t i = 0; i < g.graph->output_count; i++)
        if (!(data_error(got[i], want[i]) <= 1e-5))
            fail_msg("%s \"%s\": output %zu differs by %g", cases[k].type, cases[k].text, i,
                     data_error(got[i], want[i]));
    hk_graph_destroy(&g.graph);
    hk_arena_destroy(&arena);
}

static void gradients_on_the_device(void **state)
{
    (void)state;
    if (!dev)
        skip();
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++)
        run_case(k);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(gradients_on_the_device)};
    return test_main(
        argc, argv,
        &(test_program){.name = "spatial", TESTS(tests), .debug = "check-plan,poison", .device = TEST_USES_DEVICE});
}
