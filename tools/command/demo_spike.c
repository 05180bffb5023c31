/* hillock demo, the end: the classifier as a spiking network, over the number of its steps. */
#include <stdlib.h>
#include <string.h>

#include "tools/command/demo.h"

enum { PIXELS = 64, CALIBRATION = 256 };

static const int64_t step_list[SPIKE_ROWS] = {1, 2, 4, 8, 16, 32, 64};

/* n images from the first one on, as a batch; its data are to be freed. */
static hk_tensor images_of(const spike_job *j, size_t first, size_t n)
{
    hk_tensor x = {.dtype = HK_FLOAT32, .rank = 4, .shape = {(int64_t)n, 1, 8, 8}};
    float *data = x.data = malloc(n * PIXELS * sizeof *data);
    for (size_t i = 0; data && i < n * PIXELS; i++)
        data[i] = (float)j->images[first * PIXELS + i] / 16.0f;
    return x;
}

/* Synaptic operations of the first `steps`, and the original's multiply-accumulates, both per image. */
static hk_status add_operations(const hk_model *m, hk_session *s, double images, int64_t steps, spike_row *row)
{
    size_t count = 0;
    const hk_snn_probe *p = hk_snn_probes(m, &count);
    hk_status st = HK_OK;
    for (size_t i = 0; i < count && st == HK_OK; i++) {
        hk_tensor sums = {0};
        row->macs += p[i].macs;
        if (p[i].neurons > 0 || !p[i].output)
            continue;
        st = hk_session_read(s, p[i].output, &sums);
        for (int64_t k = 0; st == HK_OK && k < steps; k++)
            row->synops += tensor_element(&sums, k) / images;
        hk_tensor_release(&sums);
    }
    return st;
}

static hk_status read_rows(const spike_job *j, const hk_model *m, hk_session *s, spike_result *out)
{
    size_t outputs = 0;
    const char *output = hk_model_outputs(j->model, &outputs)[0].name;
    hk_status st = HK_OK;
    for (size_t i = 0; i < SPIKE_ROWS && st == HK_OK; i++) {
        char name[300];
        hk_tensor scores = {0};
        spike_row *row = &out->rows[i];
        *row = (spike_row){.steps = step_list[i]};
        snprintf(name, sizeof name, "%s@%lld", output, (long long)row->steps);
        st = hk_session_read(s, i + 1 < SPIKE_ROWS ? name : output, &scores);
        if (st == HK_OK)
            row->accuracy = share_right(&scores, j->labels + j->train);
        hk_tensor_release(&scores);
        if (st == HK_OK)
            st = add_operations(m, s, (double)(j->count - j->train), row->steps, row);
    }
    return st;
}

static hk_status spike(const spike_job *j, const hk_tensor *seen, const hk_tensor *held, spike_result *out)
{
    hk_model *snn = NULL, *watched = NULL;
    hk_session *s = NULL;
    size_t inputs = 0;
    const hk_snn_params p = {.size = sizeof p, .steps = 8, .inputs = seen, .input_count = 1};
    double begin = now_seconds();
    hk_status st = hk_snn_convert(j->dev, j->model, &p, &snn);
    if (st == HK_OK)
        st = hk_snn_with_readouts(snn, step_list, SPIKE_ROWS, HK_SNN_MONITOR_COUNTS, &watched);
    if (st == HK_OK)
        st = hk_session_create(j->dev, watched, NULL, &s);
    if (st == HK_OK)
        st = hk_session_write(s, hk_model_inputs(watched, &inputs)[0].name, held);
    if (st == HK_OK)
        st = hk_session_run(s);
    if (st == HK_OK)
        st = read_rows(j, watched, s, out);
    out->seconds = now_seconds() - begin;
    hk_session_destroy(&s);
    hk_model_destroy(&watched);
    hk_model_destroy(&snn);
    return st;
}

hk_status spike_digits(const spike_job *job, spike_result *out)
{
    hk_tensor seen = images_of(job, 0, CALIBRATION), held = images_of(job, job->train, job->count - job->train);
    hk_status st = seen.data && held.data ? spike(job, &seen, &held, out) : HK_STATUS_OUT_OF_MEMORY;
    free(seen.data);
    free(held.data);
    return st;
}
