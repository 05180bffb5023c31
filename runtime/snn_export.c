/* A spiking network into files for others. */
#include <math.h>
#include <string.h>

#include "runtime/model.h"
#include "runtime/passes.h"
#include "snn/export.h"
#include "snn/nir.h"

#define DT_DEFAULT 1e-4

static bool has_neurons(const hk_graph *g)
{
    bool found = false;
    for (size_t i = 0; i < g->node_count && !found; i++) {
        const hk_node *n = g->nodes[i];
        found = !strcmp(n->type, "hk.Neuron");
        for (int32_t b = 0; b < n->body_count && !found; b++)
            found = has_neurons(n->bodies[b]);
    }
    return found;
}

static hk_status write_onnx(hk_graph *g, bool unrolled, const char *path)
{
    HK_TRY(hk_snn_standard(g, unrolled));
    return hk_export_graph(g, NULL, path);
}

static hk_status write_nir(hk_graph *g, const hk_snn_export_params *p, const char *path)
{
    const hk_nir_params params = {.dt = p->dt, .approximate = p->approximate, .report = p->report, .user = p->user};
    hk_nir n;
    HK_TRY(hk_fold_batchnorm(g));
    HK_TRY(hk_graph_prune(g));
    HK_TRY(hk_nir_build(g, &params, &n));
    return hk_nir_save(g->ctx, &n, path);
}

static hk_status check_params(hk_context *ctx, hk_snn_export_params *p)
{
    p->dt = p->dt == 0 ? DT_DEFAULT : p->dt; /* only an exact zero is absent */
    if ((int)p->format < 0 || p->format > HK_SNN_FORMAT_NIR)
        return hk_fail(ctx, HK_STATUS_USAGE, "hk_snn_export_params.format is %d, which is no format", (int)p->format);
    if (!(p->dt > 0 && isfinite(p->dt)))
        return hk_fail(ctx, HK_STATUS_USAGE, "dt is %g: a step of NIR takes seconds, above 0; 1e-4 is usual", p->dt);
    return HK_OK;
}

hk_status hk_snn_export(const hk_model *m, const hk_snn_export_params *params, const char *path)
{
    const hk_graph *source = hk_model_graph(m);
    hk_snn_export_params p = {.size = sizeof p};
    hk_graph *g = NULL;
    if (params)
        memcpy(&p, params, HK_MIN(params->size, sizeof p));
    HK_TRY(check_params(m->ctx, &p));
    if (!has_neurons(source))
        return hk_fail(m->ctx, HK_STATUS_USAGE,
                       "the model has no spiking neurons; hillock convert makes a spiking network");
    HK_TRY(hk_model_check_runs(m));
    HK_TRY(hk_graph_clone(source, &g));
    hk_status st = hk_snn_standard_scalers(g);
    if (st == HK_OK)
        st = p.format == HK_SNN_FORMAT_NIR ? write_nir(g, &p, path)
                                           : write_onnx(g, p.format == HK_SNN_FORMAT_ONNX, path);
    hk_graph_destroy(&g);
    return st;
}
