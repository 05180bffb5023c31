/*
 * Inside of hk_model, for sessions and trainers.
 */
#ifndef HK_RUNTIME_MODEL_H
#define HK_RUNTIME_MODEL_H

#include "core/graph.h"
#include "importer/import.h"
#include "train/edit.h"
#include "train/layers.h"

struct hk_model {
    hk_context *ctx;
    hk_import_result *import;  /* what is written back */
    hk_graph *edited;          /* what is run and trained instead of the import's graph, or NULL */
    const hk_derived *derived; /* tensors of the import's graph that edits make of trained ones */
    size_t derived_count;
    bool borrowed; /* the import is another model's */
    hk_arena *arena;
    hk_value_info *inputs, *outputs, *parameters, *other_floats;
    size_t input_count, output_count, parameter_count, other_float_count;
    const char **roles;    /* of the parameters */
    const char **metadata; /* key and value alternate */
    hk_node_info *nodes;   /* made on demand */
    hk_snn_probe *probes;  /* of a spiking network with monitors */
    size_t probe_count;
    struct hk_building *build; /* of a model that is built, NULL: loaded */
};

typedef struct hk_building {
    hk_builder builder;
    bool used; /* a session or trainer has been made of it: nothing may be added */
} hk_building;

/* Makes the lists of inputs, outputs and parameters that the public calls hand out. */
hk_status hk_model_describe(hk_model *m);
const hk_graph *hk_model_graph(const hk_model *m); /* what is run and trained */
const hk_import_result *hk_model_import(const hk_model *m);
/* Writes the model back with new contents of some of its import's values: its file's bytes with these in place, or the
 * whole graph when it has no file. */
hk_status hk_model_write(const hk_model *m, const hk_export_patch *patches, size_t count, const char *path);
/* HK_STATUS_UNSUPPORTED with all problems in one sentence, or HK_OK. */
hk_status hk_model_check_runs(const hk_model *m);

/* A graph as a model of its own, written and read in memory; nothing of the graph is shared. */
hk_status hk_model_of_graph(const hk_graph *g, hk_model **out);
/* Copies the list into the model, for hk_snn_probes. */
hk_status hk_model_keep_probes(hk_model *m, const hk_snn_probe *list, size_t count);

/* Shared by session and trainer: does the tensor fit the input; room for an output. */
hk_status hk_check_input(hk_context *ctx, const hk_value *v, const hk_tensor *t);
hk_status hk_fill_output(hk_context *ctx, const char *name, hk_dtype dtype, const hk_shape *shape, hk_tensor *out,
                         bool *made);

#endif
