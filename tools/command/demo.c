/* hillock demo: the digits classifier that PyTorch trained, on its real test images. */
#include <stdlib.h>
#include <string.h>

#include "tools/command/demo.h"

static const char usage[] =
    "usage: hillock demo [--data FOLDER] [--five MODEL] [--export FILE] [--device D] [--json]\n\n"
    "Loads a small convolutional classifier that PyTorch trained on 1,437 handwritten digits and exported, compares "
    "its\n"
    "outputs with PyTorch's, classifies the 360 test images, and times batches. Then a model that PyTorch trained on\n"
    "the digits 0 to 4 alone gets a new last layer and learns all ten; --export keeps it. In the end the classifier\n"
    "becomes a spiking network. FOLDER holds model.onnx, the IDX files and test_data_set_0; default: "
    "tests/data/digits.\n"
    "MODEL: FOLDER with five_digits/model.onnx beside it.\n\n"
    "example: hillock demo\n";

#define TEST_FIRST 1437 /* the images before it trained the model */

typedef struct demo {
    options *o;
    const char *folder;
    hk_device *dev;
    hk_model *model;
    hk_session *session;
    unsigned char *images, *labels; /* the whole files */
    size_t count;                   /* of images */
    double load_seconds, first_seconds, accuracy, images_per_second;
    comparison outputs;
    tune_result tuned;
    spike_result spiking;
} demo;

/* An IDX file of unsigned bytes: magic 0x0000080D with D dimensions, big-endian sizes, data. */
static unsigned char *read_idx(const demo *d, const char *name, int rank, size_t *count)
{
    char path[1024];
    unsigned char header[16];
    snprintf(path, sizeof path, "%s/%s", d->folder, name);
    FILE *f = fopen(path, "rb");
    size_t bytes = 1, want = 4 + 4 * (size_t)rank;
    if (!f) {
        fprintf(stderr, "hillock demo: '%s' cannot be opened; --data names the folder that holds it\n", path);
        return NULL;
    }
    unsigned char *data = NULL;
    if (fread(header, 1, want, f) == want && header[2] == 8 && header[3] == rank) {
        for (int i = 0; i < rank; i++) {
            const unsigned char *s = header + 4 + 4 * i;
            size_t size = (size_t)s[0] << 24 | (size_t)s[1] << 16 | (size_t)s[2] << 8 | s[3];
            bytes = size < 1u << 20 ? bytes * size : 0;
            if (i == 0)
                *count = size;
        }
        data = bytes && bytes < 1u << 28 ? malloc(bytes) : NULL;
    }
    if (data && fread(data, 1, bytes, f) != bytes) {
        free(data);
        data = NULL;
    }
    fclose(f);
    if (!data)
        fprintf(stderr, "hillock demo: '%s' is no IDX file of bytes with %d dimensions\n", path, rank);
    return data;
}

static hk_status load(demo *d)
{
    char path[1024];
    double start = now_seconds();
    snprintf(path, sizeof path, "%s/model.onnx", d->folder);
    hk_status st = open_device(d->o, &d->dev);
    if (st == HK_OK)
        st = hk_model_load(d->o->ctx, path, NULL, &d->model);
    if (st == HK_OK)
        st = hk_session_create(d->dev, d->model, NULL, &d->session);
    d->load_seconds = now_seconds() - start;
    return st;
}

static const char *input_name(const demo *d)
{
    size_t count = 0;
    return hk_model_inputs(d->model, &count)[0].name;
}

static const char *output_name(const demo *d)
{
    size_t count = 0;
    return hk_model_outputs(d->model, &count)[0].name;
}

static hk_status verify(demo *d)
{
    char path[1024];
    hk_tensor x = {0}, want = {0}, got = {0};
    snprintf(path, sizeof path, "%s/test_data_set_0/input_0.pb", d->folder);
    hk_status st = hk_tensor_load(d->o->ctx, path, &x);
    snprintf(path, sizeof path, "%s/test_data_set_0/output_0.pb", d->folder);
    if (st == HK_OK)
        st = hk_tensor_load(d->o->ctx, path, &want);
    if (st == HK_OK)
        st = hk_session_write(d->session, input_name(d), &x);
    double start = now_seconds();
    if (st == HK_OK)
        st = hk_session_run(d->session);
    d->first_seconds = now_seconds() - start;
    if (st == HK_OK)
        st = hk_session_read(d->session, output_name(d), &got);
    if (st == HK_OK)
        d->outputs = compare(&got, &want, 0, 0, 5e-6);
    hk_tensor_release(&x);
    hk_tensor_release(&want);
    hk_tensor_release(&got);
    return st;
}

double share_right(const hk_tensor *scores, const unsigned char *labels)
{
    int64_t n = scores->shape[0], right = 0;
    for (int64_t i = 0; i < n; i++)
        right += largest_in_row(scores, i) == labels[i];
    return (double)right / (double)n;
}

/* From the image files, not from the stored batch: classify the test images and count the right ones. */
static hk_status classify(demo *d)
{
    size_t n = d->count - TEST_FIRST;
    float *x = malloc(n * 64 * sizeof *x);
    if (!x)
        return HK_STATUS_OUT_OF_MEMORY;
    for (size_t i = 0; i < n * 64; i++)
        x[i] = (float)d->images[TEST_FIRST * 64 + i] / 16.0f;
    hk_tensor batch = {.data = x, .dtype = HK_FLOAT32, .rank = 4, .shape = {(int64_t)n, 1, 8, 8}}, logits = {0};
    hk_status st = hk_session_write(d->session, input_name(d), &batch);
    if (st == HK_OK)
        st = hk_session_run(d->session);
    if (st == HK_OK)
        st = hk_session_read(d->session, output_name(d), &logits);
    if (st == HK_OK)
        d->accuracy = share_right(&logits, d->labels + TEST_FIRST);
    double start = now_seconds();
    size_t runs = 0;
    uint64_t ticket = 0;
    for (; st == HK_OK && now_seconds() - start < 0.5; runs++)
        st = hk_session_submit(d->session, &ticket);
    if (st == HK_OK)
        st = hk_session_wait(d->session, ticket);
    d->images_per_second = (double)(runs * n) / (now_seconds() - start);
    hk_tensor_release(&logits);
    free(x);
    return st;
}

static void print_spiking(const demo *d)
{
    const spike_row *r = d->spiking.rows;
    printf("spike    the classifier as a spiking network, accuracy %.2f %% before; %.1f s\n         T        ",
           100 * d->accuracy, d->spiking.seconds);
    for (size_t i = 0; i < SPIKE_ROWS; i++)
        printf("%9lld", (long long)r[i].steps);
    printf("\n         accuracy ");
    for (size_t i = 0; i < SPIKE_ROWS; i++)
        printf("%7.2f %%", 100 * r[i].accuracy);
    printf("\n         SynOps   ");
    for (size_t i = 0; i < SPIKE_ROWS; i++)
        printf("%9.0f", r[i].synops);
    printf("   per image; multiply-accumulates before: %.0f\n", r[0].macs);
}

static void print_spiking_json(const demo *d)
{
    json_array(stdout, "spiking");
    for (size_t i = 0; i < SPIKE_ROWS; i++) {
        const spike_row *r = &d->spiking.rows[i];
        json_object(stdout, NULL);
        json_integer(stdout, "steps", (long long)r->steps);
        json_number(stdout, "accuracy", r->accuracy);
        json_number(stdout, "synops", r->synops);
        json_number(stdout, "macs", r->macs);
        json_object_end(stdout);
    }
    json_array_end(stdout);
}

static void print_result(const demo *d)
{
    const hk_device_info *info = hk_device_get_info(d->dev);
    hk_model_info m;
    char a[40], b[40];
    hk_model_get_info(d->model, &m);
    if (d->o->json) {
        json_begin(stdout);
        json_string(stdout, "schema", "hillock-demo-1");
        json_string(stdout, "device", info->name);
        json_number(stdout, "relative_error", d->outputs.norm);
        json_bool(stdout, "equal", d->outputs.close && d->outputs.same_type);
        json_number(stdout, "accuracy", d->accuracy);
        json_number(stdout, "images_per_second", d->images_per_second);
        json_number(stdout, "tuned_before", d->tuned.before);
        json_number(stdout, "tuned_after", d->tuned.after);
        json_number(stdout, "tuned_seconds", d->tuned.seconds);
        print_spiking_json(d);
        json_end(stdout);
        return;
    }
    printf("device   %s%s\n", info->name,
           info->type == HK_DEVICE_SOFTWARE ? "  [software: no GPU found; see 'hillock devices']" : "");
    printf("import   %s/model.onnx  %s, opset %lld, %zu nodes, %s parameters, all operators supported  %.2f s\n",
           d->folder, m.producer, (long long)m.opset, m.nodes, format_count((double)m.parameter_count, a, sizeof a),
           d->load_seconds);
    printf("verify   %zu images against PyTorch's outputs: relative error %.2g, largest %.2g  %s  %.2f s (first run)\n",
           d->count - TEST_FIRST, d->outputs.norm, d->outputs.largest, d->outputs.close ? "OK" : "DIFFERENT",
           d->first_seconds);
    printf("classify %zu test images: accuracy %.2f %%\n", d->count - TEST_FIRST, 100 * d->accuracy);
    printf("speed    %s images per second\n", format_count(d->images_per_second, b, sizeof b));
    printf("tune     a model of the digits 0 to 4 learns all ten: accuracy on %zu held-out images %.2f %% before, "
           "%.2f %% after  %.1f s\n",
           d->count - TEST_FIRST, 100 * d->tuned.before, 100 * d->tuned.after, d->tuned.seconds);
    print_spiking(d);
    printf("next     hillock inspect MODEL.onnx, then hillock run MODEL.onnx --input NAME=x.npy --output-dir out\n");
}

static hk_status fine_tune(demo *d)
{
    char beside[1100];
    const char *path = option_value(d->o, "--five");
    snprintf(beside, sizeof beside, "%s/../five_digits/model.onnx", d->folder);
    const tune_job job = {.ctx = d->o->ctx,
                          .dev = d->dev,
                          .path = path ? path : beside,
                          .export_path = option_value(d->o, "--export"),
                          .images = d->images,
                          .labels = d->labels,
                          .count = d->count,
                          .train = TEST_FIRST};
    return tune_digits(&job, &d->tuned);
}

static int run(int argc, char **argv)
{
    static const option_spec specs[] = {
        {"--data", true, false}, {"--five", true, false}, {"--export", true, false}, {0}};
    options o;
    int code = options_parse(&o, &verb_demo, specs, argc, argv);
    if (code >= 0)
        return code;
    const char *folder = option_value(&o, "--data");
    demo d = {.o = &o, .folder = folder ? folder : "tests/data/digits"};
    size_t labels = 0;
    d.images = read_idx(&d, "images-idx3-ubyte", 3, &d.count);
    d.labels = d.images ? read_idx(&d, "labels-idx1-ubyte", 1, &labels) : NULL;
    if (!d.labels || labels != d.count || d.count <= TEST_FIRST) {
        free(d.images);
        free(d.labels);
        return finish_code(&o, 66);
    }
    hk_status st = load(&d);
    if (st == HK_OK)
        st = verify(&d);
    if (st == HK_OK)
        st = classify(&d);
    if (st == HK_OK)
        st = fine_tune(&d);
    const spike_job spiking = {
        .dev = d.dev, .model = d.model, .images = d.images, .labels = d.labels, .count = d.count, .train = TEST_FIRST};
    if (st == HK_OK)
        st = spike_digits(&spiking, &d.spiking);
    if (st == HK_OK)
        print_result(&d);
    if (st == HK_OK && !(d.outputs.close && d.outputs.same_type))
        st = HK_STATUS_MISMATCH;
    hk_session_destroy(&d.session);
    hk_model_destroy(&d.model);
    hk_device_close(&d.dev);
    free(d.images);
    free(d.labels);
    return finish(&o, st);
}

const verb verb_demo = {"demo", "classify digits with a model PyTorch trained", usage, run};
