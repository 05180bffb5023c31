/*
 * The importer: what well-formed files become, and what becomes of hostile ones.
 */
#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/importer_bench.h"

#define DATA HK_TEST_DATA "/"

/* ---- files made by exporters */

static void test_exported(void **state)
{
    bench *b = *state;
    const struct {
        const char *path;
        size_t nodes, parameters;
        int64_t opset;
        const char *producer, *op;
        size_t of_op;
    } models[] = {
        {DATA "digits/model.onnx", 9, 8, 20, "pytorch 2.13", "Relu", 3},
        {DATA "digits_script/model.onnx", 9, 8, 17, "pytorch 2.13", "Flatten", 1},
        {DATA "digits_train/model.onnx", 11, 12, 17, "pytorch 2.13", "BatchNormalization", 2},
        {DATA "models/mlp/model.onnx", 3, 4, 18, "fixtures", "Gemm", 2},
        {DATA "models/loop/model.onnx", 1, 0, 17, "fixtures", "Mul", 2},
        {DATA "models/transformer/model.onnx", 36, 0, 20, "fixtures", "MatMul", 7},
    };
    for (size_t i = 0; i < HK_COUNT(models); i++) {
        import_path(b, models[i].path);
        assert_ok(b);
        assert_int_equal(b->r->graph->node_count, models[i].nodes);
        if (models[i].parameters != 0)
            assert_int_equal(parameters(b), models[i].parameters);
        assert_int_equal(b->r->opset, models[i].opset);
        assert_memory_equal(b->r->producer, models[i].producer, strlen(models[i].producer));
        size_t found = 0;
        for (size_t k = 0; k < b->r->op_count; k++) {
            found += strcmp(b->r->ops[k].op, models[i].op) == 0 ? b->r->ops[k].nodes : 0;
            assert_true(k == 0 || strcmp(b->r->ops[k - 1].op, b->r->ops[k].op) < 0);
        }
        assert_int_equal(found, models[i].of_op);
    }
    import_path(b, DATA "digits/model.onnx");
    const hk_value *image = b->r->graph->inputs[0], *logits = b->r->graph->outputs[0];
    assert_int_equal(image->shape.rank, 4);
    assert_int_equal(image->shape.dim[0], -1);
    assert_non_null(image->dim_names[0]);
    assert_int_equal(image->shape.dim[3], 8);
    assert_int_equal(logits->dtype, HK_FLOAT32);
    assert_int_equal(logits->shape.dim[1], 10);
}

static void test_unsupported(void **state)
{
    bench *b = *state;
    import_path(b, DATA "models/unknown_op/model.onnx");
    assert_problem(b, 0, "frobnicate1", "Frobnicate", "operator not supported");
    assert_int_equal(b->r->problem_count, 1);
    import_path(b, DATA "models/custom_domain/model.onnx");
    assert_problem(b, 0, "twist1", "com.example.custom.Twist", "domain 'com.example.custom' is not known");
    import_path(b, DATA "models/truncated.onnx");
    assert_fails(b, HK_STATUS_INVALID, "runs past the end");
    import_path(b, DATA "models/missing.onnx");
    assert_fails(b, HK_STATUS_NO_INPUT, "No such file");
    import_path(b, DATA "simplecnn/model.onnx");
    assert_fails(b, HK_STATUS_NO_INPUT, "weights.bin");

    /* All at once, a node without a name by its number, an opset that no one knows. */
    ob_model(&b->o, 29);
    ob_open(&b->o, 7);
    ob_input(&b->o, "x", "2");
    ob_value(&b->o, 11, "s", 8, "2");
    ob_output(&b->o, "y", "2");
    ob_node(&b->o, 1, "Frob", "x", "a");
    ob_node(&b->o, 1, "Relu", "a", "b");
    ob_node_open(&b->o, 1, "Nicate", "b,s", "y");
    ob_text(&b->o, 3, "last");
    import_bytes(b);
    assert_problem(b, 0, "the model", "ai.onnx", "opset 29 is newer than 28");
    assert_problem(b, 1, "s", "input", "type string");
    assert_problem(b, 2, "#0", "Frob", "operator not supported");
    assert_problem(b, 3, "last", "Nicate", "operator not supported");
    assert_int_equal(b->r->problem_count, 4);
    assert_null(value(b, "y")->producer->op);
    assert_int_equal(value(b, "y")->dtype, HK_FLOAT32); /* as declared */

    restart(b);
    ob_small(&b->o);
    ob_node_open(&b->o, 1, "Relu", "x", "z");
    ob_attr_int(&b->o, "slope", 3);
    import_bytes(b);
    assert_problem(b, 0, "#1", "Relu", "attribute 'slope'");

    restart(b);
    ob_small(&b->o);
    ob_node_open(&b->o, 1, "Relu", "x", "z");
    ob_text(&b->o, 8, "other");
    ob_close(&b->o);
    ob_node_open(&b->o, 1, "F", "x", "w");
    ob_text(&b->o, 7, "d");
    import_bytes(b);
    assert_problem(b, 0, "#1", "Relu", "overload 'other'");
    assert_problem(b, 1, "#2", "d.F", "domain 'd' is not imported");

    /* Operators of our own have names that files cannot use. */
    restart(b);
    ob_small(&b->o);
    ob_node(&b->o, 1, "hk.AdamW", "x", "z");
    import_bytes(b);
    assert_problem(b, 0, "#1", "hk.AdamW", "operator not supported");
    restart(b);
    ob_opset(&b->o, 8, HK_IMPORT_DOMAIN, 1);
    ob_small(&b->o);
    ob_node_open(&b->o, 1, "View", "x", "z");
    ob_text(&b->o, 7, HK_IMPORT_DOMAIN);
    import_bytes(b);
    assert_problem(b, 0, "#1", "ai.hillock.View", "operator not supported");
}

/* ---- tensors */

static void small_with_output(bench *b, const char *name, int64_t elem_type)
{
    restart(b);
    ob_small(&b->o);
    ob_value(&b->o, 12, name, elem_type, "2,3");
}

static void test_encodings(void **state)
{
    bench *b = *state;
    const struct {
        hk_dtype dtype;
        uint32_t field;
    } types[] = {
        {HK_FLOAT32, 4},    {HK_UINT8, 5},          {HK_INT8, 5},       {HK_UINT16, 5},       {HK_INT16, 5},
        {HK_INT32, 5},      {HK_INT64, 7},          {HK_BOOL, 5},       {HK_FLOAT16, 5},      {HK_FLOAT64, 10},
        {HK_UINT32, 11},    {HK_UINT64, 11},        {HK_BFLOAT16, 5},   {HK_FLOAT8E4M3FN, 5}, {HK_FLOAT8E4M3FNUZ, 5},
        {HK_FLOAT8E5M2, 5}, {HK_FLOAT8E5M2FNUZ, 5}, {HK_FLOAT8E8M0, 5},
    };
    for (size_t i = 0; i < HK_COUNT(types); i++) {
        uint64_t storage[6] = {0};
        hk_tensor expected = {.data = storage, .dtype = types[i].dtype, .rank = 2, .shape = {2, 3}};
        for (int64_t k = 0; k < 6; k++)
            hk_set_int(&expected, k,
                       types[i].dtype == HK_BOOL   ? k & 1
                       : types[i].dtype == HK_INT8 ? k * 9 - 20
                                                   : k * 40 + 1);
        size_t size = hk_dtype_bytes(types[i].dtype);
        bool fixed = types[i].field == 4 || types[i].field == 10;
        for (int form = 0; form < 3; form++) { /* raw_data, a packed run, single elements */
            small_with_output(b, "w", types[i].dtype);
            ob_tensor_open(&b->o, 5, "w", types[i].dtype, "2,3");
            if (form == 0)
                ob_blob(&b->o, 9, storage, 6 * size);
            if (form == 1)
                ob_open(&b->o, types[i].field);
            for (int64_t k = 0; k < 6 && form != 0; k++) {
                uint64_t x = 0;
                memcpy(&x, (char *)storage + (size_t)k * size, size);
                if (types[i].dtype == HK_INT8 || types[i].dtype == HK_INT32)
                    x = (uint64_t)hk_get_int(&expected, k);
                if (form == 2)
                    ob_varint(&b->o, (uint64_t)types[i].field << 3 | (fixed ? (size == 4 ? 5u : 1u) : 0u));
                if (fixed)
                    ob_raw(&b->o, &x, size);
                else
                    ob_varint(&b->o, x);
            }
            import_bytes(b);
            assert_ok(b);
            const hk_value *w = value(b, "w");
            assert_int_equal(w->kind, HK_VALUE_CONSTANT);
            assert_int_equal(w->dtype, types[i].dtype);
            assert_memory_equal(w->data->data, storage, 6 * size);
            for (int64_t k = 0; k < 6; k++) /* at any address */
                assert_true(hk_get_double(w->data, k) == hk_get_double(&expected, k));
            assert_int_equal(w->payload->in_place, form == 0 || (form == 1 && fixed));
            if (w->payload->in_place)
                assert_memory_equal(b->o.data + w->payload->offset, storage, w->payload->bytes);
        }
    }
}

/* 2- and 4-bit elements are packed in the file, and have a byte each in memory. */
static void test_packed_encodings(void **state)
{
    bench *b = *state;
    const hk_dtype types[] = {HK_UINT4, HK_INT4, HK_FLOAT4E2M1, HK_UINT2, HK_INT2};
    for (size_t i = 0; i < HK_COUNT(types); i++)
        for (int form = 0; form < 3; form++) { /* raw_data, a packed run, single numbers */
            unsigned bits = hk_dtype_bits(types[i]), each = 8 / bits;
            uint8_t file[3] = {0xe4, 0x1b, 0x07}, memory[6], back[3];
            size_t bytes = (6 + each - 1) / each;
            small_with_output(b, "w", types[i]);
            ob_tensor_open(&b->o, 5, "w", types[i], "2,3");
            if (form == 0)
                ob_blob(&b->o, 9, file, bytes);
            if (form == 1)
                ob_open(&b->o, 5);
            for (size_t k = 0; k < bytes && form != 0; k++) {
                if (form == 2)
                    ob_varint(&b->o, 5u << 3);
                ob_varint(&b->o, file[k]);
            }
            import_bytes(b);
            assert_ok(b);
            const hk_value *w = value(b, "w");
            assert_int_equal(w->dtype, types[i]);
            for (unsigned k = 0; k < 6; k++) {
                unsigned x = (unsigned)file[k / each] >> k % each * bits & ((1u << bits) - 1u);
                bool minus = (types[i] == HK_INT4 || types[i] == HK_INT2) && x >> (bits - 1);
                memory[k] = (uint8_t)(minus ? x - (1u << bits) : x);
            }
            assert_memory_equal(w->data->data, memory, 6);
            hk_bits_pack(types[i], memory, back, 6);
            assert_memory_equal(back, file, bits == 4 ? bytes : 1);
        }
}

static void test_size_lies(void **state)
{
    bench *b = *state;
    const float x[6] = {0};
    const struct {
        const char *dims;
        int64_t data_type;
        uint32_t field;
        size_t bytes;
        hk_status st;
        const char *says; /* of the error, or of the problem */
    } cases[] = {
        {"1000000", 1, 9, 24, HK_STATUS_INVALID, "24 bytes of contents, type and shape say 4000000"},
        {"2,3", 1, 9, 20, HK_STATUS_INVALID, "20 bytes of contents"},
        {"2,3", 1, 4, 20, HK_STATUS_INVALID, "20 bytes of contents"},
        {"2,3", 11, 9, 24, HK_STATUS_INVALID, "type and shape say 48"},
        {"2,3", 7, 7, 5, HK_STATUS_INVALID, "it has at most 5 elements, its shape says 6"},
        {"2,3", 7, 7, 7, HK_STATUS_INVALID, "more elements"},
        {"2147483647", 7, 7, 24, HK_STATUS_INVALID, "at most 24 elements"},
        {"2147483647", 7, 9, 24, HK_STATUS_INVALID, "type and shape say 17179869176"},
        {"2,3", 1, 10, 24, HK_STATUS_INVALID, "field 10, which is none for its type"},
        {"2,3", 1, 0, 0, HK_STATUS_INVALID, "no contents"},
        {"-1", 1, 9, 4, HK_STATUS_INVALID, "dimension 0 is -1"},
        {"4294967296,4294967296", 1, 9, 4, HK_STATUS_INVALID, "product above 2^63"},
        {"4611686018427387904", 14, 9, 4, HK_STATUS_INVALID, "2^61"},
        {"2,3", 0, 9, 24, HK_STATUS_INVALID, "element type is 0"},
        {"2,3", 27, 9, 24, HK_STATUS_INVALID, "element type is 27"},
        {"2,3", -1, 9, 24, HK_STATUS_INVALID, "element type is -1"},
        {"2", 8, 9, 8, HK_STATUS_INVALID, "bytes of contents"},
        {"1,1,1,1,1,1,1,1,1", 1, 9, 4, HK_OK, "rank 9"},
        {"2", 14, 9, 16, HK_OK, "type complex64"},
        {"3", 22, 9, 2, HK_OK, NULL},
        {"3", 22, 9, 3, HK_STATUS_INVALID, "3 bytes of contents, type and shape say 2"},
        {"3", 17, 9, 3, HK_OK, NULL},
        {"0,3", 1, 0, 0, HK_OK, NULL},
        {"0,3", 1, 9, 0, HK_OK, NULL},
    };
    for (size_t i = 0; i < HK_COUNT(cases); i++) {
        restart(b);
        ob_small(&b->o);
        ob_tensor_open(&b->o, 5, "w", cases[i].data_type, cases[i].dims);
        if (cases[i].field != 0)
            ob_blob(&b->o, cases[i].field, x, cases[i].bytes);
        import_bytes(b);
        if (cases[i].st != HK_OK)
            assert_fails(b, cases[i].st, cases[i].says);
        else if (cases[i].says != NULL)
            assert_problem(b, 0, "w", "initializer", cases[i].says);
        else
            assert_ok(b);
    }
    /* Contents in two fields, twice in one, out of range for the type. */
    small_with_output(b, "w", 1);
    ob_tensor_open(&b->o, 5, "w", 1, "1");
    ob_blob(&b->o, 9, x, 4);
    ob_blob(&b->o, 4, x, 4);
    import_bytes(b);
    assert_fails(b, HK_STATUS_INVALID, "contents twice");
    small_with_output(b, "w", 2);
    ob_tensor_open(&b->o, 5, "w", 2, "1");
    ob_int(&b->o, 5, 256);
    import_bytes(b);
    assert_fails(b, HK_STATUS_INVALID, "element 0 is no uint8");
    assert_true(b->memory.peak < (size_t)16 << 20); /* nothing was allocated for elements that are not there */
}

static void test_constants(void **state)
{
    bench *b = *state;
    const float f = 2.5f;
    restart(b);
    ob_model(&b->o, 17);
    ob_open(&b->o, 7);
    ob_input(&b->o, "x", "2");
    const char *names[] = {"value", "value_float", "value_int", "value_floats", "value_ints", "sparse_value"};
    const char *outputs[] = {"a", "b", "c", "d", "e", "s"};
    const int64_t kinds[] = {4, 1, 2, 6, 7, 11};
    for (size_t i = 0; i < HK_COUNT(names); i++) {
        ob_value(&b->o, 12, outputs[i], i == 2 || i == 4 ? HK_INT64 : HK_FLOAT32,
                 i == 5             ? "2,2"
                 : i == 1 || i == 2 ? ""
                                    : "2");
        ob_node_open(&b->o, 1, "Constant", "", outputs[i]);
        ob_attr_open(&b->o, names[i], kinds[i]);
        if (i == 0)
            ob_floats(&b->o, 5, "", "2", (const float[]){1, 2}, 2);
        if (i == 1)
            ob_float(&b->o, 2, f);
        if (i == 2)
            ob_int(&b->o, 3, -7);
        if (i == 3)
            ob_blob(&b->o, 7, (const float[]){3, 4}, 8);
        for (int k = 0; i == 4 && k < 2; k++)
            ob_int(&b->o, 8, 5 + k);
        if (i == 5) {
            ob_open(&b->o, 22);
            ob_floats(&b->o, 1, "", "2", (const float[]){8, 9}, 2);
            ob_tensor_open(&b->o, 2, "", HK_INT64, "2,2");
            for (int k = 0; k < 4; k++)
                ob_int(&b->o, 7, (const int64_t[]){0, 1, 1, 0}[k]);
            ob_close(&b->o);
            ob_int(&b->o, 3, 2);
            ob_int(&b->o, 3, 2);
            ob_close(&b->o);
        }
        ob_close(&b->o);
        ob_close(&b->o);
    }
    import_bytes(b);
    assert_ok(b);
    assert_int_equal(b->r->graph->node_count, 0);
    assert_memory_equal(value(b, "a")->data->data, ((const float[]){1, 2}), 8);
    assert_memory_equal(value(b, "b")->data->data, &f, 4);
    assert_int_equal(value(b, "b")->shape.rank, 0);
    assert_int_equal(hk_get_int(value(b, "c")->data, 0), -7);
    assert_memory_equal(value(b, "d")->data->data, ((const float[]){3, 4}), 8);
    assert_int_equal(hk_get_int(value(b, "e")->data, 1), 6);
    assert_memory_equal(value(b, "s")->data->data, ((const float[]){0, 8, 9, 0}), 16);

    restart(b);
    ob_small(&b->o);
    ob_node_open(&b->o, 1, "Constant", "", "t");
    ob_attr_open(&b->o, "value_string", 3);
    ob_text(&b->o, 4, "text");
    import_bytes(b);
    assert_problem(b, 0, "#1", "Constant", "type string");

    /* A sparse initializer, its indices counted through the dense tensor. */
    restart(b);
    ob_small(&b->o);
    ob_open(&b->o, 15);
    ob_floats(&b->o, 1, "w", "2", (const float[]){8, 9}, 2);
    ob_tensor_open(&b->o, 2, "", HK_INT64, "2");
    ob_int(&b->o, 7, 1);
    ob_int(&b->o, 7, 3);
    ob_close(&b->o);
    ob_int(&b->o, 3, 2);
    ob_int(&b->o, 3, 2);
    import_bytes(b);
    assert_ok(b);
    assert_memory_equal(value(b, "w")->data->data, ((const float[]){0, 8, 0, 9}), 16);
    assert_int_equal(value(b, "w")->kind, HK_VALUE_CONSTANT);

    /* A sparse tensor that is small in the file and 4 GB when dense; an index outside. */
    for (int outside = 0; outside < 2; outside++) {
        restart(b);
        ob_small(&b->o);
        ob_open(&b->o, 15);
        ob_floats(&b->o, 1, "w", "1", &f, 1);
        ob_tensor_open(&b->o, 2, "", HK_INT64, "1");
        ob_int(&b->o, 7, outside ? 5 : 0);
        ob_close(&b->o);
        ob_int(&b->o, 3, outside ? 5 : 1 << 30);
        import_bytes(b);
        if (outside)
            assert_fails(b, HK_STATUS_INVALID, "outside of its shape");
        else
            assert_problem(b, 0, "w", "initializer", "too large to be made dense");
    }
}

/* ---- structure */

static void test_structure(void **state)
{
    bench *b = *state;
    const struct {
        const char *nodes[4][3]; /* type, inputs, outputs */
        hk_status st;
        const char *says;
    } cases[] = {
        {{{"Relu", "b", "z"}, {"Relu", "a", "b"}, {"Relu", "x", "a"}}, HK_OK, NULL}, /* in the wrong order */
        {{{"Relu", "b", "a"}, {"Relu", "a", "b"}}, HK_STATUS_INVALID, "lies on a cycle"},
        {{{"Relu", "a", "a"}}, HK_STATUS_INVALID, "lies on a cycle"},
        {{{"Relu", "x", "y"}}, HK_STATUS_INVALID, "'y' is defined twice"},
        {{{"Relu", "x", "x"}}, HK_STATUS_INVALID, "'x' is defined twice"},
        {{{"Split", "x", "p,p"}}, HK_STATUS_INVALID, "'p' is defined twice"},
        {{{"Relu", "nowhere", "a"}}, HK_STATUS_INVALID, "input 'nowhere' is not defined"},
        {{{"", "x", "a"}}, HK_STATUS_INVALID, "no operator type"},
        {{{"Relu", "x,x", "a"}}, HK_STATUS_INVALID, "inputs"},
        {{{"Relu", "", "a"}}, HK_STATUS_INVALID, "inputs"},
        {{{"Constant", "", "a"}}, HK_STATUS_INVALID, "no value"},
        {{{"Clip", "x,,", "a"}}, HK_OK, NULL}, /* optional operands left out */
    };
    for (size_t i = 0; i < HK_COUNT(cases); i++) {
        restart(b);
        ob_small(&b->o);
        for (size_t k = 0; k < 4 && cases[i].nodes[k][0] != NULL; k++)
            ob_node(&b->o, 1, cases[i].nodes[k][0], cases[i].nodes[k][1], cases[i].nodes[k][2]);
        import_bytes(b);
        if (cases[i].st == HK_OK)
            assert_ok(b);
        else
            assert_fails(b, cases[i].st, cases[i].says);
    }
    small_with_output(b, "nowhere", 1);
    import_bytes(b);
    assert_fails(b, HK_STATUS_INVALID, "output 'nowhere' is not defined");
    restart(b);
    ob_small(&b->o);
    ob_input(&b->o, "x", "2,3");
    import_bytes(b);
    assert_fails(b, HK_STATUS_INVALID, "'x' is defined twice");
    restart(b);
    ob_model(&b->o, 17);
    import_bytes(b);
    assert_fails(b, HK_STATUS_INVALID, "no graph");
    ob_open(&b->o, 7);
    import_bytes(b);
    assert_fails(b, HK_STATUS_INVALID, "no outputs");
}

/* An initializer that is listed as an input is a constant; roles follow through what only rearranges a weight. */
static void test_roles(void **state)
{
    bench *b = *state;
    float w[12] = {0};
    ob_model(&b->o, 17);
    ob_open(&b->o, 7);
    ob_input(&b->o, "x", "4,3");
    ob_input(&b->o, "w", "4,3");
    ob_output(&b->o, "y", "4,4");
    ob_floats(&b->o, 5, "w", "4,3", w, 12);
    ob_floats(&b->o, 5, "bias", "4", w, 4);
    ob_floats(&b->o, 5, "unused", "4", w, 4);
    ob_floats(&b->o, 5, "half", "", w, 1);
    ob_node(&b->o, 1, "Identity", "w", "i");
    ob_node_open(&b->o, 1, "Transpose", "i", "t");
    ob_attr_open(&b->o, "perm", 7);
    ob_int(&b->o, 8, 1);
    ob_int(&b->o, 8, 0);
    ob_close(&b->o);
    ob_close(&b->o);
    ob_node(&b->o, 1, "Gemm", "x,t,bias", "g");
    ob_floats(&b->o, 5, "square", "4,4", (const float[16]){0}, 16);
    ob_floats(&b->o, 5, "offset", "4", w, 4);
    ob_floats(&b->o, 5, "mask", "4", w, 4);
    ob_node(&b->o, 1, "MatMul", "g,square", "m"); /* a linear layer on more dimensions */
    ob_node(&b->o, 1, "Identity", "m", "mi");
    ob_node(&b->o, 1, "Add", "offset,mi", "o");
    ob_node(&b->o, 1, "Add", "o,mask", "masked");
    ob_node(&b->o, 1, "Mul", "masked,half", "y");
    /* layers of one output: their bias is a vector of one, what a number is added to is none */
    ob_floats(&b->o, 5, "column", "4,1", w, 4);
    ob_floats(&b->o, 5, "row", "1,1", w, 1);
    ob_floats(&b->o, 5, "one", "1", w, 1);
    ob_floats(&b->o, 5, "single", "1", w, 1);
    ob_floats(&b->o, 5, "factor", "1", w, 1);
    ob_node(&b->o, 1, "Identity", "one", "handed");
    ob_node(&b->o, 1, "Gemm", "y,column,handed", "z");
    ob_node(&b->o, 1, "MatMul", "z,row", "zr");
    ob_node(&b->o, 1, "Add", "zr,single", "zs");
    ob_node(&b->o, 1, "Mul", "zs,factor", "zf");
    import_bytes(b);
    assert_ok(b);
    assert_int_equal(value(b, "one")->kind, HK_VALUE_PARAMETER);
    assert_int_equal(value(b, "single")->kind, HK_VALUE_PARAMETER);
    assert_int_equal(value(b, "row")->kind, HK_VALUE_PARAMETER);
    assert_int_equal(value(b, "factor")->kind, HK_VALUE_CONSTANT);
    assert_int_equal(value(b, "square")->kind, HK_VALUE_PARAMETER);
    assert_int_equal(value(b, "offset")->kind, HK_VALUE_PARAMETER);
    assert_int_equal(value(b, "mask")->kind, HK_VALUE_CONSTANT);
    assert_int_equal(b->r->graph->input_count, 1);
    assert_int_equal(value(b, "w")->kind, HK_VALUE_PARAMETER);
    assert_int_equal(value(b, "bias")->kind, HK_VALUE_PARAMETER);
    assert_int_equal(value(b, "unused")->kind, HK_VALUE_CONSTANT);
    assert_int_equal(value(b, "half")->kind, HK_VALUE_CONSTANT);
    assert_int_equal(value(b, "y")->shape.dim[1], 4);
}

/* An argument is a pattern of test names to run. */
int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_exported, start, stop),
        cmocka_unit_test_setup_teardown(test_unsupported, start, stop),
        cmocka_unit_test_setup_teardown(test_encodings, start, stop),
        cmocka_unit_test_setup_teardown(test_packed_encodings, start, stop),
        cmocka_unit_test_setup_teardown(test_size_lies, start, stop),
        cmocka_unit_test_setup_teardown(test_constants, start, stop),
        cmocka_unit_test_setup_teardown(test_structure, start, stop),
        cmocka_unit_test_setup_teardown(test_roles, start, stop),
    };
    return cmocka_run_group_tests_name("importer", tests, NULL, NULL);
}
