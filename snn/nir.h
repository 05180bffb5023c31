/*
 * NIR, the neuromorphic intermediate representation (https://neuroir.org), as its package `nir` 1.0 reads it: named
 * nodes with parameters, edges between them, and what an edge's nodes hand on is added up where edges meet. A node
 * computes a step for a sample: neither time nor a batch is in it.
 */
#ifndef HK_SNN_NIR_H
#define HK_SNN_NIR_H

#include "core/graph.h"

typedef struct hk_nir_field {
    const char *name;
    const hk_tensor *data; /* float32, float64 or int64, of rank 0 a scalar; NULL: */
    const char *text;
} hk_nir_field;

enum { HK_NIR_FIELDS = 8 };

typedef struct hk_nir_node {
    const char *name, *type; /* name: unique, without '/' and '.' */
    hk_nir_field fields[HK_NIR_FIELDS];
    size_t field_count;
    hk_shape out;             /* of a sample */
    hk_tensor *weight, *bias; /* of what is linear: fields that a gain may still change */

} hk_nir_node;

typedef struct hk_nir {
    hk_arena *arena;
    hk_nir_node **nodes;
    size_t node_count, node_capacity;
    size_t (*edges)[2]; /* numbers of nodes */
    size_t edge_count, edge_capacity;
    hk_nir_field metadata[HK_NIR_FIELDS];
    size_t metadata_count;
} hk_nir;

typedef struct hk_nir_params {
    double dt;        /* seconds of a step */
    bool approximate; /* nodes that NIR has only something like are written as that */
    void (*report)(void *user, const hk_snn_node *n);
    void *user;
} hk_nir_params;

/* Of a graph of neurons whose batch normalizations are folded; in its arena. Every node is reported.
 * HK_STATUS_UNSUPPORTED names all that NIR cannot express. */
hk_status hk_nir_build(hk_graph *g, const hk_nir_params *params, hk_nir *out);

/* Writes it as HDF5. HK_STATUS_UNSUPPORTED: this build has no libhdf5. */
hk_status hk_nir_save(hk_context *ctx, const hk_nir *n, const char *path);

#endif
