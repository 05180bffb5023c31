/*
 * The one graph. Import, differentiation, optimizer, spiking, fusion: each is a step from graph to graph, and one
 * planner runs whatever comes out.
 *
 * A graph owns its values and nodes in its arena. Values are SSA: each is an input, a constant, or the output of one
 * node. State is SSA too: an op reads version k and defines k+1, and the planner decides whether both share storage.
 * A node may own body graphs (If, Loop, Scan), whose nodes may use values of the graphs around them.
 * Graphs of a loaded model are not changed: sessions and trainers work on clones.
 */
#ifndef HK_GRAPH_H
#define HK_GRAPH_H

#include "core/tensor.h"

typedef struct hk_graph hk_graph;
typedef struct hk_node hk_node;
typedef struct hk_value hk_value;
typedef struct hk_state hk_state;
struct hk_op; /* ops/op.h */

typedef enum hk_value_kind {
    HK_VALUE_ACTIVATION, /* a node's output */
    HK_VALUE_INPUT,
    HK_VALUE_CONSTANT,  /* data never changes */
    HK_VALUE_PARAMETER, /* a constant in a trainable role: a trainer turns it into a view of its flat parameter state */
    HK_VALUE_STATE,     /* version 0 of a state: what the last run left */
    HK_VALUE_STEP,      /* the step block (ops/step.h): what changes per step */
} hk_value_kind;

typedef enum hk_layout {
    HK_LAYOUT_CONTIGUOUS, /* row-major in the logical order */
    HK_LAYOUT_NHWC8,      /* logical NCHW stored N,H,W,C with C padded to a multiple of 8, padding zero */
    HK_LAYOUT_TAPS,       /* where MaxPool found its maxima, in the order of NHWC8: the tap's number, a byte each */
} hk_layout;

/* What a sequence or an optional holds. Such a value lies nowhere: inference replaces the nodes that use it by nodes on
 * its items as soon as these are known, so passes and planner never meet it. */
typedef struct hk_list {
    hk_dtype item;    /* type of the items; HK_DTYPE_NONE: not known */
    hk_dtype element; /* of the items' items, in an optional sequence */
    hk_value **items; /* shape.dim[0] of them, which then is known; NULL: not known */
} hk_list;

struct hk_value {
    const char *name; /* unique in its graph, "" never */
    uint32_t id;      /* index in graph->values */
    hk_value_kind kind;
    hk_dtype dtype;   /* HK_DTYPE_NONE until inferred */
    hk_dtype storage; /* element type on the device; HK_DTYPE_NONE: as dtype */
    hk_layout layout;
    hk_shape shape;                     /* logical */
    const char *dim_names[HK_MAX_RANK]; /* of symbolic dimensions, else NULL */
    const hk_tensor *data; /* contents known on the host: constants, and what shape arithmetic found; else NULL */
    hk_node *producer;     /* NULL unless an activation */
    hk_state *state;       /* set on every version of a state */
    const hk_list *list;   /* of a sequence or optional (rank 1), else NULL */
    const struct hk_payload *payload; /* where the bytes lie in the model file (importer's), else NULL */
    hk_graph *graph;                  /* the graph that defines it */
    void *mark;                       /* scratch of the pass that runs now */
};

struct hk_node {
    const char *name; /* ONNX name, or made from the op and its number */
    const char *type; /* "Conv"; of the default domain unless domain is set */
    const char *domain;
    const struct hk_op *op; /* NULL: unsupported */
    int32_t opset;          /* version its domain was imported with */
    void *attrs;            /* the op's struct */
    hk_value **in;          /* NULL entries: absent optional inputs */
    int32_t in_count;
    hk_value **out; /* NULL entries: outputs nobody asked for */
    int32_t out_count;
    hk_graph **bodies; /* in the order of the op's graph attributes */
    int32_t body_count;
    uint32_t id; /* index in graph->nodes, which is a topological order after hk_graph_sort */
    int32_t mark;
};

/* Something that persists between runs: BN statistics, membrane potentials, moments, counters, parameters. */
struct hk_state {
    const char *name;
    const hk_tensor *initial; /* what reset restores; NULL: fill in every element */
    double fill;
    bool follows;    /* its shape is that of the run's inputs: another one needs a reset (membrane potentials) */
    hk_value *first; /* version 0, kind HK_VALUE_STATE */
    hk_value *last;  /* the version that the next run reads; first when nothing updates it */
    bool flat;       /* a flat arena of the trainer: parameters, gradients, moments */
};

struct hk_graph {
    hk_context *ctx;
    hk_arena *arena; /* of this graph and its bodies */
    hk_graph *outer; /* NULL for a main graph */
    const char *name;
    hk_value **inputs;
    size_t input_count, input_capacity;
    hk_value **outputs;
    size_t output_count, output_capacity;
    /* Of the inputs, the first ones that always come from the device; of the outputs, the last ones that only later
     * recordings read, there. The host has no room for either. */
    size_t device_inputs, device_outputs;
    hk_value **values;
    size_t value_count, value_capacity;
    hk_node **nodes;
    size_t node_count, node_capacity;
    hk_state **states;
    size_t state_count, state_capacity;
    hk_value *step; /* the step block, made on demand */
    hk_map names;   /* value name → value */
    /* What the device's matrix units take, bits (1 << HK_MATRIX_x), of a main graph: expansions ask; 0 unless a device
     * is known. */
    uint32_t matrix_types;
    /* What inference may take, of a main graph: a file can ask for any amount. */
    uint64_t fold_limit; /* bytes of folded constants; 0: the default */
    uint64_t fold_bytes, fold_steps, inferred_nodes, list_items;
};

/* ---- building. All return NULL when out of memory (hk_out_of_memory is then set). */

hk_status hk_graph_create(hk_context *ctx, const char *name, hk_graph **out);
void hk_graph_destroy(hk_graph **g); /* of a main graph: with its arena, so with its bodies */
hk_graph *hk_graph_body(hk_graph *outer, const char *name);

/* name NULL or taken: a unique one is made from it. */
hk_value *hk_graph_value(hk_graph *g, const char *name, hk_value_kind kind, hk_dtype dtype, const hk_shape *shape);
hk_value *hk_graph_constant(hk_graph *g, const char *name, const hk_tensor *data); /* data lives as long as the graph */
hk_value *hk_graph_scalar(hk_graph *g, hk_dtype dtype, double x);
hk_value *hk_graph_ints(hk_graph *g, const int64_t *x, int64_t count); /* int64 [count] */
hk_value *hk_graph_step(hk_graph *g);
hk_state *hk_graph_state(hk_graph *g, const char *name, hk_dtype dtype, const hk_shape *shape,
                         const hk_tensor *initial);
bool hk_graph_add_input(hk_graph *g, hk_value *v);
bool hk_graph_add_output(hk_graph *g, hk_value *v);
/* Gives v the type of a list, with known items (copied; count of them) or, items NULL, without. */
bool hk_value_set_list(hk_value *v, hk_dtype dtype, hk_dtype item, hk_dtype element, hk_value *const *items,
                       int64_t count);
/* Tensors in a value: itself, or those of its known items. at counts down to the wanted one. */
size_t hk_value_leaves(const hk_value *v);
hk_value *hk_value_leaf(hk_value *v, size_t *at);
/* Appends a node; out values with fresh names are made for every output whose bit is not in absent_outputs. */
hk_node *hk_graph_node(hk_graph *g, const char *name, const char *type, const struct hk_op *op, void *attrs,
                       hk_value *const *in, int32_t in_count, int32_t out_count);
/* Adds outputs up to out_count (for backward rules that need what the forward can save). */
bool hk_node_want_outputs(hk_node *n, int32_t out_count);
bool hk_node_add_input(hk_node *n, hk_value *v);

/* ---- reading and rewriting */

hk_value *hk_graph_find(const hk_graph *g, const char *name);
/* Is of that operator, of the default domain or ours; false for NULL and for what is unsupported. */
bool hk_node_is(const hk_node *n, const char *type);
/* Node uses of every value (bodies included), into the caller's arena: users[v->id] lists distinct nodes of g. */
typedef struct hk_uses {
    hk_node ***users; /* [value_count], each with count[id] entries */
    uint32_t *count;
    bool *is_output;
} hk_uses;
hk_status hk_graph_uses(const hk_graph *g, hk_arena *arena, hk_uses *out);
void hk_graph_replace(hk_graph *g, hk_value *from, hk_value *to); /* in every node input, output list, state and body */
/* The node that makes `from`, which nothing uses, makes `to` instead, and the node that made `to` no longer does. For
 * passes that replace many nodes: unlike hk_graph_replace it does not look for the users. */
void hk_graph_take_over(hk_value *from, hk_value *to);
/* Puts nodes into a topological order; one that is there already stays. HK_STATUS_INVALID names a node on a cycle.
 * Renumbers ids. */
hk_status hk_graph_sort(hk_graph *g);
/* Drops nodes none of whose outputs is needed, and renumbers. */
hk_status hk_graph_prune(hk_graph *g);
/* A deep copy of structure in a new arena; attributes, tensors and payloads are shared, so the source must outlive it.
 * Values keep their ids: clone->values[v->id] is v's copy. */
hk_status hk_graph_clone(const hk_graph *g, hk_graph **out);
/* The same of a body as a main graph of its own. Values captured from the graphs around it become constants where their
 * contents are constant, else extra inputs after the body's own, listed in *captured (in the clone's arena). */
hk_status hk_graph_clone_body(const hk_graph *body, hk_graph **out, const hk_value ***captured, size_t *captured_count);
/* Appends a copy of a body's nodes to g, the graph around it: its inputs are `inputs`, its values get names behind the
 * prefix, *outputs receives what stands for its outputs. Nothing is inferred. */
hk_status hk_graph_inline(hk_graph *g, const hk_graph *body, const char *prefix, hk_value *const *inputs,
                          hk_value **outputs);

#endif
