/* Edits of a loaded model before it is trained. */
#include <string.h>

#include "runtime/model.h"
#include "train/edit.h"

typedef struct editor {
    hk_context *ctx;
    const hk_model *source;
    hk_model_edit_params p;
    hk_arena *temporary;
    hk_graph *written; /* changed in structure, or NULL: the source's file is patched */
    hk_value *head[2]; /* weight and bias of a new head, of written */
} editor;

static hk_status take_params(hk_context *ctx, const hk_model_edit_params *given, hk_model_edit_params *p)
{
    *p = (hk_model_edit_params){.size = sizeof *p};
    if (given)
        memcpy(p, given, HK_MIN(given->size, sizeof *p));
    if (p->new_head < 0 || p->new_head > INT32_MAX)
        return hk_fail(ctx, HK_STATUS_USAGE, "a new head needs 1 class or more; found %lld", (long long)p->new_head);
    return HK_OK;
}

/* ---- what is written */

static hk_status edit_written(editor *e, hk_graph *g, bool *changed)
{
    if (!e->p.tie)
        HK_TRY(hk_edit_unshare(g, e->temporary, changed));
    if (e->p.new_head) {
        HK_TRY(hk_edit_new_head(g, e->p.output, e->p.new_head, e->p.seed, e->temporary, &e->head[0], &e->head[1]));
        *changed = true;
    }
    return HK_OK;
}

/* A graph that differs from the file's is what a new import says, which has no file. */
static hk_status make_import(editor *e, hk_import_result **out)
{
    hk_import_result *r = hk_alloc(e->ctx, sizeof *r);
    if (!r)
        return hk_out_of_memory(e->ctx, "an edited model");
    *r = *e->source->import;
    r->graph = e->written;
    r->files = NULL;
    r->file_names = NULL;
    r->externals = NULL;
    r->file_count = r->file_capacity = r->external_count = r->external_capacity = 0;
    r->copy = NULL;
    *out = r;
    return HK_OK;
}

static hk_status edit(editor *e, hk_model *m)
{
    bool changed = false;
    m->import = e->source->import;
    m->borrowed = true;
    m->arena = hk_arena_create(e->ctx);
    e->temporary = hk_arena_create(e->ctx);
    if (!m->arena || !e->temporary)
        return hk_out_of_memory(e->ctx, "an edited model");
    HK_TRY(hk_graph_clone(e->source->import->graph, &e->written));
    HK_TRY(edit_written(e, e->written, &changed));
    if (changed || !e->source->import->file_count) {
        HK_TRY(make_import(e, &m->import));
        m->borrowed = false;
        e->written = NULL;
    }
    return hk_model_describe(m);
}

hk_status hk_model_edit(const hk_model *source, const hk_model_edit_params *params, hk_model **out)
{
    editor e = {.ctx = source->ctx, .source = source};
    HK_TRY(take_params(e.ctx, params, &e.p));
    HK_TRY(hk_model_check_runs(source));
    if (source->edited)
        return hk_fail(e.ctx, HK_STATUS_USAGE, "the model is edited already: give all edits in one call");
    hk_model *m = hk_alloc(e.ctx, sizeof *m);
    if (!m)
        return hk_out_of_memory(e.ctx, "an edited model");
    m->ctx = e.ctx;
    hk_status st = edit(&e, m);
    hk_arena_destroy(&e.temporary);
    if (e.written)
        hk_graph_destroy(&e.written);
    if (st == HK_OK)
        *out = m;
    else
        hk_model_destroy(&m);
    return st;
}
