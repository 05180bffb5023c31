/*
 * An operator is one place: an entry in a table in ops/NAME.c, its shaders, and one line in ops/op_list.h. Importer,
 * planner, gradient builder, tests, bench and reports read the table.
 */
#ifndef HK_OP_H
#define HK_OP_H

#include "core/graph.h"
#include "ops/record.h"

/* ---- attributes: the table says how a node's attributes become the op's struct */

typedef enum hk_attr_kind {
    HK_ATTR_INT,     /* int64_t */
    HK_ATTR_FLOAT,   /* float */
    HK_ATTR_STRING,  /* const char * */
    HK_ATTR_INTS,    /* hk_ints */
    HK_ATTR_FLOATS,  /* hk_floats */
    HK_ATTR_TENSOR,  /* const hk_tensor * */
    HK_ATTR_GRAPH,   /* hk_graph *; also node->bodies, in table order */
    HK_ATTR_STRINGS, /* hk_strings */
    HK_ATTR_TYPE,    /* hk_type */
} hk_attr_kind;

typedef struct hk_ints {
    const int64_t *v; /* NULL: the attribute is absent (an empty list is not NULL) */
    int32_t count;
} hk_ints;
typedef struct hk_floats {
    const float *v;
    int32_t count;
} hk_floats;
typedef struct hk_strings {
    const char *const *v;
    int32_t count;
} hk_strings;

typedef struct hk_type { /* of a tensor, or of a list and what it holds */
    hk_dtype dtype, item;
} hk_type;

typedef struct hk_attr {
    const char *name;
    hk_attr_kind kind;
    uint16_t offset;
    bool required;
    double number;    /* default of INT and FLOAT */
    const char *text; /* default of STRING */
} hk_attr;

#define HK_INT_ATTR(s, f, d)                                                                                           \
    {                                                                                                                  \
        .name = #f, .kind = HK_ATTR_INT, .offset = offsetof(s, f), .number = (double)(d)                               \
    }
#define HK_FLOAT_ATTR(s, f, d)                                                                                         \
    {                                                                                                                  \
        .name = #f, .kind = HK_ATTR_FLOAT, .offset = offsetof(s, f), .number = (d)                                     \
    }
#define HK_STRING_ATTR(s, f, d)                                                                                        \
    {                                                                                                                  \
        .name = #f, .kind = HK_ATTR_STRING, .offset = offsetof(s, f), .text = (d)                                      \
    }
#define HK_INTS_ATTR(s, f)                                                                                             \
    {                                                                                                                  \
        .name = #f, .kind = HK_ATTR_INTS, .offset = offsetof(s, f)                                                     \
    }
#define HK_FLOATS_ATTR(s, f)                                                                                           \
    {                                                                                                                  \
        .name = #f, .kind = HK_ATTR_FLOATS, .offset = offsetof(s, f)                                                   \
    }
#define HK_STRINGS_ATTR(s, f)                                                                                          \
    {                                                                                                                  \
        .name = #f, .kind = HK_ATTR_STRINGS, .offset = offsetof(s, f)                                                  \
    }
#define HK_TENSOR_ATTR(s, f)                                                                                           \
    {                                                                                                                  \
        .name = #f, .kind = HK_ATTR_TENSOR, .offset = offsetof(s, f)                                                   \
    }
#define HK_GRAPH_ATTR(s, f)                                                                                            \
    {                                                                                                                  \
        .name = #f, .kind = HK_ATTR_GRAPH, .offset = offsetof(s, f), .required = true                                  \
    }
#define HK_TYPE_ATTR(s, f)                                                                                             \
    {                                                                                                                  \
        .name = #f, .kind = HK_ATTR_TYPE, .offset = offsetof(s, f)                                                     \
    }

/* One attribute as importer, backward rules and passes write it: kind says which member holds. */
typedef struct hk_attr_value {
    const char *name; /* NULL ends a list */
    hk_attr_kind kind;
    int64_t i;
    float f;
    const char *s;
    hk_ints ints;
    hk_floats floats;
    hk_strings strings;
    const hk_tensor *tensor;
    hk_graph *graph;
    hk_type type;
} hk_attr_value;
#define HK_SET_INT(n, x)                                                                                               \
    {                                                                                                                  \
        .name = (n), .kind = HK_ATTR_INT, .i = (x)                                                                     \
    }
#define HK_SET_FLOAT(n, x)                                                                                             \
    {                                                                                                                  \
        .name = (n), .kind = HK_ATTR_FLOAT, .f = (x)                                                                   \
    }
#define HK_SET_STRING(n, x)                                                                                            \
    {                                                                                                                  \
        .name = (n), .kind = HK_ATTR_STRING, .s = (x)                                                                  \
    }
#define HK_SET_INTS(n, p, c)                                                                                           \
    {                                                                                                                  \
        .name = (n), .kind = HK_ATTR_INTS, .ints = {(p), (c) }                                                         \
    }

/* ---- shape inference. Inputs may have unknown shapes (a model before a session binds it); then outputs may too. */

typedef struct hk_infer {
    hk_context *ctx;
    hk_graph *graph;
    hk_node *node;
} hk_infer;

/* "node 'x' (Conv): ..." */
hk_status hk_infer_fail(const hk_infer *in, hk_status st, const char *format, ...) HK_PRINTF(3, 4);
/* Sets dtype and shape of output i (ignored if that output is absent). Fails if known before and different. */
hk_status hk_infer_output(hk_infer *in, int32_t i, hk_dtype dtype, const hk_shape *shape);
hk_value *hk_in(const hk_node *n, int32_t i); /* NULL when absent */
hk_value *hk_out(const hk_node *n, int32_t i);
const hk_tensor *hk_known(const hk_node *n, int32_t i); /* contents of input i when known on the host, else NULL */

/* ---- host evaluation: constant folding and the oracle of every test. Works on float32 and float64 (and the integer
 * types the op takes) through hk_get_double, with double accumulation. Contents may lie at any address (weights in a
 * mapped file), so they are read with hk_get_double, hk_get_int or memcpy only. */

typedef struct hk_eval {
    hk_context *ctx;
    hk_arena *arena; /* results live here */
    const hk_node *node;
    const hk_tensor *const *in; /* NULL entries: absent */
    hk_tensor **out;            /* set by hk_eval_output */
    const struct hk_step *step; /* contents of the step block; never NULL */
} hk_eval;

/* Allocates output i, zeroed; NULL when out of memory (return hk_out_of_memory) or when the output is absent: test the
 * latter with hk_out(node, i) first if it may be. */
hk_tensor *hk_eval_output(hk_eval *e, int32_t i, hk_dtype dtype, const hk_shape *shape);
hk_status hk_eval_fail(const hk_eval *e, hk_status st, const char *format, ...) HK_PRINTF(3, 4);

/* ---- differentiation: backward rules add nodes (train/gradient.c implements these) */

typedef struct hk_gradient hk_gradient;
hk_graph *hk_gradient_graph(hk_gradient *g);
/* dL/dv, summed over v's users; NULL if no gradient reaches v. */
hk_value *hk_gradient_of(hk_gradient *g, const hk_value *v);
bool hk_gradient_wanted(const hk_gradient *g, const hk_value *v); /* some parameter or wanted input lies behind v */
/* Adds dv to the gradient of v. If dv's shape is v's broadcast, the broadcast axes are summed here. NULL dv: nothing.
 */
hk_status hk_gradient_add(hk_gradient *g, hk_value *v, hk_value *dv);

/* ---- building nodes by type, from backward rules and passes: finds the op, decodes attrs, infers shapes at once.
 * attrs: list ended by a NULL name, or NULL. outs: receives out_count values. */
hk_status hk_build(hk_graph *g, const char *type, const hk_attr_value *attrs, hk_value *const *in, int32_t in_count,
                   hk_value **outs, int32_t out_count);

/* ---- the operator */

typedef enum hk_op_flags {
    HK_OP_VIEW = 1,          /* output 0 is input 0's storage at view_offset(), no work */
    HK_OP_HOST = 2,          /* runs on the host in a segment of its own (output size depends on data) */
    HK_OP_CONTROL = 4,       /* If, Loop, Scan: run by the runtime */
    HK_OP_RANDOM = 8,        /* depends on the step block: never folded or merged */
    HK_OP_POINTWISE = 16,    /* elementwise with broadcasting: may join a chain (ops/pointwise.h has its code) */
    HK_OP_PLACE = 32,        /* Concat and Pack: inputs may be produced in place inside output 0 (place()) */
    HK_OP_KEEP = 64,         /* has an effect besides its outputs (updates state): never pruned */
    HK_OP_ANY_TYPE = 128,    /* moves elements whole: its kernels take every element type */
    HK_OP_LIST = 512,        /* takes sequences or optionals; others are given tensors alone */
    HK_OP_HALF = 256,        /* its kernels take float16 and bfloat16 */
    HK_OP_PARTS_FOLD = 1024, /* expands before it is folded: its own evaluation may take far longer than its parts' */
} hk_op_flags;

typedef struct hk_op {
    const char *type;                        /* ONNX op_type; "hk." prefix: ours, never imported */
    const char *domain;                      /* NULL: ai.onnx */
    int16_t since, until;                    /* semantic opset range, both included; until 0: newest */
    int8_t in_min, in_max, out_min, out_max; /* max -1: any number */
    uint32_t flags;                          /* hk_op_flags */
    uint32_t host_inputs; /* bit i: input i must be known on the host before shapes are (Reshape's shape) */
    uint32_t parameters;  /* bit i: input i is in a weight, bias, scale or slope role */
    /* Bit i: lower() takes input i, gives output i, also where that is float32 stored as float16 (contiguous). */
    uint32_t half_in, half_out;
    /* The same for images in HK_LAYOUT_NHWC8, stored as float16, all of them or none; takes_octets: which nodes, NULL:
     * every one whose images have spatial axes. */
    uint32_t octets_in, octets_out;
    bool (*takes_octets)(const hk_node *n);
    uint32_t spikes_out; /* bit i: output i is made of zeros and ones, which 16 bits hold exactly */
    size_t attrs_bytes;
    const hk_attr *attrs; /* ended by a NULL name; NULL: none */
    hk_status (*infer)(hk_infer *in);
    hk_status (*eval)(hk_eval *e);
    hk_status (*lower)(hk_lower *l);                   /* NULL for views, host ops, control flow and expanded ops */
    hk_status (*backward)(hk_gradient *g, hk_node *n); /* NULL: not differentiable */
    /* The node as other nodes, which take its place before differentiation and passes: then it needs no lower() and no
     * backward(). Called when the shapes of all inputs and the contents of host_inputs are known; adds nodes to g with
     * hk_build and names the values that stand for the node's outputs (out[i], for each output that is present). */
    hk_status (*expand)(hk_graph *g, const hk_node *n, hk_value **out);
    bool (*expands)(const hk_graph *g, const hk_node *n); /* NULL: always, once input shapes are known */
    /* An integer type of this node that its kernels do not take, so that it runs on the host
     * (runtime/element_types.h); HK_DTYPE_NONE: they take all. NULL: always. */
    hk_dtype (*lacks)(const hk_node *n);
    int64_t (*view_offset)(const hk_node *n); /* elements; -1: this node cannot be a view; NULL with VIEW: 0 */
    /* With PLACE: offset[i] becomes the elements at which input i lies, -1: not in place. */
    void (*place)(const hk_node *n, int64_t *offset);
    /* Cases for the generic test, gradient check and bench; grammar in runtime/cases.h. Ended by NULL. */
    const char *const *cases;
} hk_op;

/* NULL if there is none of that type at that version. *known (may be NULL) tells whether the type exists at all. */
const hk_op *hk_op_find(const char *domain, const char *type, int32_t opset, bool *known);
/* All entries, for tests and reports; NULL at the end. */
const hk_op *hk_op_at(size_t i);
/* Decodes into a new struct in arena. Unknown attributes and wrong kinds fail with a sentence without node name. */
hk_status hk_op_decode(hk_context *ctx, hk_arena *arena, const hk_op *op, const hk_attr_value *values, size_t count,
                       void **attrs);
/* The field of an attribute in a node's struct, by name; NULL if its op has none of that name. Passes read any op's
 * attributes with it; to write, take a copy first: clones share the structs. */
void *hk_node_attr(const hk_node *n, const char *name);
hk_status hk_node_own_attrs(hk_graph *g, hk_node *n);
/* Checks arity, then op->infer, then that every present output has a dtype. */
hk_status hk_node_infer(hk_graph *g, hk_node *n);
/* Checks that inputs are present, evaluates on the host. */
hk_status hk_node_eval(hk_context *ctx, hk_arena *arena, const hk_node *n, const hk_tensor *const *in, hk_tensor **out,
                       const struct hk_step *step);
/* The view of its first input whose users run after its second is there (ops/shape.c). */
#define HK_AFTER "hk.After"
/* HK_OP_VIEW and its offset: -1 if the node is not a view. */
int64_t hk_node_view_offset(const hk_node *n);

#endif
