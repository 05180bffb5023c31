/*
 * Inside of hk_program, for the files that make it up: program.c (what is kept, the first stage, running), stage.c
 * (cutting a graph where the host must look), between.c (what the host does there).
 */
#ifndef HK_STAGE_H
#define HK_STAGE_H

#include "runtime/program.h"

#define MOST_BODIES 2        /* of a control node: If has two */
#define BOUND_MAX_COUNT 1024 /* elements of an operand that becomes part of a plan's key */

struct hk_stage {
    struct hk_stage *next; /* of its siblings, the most recently used first */
    void *key;
    size_t key_bytes;
    hk_graph *graph; /* inferred, owned: what this stage and the rest do. NULL in a last stage: the exec has it */
    hk_exec *exec;
    hk_node **host_nodes; /* to run on the host when the recording has ended */
    uint64_t *host_ns;    /* of each in the last run; 0 for control flow, whose bodies are reported */
    size_t host_count;
    bool *on_host;      /* by node id: one of these */
    bool *deferred;     /* by node id: left to the next stage */
    bool *wanted;       /* by value id: a deferred node needs the contents before its shapes are known */
    bool *read;         /* by value id: the host wants the contents */
    bool *lent;         /* by value id: bodies take it from the device */
    int32_t *output;    /* by value id: which output of exec it is, -1: none */
    hk_value **results; /* of a last stage: the graph's outputs, of which exec's are the leaves, in order */
    size_t result_count;
    struct hk_source *sources; /* by input of exec, of a continuation */
    struct hk_stage *children, *last_child;
    hk_program **bodies; /* by host node, MOST_BODIES each: the programs of a control node's bodies */
    hk_program **ran;    /* by host node: that of the last run */
};

/* A value that lies on the device alone, until the recording that made it is submitted again: the tensor has type and
 * shape, and no data. Only values of more than BOUND_MAX_COUNT elements stay there: others may be wanted as contents,
 * and come back to the host beside a condition anyway. */
typedef struct hk_resident {
    hk_tensor t;
    hk_feed feed;
} hk_resident;

/* Where a continuation finds an input: a value of the stage before, or a leaf of a list that the host made. */
typedef struct hk_source {
    uint32_t id;
    size_t leaf;
} hk_source;
typedef struct hk_source_list {
    hk_source *sources;
    size_t count, capacity;
} hk_source_list;

struct hk_program {
    hk_env *env;
    const hk_graph *graph;
    bool *wanted;              /* by value id of graph: some node needs the contents before its shapes are known */
    hk_graph *owned;           /* a control body's template */
    const hk_value **captured; /* by a body's extra inputs */
    size_t captured_count;
    uint32_t max_plans;
    hk_program_pass *pass;
    void *user;
    hk_stage *stages;
    hk_stage *last;
};

/* What a plan depends on, as bytes. */
typedef struct hk_stage_key {
    hk_context *ctx;
    char *bytes;
    size_t count, capacity;
    bool failed;
} hk_stage_key;

/* The host's turn after a stage. */
typedef struct hk_between {
    hk_program *p;
    hk_stage *stage;
    hk_arena *arena;
    const hk_step *step;
    const hk_tensor **of; /* by value id of stage->graph: contents on the host */
} hk_between;

/* ---- stage.c */

/* Marks, by id, the values that some node needs to know before its output shapes are; only: of these nodes, NULL: all.
 */
void hk_mark_wanted(const hk_graph *g, const bool *only, bool *wanted);
/* Infers, cuts and plans g, which it takes over. */
hk_status hk_stage_create(hk_program *p, hk_graph *g, hk_stage **out);

/* ---- program.c */

void hk_stage_destroy(hk_context *ctx, hk_stage *s); /* with its siblings and continuations */
void hk_key_add(hk_stage_key *k, const void *bytes, size_t count);
/* contents: too, where they are few enough to be bound. */
void hk_key_add_tensor(hk_stage_key *k, const hk_tensor *t, bool contents);
/* Finds the stage with that key and makes it the most recent. */
hk_stage *hk_stage_find(hk_stage **list, const hk_stage_key *k);
void hk_stage_evict(hk_context *ctx, hk_stage *list, uint32_t keep);
/* Gives an input type and shape of what it is fed with. A list is no input any more: its leaves are. */
hk_status hk_bind_value(hk_graph *g, hk_value *v, const hk_tensor *t);
/* Its contents too, where they are wanted and few. */
hk_status hk_bind_contents(hk_graph *g, hk_value *v, const hk_tensor *t, bool wanted);

/* ---- between.c */

hk_feed hk_feed_of(const hk_tensor *t);                    /* of a host tensor or a resident one */
hk_status hk_between_read(hk_between *b, uint64_t ticket); /* what the host wants of the recording that has ended */
hk_status hk_between_run(hk_between *b);                   /* host nodes and control flow */
hk_status hk_between_next(hk_between *b, hk_stage **out);  /* the continuation, found or made */

#endif
