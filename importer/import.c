/*
 * A model file → hk_import_result: open, scan, parse, read, infer.
 */
#include "importer/import.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "importer/internal.h"

enum { MODEL_BYTES_MAX = INT32_MAX }; /* 2 GiB - 1: protobuf's own limit */
#define FOLDED_BYTES_DEFAULT ((uint64_t)64 << 20)

/* ---- options and files */

static hk_status read_params(hk_context *ctx, const hk_model_params *given, hk_model_params *out)
{
    hk_model_params p = {0};
    if (given != NULL) {
        if (given->size < sizeof given->size)
            return hk_fail(ctx, HK_STATUS_USAGE, "hk_model_params.size is %zu, expected sizeof(hk_model_params)",
                           given->size);
        memcpy(&p, given, HK_MIN(given->size, sizeof p));
    }
    if (p.max_file_bytes == 0 || p.max_file_bytes > MODEL_BYTES_MAX)
        p.max_file_bytes = MODEL_BYTES_MAX;
    if (p.max_folded_bytes == 0)
        p.max_folded_bytes = FOLDED_BYTES_DEFAULT;
    *out = p;
    return HK_OK;
}

/* Adds what to do to the sentence. */
static hk_status too_large(hk_importer *imp, hk_status st)
{
    const char *advice = imp->params.max_file_bytes == MODEL_BYTES_MAX
                             ? "an ONNX file ends at 2 GiB, so export the model with external data"
                             : "raise max_file_bytes, or export the model with external data";
    return hk_fail(imp->ctx, st, "%s: %s", hk_context_error(imp->ctx), advice);
}

static hk_status copy_model(hk_importer *imp, const void *data, size_t bytes, hk_file *out)
{
    if (bytes > imp->params.max_file_bytes)
        return too_large(imp, hk_fail(imp->ctx, HK_STATUS_UNSUPPORTED,
                                      "the model has %zu bytes, more than the limit of %llu", bytes,
                                      (unsigned long long)imp->params.max_file_bytes));
    imp->result->copy = hk_alloc(imp->ctx, bytes);
    if (imp->result->copy == NULL)
        return hk_out_of_memory(imp->ctx, "a model's bytes");
    if (bytes != 0)
        memcpy(imp->result->copy, data, bytes);
    *out = (hk_file){.data = imp->result->copy, .bytes = bytes};
    return HK_OK;
}

static hk_status open_model(hk_importer *imp, const char *path, const void *data, size_t bytes)
{
    hk_import_result *r = imp->result;
    enum { FEW_FILES = 8 }; /* grown like every list when there are more */
    r->files = hk_arena_array(imp->arena, FEW_FILES, sizeof *r->files);
    r->file_names = hk_arena_array(imp->arena, FEW_FILES, sizeof *r->file_names);
    const char *name = hk_arena_string(imp->arena, path == NULL ? "" : path);
    if (r->files == NULL || r->file_names == NULL || name == NULL)
        return hk_out_of_memory(imp->ctx, "a model");
    r->file_capacity = FEW_FILES;
    r->file_names[0] = name;
    if (path == NULL) {
        HK_TRY(copy_model(imp, data, bytes, &r->files[0]));
    } else {
        hk_status st = hk_file_open(imp->ctx, path, imp->params.max_file_bytes, &r->files[0]);
        if (st != HK_OK)
            return st == HK_STATUS_UNSUPPORTED ? too_large(imp, st) : st;
        const char *slash = strrchr(path, '/');
        imp->folder_path = slash == NULL ? "." : hk_arena_format(imp->temporary, "%.*s", (int)(slash - path) + 1, path);
        if (imp->folder_path == NULL)
            return hk_out_of_memory(imp->ctx, "a model");
    }
    r->file_count = 1;
    return HK_OK;
}

/* ---- what the model says about itself */

static hk_status read_about(hk_importer *imp)
{
    hk_import_result *r = imp->result;
    const Onnx__ModelProto *m = imp->model;
    const char *version = hk_text(m->producer_version);
    r->producer = hk_arena_format(imp->arena, "%s%s%s", hk_text(m->producer_name), *version == '\0' ? "" : " ",
                                  version);
    r->graph->name = hk_arena_string(imp->arena, hk_text(m->graph->name));
    r->metadata = hk_arena_array(imp->arena, m->n_metadata_props + 1, sizeof *r->metadata);
    if (r->producer == NULL || r->graph->name == NULL || r->metadata == NULL)
        return hk_out_of_memory(imp->ctx, "a model's metadata");
    for (size_t i = 0; i < m->n_metadata_props; i++) {
        hk_import_pair *p = &r->metadata[r->metadata_count++];
        p->key = hk_arena_string(imp->arena, hk_text(m->metadata_props[i]->key));
        p->value = hk_arena_string(imp->arena, hk_text(m->metadata_props[i]->value));
        if (p->key == NULL || p->value == NULL)
            return hk_out_of_memory(imp->ctx, "a model's metadata");
    }
    r->ir_version = m->ir_version;
    return HK_OK;
}

/* The first files of the format import no domain and mean version 1 of the default one. */
static hk_status read_opsets(hk_importer *imp)
{
    static const Onnx__OperatorSetIdProto first = ONNX__OPERATOR_SET_ID_PROTO__INIT;
    HK_TRY(hk_import_opsets(imp, &imp->opsets, imp->model->opset_import, imp->model->n_opset_import));
    const int64_t *version = hk_map_get(&imp->opsets, "");
    if (imp->model->n_opset_import == 0) {
        Onnx__OperatorSetIdProto *implied = hk_arena_new(imp->temporary, Onnx__OperatorSetIdProto);
        if (implied == NULL)
            return hk_out_of_memory(imp->ctx, "imported domains");
        *implied = first;
        implied->version = 1;
        version = &implied->version;
        if (!hk_map_set(&imp->opsets, "", &implied->version))
            return hk_out_of_memory(imp->ctx, "imported domains");
    }
    imp->result->opset = version == NULL ? 0 : *version;
    if (imp->result->opset <= HK_IMPORT_OPSET_MAX)
        return HK_OK;
    char reason[128];
    snprintf(reason, sizeof reason, "opset %lld is newer than %d, the newest whose operators are known",
             (long long)imp->result->opset, HK_IMPORT_OPSET_MAX);
    return hk_import_problem(imp, "the model", "ai.onnx", reason);
}

/* ---- the way of the data */

static hk_status read_graph(hk_importer *imp)
{
    hk_scope s = {.graph = imp->result->graph, .arena = imp->temporary, .opsets = &imp->opsets, .prefix = ""};
    hk_map_init(&s.names, imp->temporary);
    return hk_import_graph(imp, &s, imp->model->graph);
}

static hk_status read_model(hk_importer *imp)
{
    hk_import_result *r = imp->result;
    ProtobufCMessage *message = NULL;
    HK_TRY(hk_scan_run(imp->ctx, &onnx__model_proto__descriptor, r->files[0].data, r->files[0].bytes, &imp->scan));
    imp->reader = (hk_tensor_reader){
        .ctx = imp->ctx, .arena = imp->arena, .data = r->files[0].data, .scan = &imp->scan};
    imp->decoded = hk_arena_array(imp->temporary, imp->scan.tensor_count + 1, sizeof *imp->decoded);
    if (imp->decoded == NULL)
        return hk_out_of_memory(imp->ctx, "a model's tensors");
    HK_TRY(hk_scan_parse(imp->ctx, &onnx__model_proto__descriptor, &imp->scan, imp->temporary, &message));
    imp->model = (const Onnx__ModelProto *)message;
    if (imp->model->graph == NULL)
        return hk_fail(imp->ctx, HK_STATUS_INVALID, "there is no graph: it is no ONNX model, or cut");
    hk_map_init(&imp->external_files, imp->temporary);
    hk_map_init(&imp->prefixes, imp->temporary);
    HK_TRY(read_about(imp));
    HK_TRY(read_opsets(imp));
    HK_TRY(hk_import_functions(imp));
    HK_TRY(read_graph(imp));
    HK_TRY(hk_import_count(imp));
    HK_TRY(hk_import_infer(imp));
    return hk_import_roles(imp);
}

hk_status hk_import(hk_context *ctx, const char *path, const void *data, size_t bytes, const hk_model_params *params,
                    hk_import_result **out)
{
    hk_importer imp = {.ctx = ctx, .folder = -1};
    if (path == NULL && data == NULL && bytes != 0)
        return hk_fail(ctx, HK_STATUS_USAGE, "a model needs a path or bytes");
    HK_TRY(read_params(ctx, params, &imp.params));
    imp.result = hk_alloc(ctx, sizeof *imp.result);
    if (imp.result == NULL)
        return hk_out_of_memory(ctx, "a model");
    imp.result->ctx = ctx;
    imp.temporary = hk_arena_create(ctx);
    hk_status st = imp.temporary == NULL ? hk_out_of_memory(ctx, "a model")
                                         : hk_graph_create(ctx, "", &imp.result->graph);
    if (st == HK_OK) {
        imp.arena = imp.result->graph->arena;
        imp.result->graph->fold_limit = imp.params.max_folded_bytes;
        st = open_model(&imp, path, data, bytes);
    }
    if (st == HK_OK && (st = read_model(&imp)) != HK_OK)
        hk_fail_prefix(ctx, st, "'%s'", path == NULL ? "model in memory" : path);

    hk_scan_free(ctx, &imp.scan);
    hk_arena_destroy(&imp.temporary);
    if (imp.folder >= 0)
        close(imp.folder);
    if (st != HK_OK)
        hk_import_destroy(&imp.result);
    else
        *out = imp.result;
    return st;
}

hk_status hk_import_begin(hk_context *ctx, const char *name, hk_import_result **out)
{
    hk_import_result *r = hk_alloc(ctx, sizeof *r);
    if (r == NULL)
        return hk_out_of_memory(ctx, "a model");
    r->ctx = ctx;
    r->producer = "hillock";
    hk_status st = hk_graph_create(ctx, name, &r->graph);
    if (st != HK_OK)
        hk_import_destroy(&r);
    else
        *out = r;
    return st;
}

hk_status hk_import_recount(hk_import_result *r)
{
    hk_importer imp = {.ctx = r->ctx, .result = r, .arena = r->graph->arena, .temporary = hk_arena_create(r->ctx)};
    r->op_count = 0;
    hk_status st = imp.temporary == NULL ? hk_out_of_memory(r->ctx, "a model") : hk_import_count(&imp);
    hk_arena_destroy(&imp.temporary);
    return st;
}

void hk_import_destroy(hk_import_result **r)
{
    if (r == NULL || *r == NULL)
        return;
    hk_context *ctx = (*r)->ctx;
    for (size_t i = 0; i < (*r)->file_count; i++)
        hk_file_close(&(*r)->files[i]);
    if ((*r)->graph != NULL) /* last: the lists above lie in its arena */
        hk_graph_destroy(&(*r)->graph);
    hk_free(ctx, (*r)->copy);
    hk_free(ctx, *r);
    *r = NULL;
}
