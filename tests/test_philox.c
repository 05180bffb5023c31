/*
 * Random bits: Philox4x32-10 against the known answers of its authors' library (Random123, kat_vectors), and Dropout's
 * promise that its mask depends on the sample's global number and not on how samples are batched. That device and host
 * draw the same is in test_ops (Dropout's mask output).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/philox.h"
#include "ops/op.h"
#include "ops/step.h"
#include "runtime/host.h"

static void test_known_answers(void **state)
{
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], expected[4];
    } vectors[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < HK_COUNT(vectors); i++) {
        uint32_t out[4];
        hk_philox(vectors[i].key, vectors[i].counter, out);
        assert_memory_equal(out, vectors[i].expected, sizeof out);
    }
}

/* The mask of `samples` samples of 21 elements each, of which the first has the global number `first`. */
static void draw(hk_context *ctx, int64_t samples, uint32_t first, uint32_t step_number, uint8_t *mask)
{
    hk_graph *g = NULL;
    hk_arena *arena = hk_arena_create(ctx);
    hk_shape shape = {.rank = 3, .dim = {samples, 3, 7}};
    assert_non_null(arena);
    assert_int_equal(hk_graph_create(ctx, "dropout", &g), HK_OK);
    hk_value *x = hk_graph_value(g, "x", HK_VALUE_INPUT, HK_FLOAT32, &shape), *out[2];
    hk_value *in[3] = {x, hk_graph_scalar(g, HK_FLOAT32, 0.5), hk_graph_scalar(g, HK_BOOL, 1)};
    assert_true(x && in[1] && in[2] && hk_graph_add_input(g, x));
    const hk_attr_value attrs[] = {HK_SET_INT("hk.stream", 5), {0}};
    assert_int_equal(hk_build(g, "Dropout", attrs, in, 3, out, 2), HK_OK);
    assert_true(hk_graph_add_output(g, out[1]));
    const hk_tensor *feed = hk_tensor_new(arena, HK_FLOAT32, &shape);
    hk_tensor *result = NULL;
    const hk_step step = {.seed = {1, 2}, .step = step_number, .sample = first};
    assert_int_equal(hk_host_run(g, arena, &feed, &result, &step), HK_OK);
    memcpy(mask, result->data, (size_t)samples * 21);
    hk_graph_destroy(&g);
    hk_arena_destroy(&arena);
}

static void test_micro_batches(void **state)
{
    hk_context *ctx = *state;
    uint8_t whole[8 * 21], parts[8 * 21], later[8 * 21];
    draw(ctx, 8, 100, 3, whole);
    draw(ctx, 5, 100, 3, parts);
    draw(ctx, 3, 105, 3, parts + 5 * 21);
    assert_memory_equal(whole, parts, sizeof whole);
    draw(ctx, 8, 100, 4, later);
    assert_memory_not_equal(whole, later, sizeof whole);
    int kept = 0;
    for (size_t i = 0; i < sizeof whole; i++)
        kept += whole[i];
    assert_in_range(kept, 50, 118); /* 84 expected, 5 standard deviations either way */
}

static int make_context(void **state)
{
    return hk_context_create(NULL, (hk_context **)state) != HK_OK;
}

static int end_context(void **state)
{
    hk_context_destroy((hk_context **)state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answers),
        cmocka_unit_test_setup_teardown(test_micro_batches, make_context, end_context),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
