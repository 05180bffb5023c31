/*
 * Planning: a graph with known shapes → records in barrier groups, and a place for every value. A plan holds regions
 * and offsets, never addresses; runtime/exec.h makes a recording of it.
 *
 * Order     Records of equal group number run side by side; one barrier separates groups. A record's group is one more
 *           than the highest group of an earlier record that touches the same bytes with a write on either side.
 * Lifetimes A value lives from the group that writes it first to the group that reads it last, so values that share
 *           memory are always a barrier apart.
 * Storage   Views and values placed inside a Concat share their root's storage. A state's next version shares the
 *           storage of the one before if every reader of that one, through any view, can run before the update;
 *           otherwise it is copied into place at the end.
 */
#ifndef HK_PLAN_H
#define HK_PLAN_H

#include "ops/op.h"

typedef enum hk_region {
    HK_REGION_ACTIVATIONS, /* shared by the plans of a session: contents end with the run */
    HK_REGION_PINNED,      /* the plan's own: inputs, outputs, results computed once */
    HK_REGION_WEIGHTS,     /* constants and parameters: shared by the plans of a session */
    HK_REGION_STATES,      /* the session's or trainer's */
    HK_REGION_STEP,
} hk_region;

typedef struct hk_storage {
    hk_value *root;
    hk_region region;
    uint32_t bank;   /* which buffer of the region (activations and pinned) */
    uint64_t offset; /* bytes in it */
    uint64_t bytes;  /* rounded up to the alignment, canary included */
    uint64_t used_bytes;
    uint32_t first, last; /* groups */
    bool used;            /* by a record */
    bool pinned;          /* read after the run: holds a graph output */
} hk_storage;

typedef struct hk_slot { /* of a value, by its id */
    uint32_t storage;    /* index, or UINT32_MAX */
    uint64_t offset;     /* bytes from the storage's start */
} hk_slot;

/* Faults that tests plant to see them caught. */
typedef enum hk_plan_fault {
    HK_FAULT_NONE,
    HK_FAULT_MISSING_BARRIER,
    HK_FAULT_SHORT_LIFETIME,
    HK_FAULT_STORE_BEHIND
} hk_plan_fault;

typedef struct hk_plan_options {
    const hk_device_info *device;
    uint32_t coopmat[3], int8[3]; /* m, n, k; 0 without */
    uint32_t matrix_types;        /* bits (1 << HK_MATRIX_x), emulated ones too */
    hk_precision precision;
    unsigned debug;      /* HK_DEBUG_* */
    uint64_t bank_bytes; /* no bank is larger: the device's largest allocation */
    hk_plan_fault fault;
    struct hk_tuning *tuning; /* NULL: none */
} hk_plan_options;

#define HK_ALIGNMENT 256
#define HK_CANARY_BYTES 256
#define HK_MAX_BANKS 64

typedef struct hk_plan {
    hk_context *ctx;
    hk_arena *arena; /* the graph's */
    hk_graph *graph;
    unsigned debug;
    hk_slot *slots; /* by value id */
    hk_storage *storages;
    size_t storage_count;
    hk_record **records; /* by group, then in program order */
    uint32_t *groups;    /* of each record */
    uint32_t *program;   /* place of each record in program order, for the checker */
    size_t record_count;
    size_t once_count; /* of those, the first ones, which run once when the plan is made */
    uint32_t group_count;
    uint64_t activation_bytes[HK_MAX_BANKS]; /* by bank */
    uint64_t pinned_bytes[HK_MAX_BANKS];
    uint32_t activation_banks, pinned_banks;
    uint64_t live_bytes; /* the most activation bytes alive in one group */
} hk_plan;

/* Plans g, which the plan keeps using: every value has a known shape, every node lowers or is a view. The plan lies in
 * g's arena and ends with it. */
hk_status hk_plan_create(hk_graph *g, const hk_plan_options *options, hk_plan **out);

/* The independent proof (HILLOCK_DEBUG=check-plan): from records, groups and final offsets alone, every read sees the
 * write the program order says, and no two records of a group touch the same bytes with a write. Quadratic. */
hk_status hk_plan_check(const hk_plan *p);

/* Used by plan.c: offsets by greedy best fit, largest first (memory.c). */
hk_status hk_plan_memory(hk_plan *p, const hk_plan_options *options);

static inline const hk_storage *hk_storage_of(const hk_plan *p, const hk_value *v)
{
    return &p->storages[p->slots[v->id].storage];
}

#endif
