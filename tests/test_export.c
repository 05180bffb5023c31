/*
 * ONNX out: new weights in an old file, and graphs that came from no file.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "importer/import.h"
#include "ops/op.h"
#include "tests/support/onnx_bytes.h"

#define DATA HK_TEST_DATA "/"

/* ---- fixture */

typedef struct bench {
    counted memory;
    hk_context *ctx;
    onnx_bytes o;
    char folder[64], path[3][128];
} bench;

static int start(void **state)
{
    bench *b = calloc(1, sizeof *b);
    if (b == NULL)
        return -1;
    counted_open(&b->memory);
    b->ctx = b->memory.ctx;
    snprintf(b->folder, sizeof b->folder, "/tmp/hillock-export-XXXXXX");
    *state = b;
    return mkdtemp(b->folder) == NULL ? -1 : 0;
}

static const char *in_folder(bench *b, int which, const char *name)
{
    snprintf(b->path[which], sizeof b->path[which], "%s/%s", b->folder, name);
    return b->path[which];
}

static int stop(void **state)
{
    bench *b = *state;
    const char *names[] = {"a.onnx",      "b.onnx",      "c.onnx",        "w.bin",         "v.bin",
                           "a.onnx.data", "b.onnx.data", "b.onnx.1.data", "sub/b.onnx",    "sub/b.onnx.data",
                           "sub",         "c.onnx.data", "c.onnx.1.data", "c.onnx.2.data", ""};
    for (size_t i = 0; i < HK_COUNT(names); i++) {
        const char *path = in_folder(b, 0, names[i]);
        if (unlink(path) != 0)
            rmdir(path);
    }
    ob_free(&b->o);
    bool clean = counted_close(&b->memory) && access(b->folder, F_OK) != 0; /* nothing else was left there */
    free(b);
    return clean ? 0 : -1;
}

static void must(bench *b, hk_status st)
{
    if (st != HK_OK)
        fail_msg("%d: %s", (int)st, hk_context_error(b->ctx));
}

static void assert_fails(bench *b, hk_status st, hk_status expected, const char *says)
{
    if (st != expected || strstr(hk_context_error(b->ctx), says) == NULL)
        fail_msg("%d '%s', expected %d with '%s'", (int)st, hk_context_error(b->ctx), (int)expected, says);
}

static hk_import_result *load(bench *b, const char *path)
{
    hk_import_result *r = NULL;
    must(b, hk_import(b->ctx, path, NULL, 0, NULL, &r));
    return r;
}

static hk_value *value(const hk_import_result *r, const char *name)
{
    hk_value *v = hk_graph_find(r->graph, name);
    if (v == NULL)
        fail_msg("no value '%s'", name);
    return v;
}

static void save(bench *b, const char *name)
{
    while (b->o.depth > 0)
        ob_close(&b->o);
    ob_save(&b->o, in_folder(b, 0, name));
    b->o.count = 0;
}

static bool same_files(const char *a, const char *b)
{
    FILE *f = fopen(a, "rb"), *g = fopen(b, "rb");
    assert_non_null(f);
    assert_non_null(g);
    int x, y;
    do {
        x = fgetc(f);
        y = fgetc(g);
    } while (x == y && x != EOF);
    fclose(f);
    fclose(g);
    return x == y;
}

/* ---- new weights in an old file */

static void test_unchanged(void **state)
{
    bench *b = *state;
    const char *paths[] = {DATA "digits/model.onnx", DATA "digits_script/model.onnx",
                           DATA "models/unknown_op/model.onnx"};
    for (size_t i = 0; i < HK_COUNT(paths); i++) {
        hk_import_result *r = load(b, paths[i]);
        must(b, hk_export_patched(r, NULL, 0, in_folder(b, 0, "a.onnx")));
        assert_true(same_files(paths[i], b->path[0]));
        hk_import_destroy(&r);
    }
}

/* Every parameter of a PyTorch export changes; nothing else does. */
static void test_parameters(void **state)
{
    bench *b = *state;
    hk_import_result *r = load(b, DATA "digits/model.onnx"), *back;
    hk_export_patch patches[16];
    hk_tensor data[16];
    size_t count = 0, changed = 0;
    for (size_t i = 0; i < r->graph->value_count; i++) {
        const hk_value *v = r->graph->values[i];
        if (v->kind != HK_VALUE_PARAMETER)
            continue;
        must(b, hk_tensor_create(b->ctx, v->dtype, &v->shape, &data[count]));
        for (int64_t k = 0, n = hk_tensor_count(&data[count]); k < n; k++)
            hk_set_double(&data[count], k, (double)(k + (int64_t)count) * 0.25);
        patches[count] = (hk_export_patch){v, &data[count]};
        changed += v->payload->bytes;
        count++;
    }
    assert_int_equal(count, 8);
    must(b, hk_export_patched(r, patches, count, in_folder(b, 0, "a.onnx")));
    back = load(b, b->path[0]);
    assert_int_equal(back->files[0].bytes, r->files[0].bytes);
    size_t differ = 0;
    for (size_t i = 0; i < r->files[0].bytes; i++)
        differ += back->files[0].data[i] != r->files[0].data[i];
    assert_true(differ > 0 && differ <= changed);
    for (size_t i = 0; i < count; i++) {
        assert_memory_equal(value(back, patches[i].value->name)->data->data, data[i].data,
                            (size_t)hk_tensor_bytes(&data[i]));
        hk_tensor_release(&data[i]);
    }
    assert_int_equal(back->graph->node_count, r->graph->node_count);
    hk_import_destroy(&back);

    const float few[2] = {1, 2};
    const hk_tensor wrong = {.data = (void *)(uintptr_t)few, .dtype = HK_FLOAT32, .rank = 1, .shape = {2}};
    const hk_export_patch bad[] = {{patches[0].value, &wrong}, {r->graph->inputs[0], &wrong}};
    assert_fails(b, hk_export_patched(r, bad, 1, b->path[0]), HK_STATUS_USAGE, "another shape");
    assert_fails(b, hk_export_patched(r, bad + 1, 1, b->path[0]), HK_STATUS_UNSUPPORTED, "no place of its own");
    hk_import_destroy(&r);
}

/* Elements as varints, in runs and one by one, in half precision: the lengths of all messages around them change. */
static void test_encoded(void **state)
{
    bench *b = *state;
    ob_small(&b->o);
    const char *names[] = {"packed", "single", "raw", "runs"};
    for (int i = 0; i < 4; i++) {
        ob_value(&b->o, 12, names[i], i < 3 ? HK_FLOAT16 : HK_FLOAT32, "40");
        ob_tensor_open(&b->o, 5, names[i], i < 3 ? HK_FLOAT16 : HK_FLOAT32, "40");
        if (i == 0)
            ob_open(&b->o, 5);
        for (int k = 0; k < 40 && i < 2; k++) {
            if (i == 1)
                ob_varint(&b->o, 5 << 3);
            ob_varint(&b->o, 0);
        }
        const float zeros[40] = {0};
        if (i == 2)
            ob_blob(&b->o, 9, zeros, 80);
        for (int k = 0; k < 2 && i == 3; k++)
            ob_blob(&b->o, 4, zeros, 80);
        if (i == 0)
            ob_close(&b->o);
        ob_text(&b->o, 12, "a comment behind the elements");
        ob_close(&b->o);
    }
    save(b, "a.onnx");
    hk_import_result *r = load(b, b->path[0]), *back;
    float x[40];
    for (int k = 0; k < 40; k++)
        x[k] = (float)k * -0.5f;
    const hk_tensor t = {.data = x, .dtype = HK_FLOAT32, .rank = 1, .shape = {40}};
    hk_export_patch patches[4];
    for (int i = 0; i < 4; i++)
        patches[i] = (hk_export_patch){value(r, names[3 - i]), &t};
    for (size_t count = 1; count <= 4; count++) {
        must(b, hk_export_patched(r, patches, count, in_folder(b, 1, "b.onnx")));
        back = load(b, b->path[1]);
        for (size_t i = 0; i < 4; i++)
            for (int64_t k = 0; k < 40; k++)
                assert_true(hk_get_double(value(back, names[3 - i])->data, k) == (i < count ? (double)x[k] : 0.0));
        assert_int_equal(back->graph->value_count, r->graph->value_count);
        hk_import_destroy(&back);
    }
    const hk_export_patch twice[] = {patches[0], patches[0]};
    must(b, hk_export_patched(r, twice, 2, b->path[1])); /* the same contents: no conflict */
    hk_import_destroy(&r);
}

static void external_tensor(bench *b, const char *name, const char *location, const char *offset)
{
    ob_value(&b->o, 12, name, HK_FLOAT32, "4");
    ob_tensor_open(&b->o, 5, name, HK_FLOAT32, "4");
    ob_int(&b->o, 14, 1);
    ob_entry(&b->o, 13, "location", location);
    ob_entry(&b->o, 13, "offset", offset);
    ob_close(&b->o);
}

/* External files are copied under new names with the new bytes in them; the old model stays as it was. */
static void test_external(void **state)
{
    bench *b = *state;
    float x[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    for (int i = 0; i < 2; i++) {
        ob_raw(&b->o, x, sizeof x);
        save(b, i == 0 ? "w.bin" : "v.bin");
    }
    ob_small(&b->o);
    external_tensor(b, "p", "w.bin", "16");
    external_tensor(b, "q", "./v.bin", "0");
    external_tensor(b, "tied", "w.bin", "16");
    save(b, "a.onnx");
    assert_int_equal(mkdir(in_folder(b, 1, "sub"), 0700), 0);
    hk_import_result *r = load(b, b->path[0]);
    const float fresh[4] = {10, 11, 12, 13}, other[4] = {0};
    const hk_tensor t = {.data = (void *)(uintptr_t)fresh, .dtype = HK_FLOAT32, .rank = 1, .shape = {4}};
    const hk_tensor u = {.data = (void *)(uintptr_t)other, .dtype = HK_FLOAT32, .rank = 1, .shape = {4}};
    const hk_export_patch patches[] = {{value(r, "p"), &t}, {value(r, "tied"), &t}, {value(r, "tied"), &u}};
    const char *targets[] = {"sub/b.onnx", "b.onnx", "a.onnx"};
    for (size_t i = 0; i < HK_COUNT(targets); i++) {
        must(b, hk_export_patched(r, patches, 2, in_folder(b, 1, targets[i])));
        hk_import_result *back = load(b, b->path[1]);
        assert_memory_equal(value(back, "p")->data->data, fresh, sizeof fresh);
        assert_memory_equal(value(back, "tied")->data->data, fresh, sizeof fresh);
        assert_memory_equal(value(back, "q")->data->data, x, 16);
        assert_int_equal(back->file_count, 3);
        if (i == 0) {
            assert_string_equal(back->file_names[1], "b.onnx.data");
            /* Over itself: the files it is read from stay until the new model is there. */
            must(b, hk_export_patched(back, NULL, 0, b->path[1]));
            hk_import_result *again = load(b, b->path[1]);
            assert_string_not_equal(again->file_names[1], "b.onnx.data");
            assert_memory_equal(value(again, "p")->data->data, fresh, sizeof fresh);
            for (size_t k = 1; k < 3; k++) {
                char path[128];
                snprintf(path, sizeof path, "%s/sub/%s", b->folder, back->file_names[k]);
                unlink(path);
                snprintf(path, sizeof path, "%s/sub/%s", b->folder, again->file_names[k]);
                unlink(path);
            }
            hk_import_destroy(&again);
        }
        hk_import_destroy(&back);
    }
    unlink(in_folder(b, 1, "a.onnx.1.data"));
    assert_memory_equal(value(r, "p")->data->data, x + 4, 16); /* mapped, and untouched */
    assert_fails(b, hk_export_patched(r, patches + 1, 2, in_folder(b, 1, "b.onnx")), HK_STATUS_UNSUPPORTED,
                 "share bytes");
    hk_import_destroy(&r);
}

/* ---- graphs that came from no file */

static void assert_same_shape(const hk_value *a, const hk_value *b)
{
    assert_int_equal(a->dtype, b->dtype);
    assert_true(hk_shape_equal(&a->shape, &b->shape));
    for (int32_t i = 0; i < a->shape.rank; i++)
        assert_int_equal(a->dim_names[i] == NULL, b->dim_names[i] == NULL);
}

static void assert_same_constant(const hk_value *a, const hk_value *b)
{
    if (a == NULL || b == NULL) {
        assert_ptr_equal(a, b);
        return;
    }
    assert_int_equal(a->dtype, b->dtype);
    bool constant = a->kind == HK_VALUE_CONSTANT || a->kind == HK_VALUE_PARAMETER;
    assert_int_equal(a->kind, b->kind);
    if (constant)
        assert_memory_equal(a->data->data, b->data->data, (size_t)hk_tensor_bytes(a->data));
}

/* Attributes by the operator's table; a list that is absent differs from one that is empty. */
static void assert_same_attributes(const hk_node *a, const hk_node *b)
{
    for (const hk_attr *row = a->op->attrs; row != NULL && row->name != NULL; row++) {
        const void *x = (const char *)a->attrs + row->offset, *y = (const char *)b->attrs + row->offset;
        if (row->kind == HK_ATTR_INT) {
            assert_int_equal(*(const int64_t *)x, *(const int64_t *)y);
        } else if (row->kind == HK_ATTR_FLOAT) {
            assert_float_equal(*(const float *)x, *(const float *)y, 0);
        } else if (row->kind == HK_ATTR_STRINGS) {
            const hk_strings *p = x, *q = y;
            assert_int_equal(p->count, q->count);
            for (int32_t i = 0; i < p->count; i++)
                assert_string_equal(p->v[i], q->v[i]);
        } else if (row->kind == HK_ATTR_INTS) {
            const hk_ints *p = x, *q = y;
            assert_int_equal(p->v == NULL, q->v == NULL);
            assert_int_equal(p->count, q->count);
            if (p->count != 0)
                assert_memory_equal(p->v, q->v, (size_t)p->count * sizeof *p->v);
        }
    }
}

static void assert_same_graph(const hk_graph *a, const hk_graph *b)
{
    assert_int_equal(a->node_count, b->node_count);
    assert_int_equal(a->input_count, b->input_count);
    assert_int_equal(a->output_count, b->output_count);
    for (size_t i = 0; i < a->input_count; i++) {
        assert_string_equal(a->inputs[i]->name, b->inputs[i]->name);
        assert_same_shape(a->inputs[i], b->inputs[i]);
    }
    for (size_t i = 0; i < a->output_count; i++)
        assert_same_shape(a->outputs[i], b->outputs[i]);
    for (size_t i = 0; i < a->node_count; i++) {
        const hk_node *m = a->nodes[i], *n = b->nodes[i];
        assert_string_equal(m->name, n->name);
        assert_ptr_equal(m->op, n->op);
        assert_int_equal(m->in_count, n->in_count);
        assert_int_equal(m->out_count, n->out_count);
        for (int32_t k = 0; k < m->in_count; k++)
            assert_same_constant(m->in[k], n->in[k]);
        assert_same_attributes(m, n);
        assert_int_equal(m->body_count, n->body_count);
        for (int32_t k = 0; k < m->body_count; k++)
            assert_same_graph(m->bodies[k], n->bodies[k]);
    }
}

static void test_graphs(void **state)
{
    bench *b = *state;
    const char *paths[] = {DATA "digits/model.onnx",
                           DATA "digits_script/model.onnx",
                           DATA "models/mlp/model.onnx",
                           DATA "models/loop/model.onnx",
                           DATA "models/loop_cond/model.onnx",
                           DATA "models/resblock/model.onnx",
                           DATA "models/transformer/model.onnx"};
    for (size_t i = 0; i < HK_COUNT(paths); i++) {
        hk_import_result *r = load(b, paths[i]);
        assert_int_equal(r->problem_count, 0);
        hk_export_params params = {.producer = "test",
                                   .metadata = &(hk_import_pair){"key", "text"},
                                   .metadata_count = 1,
                                   .external_above = i % 2 == 0 ? 1 : 0};
        must(b, hk_export_graph(r->graph, &params, in_folder(b, 0, "a.onnx")));
        hk_import_result *back = load(b, b->path[0]);
        assert_string_equal(back->producer, "test");
        assert_string_equal(back->metadata[0].value, "text");
        assert_int_equal(back->problem_count, 0);
        assert_same_graph(r->graph, back->graph);
        hk_import_destroy(&back);
        hk_import_destroy(&r);
    }
}

/* A graph built by hand: absent operands, unused constants, default attributes; what ONNX has no place for is refused.
 */
static void test_built(void **state)
{
    bench *b = *state;
    hk_graph *g = NULL;
    must(b, hk_graph_create(b->ctx, "built", &g));
    const hk_shape shape = {.rank = 2, .dim = {-1, 3}};
    hk_value *x = hk_graph_value(g, "x", HK_VALUE_INPUT, HK_FLOAT32, &shape),
             *unused = hk_graph_scalar(g, HK_FLOAT32, 3);
    hk_value *in[3] = {x, NULL, hk_graph_scalar(g, HK_FLOAT32, 2)}, *clipped = NULL, *y = NULL;
    assert_non_null(unused);
    assert_true(hk_graph_add_input(g, x));
    must(b, hk_build(g, "Clip", NULL, in, 3, &clipped, 1));
    const hk_attr_value alpha[] = {{.name = "alpha", .kind = HK_ATTR_FLOAT, .f = 0.25f}, {0}};
    hk_value *spikes = NULL;
    must(b,
         hk_build(g, "hk.Neuron", (const hk_attr_value[]){HK_SET_STRING("kind", "IF"), {0}}, &clipped, 1, &spikes, 1));
    must(b, hk_build(g, "LeakyRelu", alpha, &spikes, 1, &y, 1));
    assert_true(hk_graph_add_output(g, y));
    must(b, hk_export_graph(g, NULL, in_folder(b, 0, "a.onnx")));
    hk_import_result *back = load(b, b->path[0]);
    assert_int_equal(back->problem_count, 0);
    assert_same_graph(g, back->graph);
    assert_memory_equal(back->producer, "hillock ", 8);
    assert_null(back->graph->nodes[0]->in[1]);
    assert_null(hk_graph_find(back->graph, unused->name));
    hk_import_destroy(&back);

    assert_non_null(hk_graph_state(g, "membrane", HK_FLOAT32, &HK_SCALAR, NULL));
    assert_fails(b, hk_export_graph(g, NULL, b->path[0]), HK_STATUS_UNSUPPORTED, "has states ('membrane')");
    hk_graph_destroy(&g);
    back = load(b, DATA "models/unknown_op/model.onnx");
    assert_fails(b, hk_export_graph(back->graph, NULL, b->path[0]), HK_STATUS_UNSUPPORTED, "that no file can have");
    hk_import_destroy(&back);
}

/* A body whose value has the name of one around it, and another body that uses that one. */
static void test_hidden_names(void **state)
{
    bench *b = *state;
    ob_small(&b->o);
    ob_value(&b->o, 11, "c", HK_BOOL, "");
    ob_output(&b->o, "z", "2,3");
    ob_node(&b->o, 1, "Relu", "x", "r");
    ob_node_open(&b->o, 1, "If", "c", "z");
    const char *branches[] = {"then_branch", "else_branch"}, *inside[] = {"r", "s"}, *from[] = {"x", "r"};
    for (int i = 0; i < 2; i++) {
        ob_attr_open(&b->o, branches[i], 5);
        ob_open(&b->o, 6);
        ob_text(&b->o, 2, branches[i]);
        ob_node(&b->o, 1, "Relu", from[i], inside[i]);
        ob_output(&b->o, inside[i], "2,3");
        ob_close(&b->o);
        ob_close(&b->o);
    }
    save(b, "a.onnx");
    hk_import_result *r = load(b, b->path[0]);
    must(b, hk_export_graph(r->graph, NULL, in_folder(b, 1, "b.onnx")));
    hk_import_result *back = load(b, b->path[1]);
    assert_same_graph(r->graph, back->graph);
    const hk_node *n = back->graph->nodes[2];
    assert_string_equal(n->bodies[0]->outputs[0]->name, "r.inner1");
    assert_ptr_equal(n->bodies[1]->nodes[0]->in[0], value(back, "r"));
    hk_import_destroy(&back);
    hk_import_destroy(&r);
}

/* Every allocation of both kinds of export fails once; no file comes of it. */
static void test_allocations_fail(void **state)
{
    bench *b = *state;
    for (int kind = 0; kind < 2; kind++) {
        hk_status st = HK_STATUS_OUT_OF_MEMORY;
        for (uint64_t k = 1; st != HK_OK && k < 20000; k++) {
            counted c = {0};
            hk_import_result *r = NULL;
            counted_open(&c);
            must(b, hk_import(c.ctx, DATA "models/mlp/model.onnx", NULL, 0, NULL, &r));
            c.fail_at = c.calls + k;
            const char *path = in_folder(b, 0, "a.onnx");
            st = kind == 0
                     ? hk_export_graph(r->graph, NULL, path)
                     : hk_export_patched(
                           r, &(hk_export_patch){r->graph->nodes[0]->in[1], r->graph->nodes[0]->in[1]->data}, 1, path);
            if (st != HK_OK) {
                assert_int_equal(st, HK_STATUS_OUT_OF_MEMORY);
                assert_int_not_equal(access(path, F_OK), 0);
            }
            hk_import_destroy(&r);
            assert_true(counted_close(&c));
        }
        assert_int_equal(st, HK_OK);
        unlink(b->path[0]);
    }
}

/* An argument is a pattern of test names to run. */
int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_unchanged, start, stop),
        cmocka_unit_test_setup_teardown(test_parameters, start, stop),
        cmocka_unit_test_setup_teardown(test_encoded, start, stop),
        cmocka_unit_test_setup_teardown(test_external, start, stop),
        cmocka_unit_test_setup_teardown(test_graphs, start, stop),
        cmocka_unit_test_setup_teardown(test_built, start, stop),
        cmocka_unit_test_setup_teardown(test_hidden_names, start, stop),
        cmocka_unit_test_setup_teardown(test_allocations_fail, start, stop),
    };
    return cmocka_run_group_tests_name("export", tests, NULL, NULL);
}
