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
    hk_folded *folded; /* convolutions that get a BatchNormalization */
    size_t folded_count;
} editor;

static hk_status take_params(hk_context *ctx, const hk_model_edit_params *given, hk_model_edit_params *p)
{
    *p = (hk_model_edit_params){.size = sizeof *p};
    if (given)
        memcpy(p, given, HK_MIN(given->size, sizeof *p));
    if (p->new_head < 0 || p->new_head > INT32_MAX)
        return hk_fail(ctx, HK_STATUS_USAGE, "a new head needs 1 class or more; found %lld", (long long)p->new_head);
    if (p->lora_rank > INT16_MAX || !(p->lora_alpha >= 0))
        return hk_fail(ctx, HK_STATUS_USAGE, "adapters need a rank below 32768 and alpha > 0; found %u, %g",
                       (unsigned)p->lora_rank, (double)p->lora_alpha);
    if (!(p->dropout >= 0 && p->dropout < 1))
        return hk_fail(ctx, HK_STATUS_USAGE, "dropout must be at least 0 and below 1; found %g", (double)p->dropout);
    p->rebuild_bn = p->rebuild_bn || p->keep_bn;
    if (p->calibration_count && (!p->device || !p->calibration))
        return hk_fail(ctx, HK_STATUS_USAGE, "calibration needs a device and the model's inputs");
    if (p->rebuild_bn && !p->calibration_count)
        hk_log(ctx, HK_LOG_WARN,
               "BatchNormalization begins with statistics of 0 and 1: without a batch for calibration the model's "
               "results change when training begins");
    return HK_OK;
}

/* A graph that differs from the file's is what a new import says, which has no file. */
static hk_status make_import(const editor *e, hk_graph *g, hk_import_result **out)
{
    hk_import_result *r = hk_alloc(e->ctx, sizeof *r);
    if (!r)
        return hk_out_of_memory(e->ctx, "an edited model");
    *r = *e->source->import;
    r->graph = g;
    r->files = NULL;
    r->file_names = NULL;
    r->externals = NULL;
    r->file_count = r->file_capacity = r->external_count = r->external_capacity = 0;
    r->copy = NULL;
    *out = r;
    return HK_OK;
}

/* ---- statistics of convolutions' results */

static hk_status run(hk_session *s, const hk_model *m, const hk_tensor *inputs, size_t count)
{
    if (count != m->input_count)
        return hk_fail(m->ctx, HK_STATUS_USAGE, "%zu inputs were given for calibration, the model has %zu", count,
                       m->input_count);
    for (size_t i = 0; i < count; i++)
        HK_TRY(hk_session_write(s, m->inputs[i].name, &inputs[i]));
    return hk_session_run(s);
}

/* Outputs are mean and variance of each convolution in turn, one number per channel. */
static hk_status read_pairs(editor *e, hk_session *s, const hk_model *m)
{
    for (size_t i = 0; i < 2 * e->folded_count; i++) {
        hk_tensor read = {0};
        HK_TRY(hk_session_read(s, m->outputs[i].name, &read));
        hk_tensor *t = hk_tensor_new(e->temporary, HK_FLOAT32, &(hk_shape){.rank = 1, .dim = {hk_tensor_count(&read)}});
        for (int64_t k = 0; t && k < hk_tensor_count(t); k++)
            hk_set_double(t, k, hk_get_double(&read, k));
        hk_tensor_release(&read);
        if (!t)
            return hk_out_of_memory(e->ctx, "calibration");
        *(i % 2 ? &e->folded[i / 2].variance : &e->folded[i / 2].mean) = t;
    }
    return HK_OK;
}

static hk_status calibrate(editor *e, const hk_graph *g)
{
    hk_model m = {.ctx = e->ctx, .arena = e->temporary};
    hk_graph *copy = NULL;
    hk_session *s = NULL;
    HK_TRY(hk_graph_clone(g, &copy));
    hk_status st = hk_edit_measure(copy, e->folded, e->folded_count);
    if (st == HK_OK)
        st = make_import(e, copy, &m.import);
    if (st != HK_OK) {
        hk_graph_destroy(&copy);
        return st;
    }
    st = hk_model_describe(&m);
    if (st == HK_OK)
        st = hk_session_create(e->p.device, &m, NULL, &s);
    if (st == HK_OK)
        st = run(s, &m, e->p.calibration, e->p.calibration_count);
    if (st == HK_OK)
        st = read_pairs(e, s, &m);
    hk_session_destroy(&s);
    hk_import_destroy(&m.import);
    return st;
}

/* Convolutions that take a BatchNormalization, with statistics where there is a batch. */
static hk_status find_norms(editor *e, const hk_graph *g)
{
    HK_TRY(hk_edit_find_folded(g, e->temporary, &e->folded, &e->folded_count));
    return e->p.calibration_count ? calibrate(e, g) : HK_OK;
}

/* ---- what is written */

static hk_status edit_written(editor *e, hk_graph *g, bool *changed)
{
    if (e->p.open_batch)
        HK_TRY(hk_edit_open_batch(g, e->temporary, changed));
    if (!e->p.tie)
        HK_TRY(hk_edit_unshare(g, e->temporary, changed));
    if (e->p.new_head) {
        HK_TRY(hk_edit_new_head(g, e->p.output, e->p.new_head, e->p.seed, e->temporary, &e->head[0], &e->head[1]));
        *changed = true;
    }
    if (e->p.tie_matrices)
        HK_TRY(hk_edit_tie(g, e->temporary, changed));
    if (e->p.keep_bn) {
        HK_TRY(find_norms(e, g));
        HK_TRY(hk_edit_batchnorms(g, NULL, e->folded, e->folded_count, NULL));
        *changed = true;
    }
    return HK_OK;
}

/* ---- what is trained: written again as it was */

static hk_status edit_trained(editor *e, hk_model *m)
{
    const hk_graph *written = m->import->graph;
    const hk_model_edit_params *p = &e->p;
    hk_derived_list derived = {0};
    bool norms = p->rebuild_bn && !p->keep_bn;
    if (!p->rebuild_bn && !p->lora_rank && !(p->dropout > 0))
        return HK_OK;
    HK_TRY(hk_graph_clone(written, &m->edited));
    for (size_t i = 0; p->keep_bn && i < e->folded_count; i++) /* what the normalization subtracts again */
        m->edited->values[e->folded[i].conv->in[2]->id]->kind = HK_VALUE_CONSTANT;
    if (norms) {
        HK_TRY(find_norms(e, written));
        HK_TRY(hk_edit_batchnorms(m->edited, written, e->folded, e->folded_count, &derived));
    }
    if (p->dropout > 0)
        HK_TRY(hk_edit_dropout(m->edited, p->output, p->dropout));
    if (p->lora_rank) {
        double alpha = p->lora_alpha > 0 ? (double)p->lora_alpha : (double)p->lora_rank;
        HK_TRY(hk_edit_lora(m->edited, written, e->head, p->lora_rank, alpha, p->seed, e->temporary, &derived));
    }
    m->derived = derived.v;
    m->derived_count = derived.count;
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
        HK_TRY(make_import(e, e->written, &m->import));
        m->borrowed = false;
        e->written = NULL;
    }
    HK_TRY(edit_trained(e, m));
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
