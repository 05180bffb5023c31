/*
 * ONNX in: a file's bytes become a graph. A model file is hostile until checked: whatever it says, loading ends soon,
 * with a graph or a sentence, within memory proportional to the file.
 */
#ifndef HK_IMPORT_H
#define HK_IMPORT_H

#include "core/file.h"
#include "core/graph.h"

/* The newest version of the default domain whose schemas the operator table was checked against. */
#define HK_IMPORT_OPSET_MAX 28
/* The domain under which operators of our own, "hk." inside, stand in files. */
#define HK_IMPORT_DOMAIN "ai.hillock"

/* Where a tensor's elements lie, for writing them back. */
typedef struct hk_payload {
    uint32_t file;                   /* index in hk_import_result.files; 0: the model file itself */
    bool in_place;                   /* little-endian elements back to back at offset; else re-encoding is needed */
    uint64_t offset, bytes;          /* in that file, when in_place */
    uint64_t message, message_bytes; /* of its TensorProto, in the model file */
    hk_dtype dtype;                  /* as stored */
} hk_payload;

/* A TensorProto of the model file whose elements lie in another file. */
typedef struct hk_import_external {
    uint64_t message, message_bytes;
    uint32_t file;
} hk_import_external;

typedef struct hk_import_pair {
    const char *key, *value;
} hk_import_pair;

/* Everything a loaded model is. Strings and lists live in the graph's arena. Constants' data may lie in the files. */
typedef struct hk_import_result {
    hk_context *ctx;
    hk_graph *graph;      /* inlined, sorted, inferred as far as possible; roles set */
    hk_problem *problems; /* what keeps it from running, in the order of the file; none: it runs */
    size_t problem_count, problem_capacity;
    hk_file *files; /* [0] the model; others in the order of first use */
    const char **file_names;
    size_t file_count, file_capacity;
    hk_import_external *externals;
    size_t external_count, external_capacity;
    hk_op_count *ops; /* sorted by name; bodies and inlined functions included, constants not */
    size_t op_count;
    hk_import_pair *metadata; /* of the model */
    size_t metadata_count;
    const char *producer;
    int64_t ir_version, opset;
    void *copy; /* of a model given in memory */
} hk_import_result;

/* Loads a model from path, which is mapped, or, when path is NULL, from memory, which is copied; external data is then
 * refused. params NULL: defaults. The result outlives graphs cloned from its graph. */
hk_status hk_import(hk_context *ctx, const char *path, const void *data, size_t bytes, const hk_model_params *params,
                    hk_import_result **out);
void hk_import_destroy(hk_import_result **r);
/* The same around an empty graph, for a model that is built; after a change its operators are counted anew. */
hk_status hk_import_begin(hk_context *ctx, const char *name, hk_import_result **out);
hk_status hk_import_recount(hk_import_result *r);

/* ---- ONNX out */

typedef struct hk_export_patch {
    const hk_value *value; /* with a payload */
    const hk_tensor *data; /* of its shape; floats of another width are converted to what the file stores */
} hk_export_patch;

/* Writes a copy of the model's bytes with the given tensors' elements in place of the old; all else stays byte for
 * byte, what this library does not understand included. Data in external files goes into one new file per old, named
 * after path ("model.onnx.data") and, should one of that name be in use by the model itself, numbered. Atomic per file,
 * the model last. HK_STATUS_UNSUPPORTED: a tensor has no payload. */
hk_status hk_export_patched(const hk_import_result *r, const hk_export_patch *patches, size_t count, const char *path);

typedef struct hk_export_params {
    const char *producer;    /* default: "hillock" */
    int64_t ir_version;      /* at least; default: what came with the opset */
    uint64_t external_above; /* contents above this go to path + ".data"; default: 1 GiB */
    const hk_import_pair *metadata;
    size_t metadata_count;
} hk_export_params;

/* Writes a graph that came from no file. hk.Neuron goes to HK_IMPORT_DOMAIN. HK_STATUS_UNSUPPORTED: the graph has
 * states, operators that only passes make, or no single opset fits all its operators. params NULL: defaults. */
hk_status hk_export_graph(const hk_graph *g, const hk_export_params *params, const char *path);
/* The same into memory, contents of any size inside; the caller frees *data with hk_free. */
hk_status hk_export_memory(const hk_graph *g, const hk_export_params *params, void **data, size_t *bytes);

/* A TensorProto in a file (.pb), as hk_tensor_load and hk_tensor_save read and write it; kind HK_SEQUENCE or
 * HK_OPTIONAL reads a SequenceProto or OptionalProto. The tensor owns its data. */
hk_status hk_pb_read(hk_context *ctx, const char *name, const void *data, size_t bytes, hk_dtype kind, hk_tensor *out);
hk_status hk_pb_write(hk_context *ctx, const hk_tensor *t, const char *path);

#endif
