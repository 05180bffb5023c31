/*
 * ONNX files written field by field, as no exporter would: what the importer's tests feed it. And a context that counts
 * and bounds its allocations.
 */
#ifndef HK_TEST_ONNX_BYTES_H
#define HK_TEST_ONNX_BYTES_H

#include "core/context.h"

/* ---- messages under construction. Numbers are onnx.proto's; open messages get their length when they are closed. */

enum { OB_DEPTH = 8192 };

typedef struct onnx_bytes {
    uint8_t *data;
    size_t count, capacity;
    size_t open[OB_DEPTH];
    int depth;
} onnx_bytes;

void ob_free(onnx_bytes *b);
void ob_raw(onnx_bytes *b, const void *bytes, size_t count); /* bytes as they are */
void ob_varint(onnx_bytes *b, uint64_t x);
void ob_int(onnx_bytes *b, uint32_t number, int64_t x);
void ob_float(onnx_bytes *b, uint32_t number, float x);
void ob_blob(onnx_bytes *b, uint32_t number, const void *bytes, size_t count);
void ob_text(onnx_bytes *b, uint32_t number, const char *s);
void ob_open(onnx_bytes *b, uint32_t number);
void ob_close(onnx_bytes *b);

/* ---- parts of models. dims is "2,3"; "" is a scalar; a word is a dim_param. Lists of names are "a,b". */

/* ir_version 8, opset of the default domain; the graph is to follow. */
void ob_model(onnx_bytes *b, int64_t opset);
void ob_opset(onnx_bytes *b, uint32_t number, const char *domain, int64_t version);
void ob_value(onnx_bytes *b, uint32_t number, const char *name, int64_t elem_type, const char *dims);
void ob_input(onnx_bytes *b, const char *name, const char *dims); /* of a graph, float */
void ob_output(onnx_bytes *b, const char *name, const char *dims);
/* Opens a NodeProto (field number: 1 in a graph, 7 in a function) for attributes. */
void ob_node_open(onnx_bytes *b, uint32_t number, const char *type, const char *inputs, const char *outputs);
void ob_node(onnx_bytes *b, uint32_t number, const char *type, const char *inputs, const char *outputs);
/* Opens a TensorProto with name, type and dims, for contents. */
void ob_tensor_open(onnx_bytes *b, uint32_t number, const char *name, int64_t data_type, const char *dims);
void ob_floats(onnx_bytes *b, uint32_t number, const char *name, const char *dims, const float *x, size_t count);
void ob_attr_int(onnx_bytes *b, const char *name, int64_t x);
void ob_attr_ref(onnx_bytes *b, const char *name, const char *refers_to, int64_t type);
void ob_attr_open(onnx_bytes *b, const char *name, int64_t type); /* opens an AttributeProto of a node */
void ob_entry(onnx_bytes *b, uint32_t number, const char *key, const char *value);

/* A whole model x [2,3] → Relu → y, and its graph opened for more. */
void ob_small(onnx_bytes *b);
void ob_save(const onnx_bytes *b, const char *path);

/* ---- a context that counts */

typedef struct counted {
    hk_context *ctx;
    size_t live, peak; /* bytes */
    size_t blocks;     /* allocated and not freed */
    uint64_t calls;    /* so far */
    uint64_t fail_at;  /* the call of this number fails; 0: none */
} counted;

void counted_open(counted *c);
/* Ends the context; false if a block is still allocated. */
bool counted_close(counted *c);

#endif
