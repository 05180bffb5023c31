/* hillock run */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "tools/command/command.h"

static const char usage[] =
    "usage: hillock run MODEL --input NAME=FILE ... --output-dir DIR [--precision strict|high|fast] [--tuned TABLE]\n"
    "                   [--deterministic] [--device D] [--max-memory 2G] [--json]\n\n"
    "Runs a model once. Inputs are .npy or ONNX TensorProto .pb files; floats of one size become those that the model\n"
    "takes, and integers too. Outputs become DIR/NAME.npy ('/' in a name becomes '_'). With --json, prints for every\n"
    "node where it ran (device, host, view) and with which kernel. --tuned takes kernels from a table that hillock "
    "tune\n"
    "wrote, or from the device's own (--tuned device); --deterministic ignores it.\n\n"
    "example: hillock run digits.onnx --input image=x.npy --output-dir out\n";

static hk_status write_input(void *session, const char *name, hk_tensor *t)
{
    return hk_session_write(session, name, t);
}

static hk_status save_outputs(options *o, hk_session *s, const hk_model *m, const char *folder)
{
    size_t count = 0;
    const hk_value_info *outputs = hk_model_outputs(m, &count);
    for (size_t i = 0; i < count; i++) {
        char file[256], path[1024];
        hk_tensor t = {0};
        hk_status st = hk_session_read(s, outputs[i].name, &t);
        file_name_of(outputs[i].name, file, sizeof file);
        snprintf(path, sizeof path, "%s/%s.npy", folder, file);
        if (st == HK_OK)
            st = hk_tensor_save(o->ctx, &t, path);
        if (st == HK_OK && !o->json && !o->quiet) {
            hk_value_info v = outputs[i];
            char text[400];
            v.dtype = t.dtype;
            v.rank = t.rank;
            memcpy(v.shape, t.shape, sizeof v.shape);
            printf("%s  %s -> %s\n", v.name, value_text(&v, text, sizeof text), path);
        }
        hk_tensor_release(&t);
        if (st != HK_OK)
            return st;
    }
    return HK_OK;
}

static void print_plan(const hk_plan_info *p, const hk_device_info *d)
{
    json_begin(stdout);
    json_string(stdout, "schema", "hillock-run-1");
    json_string(stdout, "device", d->name);
    json_integer(stdout, "segments", (long long)p->segments);
    json_integer(stdout, "dispatches", (long long)p->dispatches);
    json_integer(stdout, "groups", (long long)p->groups);
    json_integer(stdout, "activation_bytes", (long long)p->activation_bytes);
    json_integer(stdout, "live_bytes", (long long)p->live_bytes);
    json_integer(stdout, "weight_bytes", (long long)p->weight_bytes);
    json_array(stdout, "nodes");
    for (size_t i = 0; i < p->row_count; i++) {
        json_object(stdout, NULL);
        json_string(stdout, "node", p->rows[i].node);
        json_string(stdout, "op", p->rows[i].op);
        json_string(stdout, "where", p->rows[i].where);
        json_string(stdout, "kernel", p->rows[i].kernel);
        json_bool(stdout, "tuned", p->rows[i].tuned);
        json_integer(stdout, "group", p->rows[i].group);
        json_object_end(stdout);
    }
    json_array_end(stdout);
    json_end(stdout);
}

static hk_status make_folder(const options *o, const char *folder)
{
    (void)o;
    if (mkdir(folder, 0777) == 0 || errno == EEXIST)
        return HK_OK;
    fprintf(stderr, "hillock run: folder '%s' cannot be created: %s\n", folder, strerror(errno));
    return HK_STATUS_CANNOT_CREATE;
}

static hk_status run_model(options *o, const char *folder, hk_precision precision)
{
    hk_device *dev = NULL;
    hk_model *m = NULL;
    hk_session *s = NULL;
    hk_plan_info plan;
    hk_session_params params = {.size = sizeof params, .precision = precision};
    option_tuned(o, &params);
    hk_status st = hk_model_load(o->ctx, o->arguments[0], NULL, &m);
    if (st == HK_OK)
        st = open_device(o, &dev);
    if (st == HK_OK)
        st = hk_session_create(dev, m, &params, &s);
    if (st == HK_OK)
        st = each_input(o, m, write_input, s);
    if (st == HK_OK)
        st = hk_session_run(s);
    if (st == HK_OK)
        st = save_outputs(o, s, m, folder);
    if (st == HK_OK && o->json && (st = hk_session_get_plan(s, &plan)) == HK_OK)
        print_plan(&plan, hk_device_get_info(dev));
    hk_session_destroy(&s);
    hk_device_close(&dev);
    hk_model_destroy(&m);
    return st;
}

static int run(int argc, char **argv)
{
    static const option_spec specs[] = {{"--input", true, true},           {"--output-dir", true, false},
                                        {"--precision", true, false},      {"--tuned", true, false},
                                        {"--deterministic", false, false}, {0}};
    options o;
    hk_precision precision;
    int code = options_parse(&o, &verb_run, specs, argc, argv);
    if (code >= 0)
        return code;
    const char *folder = option_value(&o, "--output-dir");
    if (o.argument_count != 1 || !folder) {
        fprintf(stderr, "hillock run: one model file and --output-dir are needed; see hillock run --help\n");
        return finish_code(&o, EXIT_USAGE);
    }
    if (!option_precision(&o, &precision))
        return finish_code(&o, EXIT_USAGE);
    hk_status st = make_folder(&o, folder);
    return st == HK_STATUS_CANNOT_CREATE ? finish_code(&o, 73) : finish(&o, run_model(&o, folder, precision));
}

const verb verb_run = {"run", "run a model once on given inputs", usage, run};
