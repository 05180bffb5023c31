/*
 * Every GEMM kernel on this device, each with shapes that cross its tiles, both orientations, split and unsplit,
 * against sums in double. What the cost model would choose on a device of another kind runs here too: shared-memory
 * tiles on a processor, matrix units wherever they are reported.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/gemm_problem.h"
#include "tests/support/gpu.h"

/* Sums of rounded operands are compared with the same sums in double. A result rounded to nearest fp16 is off by 2e-4
 * root mean square (twice that if it were truncated), one whose fp32 operands a matrix unit rounds by 3e-4. */
static double tolerance(const hk_gemm_case *c, const hk_gemm_variant *v)
{
    if (hk_dtype_is_integer(c->a))
        return 0.0;
    if (c->a == HK_BFLOAT16 || c->b == HK_BFLOAT16) /* of both types one rounds the other operand to 8 bits */
        return c->a != c->b ? 4e-3 : 2e-6;
    if (v && v->kind == HK_GEMM_COOPMAT && v->halves == 1 && (c->a != HK_FLOAT16 || c->b != HK_FLOAT16))
        return 5e-4;
    return c->c == HK_FLOAT16 ? 3e-4 : 2e-6;
}

static bool check(fixture *f, const hk_gemm_case *c, const hk_gemm_variant *v, uint32_t splits)
{
    hk_gemm_result result;
    hk_status st = hk_test_gemm(f->gpu, c, v, splits, 16, 0, &result);
    if (st != HK_OK)
        fail_msg("%s: %s", v ? v->name : "chosen", hk_context_error(f->ctx));
    if (result.fits && !(result.error <= tolerance(c, v)))
        fail_msg("%s: m %lld n %lld k %lld batch %lld %c%c splits %u: relative error %g", result.name, (long long)c->m,
                 (long long)c->n, (long long)c->k, (long long)c->batch, c->trans_a ? 'T' : 'N', c->trans_b ? 'T' : 'N',
                 splits, result.error);
    return result.fits;
}

/* Compiling an unrolled tile takes a processor seconds, so there only the smallest runs in every orientation, some in
 * one, the largest not at all: their code is the same, only the numbers differ. */
static bool worth_running(const fixture *f, const hk_gemm_variant *v, int orientation, size_t number)
{
    if (hk_gpu_info(f->gpu)->type != HK_DEVICE_SOFTWARE || (v->kind != HK_GEMM_TILE && v->kind != HK_GEMM_COOPMAT))
        return true;
    int work = v->bm * v->bn * v->bk;
    if (v->kind == HK_GEMM_COOPMAT && !hk_gpu_has(f->gpu, HK_CAP_COOPMAT)) /* emulated, which is slow */
        return false;
    if (v->kind == HK_GEMM_COOPMAT)
        return work <= 32 * 32 * 32;
    return work <= 32 * 32 * 16 || (work <= 64 * 64 * 16 && (size_t)orientation == number % 4);
}

static void test_every_variant_in_every_orientation(void **state)
{
    size_t count, ran = 0;
    const hk_gemm_variant *v = hk_gemm_variants(&count);
    for (size_t i = 0; i < count; i++)
        for (int t = 0; t < 4 && v[i].kind != HK_GEMM_INTEGER; t++) {
            bool few = v[i].kind == HK_GEMM_ROWS;
            const hk_gemm_case wide = {.m = few ? 4 : 140,
                                       .n = 72,
                                       .k = 104,
                                       .trans_a = t & 1,
                                       .trans_b = t & 2,
                                       .bias = 1 + (t & 1),
                                       .residual = true};
            const hk_gemm_case ragged = {.m = 131,
                                         .n = few ? 7 : 67,
                                         .k = 45,
                                         .trans_a = t & 1,
                                         .trans_b = t & 2,
                                         .batch = 2,
                                         .bias = 1,
                                         .residual = true,
                                         .activation = HK_ACT_LEAKY_RELU,
                                         .alpha = 0.5f,
                                         .beta = 2.0f};
            if (!worth_running(*state, &v[i], t, i))
                continue;
            ran += check(*state, &wide, &v[i], 1);
            ran += check(*state, &ragged, &v[i], 2);
            if (v[i].kind != HK_GEMM_TILE || (size_t)t == i % 4)
                ran += check(*state, &ragged, &v[i], 1);
        }
    assert_true(ran >= 24);
}

/* Split operands, in every orientation, with edges, splits and a shared one; A grows along K as B falls, so that the
 * halves' scales change under way and meet elements far below the largest. Devices without matrix units emulate them.
 */
static void test_precision_high(void **state)
{
    size_t count, ran = 0;
    const fixture *f = *state;
    const hk_gemm_variant *v = hk_gemm_variants(&count);
    for (size_t i = 0; i < count; i++)
        for (int t = 0; t < 4 && v[i].kind == HK_GEMM_COOPMAT && v[i].halves == 2; t++) {
            bool software = hk_gpu_info(f->gpu)->type == HK_DEVICE_SOFTWARE;
            if (software && v[i].bm > 32)
                continue;
            hk_gemm_case wide = {.m = 40, .n = 72, .k = 104, .trans_a = t & 1, .trans_b = t & 2, .slope = 12};
            wide.exponent = 66 * t - 99; /* from 1e-30 to 1e30 */
            wide.constant = t >= 2;
            const hk_gemm_case ragged = {.m = 33,
                                         .n = 35,
                                         .k = 77,
                                         .trans_a = t & 1,
                                         .trans_b = t & 2,
                                         .batch = 2,
                                         .bias = 1,
                                         .residual = true,
                                         .activation = HK_ACT_LEAKY_RELU,
                                         .alpha = 0.5f,
                                         .beta = 2.0f};
            /* Columns of a batch that shares A lie side by side in one product. */
            hk_gemm_case shared = {.m = 33, .n = t & 1 ? 35 : 36, .k = 77, .batch = 3, .share_a = true, .bias = 2};
            shared.residual = true;
            /* Compiling takes a processor seconds, so each orientation has one of them there. */
            if (!software || t % 3 == 0)
                ran += check(*state, &wide, &v[i], 1);
            if (!software || t % 3 != 0)
                ran += check(*state, &ragged, &v[i], 1 + (uint32_t)t % 2);
            if (!software || t < 2)
                ran += check(*state, &shared, &v[i], 1 + (uint32_t)t % 2);
            /* An operand stored in halves, as spikes are, comes without low ones. */
            hk_gemm_case exact = {.m = 40, .n = 72, .k = 104, .trans_a = t & 1, .trans_b = t & 2, .bias = 1};
            exact.a = t % 3 ? HK_FLOAT32 : HK_FLOAT16;
            exact.b = t % 3 ? HK_FLOAT16 : HK_FLOAT32;
            if (!software || t > 1)
                ran += check(*state, &exact, &v[i], 1 + (uint32_t)t % 2);
        }
    assert_true(ran >= 4 || hk_gpu_info(f->gpu)->max_shared_bytes < 32768);
}

static void test_fp16_operands_and_results(void **state)
{
    size_t count;
    const hk_gemm_variant *v = hk_gemm_variants(&count);
    for (size_t i = 0; i < count; i++) {
        /* The fp32 kernels read and write copies, so one of them stands for all. */
        for (int t = 0; t < 4 && (v[i].kind == HK_GEMM_CPU || v[i].kind == HK_GEMM_COOPMAT); t++) {
            if ((v[i].kind == HK_GEMM_CPU && t != 1) || !worth_running(*state, &v[i], t, i))
                continue;
            const hk_gemm_case even = {.m = 72,
                                       .n = 136,
                                       .k = 64,
                                       .trans_a = t & 1,
                                       .trans_b = t & 2,
                                       .a = HK_FLOAT16,
                                       .b = HK_FLOAT16,
                                       .c = t & 1 ? HK_FLOAT16 : HK_FLOAT32,
                                       .bias = 2,
                                       .residual = true,
                                       .activation = HK_ACT_RELU};
            const hk_gemm_case odd = {.m = 33,
                                      .n = 35,
                                      .k = 37,
                                      .batch = 3,
                                      .trans_a = t & 1,
                                      .trans_b = t & 2,
                                      .a = HK_FLOAT16,
                                      .b = t & 1 ? HK_FLOAT32 : HK_FLOAT16,
                                      .c = HK_FLOAT16,
                                      .bias = 3};
            check(*state, &even, &v[i], 1);
            check(*state, &odd, &v[i], 1);
            check(*state, &odd, &v[i], 2);
        }
    }
    for (size_t i = 0; i < count; i++) {
        const hk_gemm_case mixed = {.m = 130, .n = 132, .k = 96, .trans_b = true, .b = HK_FLOAT16, .c = HK_FLOAT16};
        const hk_gemm_case half = {.m = 260, .n = 260, .k = 136, .a = HK_FLOAT16, .b = HK_FLOAT16, .bias = 1};
        if (v[i].kind == HK_GEMM_COOPMAT && worth_running(*state, &v[i], 0, i)) {
            check(*state, &mixed, &v[i], 1);
            check(*state, &half, &v[i], 1);
            check(*state, &half, &v[i], 3);
        }
    }
}

/* bfloat16 and int8 run the tiles of fp16 from kernels of their own, emulated where the device has no such matrix
 * units: there the smallest tile alone. Each in every orientation, with edges, batches and splits, both operands
 * shared or not. */
static bool is_small(const fixture *f, const hk_gemm_variant *v)
{
    return hk_gpu_has(f->gpu, HK_CAP_COOPMAT) || (v->bm <= 32 && v->bk <= 32);
}

static bool takes(const fixture *f, hk_cap cap)
{
    return hk_gpu_has(f->gpu, cap) || !hk_gpu_has(f->gpu, HK_CAP_COOPMAT);
}

static void test_bf16(void **state)
{
    size_t count, ran = 0;
    const fixture *f = *state;
    const hk_gemm_variant *v = hk_gemm_variants(&count);
    for (size_t i = 0; i < count; i++)
        for (int t = 0; t < 4 && v[i].bf16_name && is_small(f, &v[i]); t++) {
            const hk_gemm_case even = {.m = 72,
                                       .n = 40,
                                       .k = 64,
                                       .trans_a = t & 1,
                                       .trans_b = t & 2,
                                       .a = HK_BFLOAT16,
                                       .b = HK_BFLOAT16,
                                       .slope = 40, /* far outside of what fp16 holds */
                                       .precision = HK_PRECISION_FAST};
            const hk_gemm_case odd = {.m = 33,
                                      .n = 35,
                                      .k = 77,
                                      .batch = 2,
                                      .trans_a = t & 1,
                                      .trans_b = t & 2,
                                      .a = HK_BFLOAT16,
                                      .b = t & 1 ? HK_FLOAT32 : HK_BFLOAT16,
                                      .bias = 1,
                                      .residual = true,
                                      .activation = HK_ACT_RELU};
            ran += check(*state, &even, &v[i], 1);
            ran += check(*state, &odd, &v[i], 1 + (uint32_t)t % 2);
        }
    assert_true(ran >= 8 || !takes(f, HK_CAP_BF16) || hk_gpu_info(f->gpu)->max_shared_bytes < 32768);
}

static void test_int8(void **state)
{
    size_t count, ran = 0;
    const fixture *f = *state;
    const hk_gemm_variant *v = hk_gemm_variants(&count);
    for (size_t i = 0; i < count; i++)
        for (int t = 0; t < 4 && v[i].int8_name && is_small(f, &v[i]); t++) {
            hk_dtype a = t & 1 ? HK_INT8 : HK_UINT8, b = t & 2 ? HK_UINT8 : HK_INT8;
            const hk_gemm_case even = {
                .m = 72, .n = 40, .k = 256, .trans_a = t & 1, .trans_b = t & 2, .a = a, .b = b, .zeros = t % 3};
            const hk_gemm_case odd = {.m = 33,
                                      .n = 35,
                                      .k = 141,
                                      .batch = 3,
                                      .trans_a = t & 1,
                                      .trans_b = t & 2,
                                      .share_a = t == 1,
                                      .share_b = t == 2,
                                      .a = b,
                                      .b = a,
                                      .zeros = 2 - t % 3};
            ran += check(*state, &even, &v[i], 1 + (uint32_t)t % 2);
            ran += check(*state, &odd, &v[i], 2 - (uint32_t)t % 2);
        }
    bool min = hk_gpu_info(f->gpu)->max_shared_bytes < 32768;
    assert_true(ran >= 8 || !takes(f, HK_CAP_INT8_MATRIX) || min);
    const hk_gemm_case chosen = {.m = 50, .n = 30, .k = 3000, .a = HK_UINT8, .b = HK_INT8, .zeros = 1};
    if (takes(f, HK_CAP_INT8_MATRIX))
        assert_true(check(*state, &chosen, NULL, 0));
}

static void test_chosen_variants(void **state)
{
    const hk_gemm_case cases[] = {
        {.m = 1, .n = 1, .k = 1},
        {.m = 1, .n = 300, .k = 1000, .trans_b = true, .bias = 1, .activation = HK_ACT_GELU_ERF},
        {.m = 1, .n = 300, .k = 1000},
        {.m = 300, .n = 1, .k = 500},
        {.m = 500, .n = 3, .k = 300, .bias = 1, .residual = true},
        {.m = 5, .n = 6, .k = 70000, .bias = 2},
        {.m = 20, .n = 24, .k = 3000, .trans_b = true, .bias = 2, .residual = true, .activation = HK_ACT_TANH},
        {.m = 64, .n = 64, .k = 8},
        {.m = 200, .n = 8, .k = 4},
        {.m = 9, .n = 40, .k = 33, .batch = 7, .share_b = true, .bias = 3},
        {.m = 40, .n = 50, .k = 1, .batch = 2},
        {.m = 12, .n = 20, .k = 0, .bias = 1},
        {.m = 64, .n = 96, .k = 64, .precision = HK_PRECISION_FAST, .a = HK_FLOAT16, .b = HK_FLOAT16},
    };
    for (size_t i = 0; i < HK_COUNT(cases); i++)
        assert_true(check(*state, &cases[i], NULL, 0));
}

/* `test_gemm bench M N K [N|T][N|T] [f32|f16|bf16|int8|high] [PART]`: times every variant that fits and whose name
 * contains PART, and the chosen one, instead of testing. */
static int bench(int argc, char **argv)
{
    hk_context *ctx = NULL;
    hk_gpu *gpu = NULL;
    hk_status st = hk_context_create(NULL, &ctx);
    if (st == HK_OK)
        st = hk_gpu_open(ctx, NULL, &gpu);
    const char *trans = argc > 5 ? argv[5] : "NN";
    static const struct {
        const char *name;
        hk_dtype a, b;
        hk_precision precision;
    } types[] = {{"f32", HK_FLOAT32, HK_FLOAT32, HK_PRECISION_STRICT},
                 {"f16", HK_FLOAT16, HK_FLOAT16, HK_PRECISION_FAST},
                 {"bf16", HK_BFLOAT16, HK_BFLOAT16, HK_PRECISION_FAST},
                 {"int8", HK_UINT8, HK_INT8, HK_PRECISION_FAST},
                 {"high", HK_FLOAT32, HK_FLOAT32, HK_PRECISION_HIGH}};
    size_t type = 0;
    for (size_t i = 0; argc > 6 && i < HK_COUNT(types); i++)
        type = strcmp(argv[6], types[i].name) ? type : i;
    hk_gemm_case c = {.m = atoll(argv[2]),
                      .n = atoll(argv[3]),
                      .k = atoll(argv[4]),
                      .trans_a = trans[0] == 'T',
                      .trans_b = trans[0] && trans[1] == 'T',
                      .a = types[type].a,
                      .b = types[type].b,
                      .zeros = 1,
                      .precision = types[type].precision};
    double flops = 2.0 * (double)c.m * (double)c.n * (double)c.k;
    uint32_t repeats = flops > 2e10 ? 10 : hk_gpu_info(gpu)->type == HK_DEVICE_SOFTWARE ? 1 : 50;
    size_t count;
    const hk_gemm_variant *v = hk_gemm_variants(&count);
    static const uint32_t splits[] = {1, 4, 16};
    for (size_t i = 0; i < count * HK_COUNT(splits) + 1 && st == HK_OK; i++) {
        const hk_gemm_variant *one = i < count * HK_COUNT(splits) ? &v[i / HK_COUNT(splits)] : NULL;
        uint32_t s = one ? splits[i % HK_COUNT(splits)] : 0;
        hk_gemm_result r = {0};
        if (one && argc > 7 && !strstr(one->name, argv[7]))
            continue;
        if (one && s > 1 && (one->kind == HK_GEMM_CPU || c.k / s < one->bk || flops > 2e10))
            continue;
        st = hk_test_gemm(gpu, &c, one, s, 132, repeats, &r);
        if (st == HK_OK && r.fits)
            printf("%s%-36s splits %-3u %10.2f us %8.2f TFLOP/s  error %.1e\n", one ? "" : "chosen: ", r.name, r.splits,
                   r.ns / 1e3, r.ns > 0.0 ? flops / r.ns / 1e3 : 0.0, r.error);
        fflush(stdout);
    }
    if (st != HK_OK)
        fprintf(stderr, "%s\n", ctx ? hk_context_error(ctx) : "out of memory");
    hk_gpu_close(&gpu);
    hk_context_destroy(&ctx);
    return hk_status_exit_code(st);
}

int main(int argc, char **argv)
{
    if (argc > 4 && strcmp(argv[1], "bench") == 0)
        return bench(argc, argv);
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_variant_in_every_orientation),
        cmocka_unit_test(test_precision_high),
        cmocka_unit_test(test_fp16_operands_and_results),
        cmocka_unit_test(test_bf16),
        cmocka_unit_test(test_int8),
        cmocka_unit_test(test_chosen_variants),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
