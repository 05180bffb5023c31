/* Splitting matrices for precision high: shaders/gemm_split.comp, and what a plan has split already. */
#include "ops/support/gemm_split.h"

#include <stdio.h>
#include <string.h>

#include "kernels.h"
#include "ops/divisor.h"
#include "ops/support/choice.h"
#include "shaders/gemm_split.push.h"

enum { KEY_BYTES = 256, THREADS = 128 };

static int64_t blocks_of(int64_t extent)
{
    return (extent + HK_SPLIT_SIDE - 1) / HK_SPLIT_SIDE;
}

int64_t hk_split_blocks(int64_t rows, int64_t columns)
{
    return blocks_of(rows) * blocks_of(columns);
}

hk_value *hk_split_scratch(hk_lower *l, int64_t matrices, int64_t rows, int64_t columns)
{
    int64_t words = HK_SPLIT_SIDE * HK_SPLIT_SIDE + 1; /* of a block and its undo */
    return hk_scratch(l, HK_FLOAT32, matrices * hk_split_blocks(rows, columns) * words);
}

/* What v is a view of, and how many elements into it. Whoever is told to wait (hk.After) is not: its halves would lie
 * in memory from the first reader on. */
static const hk_value *root_of(const hk_value *v, int64_t *offset)
{
    *offset = 0;
    while (v->producer && hk_node_view_offset(v->producer) >= 0 && strcmp(v->producer->type, HK_AFTER) != 0) {
        *offset += hk_node_view_offset(v->producer);
        v = v->producer->in[0];
    }
    return v;
}

bool hk_split_is_constant(const hk_split *s)
{
    int64_t offset;
    hk_value_kind kind = root_of(s->from, &offset)->kind;
    return kind == HK_VALUE_CONSTANT || kind == HK_VALUE_PARAMETER;
}

/* The name under which a plan's halves are remembered. False: they are not. Scratch, and what the node under way makes,
 * may change after its halves were made; and while candidates are measured each product splits for itself, so that its
 * time does not depend on what the others try. */
static bool key_of(const hk_lower *l, const hk_split *s, char key[KEY_BYTES])
{
    int64_t offset;
    const hk_value *root = root_of(s->from, &offset);
    if (root->kind == HK_VALUE_ACTIVATION && (!root->producer || root->producer == l->node))
        return false;
    int length = snprintf(key, KEY_BYTES, "%u+%lld: %lld of %lldx%lld, %lld, %lld, %lld %lld %lld %lld %d", root->id,
                          (long long)offset, (long long)s->matrices, (long long)s->rows, (long long)s->columns,
                          (long long)s->ld, (long long)s->step, (long long)s->plane, (long long)s->line,
                          (long long)s->line_step, (long long)s->pixel_step, s->turned);
    return length > 0 && length < KEY_BYTES && !hk_choice_measures(l);
}

double hk_split_bytes(const hk_lower *l, const hk_split *s)
{
    char key[KEY_BYTES];
    if (hk_split_is_constant(s) || (key_of(l, s, key) && hk_map_get(&l->splits, key)))
        return 0.0;
    return 8.0 * (double)s->matrices * (double)s->rows * (double)s->columns;
}

static void emit(hk_lower *l, const hk_split *s, hk_value *to)
{
    hk_record *r = hk_emit(l, &hk_kernel_gemm_split, "gemm split");
    int64_t blocks = s->matrices * hk_split_blocks(s->rows, s->columns);
    struct gemm_split_push push = {.rows = (uint32_t)s->rows,
                                   .columns = (uint32_t)s->columns,
                                   .ld = (uint32_t)s->ld,
                                   .matrix = (uint32_t)s->step,
                                   .blocks = (uint32_t)blocks};
    r->keep = true; /* once, where the matrix is constant */
    hk_push(r, &push, sizeof push);
    hk_use(r, s->from, HK_READ, offsetof(struct gemm_split_push, from));
    hk_use(r, to, HK_WRITE, offsetof(struct gemm_split_push, to));
    hk_workgroup(r, THREADS, 1, 1);
    bool wide = !s->turned && !s->line && hk_value_alignment(s->from) == 16 && s->ld % 4 == 0 && s->step % 4 == 0 &&
                (s->plane ? s->plane : s->columns) % 4 == 0;
    const uint32_t spec[] = {THREADS,
                             s->turned,
                             wide,
                             (uint32_t)s->plane,
                             (uint32_t)s->line,
                             (uint32_t)s->line_step,
                             (uint32_t)s->pixel_step};
    for (uint32_t i = 0; i < HK_COUNT(spec); i++)
        hk_spec(r, 3 + i, spec[i]);
    hk_grid_1d(l, r, (uint64_t)((blocks + THREADS / 32 - 1) / (THREADS / 32)));
}

hk_value *hk_split_lower(hk_lower *l, const hk_split *s)
{
    char key[KEY_BYTES];
    bool named = key_of(l, s, key);
    hk_value *to = named ? hk_map_get(&l->splits, key) : NULL;
    if (to)
        return to;
    to = hk_split_scratch(l, s->matrices, s->rows, s->columns);
    if (!to)
        return NULL;
    emit(l, s, to);
    if (!l->splits.arena)
        hk_map_init(&l->splits, l->arena);
    if (named && !hk_map_set(&l->splits, key, to))
        l->failed = true;
    return to;
}
