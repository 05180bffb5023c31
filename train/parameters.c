/* What is trained: parameters by role and rule, laid out in flat arenas. */
#include <fnmatch.h>
#include <math.h>
#include <string.h>

#include "ops/roles.h"
#include "train/training.h"

/* ---- roles */

const char *hk_role_text(hk_role role)
{
    static const char *const names[] = {"weight", "bias", "norm", "embedding", "other"};
    return names[role];
}

static bool type_in(const hk_node *n, const char *const *types)
{
    for (; *types; types++)
        if (!strcmp(n->type, *types))
            return true;
    return false;
}

static hk_role role_in(const hk_node *n, int32_t k, const hk_value *v)
{
    static const char *const products[] = {"Conv", "ConvTranspose", "Gemm", "MatMul", "hk.Gemm", "hk.Conv", NULL};
    static const char *const recurrent[] = {"LSTM", "GRU", "RNN", NULL};
    static const char *const norms[] = {"BatchNormalization", "InstanceNormalization", "LayerNormalization",
                                        "GroupNormalization", "RMSNormalization",      NULL};
    if (type_in(n, norms) || hk_node_scales_norm(n, k))
        return HK_ROLE_NORM;
    if (type_in(n, products))
        return k >= 2 ? HK_ROLE_BIAS : HK_ROLE_WEIGHT;
    if (type_in(n, recurrent))
        return k == 3 ? HK_ROLE_BIAS : HK_ROLE_WEIGHT;
    if (!strcmp(n->type, "Gather") && k == 0)
        return HK_ROLE_EMBEDDING;
    /* Decomposed exports: x W + b, and the scale and shift of a decomposed norm. */
    if (!strcmp(n->type, "Add") && v->shape.rank <= 1)
        return HK_ROLE_BIAS;
    return !strcmp(n->type, "Mul") && v->shape.rank <= 1 ? HK_ROLE_NORM : HK_ROLE_OTHER;
}

hk_role hk_role_of(const hk_graph *g, const hk_uses *uses, const hk_value *v)
{
    static const char *const passing[] = {"Transpose", "Cast",  "Reshape", "Identity",         "Squeeze",
                                          "Unsqueeze", "Slice", "Concat",  "DequantizeLinear", NULL};
    for (int depth = 0; depth < 8 && v->graph == g && uses->count[v->id]; depth++) {
        const hk_node *n = uses->users[v->id][0];
        int32_t k = 0;
        while (k < n->in_count && n->in[k] != v)
            k++;
        if (!type_in(n, passing) || !n->out[0])
            return k < n->in_count ? role_in(n, k, v) : HK_ROLE_OTHER;
        v = n->out[0];
    }
    return HK_ROLE_OTHER;
}

/* ---- rules */

static bool matches(const hk_parameter_rule *rule, const hk_parameter *p)
{
    if (!strncmp(rule->pattern, "role:", 5))
        return !strcmp(rule->pattern + 5, hk_role_text(p->role));
    return fnmatch(rule->pattern, p->source->name, 0) == 0;
}

/* What the rules make of one parameter. */
typedef struct ruled {
    bool freeze;
    float lr_scale, weight_decay;
} ruled;

static ruled apply_rules(const hk_parameter_rule *rules, size_t count, bool *used, float weight_decay,
                         const hk_parameter *p)
{
    ruled r = {.freeze = p->source->kind != HK_VALUE_PARAMETER, .lr_scale = 1, .weight_decay = weight_decay};
    bool chosen = !r.freeze;
    for (size_t i = 0; i < count; i++)
        chosen |= rules[i].train && matches(&rules[i], p);
    for (size_t i = 0; i < count && chosen; i++) {
        if (!matches(&rules[i], p))
            continue;
        used[i] = true;
        r.freeze = rules[i].freeze;
        r.lr_scale = rules[i].lr_scale != 0 ? rules[i].lr_scale : r.lr_scale;
        r.weight_decay = rules[i].weight_decay < 0    ? 0
                         : rules[i].weight_decay != 0 ? rules[i].weight_decay
                                                      : r.weight_decay;
    }
    return r;
}

static hk_status check_rules(hk_context *ctx, const hk_parameter_rule *rules, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!rules[i].pattern || !*rules[i].pattern)
            return hk_fail(ctx, HK_STATUS_USAGE, "parameter rule %zu has no pattern", i);
        if (rules[i].train && (rules[i].freeze || !strncmp(rules[i].pattern, "role:", 5)))
            return hk_fail(ctx, HK_STATUS_USAGE,
                           "the rule for '%s' trains what has no role: it needs a pattern of names, and cannot freeze",
                           rules[i].pattern);
        if (!(rules[i].lr_scale >= 0) || isnan(rules[i].weight_decay))
            return hk_fail(ctx, HK_STATUS_USAGE, "the rule for '%s' has a learning rate scale of %g, weight decay %g",
                           rules[i].pattern, (double)rules[i].lr_scale, (double)rules[i].weight_decay);
    }
    return HK_OK;
}

static int32_t find_group(hk_parameters *p, const ruled *r)
{
    for (int32_t i = 0; i < p->group_count; i++)
        if (p->groups[i].lr_scale == r->lr_scale && p->groups[i].weight_decay == r->weight_decay)
            return i;
    if (p->group_count == HK_MAX_GROUPS)
        return -1;
    p->groups[p->group_count] = (hk_group){.lr_scale = r->lr_scale, .weight_decay = r->weight_decay};
    return p->group_count++;
}

bool hk_is_other_float(const hk_value *v)
{
    return v->kind == HK_VALUE_CONSTANT && v->payload && v->data && hk_dtype_is_float(v->dtype);
}

static hk_status select_parameters(const hk_graph *model, const hk_parameter_rule *rules, size_t rule_count,
                                   float weight_decay, hk_arena *arena, hk_parameters *p)
{
    hk_uses uses;
    bool *used = hk_arena_array(arena, rule_count + 1, sizeof *used);
    p->list = hk_arena_array(arena, model->value_count + 1, sizeof *p->list);
    if (!used || !p->list)
        return hk_out_of_memory(model->ctx, "parameters");
    HK_TRY(hk_graph_uses(model, arena, &uses));
    size_t all = 0;
    for (size_t i = 0; i < model->value_count; i++) {
        const hk_value *v = model->values[i];
        if (v->kind != HK_VALUE_PARAMETER && !hk_is_other_float(v))
            continue;
        all += v->kind == HK_VALUE_PARAMETER;
        hk_parameter q = {.source = v, .role = hk_role_of(model, &uses, v), .count = hk_shape_count(&v->shape)};
        ruled r = apply_rules(rules, rule_count, used, weight_decay, &q);
        if (r.freeze)
            continue;
        if (v->dtype != HK_FLOAT32 && !hk_dtype_is_half(v->dtype))
            return hk_fail(model->ctx, HK_STATUS_UNSUPPORTED,
                           "parameter '%s' is %s: only floats of 16 and 32 bits can be trained; freeze it", v->name,
                           hk_dtype_name(v->dtype));
        q.group = find_group(p, &r);
        if (q.group < 0)
            return hk_fail(model->ctx, HK_STATUS_USAGE,
                           "the parameter rules make more than %d groups of learning rate and weight decay",
                           HK_MAX_GROUPS);
        p->list[p->count++] = q;
    }
    for (size_t i = 0; i < rule_count; i++) {
        bool decay_of_role = strncmp(rules[i].pattern, "role:", 5) == 0 && rules[i].weight_decay != 0;
        if (!used[i] && !decay_of_role) /* a model may well have no norm to spare from decay */
            return hk_fail(model->ctx, HK_STATUS_USAGE,
                           "the parameter pattern '%s' matches none of the model's %zu parameters; 'hillock inspect' "
                           "lists them",
                           rules[i].pattern, all);
    }
    if (!p->count)
        return hk_fail(model->ctx, all ? HK_STATUS_USAGE : HK_STATUS_UNSUPPORTED,
                       all ? "all of the model's parameters are frozen: there is nothing to train"
                           : "the model has nothing to train: no float initializer is used as a weight");
    return HK_OK;
}

/* ---- layout */

static hk_status lay_out(const hk_graph *model, hk_arena *arena, hk_parameters *p)
{
    hk_parameter *sorted = hk_arena_array(arena, p->count, sizeof *sorted);
    if (!sorted)
        return hk_out_of_memory(model->ctx, "parameters");
    size_t n = 0;
    for (int32_t group = 0; group < p->group_count; group++) {
        for (size_t i = 0; i < p->count; i++) {
            if (p->list[i].group != group)
                continue;
            p->list[i].offset = p->total;
            p->total += (p->list[i].count + HK_FLAT_ALIGNMENT - 1) / HK_FLAT_ALIGNMENT * HK_FLAT_ALIGNMENT;
            sorted[n++] = p->list[i];
        }
        p->groups[group].end = p->total;
    }
    p->list = sorted;
    hk_tensor *flat = hk_tensor_new(arena, HK_FLOAT32, &(hk_shape){.rank = 1, .dim = {p->total}});
    if (!flat)
        return hk_out_of_memory(model->ctx, "parameters");
    for (size_t i = 0; i < p->count; i++) {
        const hk_tensor *from = p->list[i].source->data;
        float *to = (float *)flat->data + p->list[i].offset;
        if (from->dtype == HK_FLOAT32)
            memcpy(to, from->data, (size_t)p->list[i].count * sizeof(float));
        for (int64_t k = 0; from->dtype != HK_FLOAT32 && k < p->list[i].count; k++)
            to[k] = (float)hk_get_double(from, k);
    }
    p->initial = flat;
    return HK_OK;
}

hk_status hk_parameters_create(const hk_graph *model, const hk_parameter_rule *rules, size_t rule_count,
                               float weight_decay, hk_arena *arena, hk_parameters *out)
{
    *out = (hk_parameters){0};
    HK_TRY(check_rules(model->ctx, rules, rule_count));
    HK_TRY(select_parameters(model, rules, rule_count, weight_decay, arena, out));
    return lay_out(model, arena, out);
}
