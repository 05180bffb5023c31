/*
 * GraphProto → graph: scopes, values, nodes and bodies.
 */
#include <stdio.h>
#include <string.h>

#include "importer/internal.h"

const hk_value hk_scope_absent = {.name = "absent"};

/* Bytes of an operand in a node's list; copies of a node's name: in the graph, in messages, behind prefixes. */
enum { NAME_LIST_BYTES = 8, NAME_COPIES = 6 };

/* ---- what all parts use */

bool hk_import_is_default_domain(const char *domain)
{
    return *domain == '\0' || strcmp(domain, "ai.onnx") == 0;
}

bool hk_import_is_exchanged(const char *type)
{
    static const char *const types[] = {"hk.Neuron", "hk.QCFS", "hk.VoltageScaler"};
    for (size_t i = 0; i < HK_COUNT(types); i++)
        if (strcmp(types[i], type) == 0)
            return true;
    return false;
}

hk_status hk_import_charge(hk_importer *imp, uint64_t bytes)
{
    imp->charged += bytes;
    uint64_t above = imp->charged - HK_MIN(imp->charged, (uint64_t)HK_IMPORT_BASE_BYTES);
    if (above / HK_IMPORT_BYTES_PER_BYTE > imp->scan.skeleton_bytes)
        return hk_fail(
            imp->ctx, HK_STATUS_UNSUPPORTED,
            "the graph would take more than 64 MiB and 32 times its description: its functions grow too much");
    return HK_OK;
}

hk_status hk_import_problem(hk_importer *imp, const char *node, const char *op, const char *reason)
{
    hk_import_result *r = imp->result;
    hk_problem p = {.node = hk_arena_string(imp->arena, node),
                    .op = hk_arena_string(imp->arena, op),
                    .reason = hk_arena_string(imp->arena, reason)};
    if (p.node == NULL || p.op == NULL || p.reason == NULL ||
        !hk_arena_grow(imp->arena, (void **)&r->problems, r->problem_count, &r->problem_capacity, sizeof *r->problems))
        return hk_out_of_memory(imp->ctx, "the list of problems");
    r->problems[r->problem_count++] = p;
    return hk_import_charge(imp, strlen(node) + strlen(op) + strlen(reason));
}

const char *hk_import_node_name(hk_importer *imp, const hk_scope *s, const Onnx__NodeProto *n)
{
    const char *name = hk_text(n->name);
    if (*name == '\0')
        return hk_arena_format(imp->temporary, "%s#%zu", s->prefix, imp->node_number);
    return *s->prefix == '\0' ? name : hk_arena_join(imp->temporary, s->prefix, name);
}

/* ---- scopes */

hk_status hk_scope_define(hk_importer *imp, hk_scope *s, const char *name, const hk_value *v, const char *who)
{
    if (*hk_text(name) == '\0')
        return hk_fail(imp->ctx, HK_STATUS_INVALID, "one of %s has no name", who);
    if (hk_map_get(&s->names, name) != NULL)
        return hk_fail(imp->ctx, HK_STATUS_INVALID, "value '%s' is defined twice, the second time by one of %s", name,
                       who);
    return hk_map_set(&s->names, name, (void *)(uintptr_t)v) ? HK_OK : hk_out_of_memory(imp->ctx, "names");
}

hk_status hk_import_use(hk_importer *imp, const hk_scope *s, const char *name, const char *node, hk_value **out)
{
    *out = NULL;
    if (*name == '\0')
        return HK_OK;
    HK_TRY(hk_import_charge(imp, NAME_LIST_BYTES + strlen(name)));
    for (; s != NULL; s = s->outer) {
        hk_value *v = hk_map_get(&s->names, name);
        if (v == NULL)
            continue;
        *out = v == &hk_scope_absent ? NULL : v;
        return HK_OK;
    }
    return hk_fail(imp->ctx, HK_STATUS_INVALID, "node '%s': input '%s' is not defined anywhere", node, name);
}

static hk_status new_value(hk_importer *imp, hk_scope *s, const char *name, hk_value_kind kind, hk_value **out)
{
    HK_TRY(hk_import_charge(imp, HK_IMPORT_VALUE_BYTES + 2 * strlen(name)));
    const char *full = *s->prefix == '\0' ? name : hk_arena_join(s->arena, s->prefix, name);
    if (full == NULL)
        return hk_out_of_memory(imp->ctx, "names");
    *out = hk_graph_value(s->graph, full, kind, HK_DTYPE_NONE, NULL);
    return *out == NULL ? HK_STATUS_OUT_OF_MEMORY : HK_OK;
}

/* ---- types */

static hk_status declare_shape(hk_importer *imp, hk_value *v, const Onnx__TensorShapeProto *shape)
{
    if (shape == NULL || shape->n_dim > HK_MAX_RANK)
        return HK_OK;
    v->shape.rank = (int32_t)shape->n_dim;
    for (size_t i = 0; i < shape->n_dim; i++) {
        const Onnx__TensorShapeProto__Dimension *d = shape->dim[i];
        bool fixed = d->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE && d->dim_value >= 0;
        v->shape.dim[i] = fixed ? d->dim_value : -1;
        if (d->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM && *hk_text(d->dim_param) != '\0') {
            v->dim_names[i] = hk_arena_string(imp->arena, d->dim_param);
            if (v->dim_names[i] == NULL)
                return hk_out_of_memory(imp->ctx, "names");
        }
    }
    return HK_OK;
}

/* What a list holds: tensors, or in an optional a sequence of them. */
static const char *item_type(hk_importer *imp, const Onnx__TypeProto *item, bool optional, hk_type_read *out)
{
    hk_type_read t = {0};
    const char *problem = item == NULL ? "holds nothing of a known type" : hk_import_type(imp, item, &t);
    if (problem != NULL)
        return problem;
    out->item = t.dtype;
    out->element = t.item;
    if (t.dtype == HK_OPTIONAL || (t.dtype == HK_SEQUENCE && !optional))
        return "holds sequences or optionals, which is not supported";
    return NULL;
}

const char *hk_import_type(hk_importer *imp, const Onnx__TypeProto *type, hk_type_read *out)
{
    switch (type->value_case) {
    case ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE:
        out->dtype = hk_onnx_dtype(type->tensor_type->elem_type);
        out->shape = type->tensor_type->shape;
        if (out->dtype == HK_DTYPE_NONE)
            return hk_arena_format(imp->temporary, "has elements of type %s, which is not supported",
                                   hk_onnx_type_name(type->tensor_type->elem_type));
        if (out->shape != NULL && out->shape->n_dim > HK_MAX_RANK)
            return hk_arena_format(imp->temporary, "has rank %zu, at most %d is supported", out->shape->n_dim,
                                   HK_MAX_RANK);
        return NULL;
    case ONNX__TYPE_PROTO__VALUE__NOT_SET: return "has no type";
    case ONNX__TYPE_PROTO__VALUE_SEQUENCE_TYPE:
        out->dtype = HK_SEQUENCE;
        return item_type(imp, type->sequence_type->elem_type, false, out);
    case ONNX__TYPE_PROTO__VALUE_OPTIONAL_TYPE:
        out->dtype = HK_OPTIONAL;
        return item_type(imp, type->optional_type->elem_type, true, out);
    default: return "is a map, opaque or sparse, which is not supported";
    }
}

/* Takes over what the file says about an input or output. Only a main graph's problems are the model's: a body's
 * values may go untyped, and nodes find out. role NULL: no problem is noted. */
static hk_status declare_type(hk_importer *imp, hk_value *v, const Onnx__ValueInfoProto *info, const char *role)
{
    static const Onnx__TypeProto none = ONNX__TYPE_PROTO__INIT;
    const Onnx__TypeProto *type = info->type == NULL ? &none : info->type;
    hk_type_read t = {0};
    const char *problem = hk_import_type(imp, type, &t);
    if (problem != NULL)
        return role == NULL ? HK_OK : hk_import_problem(imp, info->name, role, problem);
    v->dtype = t.dtype;
    if (!hk_dtype_is_list(t.dtype))
        return declare_shape(imp, v, t.shape);
    return hk_value_set_list(v, t.dtype, t.item, t.element, NULL, -1) ? HK_OK : HK_STATUS_OUT_OF_MEMORY;
}

/* ---- inputs and initializers */

static hk_status read_inputs(hk_importer *imp, hk_scope *s, const Onnx__GraphProto *g)
{
    hk_map initialized;
    hk_map_init(&initialized, s->arena);
    for (size_t i = 0; i < g->n_initializer; i++)
        if (!hk_map_set(&initialized, hk_text(g->initializer[i]->name), imp))
            return hk_out_of_memory(imp->ctx, "initializers");
    for (size_t i = 0; i < g->n_sparse_initializer; i++)
        if (g->sparse_initializer[i]->values != NULL &&
            !hk_map_set(&initialized, hk_text(g->sparse_initializer[i]->values->name), imp))
            return hk_out_of_memory(imp->ctx, "initializers");
    bool body = s->graph->outer != NULL;
    for (size_t i = 0; i < g->n_input; i++) {
        const char *name = hk_text(g->input[i]->name);
        if (hk_map_get(&initialized, name) != NULL) {
            if (body)
                return hk_fail(imp->ctx, HK_STATUS_INVALID, "body graph '%s': input '%s' has an initializer",
                               s->graph->name, name);
            continue; /* a constant: up to IR version 3 every initializer had to be listed as an input */
        }
        hk_value *v = NULL;
        HK_TRY(new_value(imp, s, name, HK_VALUE_INPUT, &v));
        HK_TRY(hk_scope_define(imp, s, name, v, "the graph's inputs"));
        HK_TRY(declare_type(imp, v, g->input[i], body ? NULL : "input"));
        if (!hk_graph_add_input(s->graph, v))
            return HK_STATUS_OUT_OF_MEMORY;
    }
    return HK_OK;
}

static void become_constant(hk_value *v, const hk_decoded *d)
{
    v->kind = HK_VALUE_CONSTANT;
    v->data = d->tensor;
    v->payload = d->payload;
    if (d->tensor == NULL)
        return;
    v->dtype = d->tensor->dtype;
    v->shape = hk_tensor_shape(d->tensor);
}

static hk_status add_initializer(hk_importer *imp, hk_scope *s, const char *name, const hk_decoded *d)
{
    hk_value *v = NULL;
    HK_TRY(new_value(imp, s, name, HK_VALUE_CONSTANT, &v));
    HK_TRY(hk_scope_define(imp, s, name, v, "the graph's initializers"));
    become_constant(v, d);
    if (d->problem != NULL)
        return hk_import_problem(imp, name, "initializer", d->problem);
    if (s->graph->outer != NULL || d->payload == NULL)
        return HK_OK;
    if (!hk_arena_grow(imp->temporary, (void **)&imp->initializers, imp->initializer_count, &imp->initializer_capacity,
                       sizeof(hk_value *)))
        return hk_out_of_memory(imp->ctx, "initializers");
    imp->initializers[imp->initializer_count++] = v;
    return HK_OK;
}

static hk_status read_initializers(hk_importer *imp, hk_scope *s, const Onnx__GraphProto *g)
{
    char where[256];
    for (size_t i = 0; i < g->n_initializer; i++) {
        const hk_decoded *d = NULL;
        snprintf(where, sizeof where, "initializer '%.200s'", hk_text(g->initializer[i]->name));
        HK_TRY(hk_import_tensor(imp, g->initializer[i], where, &d));
        HK_TRY(add_initializer(imp, s, hk_text(g->initializer[i]->name), d));
    }
    for (size_t i = 0; i < g->n_sparse_initializer; i++) {
        const Onnx__SparseTensorProto *sparse = g->sparse_initializer[i];
        const char *name = sparse->values == NULL ? "" : hk_text(sparse->values->name);
        hk_decoded d = {0};
        snprintf(where, sizeof where, "sparse initializer '%.200s'", name);
        HK_TRY(hk_import_sparse(imp, sparse, where, &d));
        HK_TRY(add_initializer(imp, s, name, &d));
    }
    return HK_OK;
}

/* ---- nodes, first look: every output gets its value, so that nodes may stand in any order; constants are lifted */

/* Makes the value of one output, or takes the caller's, and defines its name. */
static hk_status define_output(hk_importer *imp, hk_scope *s, const Onnx__NodeProto *n, size_t i, hk_value **out)
{
    const char *name = n->output[i];
    hk_value *v = s->exports == NULL ? NULL : hk_map_get(s->exports, name);
    if (v == NULL)
        HK_TRY(new_value(imp, s, name, HK_VALUE_ACTIVATION, &v));
    *out = v;
    if (hk_map_get(&s->names, name) == NULL)
        return hk_map_set(&s->names, name, v) ? HK_OK : hk_out_of_memory(imp->ctx, "names");
    const char *node = hk_import_node_name(imp, s, n);
    return hk_fail(imp->ctx, HK_STATUS_INVALID, "value '%s' is defined twice, the second time by node '%s' (%s)", name,
                   node == NULL ? "" : node, n->op_type);
}

static hk_status is_constant(hk_importer *imp, const Onnx__NodeProto *n, bool *out)
{
    hk_function *f = NULL;
    *out = strcmp(n->op_type, "Constant") == 0 && hk_import_is_default_domain(hk_text(n->domain));
    if (*out)
        HK_TRY(hk_import_find_function(imp, n, &f));
    *out = *out && f == NULL;
    return HK_OK;
}

static hk_status define_node(hk_importer *imp, hk_scope *s, const Onnx__NodeProto *n)
{
    bool constant = false;
    if (*hk_text(n->op_type) == '\0')
        return hk_fail(imp->ctx, HK_STATUS_INVALID, "node #%zu ('%s') has no operator type", imp->node_number,
                       hk_text(n->name));
    HK_TRY(hk_import_charge(imp, HK_IMPORT_NODE_BYTES + strlen(n->op_type) + NAME_COPIES * strlen(hk_text(n->name))));
    HK_TRY(is_constant(imp, n, &constant));
    hk_value *v = NULL;
    for (size_t i = 0; i < n->n_output; i++)
        if (*n->output[i] != '\0')
            HK_TRY(define_output(imp, s, n, i, &v));
    if (!constant)
        return HK_OK;
    hk_decoded d = {0};
    HK_TRY(hk_import_constant(imp, s, n, &d));
    if (n->n_output != 1 || v == NULL || n->n_input != 0)
        return hk_fail(imp->ctx, HK_STATUS_INVALID,
                       "node '%s' (Constant) has %zu inputs and %zu outputs, expected 0 and 1", hk_text(n->name),
                       n->n_input, n->n_output);
    become_constant(v, &d);
    if (d.problem == NULL)
        return HK_OK;
    const char *label = hk_import_node_name(imp, s, n);
    return label == NULL ? hk_out_of_memory(imp->ctx, "names") : hk_import_problem(imp, label, "Constant", d.problem);
}

/* ---- nodes, second look: operators, inputs, attributes, bodies */

/* The operator's name in problems and counts: with its domain unless that is the default. */
static const char *full_type(hk_importer *imp, const Onnx__NodeProto *n)
{
    const char *domain = hk_text(n->domain);
    return hk_import_is_default_domain(domain) ? n->op_type
                                               : hk_arena_format(imp->temporary, "%s.%s", domain, n->op_type);
}

static const char *version_problem(hk_importer *imp, const char *type, int32_t opset)
{
    int32_t least = INT32_MAX, most = 0;
    const hk_op *op;
    for (size_t i = 0; (op = hk_op_at(i)) != NULL; i++) {
        if (op->domain != NULL || strcmp(op->type, type) != 0)
            continue;
        least = HK_MIN(least, (int32_t)op->since);
        most = HK_MAX(most, op->until == 0 ? HK_IMPORT_OPSET_MAX : (int32_t)op->until);
    }
    return hk_arena_format(imp->temporary, "opset %d of %s is %s than those supported, %d to %d", (int)opset, type,
                           opset > most    ? "newer"
                           : opset < least ? "older"
                                           : "other",
                           (int)least, (int)most);
}

/* Why there is no operator for the node, whose type may be known at other versions. */
static const char *missing_problem(hk_importer *imp, const Onnx__NodeProto *n, const hk_node *node, bool imported,
                                   bool known)
{
    const char *domain = hk_text(n->domain), *overload = hk_text(n->overload);
    if (*overload != '\0')
        return hk_arena_format(imp->temporary, "the file has no function of that name and overload '%s'", overload);
    if (known)
        return version_problem(imp, n->op_type, node->opset);
    if (strcmp(domain, HK_IMPORT_DOMAIN) == 0 || (hk_import_is_default_domain(domain) && imported))
        return "operator not supported";
    if (hk_import_is_default_domain(domain))
        return "the default domain is not imported, so the operator's version is not known";
    return hk_arena_format(imp->temporary, "domain '%s' is not %s, and no function of the file has that name", domain,
                           imported ? "known" : "imported");
}

/* Finds the operator; when there is none, notes why. Operators of our own have one version. */
static hk_status find_operator(hk_importer *imp, const hk_scope *s, const Onnx__NodeProto *n, const char *label,
                               hk_node *node)
{
    const char *domain = hk_import_is_default_domain(hk_text(n->domain)) ? "" : n->domain;
    const int64_t *imported = hk_map_get(s->opsets, domain);
    if (imported == NULL) /* what a function does not import itself, it has from the model */
        imported = hk_map_get(&imp->opsets, domain);
    bool known = false, ours = strcmp(domain, HK_IMPORT_DOMAIN) == 0;
    node->opset = ours ? INT16_MAX : imported == NULL ? 0 : (int32_t)*imported;
    if (*hk_text(n->overload) == '\0') {
        if (ours && hk_import_is_exchanged(node->type))
            node->op = hk_op_find(NULL, node->type, node->opset, &known);
        else if (!ours && imported != NULL && strncmp(n->op_type, "hk.", 3) != 0)
            node->op = hk_op_find(domain, n->op_type, node->opset, &known);
    }
    if (node->op != NULL)
        return HK_OK;
    const char *problem = missing_problem(imp, n, node, imported != NULL, known), *type = full_type(imp, n);
    return problem == NULL || type == NULL ? hk_out_of_memory(imp->ctx, "names")
                                           : hk_import_problem(imp, label, type, problem);
}

static hk_status make_node(hk_importer *imp, const hk_scope *s, const Onnx__NodeProto *n, hk_node **out)
{
    const char *domain = hk_text(n->domain), *type = n->op_type, *name = NULL;
    if (strcmp(domain, HK_IMPORT_DOMAIN) == 0)
        type = hk_arena_format(imp->temporary, "hk.%s", n->op_type);
    if (*hk_text(n->name) != '\0')
        name = hk_import_node_name(imp, s, n);
    else if (*s->prefix != '\0')
        name = hk_arena_format(imp->temporary, "%s%s_%zu", s->prefix, n->op_type, imp->node_number);
    if (type == NULL || (name == NULL && (*hk_text(n->name) != '\0' || *s->prefix != '\0')))
        return hk_out_of_memory(imp->ctx, "names");
    hk_node *node = hk_graph_node(s->graph, name, type, NULL, NULL, NULL, 0, 0);
    if (node == NULL)
        return HK_STATUS_OUT_OF_MEMORY;
    if (!hk_import_is_default_domain(domain) && strcmp(domain, HK_IMPORT_DOMAIN) != 0 &&
        (node->domain = hk_arena_string(imp->arena, domain)) == NULL)
        return hk_out_of_memory(imp->ctx, "names");
    *out = node;
    return HK_OK;
}

/* Absent operands at the end are dropped: "a, b, ''" is the same as "a, b". */
static hk_status connect_operands(hk_importer *imp, const hk_scope *s, const Onnx__NodeProto *n, const char *label,
                                  hk_node *node)
{
    hk_value **in = hk_arena_array(imp->arena, n->n_input + 1, sizeof *in);
    hk_value **out = hk_arena_array(imp->arena, n->n_output + 1, sizeof *out);
    if (in == NULL || out == NULL)
        return hk_out_of_memory(imp->ctx, "a node");
    node->in = in;
    node->out = out;
    for (size_t i = 0; i < n->n_input; i++) {
        HK_TRY(hk_import_use(imp, s, n->input[i], label, &in[i]));
        if (in[i] != NULL)
            node->in_count = (int32_t)i + 1;
    }
    for (size_t i = 0; i < n->n_output; i++) {
        if (*n->output[i] == '\0')
            continue;
        out[i] = hk_map_get(&s->names, n->output[i]);
        out[i]->producer = node;
        node->out_count = (int32_t)i + 1;
    }
    return HK_OK;
}

static hk_status connect_node(hk_importer *imp, hk_scope *s, const Onnx__NodeProto *n)
{
    hk_function *f = NULL;
    hk_node *node = NULL;
    bool constant = false;
    HK_TRY(is_constant(imp, n, &constant));
    if (constant)
        return HK_OK;
    HK_TRY(hk_import_find_function(imp, n, &f));
    if (f != NULL)
        return hk_import_inline(imp, s, n, f);
    const char *label = hk_import_node_name(imp, s, n);
    if (label == NULL)
        return hk_out_of_memory(imp->ctx, "names");
    HK_TRY(make_node(imp, s, n, &node));
    HK_TRY(find_operator(imp, s, n, label, node));
    HK_TRY(connect_operands(imp, s, n, label, node));
    return hk_import_attributes(imp, s, n, label, node);
}

hk_status hk_import_nodes(hk_importer *imp, hk_scope *s, Onnx__NodeProto *const *nodes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        imp->node_number = i;
        HK_TRY(define_node(imp, s, nodes[i]));
    }
    for (size_t i = 0; i < count; i++) {
        imp->node_number = i;
        HK_TRY(connect_node(imp, s, nodes[i]));
    }
    return HK_OK;
}

hk_status hk_import_identity(hk_importer *imp, hk_graph *g, hk_value *from, hk_value *to)
{
    HK_TRY(hk_import_charge(imp, HK_IMPORT_NODE_BYTES));
    const hk_op *op = hk_op_find("", "Identity", HK_IMPORT_OPSET_MAX, NULL);
    hk_node *n = hk_graph_node(g, NULL, "Identity", op, NULL, &from, 1, 0);
    hk_value **out = n == NULL ? NULL : hk_arena_array(imp->arena, 1, sizeof *out);
    if (out == NULL)
        return hk_out_of_memory(imp->ctx, "a node");
    out[0] = to;
    to->producer = n;
    n->out = out;
    n->out_count = 1;
    n->opset = HK_IMPORT_OPSET_MAX;
    return op == NULL ? hk_import_problem(imp, n->name, "Identity", "operator not supported")
                      : hk_op_decode(imp->ctx, imp->arena, op, NULL, 0, &n->attrs);
}

/* ---- outputs */

static hk_status read_outputs(hk_importer *imp, hk_scope *s, const Onnx__GraphProto *g)
{
    for (size_t i = 0; i < g->n_output; i++) {
        const char *name = hk_text(g->output[i]->name);
        hk_value *v = NULL, *copy = NULL;
        for (const hk_scope *at = s; at != NULL && v == NULL; at = at->outer)
            v = hk_map_get(&at->names, name);
        if (v == NULL || v == &hk_scope_absent)
            return hk_fail(imp->ctx, HK_STATUS_INVALID, "graph '%s': output '%s' is not defined", s->graph->name, name);
        if (v->graph != s->graph) { /* a body hands on a value from around it: its own copy goes out */
            HK_TRY(new_value(imp, s, name, HK_VALUE_ACTIVATION, &copy));
            HK_TRY(hk_import_identity(imp, s->graph, v, copy));
            v = copy;
        }
        if (v->dtype == HK_DTYPE_NONE && v->kind == HK_VALUE_ACTIVATION && v->shape.rank < 0)
            HK_TRY(declare_type(imp, v, g->output[i], s->graph->outer == NULL ? "output" : NULL));
        if (!hk_graph_add_output(s->graph, v))
            return HK_STATUS_OUT_OF_MEMORY;
    }
    if (g->n_output == 0)
        return hk_fail(imp->ctx, HK_STATUS_INVALID, "graph '%s' has no outputs", s->graph->name);
    return HK_OK;
}

/* What the file says about a value helps only where an unknown operator leaves it open. */
static hk_status read_value_info(hk_importer *imp, hk_scope *s, const Onnx__GraphProto *g)
{
    for (size_t i = 0; i < g->n_value_info; i++) {
        hk_value *v = hk_map_get(&s->names, hk_text(g->value_info[i]->name));
        if (v != NULL && v->producer != NULL && v->producer->op == NULL && v->dtype == HK_DTYPE_NONE &&
            v->shape.rank < 0)
            HK_TRY(declare_type(imp, v, g->value_info[i], NULL));
    }
    return HK_OK;
}

/* ---- a whole graph */

hk_status hk_import_graph(hk_importer *imp, hk_scope *s, const Onnx__GraphProto *g)
{
    HK_TRY(read_inputs(imp, s, g));
    HK_TRY(read_initializers(imp, s, g));
    HK_TRY(hk_import_nodes(imp, s, g->node, g->n_node));
    HK_TRY(read_outputs(imp, s, g));
    HK_TRY(read_value_info(imp, s, g));
    return hk_graph_sort(s->graph);
}

hk_status hk_import_body(hk_importer *imp, const hk_scope *s, hk_graph *around, const Onnx__GraphProto *proto,
                         const char *node, hk_graph **out)
{
    if (imp->depth == HK_IMPORT_DEPTH)
        return hk_fail(imp->ctx, HK_STATUS_UNSUPPORTED, "node '%s': bodies and functions are nested more than %d deep",
                       node, HK_IMPORT_DEPTH);
    HK_TRY(hk_import_charge(imp, HK_IMPORT_NODE_BYTES));
    size_t node_number = imp->node_number;
    hk_graph *body = hk_graph_body(around, hk_text(proto->name));
    if (body == NULL)
        return HK_STATUS_OUT_OF_MEMORY;
    hk_scope inner = {.outer = s,
                      .graph = body,
                      .arena = hk_arena_create(imp->ctx),
                      .opsets = s->opsets,
                      .bindings = s->bindings,
                      .prefix = ""};
    if (inner.arena == NULL)
        return hk_out_of_memory(imp->ctx, "a body");
    hk_map_init(&inner.names, inner.arena);
    imp->depth++;
    hk_status st = hk_import_graph(imp, &inner, proto);
    imp->depth--;
    imp->node_number = node_number;
    hk_arena_destroy(&inner.arena);
    *out = body;
    return st;
}
