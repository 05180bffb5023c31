/* hillock convert */
#include <stdlib.h>
#include <string.h>

#include "tools/command/convert.h"
#include "tools/command/train.h"

static const char usage[] =
    "usage: hillock convert MODEL --calibrate PATH --out FILE [--mode mmse|max|99.9%|FLOAT] [--steps T] [options]\n"
    "       [--device D] [--json]\n"
    "       hillock convert MODEL --native --out FILE [--neuron if|lif|plif[,tau=T]] [--steps T] [--reset hard|soft]\n"
    "               [--encode direct|poisson|latency] [--readout rate|count|membrane|last]\n"
    "       hillock convert SPIKING --export onnx|onnx-scan|nir --out FILE [--dt SECONDS] [--approximate]\n\n"
    "Turns a trained network into a spiking one: ReLU and ReLU6 become integrate-and-fire neurons, thresholds come "
    "from\n"
    "samples. Every node's verdict is printed before anything is written. PATH and the options of data are those of\n"
    "hillock train: --labels --label-column --targets --shape --resize --scale --mean --std --max-bad --batch "
    "--threads;\n"
    "--val SHARE with --seed leaves out the part that training held out.\n\n"
    "thresholds  --mode mmse (least squared error; default), max, a percentile such as 99.9%, or a share of the "
    "maximum\n"
    "            such as 0.5;  --per channel|layer (default: channel with mmse, else layer)\n"
    "            --no-bias-calibration  --bias-samples 256\n"
    "network     --steps 16  --delay STEPS (left out of the readout)  --pool exact|avg\n"
    "            --neuron if|lif,tau=T  --reset soft|hard  --scalers (keep weights; a scale before and behind "
    "neurons)\n"
    "            --functional (GELU, LayerNormalization, Softmax, attention on running means: exact, not spike-only)\n"
    "fine-tuning --qcfs LEVELS writes the network with quantised activations (QCFS) and thresholds that are learned;\n"
    "            hillock train it, then convert the result, which needs no --calibrate and few steps\n\n"
    "In the end spikes are compared with the original on the samples of bias calibration.\n"
    "IF with soft reset that starts at half its threshold counts what a quantised ReLU says, so it is the default; a "
    "leak\n"
    "or a hard reset loses charge. MaxPool becomes the difference of maxima of sums: exact, but not spikes alone.\n\n"
    "--native puts neurons in the place of all activations, to be trained by hillock train from where the weights are: "
    "no\n"
    "data, nothing of what the network computed is kept.\n\n"
    "--export writes a spiking network for other programs: onnx (standard operators, each step written out), "
    "onnx-scan\n"
    "(standard operators, steps in Scan), nir (HDF5; hard resets and average pooling alone, so convert with --reset "
    "hard\n"
    "--pool avg). --dt 1e-4: seconds of a step in NIR;  --approximate: soft resets become hard ones there.\n\n"
    "example: hillock convert tests/data/digits/model.onnx --calibrate tests/data/digits --scale 0.0625 --out "
    "snn.onnx\n";

typedef struct conversion {
    training r;
    options o;
    hk_snn_params params;
    bool json, layers, arrays_ended; /* the list of layers has begun; and ended */
} conversion;

/* ---- options */

static bool find_mode(const char *text, hk_snn_params *p)
{
    char *end = NULL;
    p->mode = HK_SNN_MODE_MMSE;
    if (!text || !strcmp(text, "mmse"))
        return true;
    p->mode = HK_SNN_MODE_MAX;
    if (!strcmp(text, "max"))
        return true;
    p->level = strtod(text, &end);
    p->mode = *end == '%' ? HK_SNN_MODE_PERCENTILE : HK_SNN_MODE_SCALE;
    if (end != text && (!*end || !strcmp(end, "%")))
        return true;
    fprintf(stderr,
            "hillock convert: '--mode' is mmse, max, a percentile such as 99.9%% or a share such as 0.5, found "
            "'%s'\n",
            text);
    return false;
}

static bool find_neuron(const char *text, hk_snn_params *p)
{
    char *end = NULL;
    if (!text || !strcmp(text, "if"))
        return true;
    p->tau = !strcmp(text, "lif") ? 2 : !strncmp(text, "lif,tau=", 8) ? strtod(text + 8, &end) : 0;
    if (!strncmp(text, "lif", 3) && (!end || (end != text + 8 && !*end)) && p->tau > 1)
        return true;
    fprintf(stderr, "hillock convert: '--neuron' is if, or lif,tau=T with T above 1, found '%s'\n", text);
    return false;
}

static bool find_params(conversion *c)
{
    static const char *const pools[] = {"exact", "avg", NULL}, *const resets[] = {"soft", "hard", NULL};
    static const char *const grains[] = {"channel", "layer", NULL};
    const options *o = &c->o;
    double steps = 0, delay = 0, samples = 0, levels = 0;
    int pool = 0, reset = 0, grain = 0;
    if (!find_mode(option_value(o, "--mode"), &c->params) || !find_neuron(option_value(o, "--neuron"), &c->params) ||
        !option_word(o, "--pool", pools, &pool) || !option_word(o, "--reset", resets, &reset) ||
        !option_word(o, "--per", grains, &grain) || !option_number(o, "--steps", 1, 65536, 16, &steps) ||
        !option_number(o, "--qcfs", 1, 65536, 0, &levels) || !option_number(o, "--delay", 0, 65535, 0, &delay) ||
        !option_number(o, "--bias-samples", 1, 1e9, 256, &samples))
        return false;
    if (option_given(o, "--per"))
        c->params.grain = grain ? HK_SNN_GRAIN_LAYER : HK_SNN_GRAIN_CHANNEL;
    c->params.average_pool = pool;
    c->params.hard_reset = reset;
    c->params.steps = (int64_t)steps;
    c->params.delay = (int64_t)delay;
    c->params.bias_samples = (int64_t)samples;
    c->params.qcfs_levels = (int64_t)levels;
    c->params.functional = option_given(o, "--functional");
    c->params.scalers = option_given(o, "--scalers");
    c->params.no_bias_calibration = option_given(o, "--no-bias-calibration");
    return true;
}

/* ---- reports */

static void report_node(void *user, const hk_snn_node *n)
{
    conversion *c = user;
    print_node_verdict(&c->o, n);
}

static void report_layer(void *user, const hk_snn_layer *l)
{
    conversion *c = user;
    float least = l->thresholds[0], most = l->thresholds[0];
    for (size_t i = 1; i < l->threshold_count; i++) {
        least = l->thresholds[i] < least ? l->thresholds[i] : least;
        most = l->thresholds[i] > most ? l->thresholds[i] : most;
    }
    if (!c->json) {
        if (!c->layers)
            printf("\n%-28s %10s %24s %6s %12s %12s %8s\n", "neurons", "activation", "threshold", "dead", "mean",
                   "of spikes", "error");
        printf("%-28s %10.4g %10.4g .. %10.4g %6zu %12.5g %12.5g %8.4f\n", l->node, l->greatest, (double)least,
               (double)most, l->dead, l->ann_mean, l->snn_mean, l->error);
        c->layers = true;
        return;
    }
    if (!c->layers) {
        json_array_end(stdout);
        json_array(stdout, "layers");
    }
    c->layers = true;
    json_object(stdout, NULL);
    json_string(stdout, "node", l->node);
    json_number(stdout, "greatest", l->greatest);
    json_integer(stdout, "dead", (long long)l->dead);
    json_number(stdout, "ann_mean", l->ann_mean);
    json_number(stdout, "snn_mean", l->snn_mean);
    json_number(stdout, "error", l->error);
    json_array(stdout, "thresholds");
    for (size_t i = 0; i < l->threshold_count; i++)
        json_number(stdout, NULL, (double)l->thresholds[i]);
    json_array_end(stdout);
    json_object_end(stdout);
}

static void report_fidelity(void *user, const hk_snn_fidelity *f)
{
    conversion *c = user;
    if (c->json) {
        json_array_end(stdout);
        json_object(stdout, "fidelity");
        json_integer(stdout, "samples", (long long)f->samples);
        json_number(stdout, "error", f->error);
        json_number(stdout, "same_class", f->same_class);
        json_object_end(stdout);
        c->arrays_ended = true;
        return;
    }
    printf("\non %lld samples, beside the original: error of the output %.4f", (long long)f->samples, f->error);
    if (f->same_class >= 0)
        printf(", same class on %.2f %%", 100 * f->same_class);
    putchar('\n');
}

/* ---- the verb */

static hk_status open_all(conversion *c)
{
    training *r = &c->r;
    if (r->s.data) {
        hk_status st = evaluation_open(r);
        c->params.loader = r->loader;
        return st;
    }
    hk_status st = hk_model_load(c->o.ctx, r->s.model, NULL, &r->model);
    return st == HK_OK ? open_device(&c->o, &r->dev) : st;
}

static hk_status convert(conversion *c, const char *path)
{
    hk_model *made = NULL;
    c->params.size = sizeof c->params;
    c->params.report = report_node;
    c->params.layer = report_layer;
    c->params.fidelity = report_fidelity;
    c->params.user = c;
    hk_status st = open_all(c);
    if (st != HK_OK)
        return st;
    if (c->json) {
        json_begin(stdout);
        json_string(stdout, "schema", "hillock-convert-1");
        json_integer(stdout, "steps", (long long)c->params.steps);
        json_array(stdout, "nodes");
    }
    st = hk_snn_convert(c->r.dev, c->r.model, &c->params, &made);
    if (st == HK_OK)
        st = hk_model_save(made, path);
    if (c->json) {
        if (!c->arrays_ended)
            json_array_end(stdout);
        json_bool(stdout, "written", st == HK_OK);
        json_end(stdout);
    } else if (st == HK_OK && c->params.qcfs_levels) {
        printf("\n%s: QCFS of %lld levels; next: hillock train %s --data PATH --out DIR\n", path,
               (long long)c->params.qcfs_levels, path);
    } else if (st == HK_OK) {
        printf("\n%s: %lld steps\n", path, (long long)c->params.steps);
    }
    hk_model_destroy(&made);
    return st;
}

static int run(int argc, char **argv)
{
    static const option_spec specs[] = {{"--calibrate", true, false},
                                        {"--out", true, false},
                                        {"--export", true, false},
                                        {"--dt", true, false},
                                        {"--approximate", false, false},
                                        {"--mode", true, false},
                                        {"--per", true, false},
                                        {"--steps", true, false},
                                        {"--delay", true, false},
                                        {"--pool", true, false},
                                        {"--neuron", true, false},
                                        {"--reset", true, false},
                                        {"--scalers", false, false},
                                        {"--no-bias-calibration", false, false},
                                        {"--bias-samples", true, false},
                                        {"--qcfs", true, false},
                                        {"--functional", false, false},
                                        {"--labels", true, false},
                                        {"--label-column", true, false},
                                        {"--targets", false, false},
                                        {"--shape", true, true},
                                        {"--resize", true, false},
                                        {"--scale", true, false},
                                        {"--mean", true, true},
                                        {"--std", true, true},
                                        {"--max-bad", true, false},
                                        {"--event-bins", true, false},
                                        {"--batch", true, false},
                                        {"--threads", true, false},
                                        {"--val", true, false},
                                        {"--seed", true, false},
                                        {"--native", false, false},
                                        {"--encode", true, false},
                                        {"--readout", true, false},
                                        {0}};
    static conversion c;
    int code = options_parse(&c.o, &verb_convert, specs, argc, argv);
    if (code >= 0)
        return code;
    if (option_given(&c.o, "--export") && c.o.argument_count == 1 && option_given(&c.o, "--out"))
        return convert_export(&c.o, c.o.arguments[0], option_value(&c.o, "--out"));
    if (option_given(&c.o, "--native") && c.o.argument_count == 1 && option_given(&c.o, "--out"))
        return convert_native(&c.o, c.o.arguments[0], option_value(&c.o, "--out"));
    c.r.o = &c.o;
    c.json = c.o.json;
    code = find_params(&c) ? settings_read(&c.r.s, &c.o) : EXIT_USAGE;
    if (code >= 0)
        return finish_code(&c.o, code);
    const char *path = option_value(&c.o, "--out");
    c.r.s.data = option_value(&c.o, "--calibrate");
    if (c.o.argument_count != 1 || !path) {
        fprintf(stderr, "hillock convert: one model file and --out are needed; see hillock convert --help\n");
        return finish_code(&c.o, EXIT_USAGE);
    }
    c.r.s.model = c.o.arguments[0];
    hk_status st = convert(&c, path);
    if (st != HK_OK)
        print_error(&c.o);
    training_close(&c.r);
    return finish_code(&c.o, hk_status_exit_code(st));
}

const verb verb_convert = {"convert", "turn a trained network into a spiking one", usage, run};
