/*
 * Dispatch records: what an operator's lower() emits. They name values, never addresses or Vulkan objects; planner,
 * profiler and recorder see only records, and one loop in runtime/ records them.
 */
#ifndef HK_RECORD_H
#define HK_RECORD_H

#include "core/graph.h"
#include "core/kernel.h"

typedef enum hk_access { HK_READ = 1, HK_WRITE = 2, HK_READ_WRITE = 3 } hk_access;

typedef enum hk_record_kind { HK_RECORD_DISPATCH, HK_RECORD_COPY, HK_RECORD_FILL } hk_record_kind;

/* A byte range of a value. push_offset is where its address goes in the push block (dispatches). */
typedef struct hk_operand {
    hk_value *value;
    uint64_t offset, bytes; /* within the value's device storage */
    hk_access access;
    uint16_t push_offset;
} hk_operand;

#define HK_OPERAND_MAX 12

typedef struct hk_record {
    hk_record_kind kind;
    const hk_node *node;
    const struct hk_tuned *choice[2]; /* by hk_choice_kind, with a table of measurements: the problem it belongs to */
    const char *variant;              /* static text for reports: "gemm 128x128x16 f32", "conv3x3 nchw" */
    double flops;
    bool gpu_tuned; /* made as for a GPU, whatever runs it */
    bool keep;      /* scratch that it alone writes, and reads constants for, may be made once and kept for all runs */
    /* dispatch */
    const hk_kernel *kernel;
    uint32_t spec[HK_SPEC_MAX]; /* by constant_id; 0..2 are the workgroup size */
    uint32_t spec_count;
    uint32_t subgroup_size; /* 0: whatever; else required with full subgroups */
    uint32_t grid[3];
    uint32_t push_bytes;
    unsigned char push[HK_PUSH_MAX];
    /* A parameter block: bytes that do not fit the push block; its address goes to block_offset in the push block. */
    const void *block; /* in the lowering arena */
    uint32_t block_bytes;
    uint16_t block_offset;
    /* copy: operand[0] → operand[1], equal bytes; fill: operand[0] with word */
    uint32_t fill_word;
    uint32_t operand_count;
    hk_operand operand[HK_OPERAND_MAX];
} hk_record;

/* ---- emitting */

typedef struct hk_lower {
    hk_context *ctx;
    hk_arena *arena; /* of the plan */
    hk_graph *graph; /* for scratch values */
    const hk_node *node;
    const hk_device_info *device;             /* caps and limits, after masking */
    bool cpu;                                 /* the device is software: pick the register-only tuning */
    uint32_t coopmat_m, coopmat_n, coopmat_k; /* matrix fragments; 0 without matrix units, real or emulated */
    uint32_t int8_m, int8_n, int8_k;          /* those of int8 operands */
    uint32_t matrix_types;                    /* bits (1 << HK_MATRIX_x) */
    bool coopmat_emulated;                    /* the device has none; kernels do without (tests) */
    uint32_t compute_units_hint;              /* workgroups that fill the device: split-K aims at it */
    hk_precision precision;
    hk_map splits;              /* of the plan: which matrices lie in halves already (ops/support/gemm_split.h) */
    struct hk_tuning *tuning;   /* ops/support/choice.h; NULL: none */
    struct hk_tuned *choice[2]; /* by hk_choice_kind: the problem that records belong to now */
    hk_record **records;
    size_t record_count, record_capacity;
    bool failed; /* out of memory in an emit call: lower() need not check each one */
} hk_lower;

bool hk_lower_has(const hk_lower *l, hk_cap cap);
/* The planner's: empties the list for the next node. In its place 0 is a dummy record, which emit calls hand out when
 * memory has run out; false when even that could not be made. */
bool hk_lower_begin(hk_lower *l);
/* A new dispatch record of l->node. Never NULL: on out of memory it returns a dummy and sets l->failed. */
hk_record *hk_emit(hk_lower *l, const hk_kernel *kernel, const char *variant);
hk_record *hk_emit_copy(hk_lower *l, hk_value *from, uint64_t from_offset, hk_value *to, uint64_t to_offset,
                        uint64_t bytes);
hk_record *hk_emit_fill(hk_lower *l, hk_value *v, uint32_t word); /* the whole value */
/* Declares an operand (the whole value) whose address goes to push_offset: use offsetof in the push struct. A NULL
 * value declares nothing and leaves address 0. */
void hk_use(hk_record *r, hk_value *v, hk_access access, size_t push_offset);
/* The same for a byte range; the pushed address is that of the range's first byte. */
void hk_use_range(hk_record *r, hk_value *v, uint64_t offset, uint64_t bytes, hk_access access, size_t push_offset);
void hk_push(hk_record *r, const void *block,
             size_t bytes); /* copies the push struct; addresses in it are overwritten */
void hk_spec(hk_record *r, uint32_t id, uint32_t value);
void hk_spec_float(hk_record *r, uint32_t id, float value);
void hk_workgroup(hk_record *r, uint32_t x, uint32_t y, uint32_t z);
void hk_grid(hk_record *r, uint64_t x, uint64_t y, uint64_t z); /* fails the lowering above the device's limit */
/* groups workgroups folded into x and y: the shader uses linear_group() and a bounds check. */
void hk_grid_1d(hk_lower *l, hk_record *r, uint64_t groups);
/* Scratch of this node: a value that lives from its first to its last use among the records. */
hk_value *hk_scratch(hk_lower *l, hk_dtype dtype, int64_t count);

/* Bytes of a value's storage on the device, layout padding included (not rounded to the arena's alignment). */
uint64_t hk_value_bytes(const hk_value *v);
hk_dtype hk_value_storage(const hk_value *v);
/* Stored as float16; false for NULL. */
static inline bool hk_stores_halves(const hk_value *v)
{
    return v && hk_value_storage(v) == HK_FLOAT16;
}

#endif
