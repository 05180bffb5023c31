/*
 * What the importer's files share: the import under way, scopes of names, and the reading of tensors and attributes.
 */
#ifndef HK_IMPORT_INTERNAL_H
#define HK_IMPORT_INTERNAL_H

#include "importer/import.h"
#include "importer/scan.h"
#include "onnx.pb-c.h"
#include "ops/op.h"

enum {
    HK_IMPORT_DEPTH = 64,            /* bodies and function calls inside each other */
    HK_IMPORT_BASE_BYTES = 64 << 20, /* what the graph may take besides ... */
    HK_IMPORT_BYTES_PER_BYTE = 32,   /* ... this per byte of the file's structure */
    HK_IMPORT_NODE_BYTES = 512,      /* about what a node and a value take */
    HK_IMPORT_VALUE_BYTES = 640,
    HK_IMPORT_FILES = 4096, /* external files of one model */
};

/* ---- tensors */

/* Reads the elements of TensorProto messages from the bytes that were scanned. */
typedef struct hk_tensor_reader {
    hk_context *ctx;
    hk_arena *arena; /* of copies, where elements cannot be used in place */
    const uint8_t *data;
    const hk_scan *scan;
} hk_tensor_reader;

/* What a TensorProto turned out to be. */
typedef struct hk_decoded {
    bool done;
    const hk_tensor *tensor;   /* NULL when problem is set */
    const hk_payload *payload; /* NULL for a sparse tensor */
    const char *problem;       /* why it is well-formed but cannot be used */
} hk_decoded;

/* Type and shape of a tensor, checked: the product fits, and elements take exactly `bytes` when stored raw. */
typedef struct hk_tensor_head {
    hk_dtype dtype; /* HK_DTYPE_NONE when problem is set */
    hk_shape shape;
    int64_t count;
    uint64_t bytes;
    uint32_t typed_field; /* number of the field that holds its elements when not raw */
    const char *problem;
} hk_tensor_head;
hk_status hk_tensor_head_read(const hk_tensor_reader *r, const Onnx__TensorProto *t, hk_tensor_head *out);
/* Reads elements that lie in the message itself. */
hk_status hk_tensor_body_read(const hk_tensor_reader *r, const Onnx__TensorProto *t, const hk_tensor_head *head,
                              hk_decoded *out);
/* A tensor over little-endian elements, aligned or not; bools and packed elements are copied. */
const hk_tensor *hk_tensor_over(const hk_tensor_reader *r, const hk_tensor_head *head, const uint8_t *elements);
/* The name of an ONNX element type, "?" for none. */
const char *hk_onnx_type_name(int32_t data_type);
/* The supported dtype of that number, or HK_DTYPE_NONE. */
hk_dtype hk_onnx_dtype(int64_t data_type);

/* ---- the import under way */

typedef struct hk_function {
    const Onnx__FunctionProto *proto;
    hk_map opsets;
    bool active; /* a call of it is being inlined */
} hk_function;

typedef struct hk_importer {
    hk_context *ctx;
    hk_model_params params; /* complete */
    hk_import_result *result;
    hk_arena *arena;     /* the graph's */
    hk_arena *temporary; /* ends with the import */
    hk_tensor_reader reader;
    hk_scan scan;
    hk_decoded *decoded; /* of scan.tensors */
    const Onnx__ModelProto *model;
    hk_map opsets;                          /* domain → &version */
    hk_map functions;                       /* domain, name, overload → hk_function */
    const char *folder_path;                /* of the model; NULL: in memory */
    int folder;                             /* its descriptor, -1 until needed */
    hk_map external_files;                  /* location → index + 1 in result->files */
    uint64_t external_used, external_there; /* bytes that tensors take from external files, and bytes of these files */
    uint64_t sparse_bytes;                  /* taken by sparse tensors made dense */
    uint64_t charged;                       /* bytes the graph takes, about */
    hk_map prefixes;                        /* of names in inlined functions, each used once */
    size_t calls;
    size_t node_number; /* of the node under way in its list, for nodes without a name */
    int depth;
    hk_value **initializers; /* of the main graph */
    size_t initializer_count, initializer_capacity;
} hk_importer;

/* Names visible at one place. A body sees the scopes around it; a function's nodes see only the function's. */
typedef struct hk_scope {
    const struct hk_scope *outer;
    hk_graph *graph;
    hk_arena *arena;       /* of the maps; ends with the scope */
    hk_map names;          /* → hk_value, or hk_scope_absent */
    const hk_map *exports; /* of a function: names of its outputs → the caller's values; NULL: none */
    const hk_map *opsets;
    const hk_map *bindings; /* of a function's call: attribute name → hk_binding; NULL outside of functions */
    const char *prefix;     /* of names of values and nodes made here; "" in graphs */
} hk_scope;

/* An attribute given to a function's call; graphs in it see the scope of the call. */
typedef struct hk_binding {
    const Onnx__AttributeProto *attribute;
    const hk_scope *scope;
} hk_binding;

/* Bound to a function's input that the call leaves out. */
extern const hk_value hk_scope_absent;

/* "" for a string that is not there. */
static inline const char *hk_text(const char *s)
{
    return s == NULL ? "" : s;
}

/* Counts memory that the graph is about to take. */
hk_status hk_import_charge(hk_importer *imp, uint64_t bytes);
hk_status hk_import_problem(hk_importer *imp, const char *node, const char *op, const char *reason);
/* Defines a name in a scope; INVALID if it is taken there. who is for the sentence: "graph input", "node 'x'". */
hk_status hk_scope_define(hk_importer *imp, hk_scope *s, const char *name, const hk_value *v, const char *who);
/* The name a node goes by in messages: its own or "#12", behind the calls it comes from; NULL: out of memory. */
const char *hk_import_node_name(hk_importer *imp, const hk_scope *s, const Onnx__NodeProto *n);
bool hk_import_is_default_domain(const char *domain);
/* Operators of our own ("hk.Neuron") that may stand in files: the others are made by passes, which know what they may
 * feed them, and a file does not. */
bool hk_import_is_exchanged(const char *type);

/* read.c: what a type says; the members that it leaves open are HK_DTYPE_NONE. Returns why it cannot be used (in
 * imp->temporary), or NULL. */
typedef struct hk_type_read {
    hk_dtype dtype, item, element; /* of the value, a list's items, and those of an optional sequence */
    const Onnx__TensorShapeProto *shape;
} hk_type_read;
const char *hk_import_type(hk_importer *imp, const Onnx__TypeProto *type, hk_type_read *out);

/* tensor.c, external.c: what an initializer or attribute holds; each TensorProto is read once. where is for messages.
 */
hk_status hk_import_tensor(hk_importer *imp, const Onnx__TensorProto *t, const char *where, const hk_decoded **out);
hk_status hk_import_sparse(hk_importer *imp, const Onnx__SparseTensorProto *t, const char *where, hk_decoded *out);
hk_status hk_import_external_tensor(hk_importer *imp, const Onnx__TensorProto *t, const hk_tensor_head *head,
                                    hk_decoded *out);

/* attrs.c */
/* Follows references to a function's attributes. *out NULL: the call gives none, so the node has none. */
hk_status hk_import_attribute(hk_importer *imp, const hk_scope *s, const Onnx__AttributeProto *a, const char *node,
                              hk_binding *out);
/* Decodes a node's attributes and bodies, with node->op known or not; label is its name in messages. */
hk_status hk_import_attributes(hk_importer *imp, const hk_scope *s, const Onnx__NodeProto *proto, const char *label,
                               hk_node *n);
/* What a Constant node holds. */
hk_status hk_import_constant(hk_importer *imp, const hk_scope *s, const Onnx__NodeProto *proto, hk_decoded *out);

/* function.c */
hk_status hk_import_functions(hk_importer *imp);
/* NULL when the node calls no function of the file. */
hk_status hk_import_find_function(hk_importer *imp, const Onnx__NodeProto *n, hk_function **out);
hk_status hk_import_inline(hk_importer *imp, const hk_scope *s, const Onnx__NodeProto *call, hk_function *f);
hk_status hk_import_opsets(hk_importer *imp, hk_map *out, Onnx__OperatorSetIdProto *const *imports, size_t count);

/* read.c */
hk_status hk_import_graph(hk_importer *imp, hk_scope *s, const Onnx__GraphProto *g);
/* Reads a list of nodes, in any order, into the scope's graph. */
hk_status hk_import_nodes(hk_importer *imp, hk_scope *s, Onnx__NodeProto *const *nodes, size_t count);
/* Reads a body of a node of graph around; its names are looked up in s, too, which for a graph given to a function's
 * call is the scope of the call. */
hk_status hk_import_body(hk_importer *imp, const hk_scope *s, hk_graph *around, const Onnx__GraphProto *proto,
                         const char *node, hk_graph **out);
/* Appends a node that copies from into to, which has no producer yet. */
hk_status hk_import_identity(hk_importer *imp, hk_graph *g, hk_value *from, hk_value *to);
/* Finds a value; *out NULL: an absent one ("" or a function's input that the call leaves out). */
hk_status hk_import_use(hk_importer *imp, const hk_scope *s, const char *name, const char *node, hk_value **out);

/* finish.c: inference, roles, counts; from a complete graph. */
hk_status hk_import_infer(hk_importer *imp);
hk_status hk_import_roles(hk_importer *imp);
hk_status hk_import_count(hk_importer *imp);

#endif
