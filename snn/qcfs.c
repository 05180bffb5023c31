/* The network that is fine-tuned before its conversion: its activations quantised as neurons will say them. */
#include <string.h>

#include "ops/op.h"
#include "snn/convert.h"

static hk_status insert(hk_snn_plan *p, const hk_snn_site *s, int64_t levels, bool per_channel)
{
    hk_graph *g = p->graph;
    const hk_attr_value attrs[] = {HK_SET_INT("levels", levels), {0}};
    const char *name = hk_arena_format(p->arena, "%s.threshold", s->node->name);
    int64_t count = per_channel ? s->channels : 1;
    hk_value *theta = name ? hk_snn_floats(g, name, s->thresholds, 1, &count) : NULL, *y = NULL;
    if (!theta)
        return hk_out_of_memory(g->ctx, "a threshold");
    theta->kind = HK_VALUE_PARAMETER;
    HK_TRY(hk_snn_node_make(g, p->opset, "hk.QCFS", s->node->name, attrs, (hk_value *[]){s->x, theta}, 2, &y));
    y->dtype = s->y->dtype;
    hk_graph_take_over(y, s->y);
    return HK_OK;
}

hk_status hk_snn_insert_qcfs(hk_snn_plan *p, int64_t levels, bool per_channel)
{
    for (size_t i = 0; i < p->site_count; i++)
        HK_TRY(insert(p, &p->sites[i], levels, per_channel));
    return hk_graph_prune(p->graph);
}
