/*
 * Modules after pruning, for every kernel and several sets of constants: whole, smaller, and pruned by no second look.
 * That they compute the same is what every test on a software device shows; that they are valid SPIR-V, the validation
 * layer (test_gpu and all others under HILLOCK_DEBUG=validate).
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/prune.h"
#include "kernels.h"
#include "tests/support/program.h"

enum { OP_ENTRY_POINT = 15, OP_FUNCTION = 54, OP_CALL = 57, OP_DECORATE = 71, OP_PHI = 245, OP_LOOP_MERGE = 246 };
enum { OP_SELECTION_MERGE = 247, OP_LABEL = 248, OP_BRANCH = 249, OP_BRANCH_CONDITIONAL = 250, OP_SWITCH = 251 };

typedef struct module {
    const char *name;
    const uint32_t *code;
    size_t words;
    uint32_t bound;
    uint32_t *place; /* of a label or function by its id, 0: it is none */
} module;

/* What is wrong with a module; "" nothing. */
static char problem[200];

static void report(const module *m, const char *format, ...) HK_PRINTF(2, 3);
static void report(const module *m, const char *format, ...)
{
    va_list args;
    int n = snprintf(problem, sizeof problem, "kernel '%s': ", m->name);
    va_start(args, format);
    vsnprintf(problem + n, sizeof problem - (size_t)n, format, args);
    va_end(args);
}

static bool is_there(const module *m, uint32_t id, uint32_t op)
{
    return id < m->bound && m->place[id] != 0 && (m->code[m->place[id]] & 0xffff) == op;
}

static void need(const module *m, uint32_t id, uint32_t op, const char *what)
{
    if (!is_there(m, id, op))
        report(m, "%s %%%u is not in the module", what, id);
}

/* The labels that the terminator of the block at that place names, one after another; 0 behind the last. */
static uint32_t target(const module *m, size_t at, size_t k)
{
    while ((m->code[at] & 0xffff) < OP_BRANCH)
        at += m->code[at] >> 16;
    const uint32_t *w = m->code + at;
    size_t size = w[0] >> 16;
    switch (w[0] & 0xffff) {
    case OP_BRANCH: return k == 0 ? w[1] : 0;
    case OP_BRANCH_CONDITIONAL: return k < 2 ? w[2 + k] : 0;
    case OP_SWITCH: return 2 + 2 * k < size ? w[2 + 2 * k] : 0;
    default: return 0;
    }
}

static bool goes(const module *m, uint32_t from, uint32_t to)
{
    size_t begin = m->place[from] + 2;
    for (size_t k = 0; target(m, begin, k) != 0; k++)
        if (target(m, begin, k) == to)
            return true;
    return false;
}

/* A phi names each block that goes to its own, and no other. */
static void check_phi(const module *m, size_t function, uint32_t label, const uint32_t *w)
{
    size_t named = ((w[0] >> 16) - 3) / 2, come = 0;
    for (size_t at = function; at < m->words && (m->code[at] & 0xffff) != 56; at += m->code[at] >> 16)
        come += (m->code[at] & 0xffff) == OP_LABEL && goes(m, m->code[at + 1], label);
    for (size_t k = 0; k < named; k++) {
        need(m, w[4 + 2 * k], OP_LABEL, "a phi's block");
        if (is_there(m, w[4 + 2 * k], OP_LABEL) && !goes(m, w[4 + 2 * k], label))
            report(m, "block %%%u does not go to %%%u", w[4 + 2 * k], label);
        for (size_t j = 0; j < k; j++)
            if (w[4 + 2 * j] == w[4 + 2 * k])
                report(m, "a phi in %%%u names block %%%u twice", label, w[4 + 2 * k]);
    }
    if (named != come)
        report(m, "a phi in %%%u names %zu blocks, %zu go there", label, named, come);
}

static void check_whole(module *m)
{
    size_t function = 0;
    uint32_t label = 0;
    *problem = '\0';
    for (size_t at = 5; at < m->words; at += m->code[at] >> 16) {
        uint32_t op = m->code[at] & 0xffff;
        assert_true(m->code[at] >> 16 != 0 && at + (m->code[at] >> 16) <= m->words);
        if (op == OP_LABEL || op == OP_FUNCTION) {
            uint32_t id = m->code[at + (op == OP_LABEL ? 1 : 2)];
            assert_true(id < m->bound && m->place[id] == 0);
            m->place[id] = (uint32_t)at;
        }
    }
    for (size_t at = 5; at < m->words; at += m->code[at] >> 16) {
        const uint32_t *w = m->code + at;
        uint32_t op = w[0] & 0xffff;
        if (op == OP_ENTRY_POINT)
            need(m, w[2], OP_FUNCTION, "the entry point");
        if (op == OP_FUNCTION)
            function = at;
        if (op == OP_LABEL)
            label = w[1];
        if (op == OP_LABEL)
            for (size_t k = 0; target(m, at + 2, k) != 0; k++)
                need(m, target(m, at + 2, k), OP_LABEL, "a branch's block");
        if (op == OP_SELECTION_MERGE || op == OP_LOOP_MERGE)
            need(m, w[1], OP_LABEL, "the end of a construct");
        if (op == OP_LOOP_MERGE)
            need(m, w[2], OP_LABEL, "where a loop continues");
        if (op == OP_CALL)
            need(m, w[3], OP_FUNCTION, "a function");
        if (op == OP_PHI)
            check_phi(m, function, label, w);
    }
}

static size_t pruned(const hk_kernel *kernel, const uint32_t *spec, uint32_t count)
{
    size_t bytes = 0, again_bytes = 0;
    uint32_t *code = hk_prune(ctx, kernel, spec, count, &bytes);
    assert_non_null(code);
    assert_true(bytes <= kernel->spirv_bytes);
    module m = {.name = kernel->name, .code = code, .words = bytes / 4, .bound = code[3]};
    m.place = calloc(m.bound, sizeof *m.place);
    assert_non_null(m.place);
    check_whole(&m);
    free(m.place);
    if (*problem)
        fail_msg("%s", problem);
    uint32_t *again = hk_prune(ctx, &(hk_kernel){.name = kernel->name, .spirv = code, .spirv_bytes = bytes}, spec,
                               count, &again_bytes);
    assert_non_null(again);
    if (again_bytes != bytes || memcmp(code, again, bytes) != 0)
        fail_msg("kernel '%s': pruned again it is another", kernel->name);
    hk_free(ctx, code);
    hk_free(ctx, again);
    return bytes;
}

/* The checks see damage: in each kernel's pruned module one branch that leads nowhere, one phi that lost a block, one
 * call of a function that is gone. */
static bool damage(uint32_t *code, size_t words, int how)
{
    for (size_t at = 5; at < words; at += code[at] >> 16) {
        uint32_t op = code[at] & 0xffff, size = code[at] >> 16;
        if (how == 0 && op == OP_BRANCH)
            code[at + 1] = code[3] - 1; /* behind the last id that is one */
        else if (how == 1 && op == OP_PHI && size > 5)
            code[at + 4] = code[at + 6]; /* one block twice, another not at all */
        else if (how == 2 && op == OP_CALL)
            code[at + 3] = code[3] - 1;
        else
            continue;
        return true;
    }
    return false;
}

static void test_damage_is_seen(void **state)
{
    (void)state;
    size_t seen[3] = {0};
    for (size_t i = 0; hk_kernels[i]; i++)
        for (int how = 0; how < 3 && hk_kernels[i]->spirv; how++) {
            size_t bytes = 0;
            uint32_t *code = hk_prune(ctx, hk_kernels[i], NULL, 0, &bytes);
            assert_non_null(code);
            code[3]++; /* an id that nothing has */
            module m = {.name = hk_kernels[i]->name, .code = code, .words = bytes / 4, .bound = code[3]};
            m.place = calloc(m.bound, sizeof *m.place);
            assert_non_null(m.place);
            if (damage(code, m.words, how)) {
                check_whole(&m);
                if (!*problem)
                    fail_msg("kernel '%s': damage %d is not seen", m.name, how);
                seen[how]++;
            }
            free(m.place);
            hk_free(ctx, code);
        }
    assert_true(seen[0] > 100 && seen[1] > 0 && seen[2] > 50);
}

static void test_every_kernel(void **state)
{
    (void)state;
    uint32_t spec[HK_SPEC_MAX];
    for (size_t i = 0; hk_kernels[i]; i++) {
        if (!hk_kernels[i]->spirv)
            continue;
        pruned(hk_kernels[i], NULL, 0); /* defaults */
        for (uint32_t x = 0; x < 4; x++) {
            for (uint32_t k = 0; k < HK_SPEC_MAX; k++)
                spec[k] = x < 2 ? x : (k * 2654435761u >> 20) % (x == 2 ? 4 : 64);
            pruned(hk_kernels[i], spec, HK_SPEC_MAX);
        }
    }
}

/* A chain of one multiplication keeps a small part of its switch over all functions. */
static void test_chain_is_small(void **state)
{
    (void)state;
    const uint32_t spec[] = {64, 1, 1, 1, 0, 0, 0, 0, 31, 2, 0, 0, 0, 0, 0, 0, 1};
    size_t bytes = pruned(&hk_kernel_chain_rare_1, spec, sizeof spec / sizeof *spec);
    if (bytes * 5 > hk_kernel_chain_rare_1.spirv_bytes * 2)
        fail_msg("%zu of %zu bytes stay", bytes, hk_kernel_chain_rare_1.spirv_bytes);
}

/* if (S && !S) nothing(); as glslang writes it, S being constant 0: neither block stays that S leads not to, and the
 * phi knows that its value is false. */
#define I(size, op) (size << 16 | op)
static const uint32_t phi_module[] = {0x07230203,
                                      0x10000,
                                      0,
                                      32,
                                      0,
                                      I(2, 17),
                                      1,
                                      I(3, 14),
                                      0,
                                      1,
                                      I(5, OP_ENTRY_POINT),
                                      5,
                                      1,
                                      0x6e69616d,
                                      0,
                                      I(6, 16),
                                      1,
                                      17,
                                      1,
                                      1,
                                      1,
                                      I(4, OP_DECORATE),
                                      5,
                                      1,
                                      0,
                                      I(2, 19),
                                      2,
                                      I(3, 33),
                                      3,
                                      2,
                                      I(2, 20),
                                      4,
                                      I(3, 48),
                                      4,
                                      5,
                                      I(5, OP_FUNCTION),
                                      2,
                                      1,
                                      0,
                                      3,
                                      I(2, OP_LABEL),
                                      10,
                                      I(3, OP_SELECTION_MERGE),
                                      12,
                                      0,
                                      I(4, OP_BRANCH_CONDITIONAL),
                                      5,
                                      11,
                                      12,
                                      I(2, OP_LABEL),
                                      11,
                                      I(4, 168),
                                      4,
                                      13,
                                      5,
                                      I(2, OP_BRANCH),
                                      12,
                                      I(2, OP_LABEL),
                                      12,
                                      I(7, OP_PHI),
                                      4,
                                      14,
                                      5,
                                      10,
                                      13,
                                      11,
                                      I(3, OP_SELECTION_MERGE),
                                      16,
                                      0,
                                      I(4, OP_BRANCH_CONDITIONAL),
                                      14,
                                      15,
                                      16,
                                      I(2, OP_LABEL),
                                      15,
                                      I(2, OP_BRANCH),
                                      16,
                                      I(2, OP_LABEL),
                                      16,
                                      I(1, 253),
                                      I(1, 56)};
#undef I

static void test_phi(void **state)
{
    (void)state;
    const hk_kernel kernel = {.name = "phi", .spirv = phi_module, .spirv_bytes = sizeof phi_module};
    static const uint32_t branches[2][2] = {{12, 16}, {11, 16}}; /* of blocks 10 and 12 */
    for (uint32_t s = 0; s < 2; s++) {
        /* two merges, two conditions that become branches, block 15, one half of the phi; without S block 11 too */
        size_t gone = 2 * 3 + 2 * 2 + 4 + 2 + (s ? 0 : 8), bytes = 0, found = 0;
        assert_int_equal(pruned(&kernel, &s, 1), sizeof phi_module - 4 * gone);
        uint32_t *kept = hk_prune(ctx, &kernel, &s, 1, &bytes), label = 0;
        assert_non_null(kept);
        for (size_t at = 5; at < bytes / 4; at += kept[at] >> 16) {
            label = (kept[at] & 0xffff) == OP_LABEL ? kept[at + 1] : label;
            if ((kept[at] & 0xffff) == OP_BRANCH && label != 11)
                assert_int_equal(kept[at + 1], branches[s][found++]);
            if ((kept[at] & 0xffff) == OP_PHI) /* S, or what block 11 made of it */
                assert_true(kept[at + 3] == (s ? 13u : 5u) && kept[at + 4] == (s ? 11u : 10u));
        }
        assert_int_equal(found, 2);
        hk_free(ctx, kept);
    }
}

/* Only what loops say of themselves changes, and every loop says the same. */
static void test_loops_stay(void **state)
{
    (void)state;
    enum { CONTROL = 3, DONT_UNROLL = 2 };
    size_t changed = 0;
    for (size_t i = 0; hk_kernels[i]; i++) {
        const hk_kernel *kernel = hk_kernels[i];
        if (!kernel->spirv)
            continue;
        uint32_t *code = malloc(kernel->spirv_bytes);
        assert_non_null(code);
        memcpy(code, kernel->spirv, kernel->spirv_bytes);
        hk_keep_loops(code, kernel->spirv_bytes);
        for (size_t at = 0; at < kernel->spirv_bytes / 4; at += at < 5 ? 1 : kernel->spirv[at] >> 16) {
            size_t words = at < 5 ? 1 : kernel->spirv[at] >> 16;
            bool loop = at >= 5 && (kernel->spirv[at] & 0xffff) == OP_LOOP_MERGE && words == CONTROL + 1;
            assert_memory_equal(code + at, kernel->spirv + at, 4 * (loop ? (size_t)CONTROL : words));
            assert_true(!loop || code[at + CONTROL] == DONT_UNROLL);
            changed += loop && kernel->spirv[at + CONTROL] != DONT_UNROLL;
        }
        free(code);
    }
    assert_true(changed > 100);
}

/* NVIDIA's compiler (580) inlines calls seven deep and no deeper; a call that stays in a loop over fragments of matrix
 * units sends them to memory, which takes eight times as long and shows on no other device. */
static void test_calls_are_shallow(void **state)
{
    (void)state;
    enum { DEPTH = 7, HEADER = 5 };
    size_t deepest = 0;
    for (size_t i = 0; hk_kernels[i]; i++) {
        const hk_kernel *kernel = hk_kernels[i];
        size_t words = kernel->spirv && kernel->needs >> HK_CAP_COOPMAT & 1u ? kernel->spirv_bytes / 4 : 0;
        uint8_t *depth = words ? calloc(kernel->spirv[3], 1) : NULL; /* below a function, by its id */
        assert_true(!words || depth);
        for (size_t changed = words; changed > 0;) {
            uint32_t caller = 0;
            changed = 0;
            for (size_t at = HEADER; at < words; at += kernel->spirv[at] >> 16) {
                const uint32_t *w = kernel->spirv + at;
                if ((w[0] & 0xffff) == OP_FUNCTION)
                    caller = w[2];
                if ((w[0] & 0xffff) == OP_CALL && depth[caller] <= depth[w[3]]) {
                    depth[caller] = (uint8_t)(depth[w[3]] + 1);
                    changed++;
                    if (depth[caller] > DEPTH)
                        fail_msg("kernel '%s' calls more than %d functions deep", kernel->name, DEPTH);
                    deepest = HK_MAX(deepest, (size_t)depth[caller]);
                }
            }
        }
        free(depth);
    }
    assert_int_equal(deepest, DEPTH);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_kernel),   cmocka_unit_test(test_damage_is_seen),
                                       cmocka_unit_test(test_chain_is_small), cmocka_unit_test(test_phi),
                                       cmocka_unit_test(test_loops_stay),     cmocka_unit_test(test_calls_are_shallow)};
    const test_program program = {.name = "prune", TESTS(tests), .device = TEST_HOST};
    return test_main(argc, argv, &program);
}
