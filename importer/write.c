/*
 * Graph → ModelProto, for graphs that came from no file: messages are made in an arena and packed by protobuf-c.
 */
#include <string.h>

#include "importer/internal.h"
#include "importer/pack.h"

#define EXTERNAL_DEFAULT ((uint64_t)1 << 30)
enum { EXTERNAL_ALIGNMENT = 4096, EXTERNAL_LEAST = 1024 };

typedef struct graph_writer {
    hk_context *ctx;
    hk_arena *arena;
    int32_t opset;
    bool ours;               /* operators of our own are used */
    const hk_node **foreign; /* the first node of each other domain */
    size_t foreign_count, foreign_capacity;
    bool external; /* contents go to a file of their own */
    const char *external_name;
    hk_file_writer *external_file;
} graph_writer;

static hk_status no_memory(const graph_writer *w)
{
    return hk_out_of_memory(w->ctx, "an export");
}

/* protobuf-c's structs hold non-const strings and do not write them. */
static char *text(const char *s)
{
    return (char *)(uintptr_t)s;
}

/* ---- the version of the default domain: one that every operator's table row covers */

static void narrow_opset(const hk_graph *g, int32_t *least, int32_t *most, int32_t *wanted)
{
    for (size_t i = 0; i < g->node_count; i++) {
        const hk_node *n = g->nodes[i];
        if (n->op != NULL && n->domain == NULL && strncmp(n->type, "hk.", 3) != 0) {
            *least = HK_MAX(*least, (int32_t)n->op->since);
            *most = HK_MIN(*most, n->op->until == 0 ? HK_IMPORT_OPSET_MAX : (int32_t)n->op->until);
            *wanted = HK_MAX(*wanted, n->opset);
        }
        for (int32_t b = 0; b < n->body_count; b++)
            narrow_opset(n->bodies[b], least, most, wanted);
    }
}

static hk_status choose_opset(graph_writer *w, const hk_graph *g)
{
    int32_t least = 1, most = HK_IMPORT_OPSET_MAX, wanted = 0;
    narrow_opset(g, &least, &most, &wanted);
    if (least > most)
        return hk_fail(w->ctx, HK_STATUS_UNSUPPORTED,
                       "no opset has all operators: one ends with %d, another begins with %d", (int)most, (int)least);
    w->opset = HK_MAX(least, HK_MIN(most, wanted == 0 ? most : wanted));
    return HK_OK;
}

/* The IR version that came with the opset (ONNX's Versioning.md). */
static int64_t ir_version(int32_t opset)
{
    return opset >= 25 ? 13 : opset == 24 ? 12 : opset == 23 ? 11 : opset >= 21 ? 10 : opset >= 19 ? 9 : 8;
}

/* ---- names. A body's value may have the name of one around it; in a file the inner would hide the outer. */

static bool name_is_taken(const hk_graph *g, const char *name)
{
    for (g = g->outer; g != NULL; g = g->outer)
        if (hk_graph_find(g, name) != NULL)
            return true;
    return false;
}

static hk_status name_of(const graph_writer *w, const hk_value *v, char **out)
{
    const char *name = v->name;
    for (int number = 1; name != NULL && v->graph->outer != NULL && name_is_taken(v->graph, name); number++)
        name = hk_arena_format(w->arena, "%s.inner%d", v->name, number);
    *out = text(name);
    return name == NULL ? no_memory(w) : HK_OK;
}

static hk_status list_names(const graph_writer *w, hk_value *const *values, size_t count, char ***out)
{
    *out = hk_arena_array(w->arena, count + 1, sizeof **out);
    if (*out == NULL)
        return no_memory(w);
    for (size_t i = 0; i < count; i++) {
        (*out)[i] = text("");
        if (values[i] != NULL)
            HK_TRY(name_of(w, values[i], &(*out)[i]));
    }
    return HK_OK;
}

/* ---- tensors */

static hk_status add_entry(const graph_writer *w, Onnx__TensorProto *t, const char *key, char *value)
{
    Onnx__StringStringEntryProto *e = hk_arena_new(w->arena, Onnx__StringStringEntryProto);
    if (e == NULL || value == NULL)
        return no_memory(w);
    onnx__string_string_entry_proto__init(e);
    e->key = text(key);
    e->value = value;
    t->external_data[t->n_external_data++] = e;
    return HK_OK;
}

static hk_status write_external(const graph_writer *w, Onnx__TensorProto *t, const void *data, size_t bytes)
{
    static const char zeros[EXTERNAL_ALIGNMENT] = {0};
    uint64_t at = hk_file_writer_bytes(w->external_file);
    size_t gap = (size_t)((EXTERNAL_ALIGNMENT - at % EXTERNAL_ALIGNMENT) % EXTERNAL_ALIGNMENT);
    HK_TRY(hk_file_write(w->external_file, zeros, gap));
    HK_TRY(hk_file_write(w->external_file, data, bytes));
    t->external_data = hk_arena_array(w->arena, 3, sizeof *t->external_data);
    if (t->external_data == NULL)
        return no_memory(w);
    t->has_data_location = true;
    t->data_location = ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL;
    HK_TRY(add_entry(w, t, "location", text(w->external_name)));
    HK_TRY(add_entry(w, t, "offset", hk_arena_format(w->arena, "%llu", (unsigned long long)(at + gap))));
    return add_entry(w, t, "length", hk_arena_format(w->arena, "%zu", bytes));
}

static hk_status make_tensor(const graph_writer *w, const hk_tensor *from, char *name, Onnx__TensorProto **out)
{
    Onnx__TensorProto *t = hk_arena_new(w->arena, Onnx__TensorProto);
    int64_t *dims = hk_arena_array(w->arena, HK_MAX_RANK, sizeof *dims);
    if (t == NULL || dims == NULL)
        return no_memory(w);
    onnx__tensor_proto__init(t);
    memcpy(dims, from->shape, sizeof from->shape);
    t->name = name;
    t->n_dims = (size_t)from->rank;
    t->dims = dims;
    t->has_data_type = true;
    t->data_type = (int32_t)from->dtype;
    *out = t;
    size_t bytes = (size_t)hk_tensor_file_bytes(from);
    void *data = from->data;
    if (hk_dtype_bits(from->dtype) < 8) {
        data = hk_arena_alloc(w->arena, bytes + 1);
        if (data == NULL)
            return no_memory(w);
        hk_bits_pack(from->dtype, from->data, data, hk_tensor_count(from));
    }
    if (w->external && bytes >= EXTERNAL_LEAST)
        return write_external(w, t, data, bytes);
    t->has_raw_data = true;
    t->raw_data = (ProtobufCBinaryData){.len = bytes, .data = data};
    return HK_OK;
}

/* ---- attributes, back through the operator's table: what equals its default is left out */

static hk_status make_graph(graph_writer *w, const hk_graph *g, Onnx__GraphProto **out);
static hk_status make_type(const graph_writer *w, const hk_type *t, hk_dtype element, const hk_value *v,
                           Onnx__TypeProto **out);

static hk_status fill_strings(graph_writer *w, const hk_strings *s, Onnx__AttributeProto *to)
{
    to->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRINGS;
    to->n_strings = (size_t)s->count;
    to->strings = hk_arena_array(w->arena, (size_t)s->count + 1, sizeof *to->strings);
    if (to->strings == NULL)
        return no_memory(w);
    for (int32_t i = 0; i < s->count; i++)
        to->strings[i] = (ProtobufCBinaryData){.len = strlen(s->v[i]), .data = (uint8_t *)(uintptr_t)s->v[i]};
    return HK_OK;
}

static hk_status fill_attribute(graph_writer *w, const hk_attr *a, const void *field, Onnx__AttributeProto *to,
                                bool *given)
{
    const hk_ints *ints = field;
    const hk_floats *floats = field;
    const char *s;
    *given = true;
    to->has_type = true;
    switch (a->kind) {
    case HK_ATTR_INT:
        to->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT;
        to->has_i = true;
        to->i = *(const int64_t *)field;
        *given = a->required || to->i != (int64_t)a->number;
        return HK_OK;
    case HK_ATTR_FLOAT:
        to->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT;
        to->has_f = true;
        to->f = *(const float *)field;
        *given = a->required || to->f < (float)a->number || to->f > (float)a->number;
        return HK_OK;
    case HK_ATTR_STRING:
        s = *(const char *const *)field;
        to->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRING;
        *given = s != NULL && (a->required || a->text == NULL || strcmp(s, a->text) != 0);
        to->has_s = *given;
        if (*given)
            to->s = (ProtobufCBinaryData){.len = strlen(s), .data = (uint8_t *)(uintptr_t)s};
        return HK_OK;
    case HK_ATTR_INTS:
        to->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS;
        *given = ints->v != NULL;
        to->n_ints = (size_t)ints->count;
        to->ints = (int64_t *)(uintptr_t)ints->v;
        return HK_OK;
    case HK_ATTR_FLOATS:
        to->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOATS;
        *given = floats->v != NULL;
        to->n_floats = (size_t)floats->count;
        to->floats = (float *)(uintptr_t)floats->v;
        return HK_OK;
    case HK_ATTR_STRINGS:
        *given = ((const hk_strings *)field)->v != NULL;
        return *given ? fill_strings(w, field, to) : HK_OK;
    case HK_ATTR_TENSOR:
        to->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__TENSOR;
        *given = *(const hk_tensor *const *)field != NULL;
        return *given ? make_tensor(w, *(const hk_tensor *const *)field, NULL, &to->t) : HK_OK;
    case HK_ATTR_TYPE:
        to->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__TYPE_PROTO;
        *given = ((const hk_type *)field)->dtype != HK_DTYPE_NONE;
        return *given ? make_type(w, field, HK_DTYPE_NONE, NULL, &to->tp) : HK_OK;
    case HK_ATTR_GRAPH: break; /* from the node's bodies, which passes may have replaced */
    }
    *given = false;
    return HK_OK;
}

static hk_status make_attributes(graph_writer *w, const hk_node *n, Onnx__NodeProto *to)
{
    size_t rows = 0;
    int32_t body = 0;
    while (n->op->attrs != NULL && n->op->attrs[rows].name != NULL)
        rows++;
    to->attribute = hk_arena_array(w->arena, rows + 1, sizeof *to->attribute);
    if (to->attribute == NULL)
        return no_memory(w);
    for (size_t i = 0; i < rows; i++) {
        const hk_attr *a = &n->op->attrs[i];
        Onnx__AttributeProto *made = hk_arena_new(w->arena, Onnx__AttributeProto);
        bool given = false;
        if (made == NULL)
            return no_memory(w);
        onnx__attribute_proto__init(made);
        made->name = text(a->name);
        if (a->kind == HK_ATTR_GRAPH && body < n->body_count) {
            made->has_type = given = true;
            made->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__GRAPH;
            HK_TRY(make_graph(w, n->bodies[body++], &made->g));
        } else if (n->attrs != NULL) {
            HK_TRY(fill_attribute(w, a, (const char *)n->attrs + a->offset, made, &given));
        }
        if (given)
            to->attribute[to->n_attribute++] = made;
    }
    return HK_OK;
}

/* ---- nodes and values */

static hk_status note_domain(graph_writer *w, const hk_node *n)
{
    for (size_t i = 0; i < w->foreign_count; i++) {
        if (n->domain == NULL || strcmp(w->foreign[i]->domain, n->domain) != 0)
            continue;
        if (w->foreign[i]->opset != n->opset)
            return hk_fail(w->ctx, HK_STATUS_UNSUPPORTED, "nodes '%s' and '%s' need different versions of domain '%s'",
                           w->foreign[i]->name, n->name, n->domain);
        return HK_OK;
    }
    if (n->domain == NULL)
        return HK_OK;
    if (!hk_arena_grow(w->arena, (void **)&w->foreign, w->foreign_count, &w->foreign_capacity, sizeof *w->foreign))
        return no_memory(w);
    w->foreign[w->foreign_count++] = n;
    return HK_OK;
}

/* Other readers refuse a graph where two nodes have one name. */
static hk_status name_node(const graph_writer *w, hk_map *taken, const hk_node *n, char **out)
{
    const char *name = n->name;
    for (size_t i = n->id; name != NULL && *name != '\0' && hk_map_get(taken, name) != NULL; i++)
        name = hk_arena_format(w->arena, "%s_%zu", n->name, i);
    *out = text(name);
    return name != NULL && (*name == '\0' || hk_map_set(taken, name, *out)) ? HK_OK : no_memory(w);
}

static hk_status make_node(graph_writer *w, hk_map *taken, const hk_node *n, Onnx__NodeProto **out)
{
    Onnx__NodeProto *to = hk_arena_new(w->arena, Onnx__NodeProto);
    if (to == NULL)
        return no_memory(w);
    onnx__node_proto__init(to);
    bool ours = strncmp(n->type, "hk.", 3) == 0;
    if (n->op == NULL || (ours && !hk_import_is_exchanged(n->type)))
        return hk_fail(w->ctx, HK_STATUS_UNSUPPORTED, "node '%s' (%s): an operator that no file can have", n->name,
                       n->type);
    for (int32_t i = 0; i < n->in_count; i++)
        if (n->in[i] != NULL && n->in[i]->kind == HK_VALUE_STEP)
            return hk_fail(w->ctx, HK_STATUS_UNSUPPORTED, "node '%s' (%s) reads the step block, which no file can hold",
                           n->name, n->type);
    w->ours = w->ours || ours;
    HK_TRY(name_node(w, taken, n, &to->name));
    to->op_type = text(ours ? n->type + 3 : n->type);
    to->domain = text(ours ? HK_IMPORT_DOMAIN : n->domain);
    HK_TRY(note_domain(w, n));
    to->n_input = (size_t)n->in_count;
    to->n_output = (size_t)n->out_count;
    HK_TRY(list_names(w, n->in, to->n_input, &to->input));
    HK_TRY(list_names(w, n->out, to->n_output, &to->output));
    *out = to;
    return make_attributes(w, n, to);
}

static hk_status make_shape(const graph_writer *w, const hk_value *v, Onnx__TensorShapeProto **out)
{
    Onnx__TensorShapeProto *shape = hk_arena_new(w->arena, Onnx__TensorShapeProto);
    if (shape == NULL || (shape->dim = hk_arena_array(w->arena, HK_MAX_RANK, sizeof *shape->dim)) == NULL)
        return no_memory(w);
    Onnx__TensorShapeProto__Dimension **dims = shape->dim;
    onnx__tensor_shape_proto__init(shape);
    shape->dim = dims;
    for (int32_t i = 0; i < v->shape.rank; i++) {
        Onnx__TensorShapeProto__Dimension *d = hk_arena_new(w->arena, Onnx__TensorShapeProto__Dimension);
        if (d == NULL)
            return no_memory(w);
        onnx__tensor_shape_proto__dimension__init(d);
        if (v->shape.dim[i] >= 0) {
            d->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
            d->dim_value = v->shape.dim[i];
        } else if (v->dim_names[i] != NULL) {
            d->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM;
            d->dim_param = text(v->dim_names[i]);
        }
        dims[shape->n_dim++] = d;
    }
    *out = shape;
    return HK_OK;
}

/* v: whose shape a tensor's type declares, or NULL. */
static hk_status make_type(const graph_writer *w, const hk_type *t, hk_dtype element, const hk_value *v,
                           Onnx__TypeProto **out)
{
    Onnx__TypeProto *type = hk_arena_new(w->arena, Onnx__TypeProto), *held = NULL;
    Onnx__TypeProto__Tensor *tensor = hk_arena_new(w->arena, Onnx__TypeProto__Tensor);
    Onnx__TypeProto__Sequence *sequence = hk_arena_new(w->arena, Onnx__TypeProto__Sequence);
    Onnx__TypeProto__Optional *optional = hk_arena_new(w->arena, Onnx__TypeProto__Optional);
    if (type == NULL || tensor == NULL || sequence == NULL || optional == NULL)
        return no_memory(w);
    onnx__type_proto__init(type);
    *out = type;
    if (!hk_dtype_is_list(t->dtype)) {
        onnx__type_proto__tensor__init(tensor);
        tensor->has_elem_type = true;
        tensor->elem_type = (int32_t)t->dtype;
        type->value_case = ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE;
        type->tensor_type = tensor;
        return v == NULL || v->shape.rank < 0 ? HK_OK : make_shape(w, v, &tensor->shape);
    }
    if (t->item != HK_DTYPE_NONE)
        HK_TRY(make_type(w, &(hk_type){t->item, element}, HK_DTYPE_NONE, NULL, &held));
    if (t->dtype == HK_SEQUENCE) {
        onnx__type_proto__sequence__init(sequence);
        sequence->elem_type = held;
        type->value_case = ONNX__TYPE_PROTO__VALUE_SEQUENCE_TYPE;
        type->sequence_type = sequence;
    } else {
        onnx__type_proto__optional__init(optional);
        optional->elem_type = held;
        type->value_case = ONNX__TYPE_PROTO__VALUE_OPTIONAL_TYPE;
        type->optional_type = optional;
    }
    return HK_OK;
}

static hk_status make_value(const graph_writer *w, const hk_value *v, Onnx__ValueInfoProto **out)
{
    Onnx__ValueInfoProto *info = hk_arena_new(w->arena, Onnx__ValueInfoProto);
    if (info == NULL)
        return no_memory(w);
    onnx__value_info_proto__init(info);
    HK_TRY(name_of(w, v, &info->name));
    *out = info;
    if (v->dtype == HK_DTYPE_NONE)
        return HK_OK; /* a body's, to be inferred */
    hk_type t = {v->dtype, v->list != NULL ? v->list->item : HK_DTYPE_NONE};
    return make_type(w, &t, v->list != NULL ? v->list->element : HK_DTYPE_NONE, v, &info->type);
}

static hk_status make_values(const graph_writer *w, hk_value *const *values, size_t count, Onnx__ValueInfoProto ***out)
{
    *out = hk_arena_array(w->arena, count + 1, sizeof **out);
    if (*out == NULL)
        return no_memory(w);
    for (size_t i = 0; i < count; i++)
        HK_TRY(make_value(w, values[i], &(*out)[i]));
    return HK_OK;
}

/* Constants and parameters that something uses. */
static hk_status make_initializers(const graph_writer *w, const hk_graph *g, Onnx__GraphProto *to)
{
    hk_uses uses = {0};
    HK_TRY(hk_graph_uses(g, w->arena, &uses));
    to->initializer = hk_arena_array(w->arena, g->value_count + 1, sizeof *to->initializer);
    if (to->initializer == NULL)
        return no_memory(w);
    for (size_t i = 0; i < g->value_count; i++) {
        const hk_value *v = g->values[i];
        if ((v->kind != HK_VALUE_CONSTANT && v->kind != HK_VALUE_PARAMETER) ||
            (uses.count[i] == 0 && !uses.is_output[i]))
            continue;
        char *name = NULL;
        if (v->data == NULL)
            return hk_fail(w->ctx, HK_STATUS_UNSUPPORTED, "constant '%s' has no contents on the host", v->name);
        HK_TRY(name_of(w, v, &name));
        HK_TRY(make_tensor(w, v->data, name, &to->initializer[to->n_initializer++]));
    }
    return HK_OK;
}

/* What is known of activations, of a main graph. */
static hk_status make_value_info(const graph_writer *w, const hk_graph *g, Onnx__GraphProto *to)
{
    to->value_info = hk_arena_array(w->arena, g->value_count + 1, sizeof *to->value_info);
    if (to->value_info == NULL)
        return no_memory(w);
    for (size_t i = 0; i < g->value_count && g->outer == NULL; i++) {
        const hk_value *v = g->values[i];
        bool is_output = false;
        for (size_t k = 0; k < g->output_count; k++)
            is_output = is_output || g->outputs[k] == v;
        if (v->producer != NULL && v->dtype != HK_DTYPE_NONE && v->list == NULL && v->shape.rank >= 0 && !is_output)
            HK_TRY(make_value(w, v, &to->value_info[to->n_value_info++]));
    }
    return HK_OK;
}

static hk_status make_graph(graph_writer *w, const hk_graph *g, Onnx__GraphProto **out)
{
    Onnx__GraphProto *to = hk_arena_new(w->arena, Onnx__GraphProto);
    if (to == NULL)
        return no_memory(w);
    hk_map taken;
    hk_map_init(&taken, w->arena);
    onnx__graph_proto__init(to);
    if (g->state_count != 0)
        return hk_fail(w->ctx, HK_STATUS_UNSUPPORTED, "graph '%s' has states ('%s'), which ONNX has no place for",
                       g->name, g->states[0]->name);
    to->name = text(*g->name == '\0' ? "graph" : g->name);
    HK_TRY(make_initializers(w, g, to));
    to->node = hk_arena_array(w->arena, g->node_count + 1, sizeof *to->node);
    if (to->node == NULL)
        return no_memory(w);
    for (size_t i = 0; i < g->node_count; i++)
        HK_TRY(make_node(w, &taken, g->nodes[i], &to->node[to->n_node++]));
    to->n_input = g->input_count;
    to->n_output = g->output_count;
    HK_TRY(make_values(w, g->inputs, g->input_count, &to->input));
    HK_TRY(make_value_info(w, g, to));
    *out = to;
    return make_values(w, g->outputs, g->output_count, &to->output);
}

/* ---- the model */

static uint64_t constant_bytes(const hk_graph *g)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < g->value_count; i++)
        if (g->values[i]->data != NULL)
            sum += (uint64_t)hk_tensor_bytes(g->values[i]->data);
    for (size_t i = 0; i < g->node_count; i++)
        for (int32_t b = 0; b < g->nodes[i]->body_count; b++)
            sum += constant_bytes(g->nodes[i]->bodies[b]);
    return sum;
}

static hk_status add_import(const graph_writer *w, Onnx__ModelProto *m, const char *domain, int64_t version)
{
    Onnx__OperatorSetIdProto *id = hk_arena_new(w->arena, Onnx__OperatorSetIdProto);
    if (id == NULL)
        return no_memory(w);
    onnx__operator_set_id_proto__init(id);
    id->domain = text(domain);
    id->has_version = true;
    id->version = version;
    m->opset_import[m->n_opset_import++] = id;
    return HK_OK;
}

static hk_status make_model(graph_writer *w, const hk_graph *g, const hk_export_params *params, Onnx__ModelProto *m)
{
    HK_TRY(choose_opset(w, g));
    HK_TRY(make_graph(w, g, &m->graph));
    m->has_ir_version = true;
    m->ir_version = HK_MAX(ir_version(w->opset), params->ir_version);
    m->producer_name = text(params->producer == NULL ? "hillock" : params->producer);
    m->producer_version = text(params->producer == NULL ? hk_version() : "");
    m->opset_import = hk_arena_array(w->arena, 2 + w->foreign_count, sizeof *m->opset_import);
    m->metadata_props = hk_arena_array(w->arena, params->metadata_count + 1, sizeof *m->metadata_props);
    if (m->opset_import == NULL || m->metadata_props == NULL)
        return no_memory(w);
    HK_TRY(add_import(w, m, "", w->opset));
    if (w->ours)
        HK_TRY(add_import(w, m, HK_IMPORT_DOMAIN, 1));
    for (size_t i = 0; i < w->foreign_count; i++)
        HK_TRY(add_import(w, m, w->foreign[i]->domain, w->foreign[i]->opset));
    for (size_t i = 0; i < params->metadata_count; i++) {
        Onnx__StringStringEntryProto *e = hk_arena_new(w->arena, Onnx__StringStringEntryProto);
        if (e == NULL)
            return no_memory(w);
        onnx__string_string_entry_proto__init(e);
        e->key = text(params->metadata[i].key);
        e->value = text(params->metadata[i].value);
        m->metadata_props[m->n_metadata_props++] = e;
    }
    return HK_OK;
}

static hk_status open_external(graph_writer *w, const char *path)
{
    const char *slash = strrchr(path, '/'), *whole = hk_arena_format(w->arena, "%s.data", path);
    w->external_name = hk_arena_format(w->arena, "%s.data", slash == NULL ? path : slash + 1);
    if (whole == NULL || w->external_name == NULL)
        return no_memory(w);
    w->external = true;
    return hk_file_writer_create(w->ctx, whole, &w->external_file);
}

hk_status hk_export_graph(const hk_graph *g, const hk_export_params *given, const char *path)
{
    hk_export_params params = given == NULL ? (hk_export_params){0} : *given;
    graph_writer w = {.ctx = g->ctx, .arena = hk_arena_create(g->ctx)};
    Onnx__ModelProto model = ONNX__MODEL_PROTO__INIT;
    if (w.arena == NULL)
        return hk_out_of_memory(g->ctx, "an export");
    hk_status st = HK_OK;
    if (constant_bytes(g) > (params.external_above == 0 ? EXTERNAL_DEFAULT : params.external_above))
        st = open_external(&w, path);
    if (st == HK_OK)
        st = make_model(&w, g, &params, &model);
    if (st == HK_OK && w.external_file != NULL)
        st = hk_file_writer_commit(&w.external_file);
    if (st == HK_OK)
        st = hk_pack_save(g->ctx, &model.base, path);
    hk_file_writer_destroy(&w.external_file);
    hk_arena_destroy(&w.arena);
    return st == HK_OK ? st : hk_fail_prefix(g->ctx, st, "'%s'", path);
}

hk_status hk_export_memory(const hk_graph *g, const hk_export_params *given, void **data, size_t *bytes)
{
    hk_export_params params = given == NULL ? (hk_export_params){0} : *given;
    graph_writer w = {.ctx = g->ctx, .arena = hk_arena_create(g->ctx)};
    Onnx__ModelProto model = ONNX__MODEL_PROTO__INIT;
    if (w.arena == NULL)
        return hk_out_of_memory(g->ctx, "an export");
    hk_status st = make_model(&w, g, &params, &model);
    if (st == HK_OK)
        st = hk_pack_memory(g->ctx, &model.base, data, bytes);
    hk_arena_destroy(&w.arena);
    return st;
}
