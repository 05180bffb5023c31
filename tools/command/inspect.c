/* hillock inspect: needs no device. */
#include "tools/command/command.h"

static const char usage[] =
    "usage: hillock inspect MODEL [--no-external-data] [--json]\n\n"
    "Prints a model's inputs, outputs, operators and trainable parameters, and everything that keeps it from running.\n"
    "Needs no device. Exits 65 if the model cannot run.\n\n"
    "example: hillock inspect resnet50.onnx\n";

static void print_values(const char *title, const hk_value_info *list, size_t count)
{
    char text[400];
    for (size_t i = 0; i < count; i++)
        printf("%-10s %s  %s\n", i ? "" : title, list[i].name, value_text(&list[i], text, sizeof text));
}

static void print_model(const hk_model *m, bool quiet)
{
    hk_model_info info;
    char number[48];
    size_t count = 0;
    hk_model_get_info(m, &info);
    printf("%-10s %s, %s, opset %lld, IR %lld, %zu nodes\n", "model", info.graph_name, info.producer,
           (long long)info.opset, (long long)info.ir_version, info.nodes);
    const hk_value_info *list = hk_model_inputs(m, &count);
    print_values("inputs", list, count);
    list = hk_model_outputs(m, &count);
    print_values("outputs", list, count);
    const hk_op_count *ops = hk_model_ops(m, &count);
    printf("%-10s", "operators");
    for (size_t i = 0; i < count; i++)
        printf(" %s %zu%s", ops[i].op, ops[i].nodes, i + 1 < count ? "," : "\n");
    printf("%-10s %zu tensors, %s elements\n", "trainable", info.parameters,
           format_count((double)info.parameter_count, number, sizeof number));
    list = hk_model_parameters(m, &count);
    if (!quiet)
        print_values("", list, count);
}

static void json_values(const char *key, const hk_value_info *list, size_t count)
{
    json_array(stdout, key);
    for (size_t i = 0; i < count; i++) {
        json_object(stdout, NULL);
        json_string(stdout, "name", list[i].name);
        json_string(stdout, "dtype", hk_dtype_name(list[i].dtype));
        json_shape(stdout, "shape", list[i].rank < 0 ? 0 : list[i].rank, list[i].shape);
        json_object_end(stdout);
    }
    json_array_end(stdout);
}

static void json_model(const hk_model *m)
{
    hk_model_info info;
    size_t count = 0;
    hk_model_get_info(m, &info);
    json_begin(stdout);
    json_string(stdout, "schema", "hillock-inspect-1");
    json_string(stdout, "graph", info.graph_name);
    json_string(stdout, "producer", info.producer);
    json_integer(stdout, "opset", info.opset);
    json_integer(stdout, "ir_version", info.ir_version);
    json_integer(stdout, "nodes", (long long)info.nodes);
    const hk_value_info *list = hk_model_inputs(m, &count);
    json_values("inputs", list, count);
    list = hk_model_outputs(m, &count);
    json_values("outputs", list, count);
    list = hk_model_parameters(m, &count);
    json_values("parameters", list, count);
    json_object(stdout, "operators");
    const hk_op_count *ops = hk_model_ops(m, &count);
    for (size_t i = 0; i < count; i++)
        json_integer(stdout, ops[i].op, (long long)ops[i].nodes);
    json_object_end(stdout);
    json_array(stdout, "problems");
    const hk_problem *problems = hk_model_problems(m, &count);
    for (size_t i = 0; i < count; i++) {
        json_object(stdout, NULL);
        json_string(stdout, "node", problems[i].node);
        json_string(stdout, "op", problems[i].op);
        json_string(stdout, "reason", problems[i].reason);
        json_object_end(stdout);
    }
    json_array_end(stdout);
    json_end(stdout);
}

static int run(int argc, char **argv)
{
    static const option_spec specs[] = {{"--no-external-data", false, false}, {0}};
    options o;
    int code = options_parse(&o, &verb_inspect, specs, argc, argv);
    if (code >= 0)
        return code;
    if (o.argument_count != 1) {
        fprintf(stderr, "hillock inspect: one model file is needed\n");
        return finish_code(&o, EXIT_USAGE);
    }
    hk_model *m = NULL;
    hk_model_params params = {.size = sizeof params, .no_external_data = option_given(&o, "--no-external-data")};
    hk_status st = hk_model_load(o.ctx, o.arguments[0], &params, &m);
    if (st == HK_OK)
        st = hk_model_check(m);
    if (st != HK_OK) {
        hk_model_destroy(&m);
        return finish(&o, st);
    }
    size_t count = 0;
    const hk_problem *problems = hk_model_problems(m, &count);
    if (o.json)
        json_model(m);
    else
        print_model(m, o.quiet);
    for (size_t i = 0; i < count; i++)
        fprintf(stderr, "hillock: cannot run: node '%s' (%s): %s\n", problems[i].node, problems[i].op,
                problems[i].reason);
    hk_model_destroy(&m);
    return finish_code(&o, count ? 65 : 0);
}

const verb verb_inspect = {"inspect", "what a model holds, and whether it can run", usage, run};
