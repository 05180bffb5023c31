/* Emitting dispatch records. */
#include <string.h>

#include "ops/op.h"

bool hk_lower_has(const hk_lower *l, hk_cap cap)
{
    return l->device->caps >> cap & 1u;
}

/* Emit calls return this when memory ran out, so that lower() can go on; hk_lower.failed tells. The planner gives every
 * lowering one more record than it may emit for the purpose. */
static hk_record *new_record(hk_lower *l, hk_record_kind kind, const char *variant)
{
    hk_record *r = hk_arena_new(l->arena, hk_record);
    if (r && l->record_count == l->record_capacity &&
        !hk_arena_grow(l->arena, (void **)&l->records, l->record_count, &l->record_capacity, sizeof *l->records))
        r = NULL;
    if (!r) {
        l->failed = true;
        l->records[0]->operand_count = 0; /* see hk_lower_begin: there is always a first record to scribble on */
        return l->records[0];
    }
    *r = (hk_record){.kind = kind,
                     .node = l->node,
                     .variant = variant,
                     .gpu_tuned = !l->cpu,
                     .grid = {1, 1, 1},
                     .spec = {1, 1, 1},
                     .spec_count = 3};
    memcpy(r->choice, l->choice, sizeof r->choice);
    l->records[l->record_count++] = r;
    return r;
}

bool hk_lower_begin(hk_lower *l)
{
    l->record_count = 1;
    memset(l->choice, 0, sizeof l->choice);
    if (l->records)
        return true;
    return hk_arena_grow(l->arena, (void **)&l->records, 0, &l->record_capacity, sizeof *l->records) &&
           (l->records[0] = hk_arena_new(l->arena, hk_record)) != NULL;
}

hk_record *hk_emit(hk_lower *l, const hk_kernel *kernel, const char *variant)
{
    hk_record *r = new_record(l, HK_RECORD_DISPATCH, variant);
    r->kernel = kernel;
    return r;
}

hk_record *hk_emit_copy(hk_lower *l, hk_value *from, uint64_t from_offset, hk_value *to, uint64_t to_offset,
                        uint64_t bytes)
{
    hk_record *r = new_record(l, HK_RECORD_COPY, "copy");
    hk_use_range(r, from, from_offset, bytes, HK_READ, 0);
    hk_use_range(r, to, to_offset, bytes, HK_WRITE, 0);
    return r;
}

hk_record *hk_emit_fill(hk_lower *l, hk_value *v, uint32_t word)
{
    hk_record *r = new_record(l, HK_RECORD_FILL, "fill");
    r->fill_word = word;
    hk_use_range(r, v, 0, (hk_value_bytes(v) + 3) & ~(uint64_t)3, HK_WRITE, 0);
    return r;
}

void hk_use_range(hk_record *r, hk_value *v, uint64_t offset, uint64_t bytes, hk_access access, size_t push_offset)
{
    if (!v || r->operand_count == HK_OPERAND_MAX)
        return;
    r->operand[r->operand_count++] = (hk_operand){
        .value = v, .offset = offset, .bytes = bytes, .access = access, .push_offset = (uint16_t)push_offset};
}

void hk_use(hk_record *r, hk_value *v, hk_access access, size_t push_offset)
{
    if (v)
        hk_use_range(r, v, 0, hk_value_bytes(v), access, push_offset);
}

void hk_push(hk_record *r, const void *block, size_t bytes)
{
    r->push_bytes = (uint32_t)HK_MIN(bytes, sizeof r->push);
    memcpy(r->push, block, r->push_bytes);
}

void hk_spec(hk_record *r, uint32_t id, uint32_t value)
{
    if (id >= HK_SPEC_MAX)
        return;
    r->spec[id] = value;
    r->spec_count = HK_MAX(r->spec_count, id + 1);
}

void hk_spec_float(hk_record *r, uint32_t id, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    hk_spec(r, id, bits);
}

void hk_workgroup(hk_record *r, uint32_t x, uint32_t y, uint32_t z)
{
    hk_spec(r, 0, x);
    hk_spec(r, 1, y);
    hk_spec(r, 2, z);
}

/* Above 32 bits is above every device's limit; the planner compares what is stored with the device's. */
void hk_grid(hk_record *r, uint64_t x, uint64_t y, uint64_t z)
{
    r->grid[0] = (uint32_t)HK_MIN(x, (uint64_t)UINT32_MAX);
    r->grid[1] = (uint32_t)HK_MIN(y, (uint64_t)UINT32_MAX);
    r->grid[2] = (uint32_t)HK_MIN(z, (uint64_t)UINT32_MAX);
}

void hk_grid_1d(hk_lower *l, hk_record *r, uint64_t groups)
{
    uint64_t most = l->device->max_grid;
    uint64_t rows = (groups + most - 1) / most;
    hk_grid(r, rows > 1 ? (groups + rows - 1) / rows : groups, rows, 1);
}

hk_value *hk_scratch(hk_lower *l, hk_dtype dtype, int64_t count)
{
    hk_value *v = hk_graph_value(l->graph, "scratch", HK_VALUE_ACTIVATION, dtype,
                                 &(hk_shape){.rank = 1, .dim = {count}});
    if (!v)
        l->failed = true;
    return v;
}

hk_dtype hk_value_storage(const hk_value *v)
{
    return v->storage != HK_DTYPE_NONE ? v->storage : v->dtype;
}

uint64_t hk_value_bytes(const hk_value *v)
{
    uint64_t bytes = v->layout == HK_LAYOUT_TAPS ? 1 : hk_dtype_device_bytes(hk_value_storage(v));
    if (v->layout != HK_LAYOUT_CONTIGUOUS) {
        int64_t c = v->shape.rank > 1 ? v->shape.dim[1] : 1;
        int64_t rest = hk_shape_span(&v->shape, 2, v->shape.rank) * v->shape.dim[0];
        return (uint64_t)(rest * ((c + 7) / 8 * 8)) * bytes;
    }
    int64_t count = hk_shape_count(&v->shape);
    return count < 0 ? 0 : (uint64_t)count * bytes;
}
