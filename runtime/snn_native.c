/* Public calls of networks that are trained as spiking ones. */
#include <string.h>

#include "ops/support/neuron.h"
#include "runtime/model.h"
#include "snn/convert.h"
#include "snn/native.h"
#include "snn/step_mode.h"

hk_status hk_snn_native(const hk_model *m, const hk_snn_native_params *params, hk_model **out)
{
    const hk_snn_native_params none = {.size = sizeof none};
    hk_graph *g = NULL;
    HK_TRY(hk_model_check_runs(m));
    const hk_graph *source = hk_model_graph(m);
    if (hk_snn_describe(source).steps)
        return hk_fail(source->ctx, HK_STATUS_USAGE,
                       "the model is a spiking network already; hk_snn_with_steps changes its T");
    HK_TRY(hk_graph_clone(source, &g));
    hk_status st = hk_snn_make_native(g, params ? params : &none);
    if (st == HK_OK)
        st = hk_model_of_graph(g, out);
    hk_graph_destroy(&g);
    return st;
}

hk_status hk_snn_set_step_mode(const hk_model *m, hk_step_mode mode, int64_t steps, hk_model **out)
{
    hk_graph *g = NULL;
    size_t neurons = 0;
    HK_TRY(hk_model_check_runs(m));
    HK_TRY(hk_snn_neurons(m, NULL, 0, &neurons));
    const hk_graph *source = hk_model_graph(m);
    if (!neurons)
        return hk_fail(source->ctx, HK_STATUS_USAGE, "the model has no neurons outside loops, whose step mode it is");
    HK_TRY(hk_graph_clone(source, &g));
    hk_status st = hk_graph_prune(g);
    if (st == HK_OK && mode != HK_STEP_SINGLE)
        st = hk_snn_make_multi(g, steps);
    else if (st == HK_OK && hk_snn_describe(g).steps)
        st = hk_snn_make_single(g);
    if (st == HK_OK)
        st = hk_model_of_graph(g, out);
    hk_graph_destroy(&g);
    return st;
}

/* ---- what neurons there are */

hk_status hk_snn_neurons(const hk_model *m, hk_snn_neuron *list, size_t capacity, size_t *count)
{
    const hk_graph *g = hk_model_graph(m);
    *count = 0;
    for (size_t i = 0; i < g->node_count; i++) {
        const hk_node *n = g->nodes[i];
        const hk_neuron_attrs *a = n->attrs;
        if (strcmp(n->type, "hk.Neuron") != 0)
            continue;
        const hk_value *w = hk_in(n, 2);
        hk_snn_neuron d = {.node = n->name, .kind = a->kind, .steps = a->steps, .v_threshold = (double)a->v_threshold};
        if (!strcmp(a->kind, "LIF"))
            d.tau = (double)a->tau;
        if (w && w->data) {
            d.tau = 1 / hk_neuron_rate(hk_get_double(w->data, 0), false);
            d.parameter = w->name;
        }
        if (*count < capacity)
            list[*count] = d;
        ++*count;
    }
    return HK_OK;
}
