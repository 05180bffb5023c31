/* hillock convert --native: neurons in place of activations, to be trained. */
#include <stdlib.h>
#include <string.h>

#include "tools/command/convert.h"

typedef struct native {
    const options *o;
    hk_layer neuron;
    hk_snn_native_params params;
} native;

/* if, lif or plif, the last two with tau=T. */
static bool find_neuron(const char *text, hk_layer *l)
{
    static const struct {
        const char *name;
        hk_layer_kind kind;
    } kinds[] = {{"if", HK_LAYER_IF}, {"lif", HK_LAYER_LIF}, {"plif", HK_LAYER_PARAMETRIC_LIF}};
    const char *given = text ? text : "lif", *comma = strchr(given, ',');
    size_t length = comma ? (size_t)(comma - given) : strlen(given);
    char *end = NULL;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strlen(kinds[i].name) != length || strncmp(kinds[i].name, given, length) != 0)
            continue;
        l->kind = kinds[i].kind;
        if (!comma)
            return true;
        l->tau = !strncmp(comma, ",tau=", 5) ? strtof(comma + 5, &end) : 0;
        if (i && end && end != comma + 5 && !*end && l->tau > 1)
            return true;
    }
    fprintf(stderr,
            "hillock convert: '--neuron' is if, lif or plif, the last two also with ,tau=T above 1; found '%s'\n",
            given);
    return false;
}

static bool find_params(native *n)
{
    static const char *const encodings[] = {"direct", "poisson", "latency", NULL};
    static const char *const readouts[] = {"rate", "count", "membrane", "last", NULL};
    static const char *const resets[] = {"hard", "soft", NULL};
    int encoding = 0, readout = 0, reset = 0;
    double steps = 0;
    if (!find_neuron(option_value(n->o, "--neuron"), &n->neuron) ||
        !option_word(n->o, "--encode", encodings, &encoding) || !option_word(n->o, "--readout", readouts, &readout) ||
        !option_word(n->o, "--reset", resets, &reset) || !option_number(n->o, "--steps", 1, 65536, 16, &steps))
        return false;
    n->neuron.soft_reset = reset == 1;
    n->params.steps = (int64_t)steps;
    n->params.encoding = (hk_snn_encoding)(HK_SNN_ENCODE_DIRECT + encoding);
    n->params.readout = (hk_snn_readout)(HK_SNN_READ_RATE + readout);
    n->params.neuron = &n->neuron;
    return true;
}

static hk_status make(native *n, const char *model, const char *path)
{
    hk_model *m = NULL, *made = NULL;
    hk_status st = hk_model_load(n->o->ctx, model, NULL, &m);
    if (st != HK_OK)
        return st;
    if (n->o->json) {
        json_begin(stdout);
        json_string(stdout, "schema", "hillock-convert-native-1");
        json_integer(stdout, "steps", (long long)n->params.steps);
        json_array(stdout, "nodes");
    }
    st = hk_snn_native(m, &n->params, &made);
    if (st == HK_OK)
        st = hk_model_save(made, path);
    if (n->o->json) {
        json_array_end(stdout);
        json_bool(stdout, "written", st == HK_OK);
        json_end(stdout);
    } else if (st == HK_OK) {
        printf("\n%s: %lld steps; next: hillock train %s --data PATH --out DIR\n", path, (long long)n->params.steps,
               path);
    }
    hk_model_destroy(&made);
    hk_model_destroy(&m);
    return st;
}

int convert_native(options *o, const char *model, const char *path)
{
    native n = {.o = o, .params = {.size = sizeof n.params, .report = print_node_verdict, .user = o}};
    if (!find_params(&n))
        return finish_code(o, EXIT_USAGE);
    hk_status st = make(&n, model, path);
    if (st != HK_OK)
        print_error(o);
    return finish_code(o, hk_status_exit_code(st));
}
