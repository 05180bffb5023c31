/*
 * Model-local functions: each call is replaced by the function's nodes. Functions call functions, so cycles and
 * blow-up are bounded here: a function under way may not be called, and all that is made is charged.
 */
#include <string.h>

#include "importer/internal.h"

enum { PREFIX_MAX = 128, BINDING_BYTES = 160 };

/* ---- the file's functions */

/* The separator cannot occur in names that people write; a name with it finds a function that it spells, no more. */
static char *function_key(hk_arena *arena, const char *domain, const char *name, const char *overload)
{
    return hk_arena_format(arena, "%s\x1f%s\x1f%s", hk_import_is_default_domain(hk_text(domain)) ? "" : domain,
                           hk_text(name), hk_text(overload));
}

hk_status hk_import_opsets(hk_importer *imp, hk_map *out, Onnx__OperatorSetIdProto *const *imports, size_t count)
{
    hk_map_init(out, imp->temporary);
    for (size_t i = 0; i < count; i++) {
        const char *domain = hk_import_is_default_domain(hk_text(imports[i]->domain)) ? "" : imports[i]->domain;
        int64_t version = imports[i]->version;
        if (version < 1 || version > INT32_MAX)
            return hk_fail(imp->ctx, HK_STATUS_INVALID, "version %lld of domain '%s' is imported, expected at least 1",
                           (long long)version, domain);
        const int64_t *known = hk_map_get(out, domain);
        if (known != NULL && *known != version)
            return hk_fail(imp->ctx, HK_STATUS_INVALID, "versions %lld and %lld of domain '%s' are imported",
                           (long long)*known, (long long)version, domain);
        if (!hk_map_set(out, domain, &imports[i]->version))
            return hk_out_of_memory(imp->ctx, "imported domains");
    }
    return HK_OK;
}

hk_status hk_import_functions(hk_importer *imp)
{
    hk_map_init(&imp->functions, imp->temporary);
    for (size_t i = 0; i < imp->model->n_functions; i++) {
        const Onnx__FunctionProto *proto = imp->model->functions[i];
        if (*hk_text(proto->name) == '\0')
            return hk_fail(imp->ctx, HK_STATUS_INVALID, "function %zu has no name", i);
        hk_function *f = hk_arena_new(imp->temporary, hk_function);
        char *key = f == NULL ? NULL : function_key(imp->temporary, proto->domain, proto->name, proto->overload);
        if (key == NULL)
            return hk_out_of_memory(imp->ctx, "functions");
        if (hk_map_get(&imp->functions, key) != NULL)
            return hk_fail(imp->ctx, HK_STATUS_INVALID, "function '%s' is defined twice", proto->name);
        f->proto = proto;
        hk_status st = hk_import_opsets(imp, &f->opsets, proto->opset_import, proto->n_opset_import);
        if (st != HK_OK)
            return hk_fail_prefix(imp->ctx, st, "function '%s'", proto->name);
        if (!hk_map_set(&imp->functions, key, f))
            return hk_out_of_memory(imp->ctx, "functions");
    }
    return HK_OK;
}

hk_status hk_import_find_function(hk_importer *imp, const Onnx__NodeProto *n, hk_function **out)
{
    *out = NULL;
    if (imp->functions.count == 0)
        return HK_OK;
    char *key = function_key(imp->temporary, n->domain, n->op_type, n->overload);
    if (key == NULL)
        return hk_out_of_memory(imp->ctx, "functions");
    *out = hk_map_get(&imp->functions, key);
    return hk_import_charge(imp, strlen(key));
}

/* ---- a call */

/* Names inside begin with the call's. A prefix is used once, so that values need no search for a free name: the serial
 * number goes up with every attempt, which keeps all searches together linear. */
static hk_status make_prefix(hk_importer *imp, const hk_scope *s, const Onnx__NodeProto *call, hk_scope *inner)
{
    const char *name = *hk_text(call->name) != '\0' ? call->name : call->op_type;
    char *prefix = hk_arena_format(inner->arena, "%.*s%.*s/", PREFIX_MAX, s->prefix, PREFIX_MAX, name);
    while (prefix != NULL && hk_map_get(&imp->prefixes, prefix) != NULL)
        prefix = hk_arena_format(inner->arena, "%.*s%.*s#%zu/", PREFIX_MAX, s->prefix, PREFIX_MAX, name, ++imp->calls);
    if (prefix == NULL || !hk_map_set(&imp->prefixes, prefix, imp))
        return hk_out_of_memory(imp->ctx, "a function's names");
    inner->prefix = prefix;
    return HK_OK;
}

static hk_status bind_inputs(hk_importer *imp, const hk_scope *s, const Onnx__NodeProto *call, const char *node,
                             const Onnx__FunctionProto *f, hk_scope *inner)
{
    if (call->n_input > f->n_input || call->n_output > f->n_output)
        return hk_fail(imp->ctx, HK_STATUS_INVALID,
                       "node '%s': has %zu inputs and %zu outputs, function '%s' has %zu and %zu", node, call->n_input,
                       call->n_output, f->name, f->n_input, f->n_output);
    HK_TRY(hk_import_charge(imp, (f->n_input + f->n_output) * BINDING_BYTES));
    for (size_t i = 0; i < f->n_input; i++) {
        hk_value *v = NULL;
        if (i < call->n_input)
            HK_TRY(hk_import_use(imp, s, call->input[i], node, &v));
        HK_TRY(hk_scope_define(imp, inner, f->input[i], v == NULL ? &hk_scope_absent : v, "a function's inputs"));
    }
    return HK_OK;
}

static hk_status bind_attribute(hk_importer *imp, hk_scope *inner, hk_map *bindings, const char *name, hk_binding b)
{
    HK_TRY(hk_import_charge(imp, BINDING_BYTES));
    hk_binding *copy = hk_arena_new(inner->arena, hk_binding);
    if (copy == NULL)
        return hk_out_of_memory(imp->ctx, "a function's attributes");
    *copy = b;
    return hk_map_set(bindings, name, copy) ? HK_OK : hk_out_of_memory(imp->ctx, "a function's attributes");
}

/* What the call gives goes before the function's defaults. Defaults refer to nothing, so their scope is the function's.
 */
static hk_status bind_attributes(hk_importer *imp, const hk_scope *s, const Onnx__NodeProto *call, const char *node,
                                 const Onnx__FunctionProto *f, hk_scope *inner, hk_map *bindings)
{
    for (size_t i = 0; i < f->n_attribute_proto; i++) {
        const Onnx__AttributeProto *a = f->attribute_proto[i];
        if (*hk_text(a->name) == '\0' || *hk_text(a->ref_attr_name) != '\0')
            return hk_fail(imp->ctx, HK_STATUS_INVALID, "function '%s': a default without a name or value", f->name);
        HK_TRY(bind_attribute(imp, inner, bindings, a->name, (hk_binding){a, inner}));
    }
    for (size_t i = 0; i < call->n_attribute; i++) {
        hk_binding b = {0};
        HK_TRY(hk_import_attribute(imp, s, call->attribute[i], node, &b));
        if (b.attribute != NULL)
            HK_TRY(bind_attribute(imp, inner, bindings, call->attribute[i]->name, b));
    }
    return HK_OK;
}

/* The caller's value of output i, or NULL when the call does not ask for it. */
static hk_value *asked_value(const hk_scope *s, const Onnx__NodeProto *call, size_t i)
{
    return i < call->n_output && *call->output[i] != '\0' ? hk_map_get(&s->names, call->output[i]) : NULL;
}

/* The node that makes an output writes the caller's value at once. An output that is an input, or the second of its
 * name, has no such node. */
static hk_status bind_outputs(hk_importer *imp, const hk_scope *s, const Onnx__NodeProto *call,
                              const Onnx__FunctionProto *f, const hk_scope *inner, hk_map *exports)
{
    for (size_t i = 0; i < f->n_output; i++) {
        hk_value *v = asked_value(s, call, i);
        if (v != NULL && hk_map_get(&inner->names, f->output[i]) == NULL && hk_map_get(exports, f->output[i]) == NULL &&
            !hk_map_set(exports, f->output[i], v))
            return hk_out_of_memory(imp->ctx, "a function's outputs");
    }
    return HK_OK;
}

static hk_status finish_outputs(hk_importer *imp, const hk_scope *s, const Onnx__NodeProto *call,
                                const Onnx__FunctionProto *f, const hk_scope *inner)
{
    for (size_t i = 0; i < f->n_output; i++) {
        hk_value *v = asked_value(s, call, i), *made = hk_map_get(&inner->names, f->output[i]);
        if (v == NULL || v == made)
            continue;
        if (made == NULL || made == &hk_scope_absent)
            return hk_fail(imp->ctx, HK_STATUS_INVALID, "function '%s': output '%s' is not defined", f->name,
                           f->output[i]);
        HK_TRY(hk_import_identity(imp, s->graph, made, v));
    }
    return HK_OK;
}

static hk_status inline_into(hk_importer *imp, const hk_scope *s, const Onnx__NodeProto *call, hk_function *f,
                             hk_scope *inner)
{
    const char *node = hk_import_node_name(imp, s, call);
    hk_map bindings, exports;
    if (node == NULL)
        return hk_out_of_memory(imp->ctx, "a function's call");
    hk_map_init(&inner->names, inner->arena);
    hk_map_init(&bindings, inner->arena);
    hk_map_init(&exports, inner->arena);
    inner->bindings = &bindings;
    inner->exports = &exports;
    HK_TRY(make_prefix(imp, s, call, inner));
    HK_TRY(bind_inputs(imp, s, call, node, f->proto, inner));
    HK_TRY(bind_attributes(imp, s, call, node, f->proto, inner, &bindings));
    HK_TRY(bind_outputs(imp, s, call, f->proto, inner, &exports));
    HK_TRY(hk_import_nodes(imp, inner, f->proto->node, f->proto->n_node));
    return finish_outputs(imp, s, call, f->proto, inner);
}

hk_status hk_import_inline(hk_importer *imp, const hk_scope *s, const Onnx__NodeProto *call, hk_function *f)
{
    if (f->active)
        return hk_fail(imp->ctx, HK_STATUS_INVALID, "function '%s' calls itself, directly or through others",
                       f->proto->name);
    if (imp->depth == HK_IMPORT_DEPTH)
        return hk_fail(imp->ctx, HK_STATUS_UNSUPPORTED, "bodies and functions are nested more than %d deep",
                       HK_IMPORT_DEPTH);
    hk_scope inner = {.graph = s->graph, .opsets = &f->opsets, .arena = hk_arena_create(imp->ctx)};
    if (inner.arena == NULL)
        return hk_out_of_memory(imp->ctx, "a function's call");
    f->active = true;
    imp->depth++;
    hk_status st = inline_into(imp, s, call, f, &inner);
    imp->depth--;
    f->active = false;
    hk_arena_destroy(&inner.arena);
    return st;
}
