/*
 * Weight tying that an export lost. PyTorch trains a language model's embedding and its head as one parameter; when
 * the exporter folds the transposition between them, or stores each name, the file has two tensors of equal contents,
 * which training would drive apart.
 */
#include <stdlib.h>
#include <string.h>

#include "ops/roles.h"
#include "ops/support/build.h"
#include "train/edit.h"

enum { SAMPLES = 64 };

typedef struct matrix {
    hk_value *v;
    uint64_t hash; /* of type, extents and part of the diagonal, which a transposition leaves as they are */
    bool embedding;
} matrix;

static uint64_t mixed(uint64_t hash, uint64_t x)
{
    return (hash ^ x) * 0x100000001b3ull;
}

static const char *element(const hk_value *v, int64_t row, int64_t column)
{
    return (const char *)v->data->data + (row * v->shape.dim[1] + column) * (int64_t)hk_dtype_bytes(v->dtype);
}

/* Also tells whether the diagonal is one number: zeros and ones begin equal, and are no sign of anything. */
static uint64_t hash_of(const hk_value *v, bool *varied)
{
    int64_t rows = v->shape.dim[0], columns = v->shape.dim[1], least = HK_MIN(rows, columns);
    size_t bytes = hk_dtype_bytes(v->dtype);
    uint64_t hash = mixed(mixed(mixed(0xcbf29ce484222325ull, (uint64_t)v->dtype), (uint64_t)least),
                          (uint64_t)HK_MAX(rows, columns));
    *varied = false;
    for (int64_t i = 0; i < HK_MIN(least, SAMPLES); i++) {
        uint64_t x = 0;
        memcpy(&x, element(v, i, i), bytes);
        hash = mixed(hash, x);
        *varied |= memcmp(element(v, i, i), element(v, 0, 0), bytes) != 0;
    }
    return hash;
}

static bool equal(const hk_value *a, const hk_value *b, bool flipped)
{
    int64_t rows = a->shape.dim[0], columns = a->shape.dim[1];
    size_t bytes = hk_dtype_bytes(a->dtype);
    if (a->dtype != b->dtype || b->shape.dim[flipped] != rows || b->shape.dim[!flipped] != columns)
        return false;
    if (!flipped)
        return memcmp(a->data->data, b->data->data, (size_t)(rows * columns) * bytes) == 0;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t k = 0; k < columns; k++)
            if (memcmp(element(a, i, k), element(b, k, i), bytes) != 0)
                return false;
    return true;
}

static bool is_embedding(const hk_uses *uses, const hk_value *v)
{
    for (uint32_t i = 0; i < uses->count[v->id]; i++)
        if (hk_node_is(uses->users[v->id][i], "Gather"))
            return true;
    return false;
}

static hk_status list_matrices(const hk_graph *g, hk_arena *arena, matrix **out, size_t *count)
{
    hk_uses uses;
    HK_TRY(hk_graph_uses(g, arena, &uses));
    matrix *list = hk_arena_array(arena, g->value_count + 1, sizeof *list);
    if (!list)
        return hk_out_of_memory(g->ctx, "a list of matrices");
    for (size_t i = 0; i < g->value_count; i++) {
        hk_value *v = g->values[i];
        bool varied = false;
        if (v->kind != HK_VALUE_PARAMETER || v->shape.rank != 2 || !v->data || hk_shape_count(&v->shape) < 2)
            continue;
        uint64_t hash = hash_of(v, &varied);
        if (varied)
            list[(*count)++] = (matrix){.v = v, .hash = hash, .embedding = is_embedding(&uses, v)};
    }
    *out = list;
    return HK_OK;
}

/* By hash, embeddings before others, so that these are kept. */
static int by_hash(const void *x, const void *y)
{
    const matrix *a = x, *b = y;
    if (a->hash != b->hash)
        return a->hash < b->hash ? -1 : 1;
    if (a->embedding != b->embedding)
        return a->embedding ? -1 : 1;
    return a->v->id < b->v->id ? -1 : 1;
}

hk_status hk_edit_find_ties(const hk_graph *g, hk_arena *arena, hk_tie **out, size_t *count)
{
    matrix *list = NULL;
    size_t matrices = 0;
    *count = 0;
    HK_TRY(list_matrices(g, arena, &list, &matrices));
    hk_tie *ties = hk_arena_array(arena, matrices + 1, sizeof *ties);
    if (!ties)
        return hk_out_of_memory(g->ctx, "a list of matrices");
    qsort(list, matrices, sizeof *list, by_hash);
    for (size_t i = 0, first = 0; i < matrices; i++) { /* each with the first of its hash alone: linear in the bytes */
        first = list[i].hash == list[first].hash ? first : i;
        for (int flipped = 0; flipped < 2 && first < i; flipped++)
            if (equal(list[first].v, list[i].v, flipped)) {
                ties[(*count)++] = (hk_tie){list[first].v, list[i].v, flipped};
                break;
            }
    }
    *out = ties;
    return HK_OK;
}

hk_status hk_edit_tie(hk_graph *g, hk_arena *arena, bool *changed)
{
    hk_tie *ties = NULL;
    size_t count = 0;
    HK_TRY(hk_edit_find_ties(g, arena, &ties, &count));
    for (size_t i = 0; i < count; i++) {
        hk_value *one = ties[i].kept;
        if (ties[i].transposed)
            HK_TRY(hk_build_transpose(g, one, (const int64_t[]){1, 0}, 2, &one));
        hk_graph_replace(g, ties[i].copy, one);
        ties[i].copy->kind = HK_VALUE_CONSTANT; /* that nobody uses, so it is not written */
        ties[i].copy->payload = NULL;
        *changed = true;
    }
    return hk_graph_sort(g);
}
