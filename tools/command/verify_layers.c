/* hillock verify --layers: which node is wrong first, or which pass. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/command/verify.h"

typedef struct layers {
    verify_options *v;
    const hk_model *model;
    const hk_value_info *infos;
    hk_tensor *inputs;
    size_t input_count;
    bool all;
    size_t shown;
    hk_node_check worst; /* names are the model's */
} layers;

/* ---- printing */

static void place_of(const hk_value_info *v, int64_t index, char *out, size_t bytes)
{
    int64_t place[HK_MAX_RANK] = {0};
    for (int32_t d = v->rank; d-- > 0;) {
        int64_t extent = v->shape[d] > 0 ? v->shape[d] : 1;
        place[d] = index % extent;
        index /= extent;
    }
    int n = snprintf(out, bytes, "[");
    for (int32_t d = 0; d < v->rank; d++)
        n += snprintf(out + n, bytes - (size_t)n, "%s%lld", d ? "," : "", (long long)place[d]);
    snprintf(out + n, bytes - (size_t)n, "]");
}

static void print_wrong(const hk_node_check *y, bool first)
{
    char text[400], place[200];
    place_of(&y->value, y->worst, place, sizeof place);
    printf("%s node '%s' (%s): '%s' %s, relative norm %.3g, largest %.3g\n", first ? "first wrong" : "wrong", y->node,
           y->op, y->value.name, value_text(&y->value, text, sizeof text), y->norm, y->largest);
    if (y->worst >= 0)
        printf("    at %s the device has %.9g, the host evaluator %.9g\n", place, y->device, y->host);
    for (size_t i = 0; i < y->operand_count && first; i++) {
        const hk_operand_stats *s = &y->operands[i];
        printf("    operand %zu '%s' %s: %.6g to %.6g, mean %.6g, deviation %.6g", i, s->value.name,
               value_text(&s->value, text, sizeof text), s->least, s->most, s->mean, s->deviation);
        printf(s->nans || s->infinities ? ", %lld NaN, %lld infinite\n" : "\n", (long long)s->nans,
               (long long)s->infinities);
    }
}

static void json_layer(const hk_node_check *y)
{
    char place[200];
    place_of(&y->value, y->worst, place, sizeof place);
    json_object(stdout, NULL);
    json_string(stdout, "node", y->node);
    json_string(stdout, "op", y->op);
    json_string(stdout, "value", y->value.name);
    json_string(stdout, "dtype", hk_dtype_name(y->value.dtype));
    json_shape(stdout, "shape", y->value.rank, y->value.shape);
    json_bool(stdout, "ok", !y->wrong);
    json_number(stdout, "norm", y->norm);
    json_number(stdout, "largest", y->largest);
    if (y->worst >= 0) {
        json_string(stdout, "worst", place);
        json_number(stdout, "device", y->device);
        json_number(stdout, "host", y->host);
    }
    json_array(stdout, "operands");
    for (size_t i = 0; i < y->operand_count; i++) {
        const hk_operand_stats *s = &y->operands[i];
        json_object(stdout, NULL);
        json_string(stdout, "value", s->value.name);
        json_shape(stdout, "shape", s->value.rank, s->value.shape);
        json_number(stdout, "least", s->least);
        json_number(stdout, "most", s->most);
        json_number(stdout, "mean", s->mean);
        json_number(stdout, "deviation", s->deviation);
        json_integer(stdout, "nans", (long long)s->nans);
        json_integer(stdout, "infinities", (long long)s->infinities);
        json_object_end(stdout);
    }
    json_array_end(stdout);
    json_object_end(stdout);
}

static void report(void *user, const hk_node_check *y)
{
    layers *l = user;
    if (!l->worst.node || y->norm > l->worst.norm)
        l->worst = *y;
    if (l->v->o->json && (y->wrong || l->all))
        json_layer(y);
    else if (y->wrong && (l->all || !l->shown))
        print_wrong(y, !l->shown);
    else if (l->all && !l->v->o->json)
        printf("ok   %-24s %.3g '%s'\n", y->op, y->norm, y->node);
    l->shown += y->wrong;
}

/* ---- inputs */

static hk_status take_input(void *user, const char *name, hk_tensor *t)
{
    layers *l = user;
    for (size_t i = 0; i < l->input_count; i++)
        if (!strcmp(l->infos[i].name, name)) {
            hk_tensor_release(&l->inputs[i]);
            l->inputs[i] = *t;
            *t = (hk_tensor){0};
            return HK_OK;
        }
    fprintf(stderr, "hillock verify: the model has no input '%s'\n", name);
    return HK_STATUS_USAGE;
}

static int failed(const layers *l, hk_status st)
{
    print_error(l->v->o);
    return hk_status_exit_code(st);
}

static int load_inputs(layers *l, const char *folder, int set)
{
    for (size_t i = 0; i < l->input_count && folder; i++) {
        char path[1200];
        snprintf(path, sizeof path, "%s/test_data_set_%d/input_%zu.pb", folder, set, i);
        hk_status st = access(path, R_OK) == 0 ? hk_tensor_load(l->v->o->ctx, path, &l->inputs[i]) : HK_OK;
        if (st != HK_OK)
            return failed(l, st);
    }
    hk_status st = each_input(l->v->o, l->model, take_input, l);
    if (st != HK_OK)
        return failed(l, st);
    for (size_t i = 0; i < l->input_count; i++)
        if (!l->inputs[i].data) {
            fprintf(stderr, "hillock verify: input '%s' has no contents: give --input %s=FILE\n", l->infos[i].name,
                    l->infos[i].name);
            return EXIT_USAGE;
        }
    return 0;
}

/* ---- passes: outputs with all of them, and with one of them less, against those without any */

static hk_status run_outputs(const layers *l, uint32_t off, hk_tensor *out)
{
    size_t count = 0;
    hk_session *s = NULL;
    const hk_value_info *outputs = hk_model_outputs(l->model, &count);
    hk_session_params params = {.size = sizeof params, .precision = l->v->precision, .passes_off = off};
    hk_status st = hk_session_create(l->v->dev, l->model, &params, &s);
    for (size_t i = 0; i < l->input_count && st == HK_OK; i++)
        st = hk_session_write(s, l->infos[i].name, &l->inputs[i]);
    if (st == HK_OK)
        st = hk_session_run(s);
    for (size_t i = 0; i < count && st == HK_OK; i++)
        st = hk_session_read(s, outputs[i].name, &out[i]);
    hk_session_destroy(&s);
    return st;
}

static hk_status compare_passes(const layers *l, uint32_t off, const hk_tensor *want, double *norm)
{
    size_t count = 0;
    hk_model_outputs(l->model, &count);
    hk_tensor *got = calloc(count + 1, sizeof *got);
    hk_status st = got ? run_outputs(l, off, got) : HK_STATUS_OUT_OF_MEMORY;
    *norm = 0;
    for (size_t i = 0; i < count && st == HK_OK; i++) {
        comparison c = compare(&got[i], &want[i], l->v->rtol, l->v->atol, l->v->rel);
        if (!c.same_type || !c.close)
            *norm = fmax(*norm, c.same_type ? c.norm : INFINITY);
    }
    for (size_t i = 0; got && i < count; i++)
        hk_tensor_release(&got[i]);
    free(got);
    return st;
}

static hk_status find_pass(const layers *l, const hk_tensor *want, const char **culprit)
{
    static const char *const names[] = {
#define HK_X(name, text) text,
        HK_PASS_MAP(HK_X)
#undef HK_X
    };
    double norm = 0;
    *culprit = NULL;
    hk_status st = compare_passes(l, 0, want, &norm);
    if (st != HK_OK || norm == 0)
        return st;
    *culprit = "a combination of passes";
    for (int i = 0; i < HK_PASS_COUNT && st == HK_OK; i++) {
        st = compare_passes(l, 1u << i, want, &norm);
        if (st == HK_OK && norm == 0) {
            *culprit = names[i];
            return HK_OK;
        }
    }
    return st;
}

static hk_status check_passes(const layers *l, const char **culprit)
{
    size_t count = 0;
    hk_model_outputs(l->model, &count);
    hk_tensor *want = calloc(count + 1, sizeof *want);
    hk_status st = want ? run_outputs(l, (1u << HK_PASS_COUNT) - 1, want) : HK_STATUS_OUT_OF_MEMORY;
    if (st == HK_OK)
        st = find_pass(l, want, culprit);
    for (size_t i = 0; want && i < count; i++)
        hk_tensor_release(&want[i]);
    free(want);
    return st;
}

/* ---- the whole */

static void print_end(const layers *l, const hk_layers_result *r, const char *culprit)
{
    if (l->v->o->json) {
        json_array_end(stdout);
        json_integer(stdout, "compared", (long long)r->compared);
        json_integer(stdout, "wrong", (long long)r->wrong);
        json_string(stdout, "pass", culprit ? culprit : "");
        json_end(stdout);
        return;
    }
    printf("%zu values compared, %zu wrong", r->compared, r->wrong);
    if (l->worst.node)
        printf("; the worst: %.3g, node '%s' (%s)", l->worst.norm, l->worst.node, l->worst.op);
    printf(culprit ? "\nwith passes the outputs differ; at fault: %s\n" : "\nwith passes the outputs agree\n", culprit);
}

static hk_status run_layers(layers *l)
{
    hk_layers_params params = {
        .size = sizeof params, .bound = l->v->rel, .precision = l->v->precision, .report = report, .user = l};
    hk_layers_result result = {0};
    const char *culprit = NULL;
    hk_status st = open_device(l->v->o, &l->v->dev);
    if (st != HK_OK)
        return st;
    if (l->v->o->json) {
        json_begin(stdout);
        json_string(stdout, "schema", "hillock-verify-layers-1");
        json_string(stdout, "device", hk_device_get_info(l->v->dev)->name);
        json_array(stdout, "values");
    }
    st = hk_verify_layers(l->v->dev, l->model, l->inputs, l->input_count, &params, &result);
    hk_status passes = st == HK_OK ? check_passes(l, &culprit) : st;
    if (l->v->o->json || st == HK_OK || st == HK_STATUS_MISMATCH)
        print_end(l, &result, culprit);
    return st == HK_OK && passes == HK_OK && culprit ? HK_STATUS_MISMATCH : passes;
}

int verify_layers(verify_options *v)
{
    options *o = v->o;
    double set = 0;
    layers l = {.v = v, .all = option_given(o, "--all")};
    hk_model *m = NULL;
    char path[1200];
    if (o->argument_count != 1 || !option_number(o, "--set", 0, 1e6, 0, &set)) {
        fprintf(stderr, "hillock verify: --layers takes one folder or model file; see hillock verify --help\n");
        return finish_code(o, EXIT_USAGE);
    }
    snprintf(path, sizeof path, "%s/model.onnx", o->arguments[0]);
    bool folder = access(path, R_OK) == 0;
    hk_status st = hk_model_load(o->ctx, folder ? path : o->arguments[0], NULL, &m);
    if (st != HK_OK)
        return finish(o, st);
    l.model = m;
    l.infos = hk_model_inputs(m, &l.input_count);
    l.inputs = calloc(l.input_count + 1, sizeof *l.inputs);
    int code = l.inputs ? load_inputs(&l, folder ? o->arguments[0] : NULL, (int)set) : 71;
    st = code ? HK_OK : run_layers(&l);
    for (size_t i = 0; l.inputs && i < l.input_count; i++)
        hk_tensor_release(&l.inputs[i]);
    free(l.inputs);
    hk_device_close(&v->dev);
    hk_model_destroy(&m);
    return code ? finish_code(o, code) : finish(o, st);
}
