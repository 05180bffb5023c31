/* hillock convert --export */
#include <string.h>

#include "tools/command/convert.h"

typedef struct format {
    const char *name, *reads;
    hk_snn_format format;
} format;

static const format formats[] = {
    {"onnx", "ONNX of standard operators, each step written out", HK_SNN_FORMAT_ONNX},
    {"onnx-scan", "ONNX of standard operators, steps in Scan", HK_SNN_FORMAT_ONNX_SCAN},
    {"nir", "NIR", HK_SNN_FORMAT_NIR},
};
enum { FORMATS = sizeof formats / sizeof *formats };

void print_node_verdict(void *user, const hk_snn_node *n)
{
    const options *o = user;
    if (!o->json) {
        printf("%-12s %-18s %-28s %s\n", hk_snn_verdict_text(n->verdict), n->op, n->node, n->reason);
        return;
    }
    json_object(stdout, NULL);
    json_string(stdout, "node", n->node);
    json_string(stdout, "op", n->op);
    json_string(stdout, "verdict", hk_snn_verdict_text(n->verdict));
    json_string(stdout, "reason", n->reason);
    json_bool(stdout, "spike_only", n->spike_only);
    json_object_end(stdout);
}

static const format *find_format(const options *o)
{
    const char *name = option_value(o, "--export");
    for (size_t i = 0; i < FORMATS; i++)
        if (!strcmp(formats[i].name, name))
            return &formats[i];
    fprintf(stderr, "hillock convert: '--export' is onnx, onnx-scan or nir, found '%s'\n", name);
    return NULL;
}

static hk_status export_model(const options *o, const char *model, const hk_snn_export_params *params, const char *path,
                              hk_snn_info *info)
{
    hk_model *m = NULL;
    hk_status st = hk_model_load(o->ctx, model, NULL, &m);
    if (st == HK_OK) {
        hk_snn_get_info(m, info);
        st = hk_snn_export(m, params, path);
    }
    hk_model_destroy(&m);
    return st;
}

int convert_export(options *o, const char *model, const char *path)
{
    const format *f = find_format(o);
    hk_snn_info info = {0};
    hk_snn_export_params params = {.size = sizeof params,
                                   .approximate = option_given(o, "--approximate"),
                                   .report = print_node_verdict,
                                   .user = o};
    if (!f || !option_number(o, "--dt", 1e-9, 1, 1e-4, &params.dt))
        return finish_code(o, EXIT_USAGE);
    params.format = f->format;
    if (o->json) {
        json_begin(stdout);
        json_string(stdout, "schema", "hillock-convert-export-1");
        json_string(stdout, "format", f->name);
        json_array(stdout, "nodes");
    }
    hk_status st = export_model(o, model, &params, path, &info);
    if (o->json) {
        json_array_end(stdout);
        json_integer(stdout, "steps", (long long)info.steps);
        json_bool(stdout, "written", st == HK_OK);
        json_end(stdout);
    } else if (st == HK_OK) {
        printf("%s: %s, %lld steps\n", path, f->reads, (long long)info.steps);
    }
    return finish(o, st);
}
