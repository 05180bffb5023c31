/* Attention: the host's evaluation, and which kernel for which shape. */
#include "ops/support/attention.h"

#include <math.h>
#include <string.h>

#include "kernels.h"
#include "ops/divisor.h"
#include "ops/support/choice.h"
#include "ops/support/gemm.h"
#include "ops/support/reduce.h"
#include "shaders/attention.push.h"

/* Of shaders/attention_common.glsl. */
enum { MASK_NONE, MASK_ADDED, MASK_BOOL };
enum { WIDE_Q = 1, WIDE_K = 2, WIDE_V = 4, WIDE_Y = 8, HALVES = 4 };
enum { KEYS = 32, ACROSS = 8, CHUNKS_MOST = 4 }; /* of shaders/attention.comp */

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

bool hk_attention_set_mask(hk_attention *p, const hk_shape *mask, bool short_mask)
{
    int64_t dim[4] = {1, 1, 1, 1}, stride[4], step = 1;
    const int64_t want[4] = {p->batch, p->heads, p->rows, p->keys};
    if (mask->rank > 4)
        return false;
    for (int32_t d = 0; d < mask->rank; d++)
        dim[4 - mask->rank + d] = mask->dim[d];
    for (int d = 3; d >= 0; d--) {
        stride[d] = dim[d] == 1 ? 0 : step;
        step *= dim[d];
    }
    bool short_columns = short_mask && dim[3] < want[3];
    if ((dim[3] != want[3] && dim[3] != 1 && !short_columns) || (dim[2] != want[2] && dim[2] != 1) ||
        (dim[1] != want[1] && dim[1] != 1) || (dim[0] ? want[0] % dim[0] : want[0]))
        return false;
    p->mask = true;
    p->mask_batches = HK_MAX(dim[0], (int64_t)1);
    p->mask_batch = stride[0];
    p->mask_head = stride[1];
    p->mask_row = stride[2];
    p->mask_column = stride[3];
    p->mask_columns = short_columns ? dim[3] : p->keys;
    return true;
}

bool hk_attention_is_whole(const hk_attention_view *v, const int64_t extent[4], int64_t count, int64_t order[4])
{
    int64_t stride[4] = {v->batch, v->head, v->row, 1}, inner = 1;
    for (int i = 0; i < 4; i++) { /* insertion by stride, the longest first */
        int at = i;
        stride[i] = extent[i] > 1 ? stride[i] : 0;
        for (; at > 0 && stride[order[at - 1]] < stride[i]; at--)
            order[at] = order[at - 1];
        order[at] = i;
    }
    for (int d = 3; d >= 0; d--) {
        if (extent[order[d]] > 1 && stride[order[d]] != inner)
            return false;
        inner *= extent[order[d]];
    }
    return v->offset == 0 && inner == count;
}

/* ---- host */

/* Keys that a query may see. */
static int64_t visible_keys(const hk_attention *p, const hk_attention_tensors *t, int64_t b, int64_t row)
{
    int64_t limit = p->keys, past = p->past;
    if (p->lengths) {
        limit = HK_MAX(HK_MIN(hk_get_int(t->lengths, b), p->keys), (int64_t)0);
        past = limit - p->rows;
    }
    return p->causal ? HK_MAX(HK_MIN(limit, past + row + 1), (int64_t)0) : limit;
}

static double masked(const hk_attention *p, const hk_tensor *mask, int64_t b, int64_t head, int64_t row, int64_t key,
                     double s)
{
    if (!p->mask)
        return s;
    if (key >= p->mask_columns)
        return -INFINITY;
    int64_t at = b % p->mask_batches * p->mask_batch + head * p->mask_head + row * p->mask_row + key * p->mask_column;
    if (mask->dtype == HK_BOOL)
        return hk_get_int(mask, at) ? s : -INFINITY;
    return s + hk_get_double(mask, at);
}

/* The scores of one query up to a stage; returns whether it sees any key. */
static void score_row(const hk_attention *p, const hk_attention_tensors *t, int64_t b, int64_t head, int64_t row,
                      hk_attention_stage stage, double *s)
{
    int64_t kv = head / (p->heads / p->kv_heads), limit = visible_keys(p, t, b, row);
    int64_t q = p->q.offset + b * p->q.batch + head * p->q.head + row * p->q.row;
    double largest = -INFINITY, sum = 0.0;
    for (int64_t key = 0; key < p->keys; key++) {
        int64_t k = p->k.offset + b * p->k.batch + kv * p->k.head + key * p->k.row;
        s[key] = 0.0;
        for (int64_t d = 0; d < p->size; d++)
            s[key] += hk_get_double(t->q, q + d) * hk_get_double(t->k, k + d);
        s[key] *= (double)p->scale;
        if (stage == HK_ATTENTION_PRODUCTS)
            continue;
        s[key] = key < limit ? masked(p, t->mask, b, head, row, key, s[key]) : -INFINITY;
        if (stage >= HK_ATTENTION_CAPPED && p->softcap > 0 && s[key] > -INFINITY)
            s[key] = (double)p->softcap * tanh(s[key] / (double)p->softcap);
        largest = fmax(largest, s[key]);
    }
    if (stage != HK_ATTENTION_PROBABILITIES)
        return;
    for (int64_t key = 0; key < p->keys; key++)
        sum += s[key] = exp(s[key] - largest);
    for (int64_t key = 0; key < p->keys; key++)
        s[key] = p->zero && !(sum > 0.0) ? 0.0 : s[key] / sum;
}

static void weigh_values(const hk_attention *p, const hk_attention_tensors *t, int64_t b, int64_t head, int64_t row,
                         const double *s)
{
    int64_t kv = head / (p->heads / p->kv_heads), v = p->v.offset + b * p->v.batch + kv * p->v.head;
    int64_t y = p->order == HK_ATTENTION_HEADS  ? (b * p->heads + head) * p->rows + row
                : p->order == HK_ATTENTION_ROWS ? (b * p->rows + row) * p->heads + head
                                                : (row * p->batch + b) * p->heads + head;
    for (int64_t c = 0; c < p->v_size; c++) {
        double sum = 0.0;
        for (int64_t key = 0; key < p->keys; key++)
            sum += s[key] * hk_get_double(t->v, v + key * p->v.row + c);
        hk_set_double(t->y, y * p->v_size + c, sum);
    }
}

hk_status hk_attention_eval(hk_context *ctx, hk_arena *arena, const hk_attention *p, hk_attention_stage stage,
                            const hk_attention_tensors *t)
{
    double *s = hk_arena_array(arena, (size_t)HK_MAX(p->keys, (int64_t)1), sizeof *s);
    if (!s)
        return hk_out_of_memory(ctx, "an attention's scores");
    for (int64_t i = 0; i < p->batch * p->heads * p->rows; i++) {
        int64_t b = i / p->rows / p->heads, head = i / p->rows % p->heads, row = i % p->rows;
        if (t->scores) {
            score_row(p, t, b, head, row, stage, s);
            for (int64_t key = 0; key < p->keys; key++)
                hk_set_double(t->scores, i * p->keys + key, s[key]);
        }
        if (t->y) {
            score_row(p, t, b, head, row, HK_ATTENTION_PROBABILITIES, s);
            weigh_values(p, t, b, head, row, s);
        }
    }
    return HK_OK;
}

/* ---- device */

/* The tile of a workgroup: specialization constants of shaders/attention.comp. In the order they are tried. */
typedef struct tile {
    const char *name;
    uint32_t queries, slices;
    bool small; /* only where all its workgroups run at once */
} tile;

static const tile tiles[] = {
    {"attention 16x32/4", 16, 4, true}, {"attention 32x32/2", 32, 2, true}, {"attention 16x32/2", 16, 2, true},
    {"attention 16x32", 16, 1, true},   {"attention 64x32", 64, 1, false},  {"attention 32x32", 32, 1, false},
    {"attention 16x32", 16, 1, false},
};

typedef struct choice {
    const tile *tile;
    uint32_t chunk, q_chunks, v_chunks;
    bool subgroup;
} choice;

static uint32_t threads_of(const tile *t)
{
    return ACROSS * t->queries / 4 * t->slices;
}

static uint32_t shared_bytes(const choice *c)
{
    uint32_t down = c->tile->queries / 4, units = c->chunk / 4;
    uint32_t q = c->q_chunks * (c->chunk * down + units), keys = c->chunk * KEYS / 4 + units,
             p = KEYS * down + KEYS / 4;
    return 16 * (q + c->tile->slices * (keys + p) + (c->subgroup ? 0 : threads_of(c->tile)));
}

static bool tile_fits(const hk_lower *l, const hk_attention *p, choice *c)
{
    uint32_t threads = threads_of(c->tile), width = l->device->subgroup_size;
    c->subgroup = hk_kernel_attention_subgroup.spirv && hk_lower_has(l, HK_CAP_SUBGROUP) &&
                  hk_lower_has(l, HK_CAP_SUBGROUP_SIZE) && width >= ACROSS && threads % width == 0;
    /* Results of four queries and a tile on its way must fit a thread's registers. */
    uint32_t registers = 4 * c->v_chunks * c->chunk / ACROSS + KEYS * c->chunk / (ACROSS * c->tile->queries / 4);
    return threads <= l->device->max_invocations && shared_bytes(c) <= l->device->max_shared_bytes &&
           registers <= 176 && (c->tile->slices == 1 || (int64_t)(c->tile->slices - 1) * KEYS < p->keys);
}

static void begin_choice(const hk_lower *l, const hk_attention *p, const hk_attention_values *v, const char *family,
                         hk_choice *c)
{
    hk_choice_begin(l, c, HK_CHOICE_TILE, "%s %s %lldx%lld %lldx%lld %lldx%lld %s%s", family, hk_choice_precision(l),
                    (long long)p->batch, (long long)p->heads, (long long)p->rows, (long long)p->keys,
                    (long long)p->size, (long long)p->v_size, hk_dtype_name(hk_value_storage(v->q)),
                    p->causal ? " causal" : "");
}

/* Where all workgroups of a small tile run at once, the smallest is done first: slices of the keys share its work. Else
 * a large tile, which reads keys and values less often. */
static bool choose_tile(hk_lower *l, const hk_attention *p, const hk_attention_values *v, choice *c)
{
    hk_choice ranked;
    int64_t widest = HK_MAX(p->size, p->v_size);
    *c = (choice){.chunk = widest <= 32 || (widest > 64 && widest <= 96) ? 32 : 64};
    if (widest > CHUNKS_MOST * (int64_t)c->chunk)
        return false;
    c->q_chunks = (uint32_t)HK_MAX(ceil_div(p->size, c->chunk), (int64_t)1);
    c->v_chunks = (uint32_t)HK_MAX(ceil_div(p->v_size, c->chunk), (int64_t)1);
    begin_choice(l, p, v, "attention", &ranked);
    for (size_t i = 0; i < HK_COUNT(tiles); i++) {
        c->tile = &tiles[i];
        int64_t groups = p->batch * p->heads * ceil_div(p->rows, c->tile->queries);
        bool last = c->tile->small && groups > (int64_t)l->compute_units_hint; /* without slices it comes again */
        if (tile_fits(l, p, c) && !(last && c->tile->slices == 1))
            hk_choice_add(&ranked, &(hk_candidate){.name = c->tile->name,
                                                   .variant = c->tile,
                                                   .splits = 1,
                                                   .cost = (double)(last ? HK_COUNT(tiles) + i : i)});
    }
    const hk_candidate *taken = hk_choice_end(l, &ranked);
    c->tile = taken ? taken->variant : NULL;
    return taken && tile_fits(l, p, c); /* which fills in what the tile needs */
}

/* Whether rows of an operand can be read or written as vectors. */
static bool is_wide(const hk_value *v, const hk_attention_view *w, int64_t extent)
{
    return hk_value_alignment(v) == 16 && (w->offset | w->batch | w->head | w->row | extent) % 4 == 0;
}

static uint32_t access_bits(const hk_value *v, const hk_attention_view *w, int64_t extent, uint32_t wide)
{
    return !is_wide(v, w, extent) ? 0u : hk_stores_halves(v) ? wide | wide << HALVES : wide;
}

/* Float16 is read by vectors; a float32 copy of what does not lie so. */
static hk_value *readable(hk_lower *l, hk_value *v, const hk_attention_view *w, int64_t extent)
{
    return is_wide(v, w, extent) ? v : hk_as_float32(l, v);
}

/* What push.extra points to. */
static void set_extra(hk_lower *l, hk_record *r, const hk_attention *p)
{
    uint32_t *extra = hk_arena_array(l->arena, 7, sizeof *extra);
    if (!extra) {
        l->failed = true;
        return;
    }
    const int64_t mask[] = {p->mask_batches, p->mask_batch, p->mask_head, p->mask_row, p->mask_column, p->mask_columns};
    for (size_t i = 0; i < HK_COUNT(mask); i++)
        extra[i] = (uint32_t)mask[i];
    memcpy(&extra[6], &p->softcap, sizeof p->softcap);
    r->block = extra;
    r->block_bytes = 7 * sizeof *extra;
    r->block_offset = offsetof(struct attention_push, extra);
}

/* The first byte that a view touches goes to the kernel, so that offsets need no place in the push block. */
static void use_view(hk_record *r, hk_value *v, const hk_attention_view *w, size_t push_offset)
{
    uint64_t first = (uint64_t)w->offset * hk_dtype_device_bytes(hk_value_storage(v));
    hk_use_range(r, v, first, hk_value_bytes(v) - first, HK_READ, push_offset);
}

/* What the kernels share. y: results, or the scores that attention_scores works on in place. */
static hk_record *emit(hk_lower *l, const hk_attention *p, const hk_attention_values *v, const hk_kernel *kernel,
                       const char *name)
{
    hk_record *r = hk_emit(l, kernel, name);
    bool causal_lengths = p->causal && p->lengths;
    const struct attention_push push = {
        .q_batch = (uint32_t)p->q.batch,
        .q_head = (uint32_t)p->q.head,
        .q_row = (uint32_t)p->q.row,
        .k_batch = (uint32_t)p->k.batch,
        .k_head = (uint32_t)p->k.head,
        .k_row = (uint32_t)p->k.row,
        .v_batch = (uint32_t)p->v.batch,
        .v_head = (uint32_t)p->v.head,
        .v_row = (uint32_t)p->v.row,
        .rows = (uint32_t)p->rows,
        .keys = (uint32_t)p->keys,
        .size = (uint32_t)p->size,
        .v_size = (uint32_t)p->v_size,
        .heads = (uint32_t)p->heads,
        .group = (uint32_t)(p->heads / p->kv_heads),
        .past = (uint32_t)(causal_lengths ? -p->rows : p->past),
        .batches = (uint32_t)p->batch,
        .scale = p->scale,
    };
    hk_push(r, &push, sizeof push);
    if (p->mask || p->softcap > 0)
        set_extra(l, r, p);
    hk_use(r, p->mask ? v->mask : NULL, HK_READ, offsetof(struct attention_push, mask));
    hk_use(r, p->lengths ? v->lengths : NULL, HK_READ, offsetof(struct attention_push, lengths));
    hk_spec(r, 3, !p->mask ? MASK_NONE : v->mask->dtype == HK_BOOL ? MASK_BOOL : MASK_ADDED);
    hk_spec(r, 4, p->causal);
    hk_spec(r, 5, p->lengths);
    hk_spec(r, 6, p->softcap > 0);
    return r;
}

static void use_operands(hk_record *r, const hk_attention *p, const hk_attention_values *v)
{
    const hk_attention_view y = {0};
    use_view(r, v->q, &p->q, offsetof(struct attention_push, q));
    use_view(r, v->k, &p->k, offsetof(struct attention_push, k));
    use_view(r, v->v, &p->v, offsetof(struct attention_push, v));
    hk_use(r, v->y, HK_WRITE, offsetof(struct attention_push, y));
    hk_spec(r, 7,
            access_bits(v->q, &p->q, p->size, WIDE_Q) | access_bits(v->k, &p->k, p->size, WIDE_K) |
                access_bits(v->v, &p->v, p->v_size, WIDE_V) | access_bits(v->y, &y, p->v_size, WIDE_Y));
    hk_spec(r, 8, p->order);
    hk_spec(r, 9, p->zero);
    r->flops = 2.0 * (double)(p->batch * p->heads * p->rows) * (double)(p->keys * (p->size + p->v_size));
}

static void emit_tiles(hk_lower *l, const hk_attention *p, const hk_attention_values *v, const choice *c)
{
    int64_t groups = p->batch * p->heads * ceil_div(p->rows, c->tile->queries);
    hk_record *r = emit(l, p, v, c->subgroup ? &hk_kernel_attention_subgroup : &hk_kernel_attention, c->tile->name);
    use_operands(r, p, v);
    hk_workgroup(r, threads_of(c->tile), 1, 1);
    uint32_t step = l->device->type == HK_DEVICE_SOFTWARE ? 4 : 16; /* short code compiles sooner */
    const uint32_t spec[] = {c->tile->queries, c->tile->slices, c->chunk, c->q_chunks, c->v_chunks, step};
    for (uint32_t i = 0; i < HK_COUNT(spec); i++)
        hk_spec(r, 10 + i, spec[i]);
    r->subgroup_size = c->subgroup ? l->device->subgroup_size : 0;
    hk_grid_1d(l, r, (uint64_t)groups);
}

/* ---- matrix units */

/* The subgroups of a workgroup, along queries and along keys and columns, and the keys of a tile. In the order they are
 * tried, but the first, which is for shared memory that none of the others fits. */
typedef struct matrix_tile {
    const char *name;
    uint32_t wm, wn, keys;
} matrix_tile;

static const matrix_tile matrix_tiles[] = {{"attention matrix 1x2, 32 keys", 1, 2, 32},
                                           {"attention matrix 1x4", 1, 4, 64},
                                           {"attention matrix 2x2", 2, 2, 64},
                                           {"attention matrix 4x1", 4, 1, 64}};

typedef struct matrix_choice {
    const matrix_tile *tile;
    uint32_t size, v_size, threads; /* sizes as the kernel pads them */
} matrix_choice;

static const hk_kernel *matrix_kernel(const hk_lower *l)
{
    return l->coopmat_emulated ? &hk_kernel_attention_matrix_emulated : &hk_kernel_attention_matrix;
}

static uint32_t padded(int64_t x, uint32_t unit)
{
    return (uint32_t)ceil_div(HK_MAX(x, (int64_t)1), unit) * unit;
}

/* The shared memory that attention_matrix.comp declares. */
static uint32_t matrix_bytes(const hk_lower *l, const matrix_choice *c)
{
    const matrix_tile *t = c->tile;
    uint32_t queries = t->wm * l->coopmat_m, fragments = (t->keys + c->v_size) / l->coopmat_n / t->wn;
    uint32_t q_row = c->size / 8 + 1, v_row = c->v_size / 8 + 1;
    uint32_t words = queries * (q_row + t->keys / 4 + 1 + l->coopmat_n / 4) + t->keys * HK_MAX(q_row, v_row);
    uint32_t emulated = 4 * (t->wm * t->wn * (fragments + 1) * l->coopmat_m * l->coopmat_n + c->threads);
    return 16 * HK_MAX(words, queries * (c->v_size / 4 + 1)) + 8 + (l->coopmat_emulated ? emulated : 0);
}

static bool matrix_tile_fits(const hk_lower *l, const hk_attention *p, matrix_choice *c)
{
    const matrix_tile *t = c->tile;
    uint32_t width = l->device->subgroup_size, n = l->coopmat_n * t->wn, queries = t->wm * l->coopmat_m;
    c->threads = t->wm * t->wn * width;
    c->size = padded(p->size, l->coopmat_k);
    c->v_size = padded(p->v_size, n);
    uint32_t across = HK_MAX(c->threads / queries, 1u);
    return t->keys % n == 0 && t->keys % l->coopmat_k == 0 && t->keys / 4 % across == 0 && across <= width &&
           HK_MAX(c->threads, queries) % HK_MIN(c->threads, queries) == 0 &&
           (t->keys + c->v_size) / n <= 16 && /* fragments that a subgroup's registers hold */
           c->threads <= l->device->max_invocations && matrix_bytes(l, c) <= l->device->max_shared_bytes;
}

/* Rows of float16 that are whole, aligned octets. */
static bool has_octets(const hk_value *v, const hk_attention_view *w, int64_t extent)
{
    return hk_stores_halves(v) && hk_value_alignment(v) == 16 &&
           (w->offset | w->batch | w->head | w->row | extent) % 8 == 0;
}

/* Few queries for a workgroup where that gives each unit few workgroups; else many, which read the keys less often. */
static bool choose_matrix(hk_lower *l, const hk_attention *p, const hk_attention_values *v, matrix_choice *c)
{
    const hk_kernel *kernel = matrix_kernel(l);
    const matrix_tile *spare = &matrix_tiles[0];
    bool enough = false;
    hk_choice ranked;
    if (l->precision != HK_PRECISION_FAST || !l->coopmat_m || !kernel->spirv || (kernel->needs & ~l->device->caps) ||
        l->coopmat_m % 8 || l->coopmat_n % 8 || l->coopmat_k % 8 || !has_octets(v->q, &p->q, p->size) ||
        !has_octets(v->k, &p->k, p->size) || !has_octets(v->v, &p->v, p->v_size))
        return false;
    begin_choice(l, p, v, "attention matrix", &ranked);
    for (size_t i = 1; i <= HK_COUNT(matrix_tiles); i++) {
        c->tile = &matrix_tiles[i % HK_COUNT(matrix_tiles)];
        int64_t groups = p->batch * p->heads * ceil_div(p->rows, c->tile->wm * l->coopmat_m);
        if (!matrix_tile_fits(l, p, c))
            continue;
        double rank = enough || c->tile == spare ? (double)i : -(double)i; /* the last one until it is enough */
        enough |= groups <= 2 * (int64_t)l->compute_units_hint;
        hk_choice_add(&ranked, &(hk_candidate){.name = c->tile->name, .variant = c->tile, .splits = 1, .cost = rank});
    }
    const hk_candidate *taken = hk_choice_end(l, &ranked);
    c->tile = taken ? taken->variant : NULL;
    return taken && matrix_tile_fits(l, p, c); /* which fills in what the tile needs */
}

static void emit_matrix(hk_lower *l, const hk_attention *p, const hk_attention_values *v, const matrix_choice *c)
{
    const matrix_tile *t = c->tile;
    hk_record *r = emit(l, p, v, matrix_kernel(l), t->name);
    use_operands(r, p, v);
    hk_workgroup(r, c->threads, 1, 1);
    const uint32_t spec[] = {t->keys,    c->size,      c->v_size,    t->wm,       t->wn,
                             c->threads, l->coopmat_m, l->coopmat_n, l->coopmat_k};
    for (uint32_t i = 0; i < HK_COUNT(spec); i++)
        hk_spec(r, 10 + i, spec[i]);
    r->subgroup_size = hk_lower_has(l, HK_CAP_SUBGROUP_SIZE) ? l->device->subgroup_size : 0;
    hk_grid_1d(l, r, (uint64_t)(p->batch * p->heads * ceil_div(p->rows, t->wm * l->coopmat_m)));
}

static void emit_registers(hk_lower *l, const hk_attention *p, const hk_attention_values *v)
{
    uint32_t columns = 4, threads = l->cpu ? 8 : 64; /* columns: vectors that an invocation holds */
    while (columns < 16 && 4 * (int64_t)columns < p->v_size)
        columns *= 2;
    int64_t work = p->batch * p->heads * p->rows * ceil_div(p->v_size, 4 * (int64_t)columns);
    hk_record *r = emit(l, p, v, &hk_kernel_attention_cpu, "attention registers");
    use_operands(r, p, v);
    hk_workgroup(r, threads, 1, 1);
    hk_spec(r, 10, columns);
    hk_grid_1d(l, r, (uint64_t)ceil_div(work, threads));
}

void hk_attention_emit(hk_lower *l, const hk_attention *p, const hk_attention_values *values)
{
    choice c;
    matrix_choice m;
    const hk_attention_view whole = {0};
    hk_attention_values v = *values;
    if (p->batch * p->heads * p->rows * p->v_size == 0)
        return;
    if (p->keys == 0) { /* a sum of nothing */
        hk_emit_fill(l, v.y, 0);
        return;
    }
    v.q = readable(l, v.q, &p->q, p->size);
    v.k = readable(l, v.k, &p->k, p->size);
    v.v = readable(l, v.v, &p->v, p->v_size);
    v.y = is_wide(v.y, &whole, p->v_size) ? v.y : hk_float32_target(l, v.y);
    if (!v.y)
        return; /* l->failed tells */
    /* The reduced limits of HILLOCK_CAPS=min stand for a small GPU, so that a machine without one tests its kernels. */
    bool cpu = l->cpu && l->device->max_invocations > 128;
    if (choose_matrix(l, p, &v, &m))
        emit_matrix(l, p, &v, &m);
    else if (!cpu && choose_tile(l, p, &v, &c))
        emit_tiles(l, p, &v, &c);
    else
        emit_registers(l, p, &v);
    hk_choice_leave(l, HK_CHOICE_TILE);
    if (v.y != values->y)
        hk_emit_convert(l, v.y, values->y);
}

hk_status hk_attention_emit_scores(hk_lower *l, const hk_attention *p, const hk_attention_values *v,
                                   hk_attention_stage stage, hk_value *scores)
{
    int64_t group = p->heads / p->kv_heads, count = p->batch * p->heads * p->rows * p->keys;
    if (count == 0)
        return HK_OK;
    hk_value *products = scores;
    if (stage == HK_ATTENTION_PROBABILITIES && !(products = hk_scratch(l, HK_FLOAT32, count)))
        return HK_OK; /* l->failed tells */
    const hk_gemm g = {.a = v->q,
                       .b = v->k,
                       .c = products,
                       .m = p->rows,
                       .n = p->keys,
                       .k = p->size,
                       .lda = p->q.row,
                       .ldb = p->k.row,
                       .trans_b = true,
                       .batch_rank = 3,
                       .batch = {p->batch, p->kv_heads, group},
                       .batch_a = {p->q.batch, group * p->q.head, p->q.head},
                       .batch_b = {p->k.batch, p->k.head, 0},
                       .alpha = p->scale,
                       .beta = 1.0f};
    HK_TRY(hk_gemm_lower(l, &g));
    if (stage == HK_ATTENTION_PRODUCTS)
        return HK_OK;
    hk_attention q = *p;
    q.softcap = stage >= HK_ATTENTION_CAPPED ? p->softcap : 0;
    hk_record *r = emit(l, &q, v, &hk_kernel_attention_scores, "attention scores");
    hk_use(r, products, HK_READ_WRITE, offsetof(struct attention_push, y));
    uint32_t threads = l->cpu ? 8 : 128;
    hk_workgroup(r, threads, 1, 1);
    hk_grid_1d(l, r, (uint64_t)ceil_div(count, threads));
    if (stage == HK_ATTENTION_PROBABILITIES)
        hk_emit_softmax(l, products, scores, p->batch * p->heads * p->rows, p->keys, 1, false);
    return HK_OK;
}
