/*
 * AttributeProto → the values that an operator's table decodes: references to a function's attributes followed,
 * tensors read, graphs built as bodies.
 */
#include <stdio.h>
#include <string.h>

#include "importer/internal.h"

/* Sentences name a node and an attribute; longer names are cut there. */
typedef struct place_text {
    char text[256];
} place_text;

/* ---- kinds */

static const char *kind_text(Onnx__AttributeProto__AttributeType type)
{
    static const char *const names[] = {"of no kind", "a float",         "an int",         "a string", "a tensor",
                                        "a graph",    "floats",          "ints",           "strings",  "tensors",
                                        "graphs",     "a sparse tensor", "sparse tensors", "a type",   "types"};
    return (unsigned)type < HK_COUNT(names) ? names[type] : "of an unknown kind";
}

/* Files of the first IR version say no kind; what is there tells it. */
static Onnx__AttributeProto__AttributeType kind_of(const Onnx__AttributeProto *a)
{
    if (a->has_type && a->type != ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__UNDEFINED)
        return a->type;
    return a->has_f           ? ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT
           : a->has_i         ? ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT
           : a->has_s         ? ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRING
           : a->t != NULL     ? ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__TENSOR
           : a->g != NULL     ? ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__GRAPH
           : a->n_floats > 0  ? ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOATS
           : a->n_ints > 0    ? ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS
           : a->n_strings > 0 ? ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRINGS
                              : ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__UNDEFINED;
}

hk_status hk_import_attribute(hk_importer *imp, const hk_scope *s, const Onnx__AttributeProto *a, const char *node,
                              hk_binding *out)
{
    *out = (hk_binding){a, s};
    if (*hk_text(a->name) == '\0')
        return hk_fail(imp->ctx, HK_STATUS_INVALID, "node '%s': an attribute without a name", node);
    if (*hk_text(a->ref_attr_name) == '\0')
        return HK_OK;
    if (s->bindings == NULL)
        return hk_fail(imp->ctx, HK_STATUS_INVALID, "node '%s': attribute '%s' refers to a function's, but is in none",
                       node, a->name);
    const hk_binding *bound = hk_map_get(s->bindings, a->ref_attr_name);
    *out = bound == NULL ? (hk_binding){0} : *bound;
    return HK_OK;
}

/* ---- one attribute */

/* Bytes are a C string from here on. */
static hk_status read_string(hk_importer *imp, const ProtobufCBinaryData *bytes, const char *where, const char **out)
{
    if (bytes->len != 0 && memchr(bytes->data, 0, bytes->len) != NULL)
        return hk_fail(imp->ctx, HK_STATUS_INVALID, "%s: its text has a zero byte", where);
    char *copy = hk_arena_alloc(imp->temporary, bytes->len + 1); /* hk_op_decode copies */
    if (copy == NULL)
        return hk_out_of_memory(imp->ctx, "an attribute");
    if (bytes->len != 0)
        memcpy(copy, bytes->data, bytes->len);
    *out = copy;
    return HK_OK;
}

static hk_status read_strings(hk_importer *imp, const Onnx__AttributeProto *a, const char *where, hk_attr_value *v)
{
    v->kind = HK_ATTR_STRINGS;
    HK_TRY(hk_import_charge(imp, a->n_strings * sizeof(char *)));
    const char **list = hk_arena_array(imp->temporary, a->n_strings + 1, sizeof *list);
    if (list == NULL)
        return hk_out_of_memory(imp->ctx, "an attribute");
    for (size_t i = 0; i < a->n_strings; i++) {
        HK_TRY(hk_import_charge(imp, a->strings[i].len));
        HK_TRY(read_string(imp, &a->strings[i], where, &list[i]));
    }
    v->strings = (hk_strings){list, (int32_t)a->n_strings};
    return HK_OK;
}

static hk_status read_tensor_attribute(hk_importer *imp, const Onnx__AttributeProto *a, const char *where,
                                       hk_attr_value *v, const char **problem)
{
    const hk_decoded *d = NULL;
    if (a->t == NULL)
        return hk_fail(imp->ctx, HK_STATUS_INVALID, "%s: there is no tensor", where);
    HK_TRY(hk_import_tensor(imp, a->t, where, &d));
    v->kind = HK_ATTR_TENSOR;
    v->tensor = d->tensor;
    if (d->problem != NULL &&
        (*problem = hk_arena_format(imp->arena, "attribute '%s' %s", v->name, d->problem)) == NULL)
        return hk_out_of_memory(imp->ctx, "a message");
    return HK_OK;
}

/* Fills *v, or sets *problem where the attribute is well-formed but of a kind that no operator here takes. */
static hk_status read_attribute(hk_importer *imp, const hk_binding *b, hk_graph *around, const char *node,
                                hk_attr_value *v, const char **problem)
{
    const Onnx__AttributeProto *a = b->attribute;
    Onnx__AttributeProto__AttributeType kind = kind_of(a);
    place_text where;
    snprintf(where.text, sizeof where.text, "node '%.100s', attribute '%.100s'", node, v->name);
    HK_TRY(hk_import_charge(imp, sizeof *v));
    switch (kind) {
    case ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT:
        v->kind = HK_ATTR_INT;
        v->i = a->i;
        return HK_OK;
    case ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT:
        v->kind = HK_ATTR_FLOAT;
        v->f = a->f;
        return HK_OK;
    case ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRING:
        v->kind = HK_ATTR_STRING;
        HK_TRY(hk_import_charge(imp, a->s.len));
        return read_string(imp, &a->s, where.text, &v->s);
    case ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS:
        v->kind = HK_ATTR_INTS;
        v->ints = (hk_ints){a->ints, (int32_t)a->n_ints};
        return hk_import_charge(imp, a->n_ints * sizeof *a->ints);
    case ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOATS:
        v->kind = HK_ATTR_FLOATS;
        v->floats = (hk_floats){a->floats, (int32_t)a->n_floats};
        return hk_import_charge(imp, a->n_floats * sizeof *a->floats);
    case ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRINGS: return read_strings(imp, a, where.text, v);
    case ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__TENSOR: return read_tensor_attribute(imp, a, where.text, v, problem);
    case ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__GRAPH:
        v->kind = HK_ATTR_GRAPH;
        if (a->g == NULL)
            return hk_fail(imp->ctx, HK_STATUS_INVALID, "%s: there is no graph", where.text);
        return hk_import_body(imp, b->scope, around, a->g, node, &v->graph);
    case ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__TYPE_PROTO: {
        hk_type_read t = {0};
        if (a->tp == NULL)
            return hk_fail(imp->ctx, HK_STATUS_INVALID, "%s: there is no type", where.text);
        const char *why = hk_import_type(imp, a->tp, &t);
        v->kind = HK_ATTR_TYPE;
        v->type = (hk_type){t.dtype, t.item};
        if (why == NULL)
            return HK_OK;
        *problem = hk_arena_format(imp->arena, "attribute '%s' %s", v->name, why);
        return *problem == NULL ? hk_out_of_memory(imp->ctx, "a message") : HK_OK;
    }
    default: break;
    }
    if (kind == ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__UNDEFINED ||
        kind > ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__TYPE_PROTOS)
        return hk_fail(imp->ctx, HK_STATUS_INVALID, "%s: it is %s", where.text, kind_text(kind));
    *problem = hk_arena_format(imp->arena, "attribute '%s' is %s, which is not supported", v->name, kind_text(kind));
    return *problem == NULL ? hk_out_of_memory(imp->ctx, "a message") : HK_OK;
}

/* ---- a node's attributes */

/* No operator has this many attributes, so looking at each pair is cheap. */
enum { ATTRIBUTES_MAX = 256 };

static hk_status check_unique(hk_importer *imp, const Onnx__NodeProto *proto, const char *node)
{
    if (proto->n_attribute > ATTRIBUTES_MAX)
        return hk_fail(imp->ctx, HK_STATUS_UNSUPPORTED, "node '%s' has %zu attributes, at most %d are supported", node,
                       proto->n_attribute, ATTRIBUTES_MAX);
    for (size_t i = 1; i < proto->n_attribute; i++)
        for (size_t k = 0; k < i; k++)
            if (strcmp(hk_text(proto->attribute[i]->name), hk_text(proto->attribute[k]->name)) == 0)
                return hk_fail(imp->ctx, HK_STATUS_INVALID, "node '%s': attribute '%s' is there twice", node,
                               hk_text(proto->attribute[i]->name));
    return HK_OK;
}

/* Bodies in the order of the operator's table; of an unknown operator, in the order of the file. */
static hk_status attach_bodies(hk_importer *imp, hk_node *n, const hk_attr_value *values, size_t count)
{
    size_t graphs = 0;
    for (size_t i = 0; i < count; i++)
        graphs += values[i].graph != NULL;
    if (graphs == 0)
        return HK_OK;
    n->bodies = hk_arena_array(imp->arena, graphs, sizeof(hk_graph *));
    if (n->bodies == NULL)
        return hk_out_of_memory(imp->ctx, "a node's bodies");
    if (n->op == NULL) {
        for (size_t i = 0; i < count; i++)
            if (values[i].graph != NULL)
                n->bodies[n->body_count++] = values[i].graph;
        return HK_OK;
    }
    for (const hk_attr *a = n->op->attrs; a != NULL && a->name != NULL; a++)
        for (size_t i = 0; i < count && a->kind == HK_ATTR_GRAPH; i++)
            if (values[i].graph != NULL && strcmp(values[i].name, a->name) == 0)
                n->bodies[n->body_count++] = values[i].graph;
    return HK_OK;
}

static hk_status decode_into(hk_importer *imp, hk_node *n, const char *label, const hk_attr_value *values, size_t count)
{
    hk_status st = hk_op_decode(imp->ctx, imp->arena, n->op, values, count, &n->attrs);
    if (st == HK_STATUS_UNSUPPORTED) {
        n->op = NULL;
        return hk_import_problem(imp, label, n->type, hk_context_error(imp->ctx));
    }
    return st == HK_OK ? st : hk_fail_prefix(imp->ctx, st, "node '%s'", label);
}

hk_status hk_import_attributes(hk_importer *imp, const hk_scope *s, const Onnx__NodeProto *proto, const char *label,
                               hk_node *n)
{
    HK_TRY(check_unique(imp, proto, label));
    hk_attr_value *values = hk_arena_array(imp->temporary, proto->n_attribute + 1, sizeof *values);
    if (values == NULL)
        return hk_out_of_memory(imp->ctx, "attributes");
    size_t count = 0;
    const char *problem = NULL;
    for (size_t i = 0; i < proto->n_attribute; i++) {
        hk_binding b = {0};
        HK_TRY(hk_import_attribute(imp, s, proto->attribute[i], label, &b));
        if (b.attribute == NULL)
            continue;
        const char *this_problem = NULL;
        values[count] = (hk_attr_value){.name = proto->attribute[i]->name};
        HK_TRY(read_attribute(imp, &b, s->graph, label, &values[count], &this_problem));
        count += this_problem == NULL;
        problem = this_problem != NULL ? this_problem : problem;
    }
    if (problem != NULL && n->op != NULL) {
        HK_TRY(hk_import_problem(imp, label, n->type, problem));
        n->op = NULL;
    }
    if (n->op != NULL)
        HK_TRY(decode_into(imp, n, label, values, count));
    return attach_bodies(imp, n, values, count);
}

/* ---- Constant: seven attributes of which one is given */

static hk_status list_constant(hk_importer *imp, hk_dtype dtype, const hk_shape *shape, const void *elements,
                               hk_decoded *out)
{
    hk_tensor *t = hk_tensor_new(imp->arena, dtype, shape);
    if (t == NULL)
        return hk_out_of_memory(imp->ctx, "a constant");
    size_t bytes = (size_t)hk_tensor_bytes(t);
    if (bytes != 0)
        memcpy(t->data, elements, bytes);
    out->tensor = t;
    return hk_import_charge(imp, bytes);
}

static hk_status read_constant(hk_importer *imp, const char *name, const Onnx__AttributeProto *a, const char *where,
                               hk_decoded *out)
{
    hk_shape list = {.rank = 1, .dim = {(int64_t)(a->n_floats + a->n_ints)}};
    const hk_decoded *d = NULL;
    Onnx__AttributeProto__AttributeType kind = kind_of(a);
    if (strcmp(name, "value") == 0 && kind == ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__TENSOR && a->t != NULL) {
        HK_TRY(hk_import_tensor(imp, a->t, where, &d));
        *out = *d;
        return HK_OK;
    }
    if (strcmp(name, "sparse_value") == 0 && kind == ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__SPARSE_TENSOR &&
        a->sparse_tensor != NULL)
        return hk_import_sparse(imp, a->sparse_tensor, where, out);
    if (strcmp(name, "value_float") == 0 && kind == ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT)
        return list_constant(imp, HK_FLOAT32, &HK_SCALAR, &a->f, out);
    if (strcmp(name, "value_int") == 0 && kind == ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT)
        return list_constant(imp, HK_INT64, &HK_SCALAR, &a->i, out);
    if (strcmp(name, "value_floats") == 0 && kind == ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOATS && a->n_ints == 0)
        return list_constant(imp, HK_FLOAT32, &list, a->floats, out);
    if (strcmp(name, "value_ints") == 0 && kind == ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS && a->n_floats == 0)
        return list_constant(imp, HK_INT64, &list, a->ints, out);
    bool strings = (strcmp(name, "value_string") == 0 && kind == ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRING) ||
                   (strcmp(name, "value_strings") == 0 && kind == ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRINGS);
    if (!strings)
        return hk_fail(imp->ctx, HK_STATUS_INVALID, "%s: attribute '%s' is %s, which is no constant", where, name,
                       kind_text(kind));
    out->problem = "has elements of type string, which is not supported";
    return HK_OK;
}

hk_status hk_import_constant(hk_importer *imp, const hk_scope *s, const Onnx__NodeProto *proto, hk_decoded *out)
{
    const char *node = hk_import_node_name(imp, s, proto);
    if (node == NULL)
        return hk_out_of_memory(imp->ctx, "a constant");
    place_text where;
    snprintf(where.text, sizeof where.text, "node '%.200s' (Constant)", node);
    hk_binding given = {0};
    const char *name = NULL;
    for (size_t i = 0; i < proto->n_attribute; i++) {
        hk_binding b = {0};
        HK_TRY(hk_import_attribute(imp, s, proto->attribute[i], node, &b));
        if (b.attribute == NULL)
            continue;
        if (given.attribute != NULL)
            return hk_fail(imp->ctx, HK_STATUS_INVALID, "%s: more than one value", where.text);
        given = b;
        name = proto->attribute[i]->name;
    }
    if (given.attribute == NULL)
        return hk_fail(imp->ctx, HK_STATUS_INVALID, "%s: no value", where.text);
    return read_constant(imp, name, given.attribute, where.text, out);
}
