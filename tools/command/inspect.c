/* hillock inspect: needs no device. */
#include <stdlib.h>
#include <string.h>

#include "tools/command/command.h"

static const char usage[] =
    "usage: hillock inspect MODEL [--shape NAME=1x3x224x224 ...] [--batch N] [--dot] [--no-external-data] [--quiet]\n"
    "                       [--json]\n\n"
    "Prints a model's producer, opset and metadata, inputs, outputs, operators, trainable parameters with their "
    "roles,\n"
    "what a run needs in memory and work, and everything that keeps it from running. That estimate is for the shapes\n"
    "of --shape; else an input's first open dimension is N and any other 1. --dot prints the graph for Graphviz\n"
    "instead. Of a table that hillock tune wrote, prints its device and the problems with another kernel than the\n"
    "predicted one. Needs no device. Exits 65 if the model cannot run.\n\n"
    "example: hillock inspect resnet50.onnx --batch 8\n";

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
    for (size_t i = 0; i < info.metadata_count; i++)
        printf("%-10s %s: %s\n", i ? "" : "metadata", info.metadata[2 * i], info.metadata[2 * i + 1]);
    printf("%-10s", "operators");
    for (size_t i = 0; i < count; i++)
        printf(" %s %zu%s", ops[i].op, ops[i].nodes, i + 1 < count ? "," : "\n");
    printf("%-10s %zu tensors, %s elements\n", "trainable", info.parameters,
           format_count((double)info.parameter_count, number, sizeof number));
    list = hk_model_parameters(m, &count);
    char text[400];
    for (size_t i = 0; i < count && !quiet; i++)
        printf("%-10s %s  %s  %s\n", "", list[i].name, value_text(&list[i], text, sizeof text),
               hk_model_parameter_role(m, i));
    list = hk_model_other_floats(m, &count);
    if (count)
        printf("%-10s %zu other initializers of floats, which train --train-also can name\n", "", count);
    for (size_t i = 0; i < count && !quiet; i++)
        printf("%-10s %s  %s\n", "", list[i].name, value_text(&list[i], text, sizeof text));
}

static void print_neurons(const hk_model *m)
{
    hk_snn_neuron list[64];
    size_t count = 0;
    if (hk_snn_neurons(m, list, sizeof list / sizeof *list, &count) != HK_OK)
        return;
    for (size_t i = 0; i < count && i < sizeof list / sizeof *list; i++) {
        printf("%-10s %s  %s", i ? "" : "neurons", list[i].node, list[i].kind);
        if (list[i].tau > 0)
            printf("  tau %.4g", list[i].tau);
        printf("  threshold %.4g", list[i].v_threshold);
        if (list[i].steps)
            printf("  T = %lld\n", (long long)list[i].steps);
        else
            printf("  single steps\n");
    }
}

static void json_neurons(const hk_model *m)
{
    hk_snn_neuron list[64];
    size_t count = 0;
    if (hk_snn_neurons(m, list, sizeof list / sizeof *list, &count) != HK_OK)
        return;
    json_array(stdout, "neurons");
    for (size_t i = 0; i < count && i < sizeof list / sizeof *list; i++) {
        json_object(stdout, NULL);
        json_string(stdout, "node", list[i].node);
        json_string(stdout, "kind", list[i].kind);
        json_number(stdout, "tau", list[i].tau);
        json_number(stdout, "v_threshold", list[i].v_threshold);
        json_integer(stdout, "steps", (long long)list[i].steps);
        json_object_end(stdout);
    }
    json_array_end(stdout);
}

/* ---- the estimate */

static hk_status estimate(const options *o, hk_model *m, hk_estimate *out)
{
    size_t count = 0;
    const hk_value_info *infos = hk_model_inputs(m, &count);
    hk_value_info *inputs = calloc(count + 1, sizeof *inputs);
    hk_status st = inputs ? HK_OK : HK_STATUS_OUT_OF_MEMORY;
    for (size_t i = 0; i < count && st == HK_OK; i++) {
        inputs[i] = infos[i];
        st = choose_shape(o, &infos[i], &inputs[i].rank, inputs[i].shape);
    }
    if (st == HK_OK && hk_model_estimate(m, inputs, out) != HK_OK)
        fprintf(stderr, "hillock: no estimate for these shapes, give others by --shape: %s\n",
                hk_context_error(o->ctx));
    free(inputs);
    return st;
}

static void print_estimate(const hk_estimate *e)
{
    if (!e->known) {
        printf("%-10s not known for these shapes, or before the inputs' contents decide about others\n", "needs");
        return;
    }
    printf("%-10s weights %.1f MiB, activations %.1f MiB, inputs and outputs %.1f MiB; %.3f GFLOP, %.1f MiB moved, %zu "
           "dispatches%s\n",
           "needs", (double)e->weight_bytes / 0x1p20, (double)e->activation_bytes / 0x1p20,
           (double)e->input_output_bytes / 0x1p20, e->flops * 1e-9, (double)e->moved_bytes / 0x1p20, e->dispatches,
           e->whole ? "" : "; up to the first step of the host");
}

static void json_estimate(const hk_estimate *e)
{
    json_object(stdout, "needs");
    json_bool(stdout, "known", e->known);
    json_bool(stdout, "whole", e->whole);
    json_integer(stdout, "weight_bytes", (long long)e->weight_bytes);
    json_integer(stdout, "activation_bytes", (long long)e->activation_bytes);
    json_integer(stdout, "live_bytes", (long long)e->live_bytes);
    json_integer(stdout, "input_output_bytes", (long long)e->input_output_bytes);
    json_integer(stdout, "moved_bytes", (long long)e->moved_bytes);
    json_number(stdout, "flops", e->flops);
    json_integer(stdout, "dispatches", (long long)e->dispatches);
    json_object_end(stdout);
}

/* ---- Graphviz: nodes by number, edges by value */

static void dot_text(const char *s)
{
    for (; *s; s++) {
        if (*s == '"' || *s == '\\')
            putchar('\\');
        putchar((unsigned char)*s < ' ' ? ' ' : *s);
    }
}

static void dot_terminals(const char *prefix, const char *color, const hk_value_info *list, size_t count)
{
    char text[400];
    for (size_t i = 0; i < count; i++) {
        printf("  %s%zu [shape=box, style=filled, fillcolor=\"%s\", label=\"", prefix, i, color);
        dot_text(list[i].name);
        printf("\\n%s\"];\n", value_text(&list[i], text, sizeof text));
    }
}

/* "n12" for what node 12 defines, "i0" for input 0; "" for constants. Values are unique by name. */
static void dot_source(const hk_model *m, const hk_node_info *nodes, size_t before, const char *name, char out[32])
{
    size_t count = 0;
    const hk_value_info *inputs = hk_model_inputs(m, &count);
    out[0] = '\0';
    for (size_t i = before; i-- > 0;)
        for (size_t k = 0; k < nodes[i].output_count; k++)
            if (nodes[i].outputs[k].name && !strcmp(nodes[i].outputs[k].name, name)) {
                snprintf(out, 32, "n%zu", i);
                return;
            }
    for (size_t i = 0; i < count; i++)
        if (!strcmp(inputs[i].name, name))
            snprintf(out, 32, "i%zu", i);
}

static void dot_edge(const char *from, const char *to, const hk_value_info *v)
{
    char text[400];
    if (*from)
        printf("  %s -> %s [label=\"%s\"];\n", from, to, value_text(v, text, sizeof text));
}

static hk_status print_dot(hk_model *m)
{
    const hk_node_info *nodes = NULL;
    size_t count = 0, terminals = 0;
    char from[32], to[32];
    hk_model_info info;
    hk_status st = hk_model_nodes(m, &nodes, &count);
    if (st != HK_OK)
        return st;
    hk_model_get_info(m, &info);
    printf("digraph \"");
    dot_text(info.graph_name);
    printf("\" {\n  node [shape=ellipse, fontsize=10];\n  edge [fontsize=8];\n");
    const hk_value_info *list = hk_model_inputs(m, &terminals);
    dot_terminals("i", "lightblue", list, terminals);
    list = hk_model_outputs(m, &terminals);
    dot_terminals("o", "lightyellow", list, terminals);
    for (size_t i = 0; i < count; i++) {
        printf("  n%zu [label=\"%s\\n", i, nodes[i].op);
        dot_text(nodes[i].name);
        printf("\"];\n");
        snprintf(to, sizeof to, "n%zu", i);
        for (size_t k = 0; k < nodes[i].input_count; k++) {
            if (!nodes[i].inputs[k].name)
                continue;
            dot_source(m, nodes, i, nodes[i].inputs[k].name, from);
            dot_edge(from, to, &nodes[i].inputs[k]);
        }
    }
    for (size_t i = 0; i < terminals; i++) {
        snprintf(to, sizeof to, "o%zu", i);
        dot_source(m, nodes, count, list[i].name, from);
        dot_edge(from, to, &list[i]);
    }
    printf("}\n");
    return HK_OK;
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

static void json_tensors(const hk_model *m, const char *name, const hk_value_info *list, size_t count, bool roles)
{
    json_array(stdout, name);
    for (size_t i = 0; i < count; i++) {
        json_object(stdout, NULL);
        json_string(stdout, "name", list[i].name);
        json_string(stdout, "dtype", hk_dtype_name(list[i].dtype));
        json_shape(stdout, "shape", list[i].rank < 0 ? 0 : list[i].rank, list[i].shape);
        if (roles)
            json_string(stdout, "role", hk_model_parameter_role(m, i));
        json_object_end(stdout);
    }
    json_array_end(stdout);
}

/* Of what training would drive apart. */
static void warn_of_ties(const hk_lost_tie *ties, size_t count)
{
    for (size_t i = 0; i < count; i++)
        fprintf(stderr,
                "hillock: parameters '%s' and '%s' have the same contents%s: they were probably one in PyTorch (weight "
                "tying), and training drives them apart unless hillock train --tie-matrices makes them one again\n",
                ties[i].kept, ties[i].copy, ties[i].transposed ? ", transposed" : "");
}

static void json_ties(const hk_lost_tie *ties, size_t count)
{
    json_array(stdout, "lost_ties");
    for (size_t i = 0; i < count; i++) {
        json_object(stdout, NULL);
        json_string(stdout, "kept", ties[i].kept);
        json_string(stdout, "copy", ties[i].copy);
        json_bool(stdout, "transposed", ties[i].transposed);
        json_object_end(stdout);
    }
    json_array_end(stdout);
}

static void json_model(const hk_model *m, const hk_estimate *needs, const hk_lost_tie *ties, size_t tie_count)
{
    hk_model_info info;
    size_t count = 0;
    hk_model_get_info(m, &info);
    json_begin(stdout);
    json_string(stdout, "schema", "hillock-inspect-2");
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
    json_tensors(m, "parameters", list, count, true);
    list = hk_model_other_floats(m, &count);
    json_tensors(m, "other_floats", list, count, false);
    json_ties(ties, tie_count);
    json_neurons(m);
    json_object(stdout, "metadata");
    for (size_t i = 0; i < info.metadata_count; i++)
        json_string(stdout, info.metadata[2 * i], info.metadata[2 * i + 1]);
    json_object_end(stdout);
    json_estimate(needs);
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

/* Problems first, for an estimate needs a model that runs. */
static hk_status print_all(const options *o, hk_model *m, size_t *problem_count)
{
    hk_estimate needs = {0};
    hk_model_problems(m, problem_count);
    const hk_lost_tie *ties = NULL;
    size_t tie_count = 0;
    hk_status st = *problem_count ? HK_OK : estimate(o, m, &needs);
    if (st == HK_OK)
        st = hk_model_lost_ties(m, &ties, &tie_count);
    if (st != HK_OK)
        return st;
    warn_of_ties(ties, tie_count);
    if (o->json) {
        json_model(m, &needs, ties, tie_count);
    } else {
        print_model(m, o->quiet);
        print_neurons(m);
        if (!*problem_count)
            print_estimate(&needs);
    }
    return HK_OK;
}

static int run(int argc, char **argv)
{
    static const option_spec specs[] = {{"--no-external-data", false, false},
                                        {"--shape", true, true},
                                        {"--batch", true, false},
                                        {"--dot", false, false},
                                        {0}};
    options o;
    int code = options_parse(&o, &verb_inspect, specs, argc, argv);
    if (code >= 0)
        return code;
    if (o.argument_count != 1) {
        fprintf(stderr, "hillock inspect: one model file is needed; see hillock inspect --help\n");
        return finish_code(&o, EXIT_USAGE);
    }
    if (is_table(o.arguments[0]))
        return inspect_table(&o);
    hk_model *m = NULL;
    size_t count = 0;
    hk_model_params params = {.size = sizeof params, .no_external_data = option_given(&o, "--no-external-data")};
    hk_status st = hk_model_load(o.ctx, o.arguments[0], &params, &m);
    if (st == HK_OK)
        st = hk_model_check(m);
    if (st == HK_OK)
        st = option_given(&o, "--dot") ? print_dot(m) : print_all(&o, m, &count);
    if (st != HK_OK) {
        hk_model_destroy(&m);
        return finish(&o, st);
    }
    const hk_problem *problems = hk_model_problems(m, &count);
    for (size_t i = 0; i < count; i++)
        fprintf(stderr, "hillock: cannot run: node '%s' (%s): %s\n", problems[i].node, problems[i].op,
                problems[i].reason);
    hk_model_destroy(&m);
    return finish_code(&o, count ? 65 : 0);
}

const verb verb_inspect = {"inspect", "what a model holds, and whether it can run", usage, run};
