/* What several verbs need. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tools/command/command.h"

double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

const char *value_text(const hk_value_info *v, char *buffer, size_t bytes)
{
    int n = snprintf(buffer, bytes, "%s [", hk_dtype_name(v->dtype));
    if (v->rank < 0)
        n += snprintf(buffer + n, bytes - (size_t)n, "unknown rank");
    for (int32_t d = 0; d < v->rank; d++) {
        const char *comma = d ? "," : "";
        if (v->shape[d] >= 0)
            n += snprintf(buffer + n, bytes - (size_t)n, "%s%lld", comma, (long long)v->shape[d]);
        else
            n += snprintf(buffer + n, bytes - (size_t)n, "%s%.40s", comma, v->dim_names[d] ? v->dim_names[d] : "?");
    }
    snprintf(buffer + n, bytes - (size_t)n, "]");
    return buffer;
}

const char *format_count(double n, char *buffer, size_t bytes)
{
    char digits[40];
    snprintf(digits, sizeof digits, "%.0f", n);
    size_t length = strlen(digits), at = 0;
    for (size_t i = 0; i < length && at + 2 < bytes; i++) {
        if (i && (length - i) % 3 == 0 && digits[i - 1] != '-')
            buffer[at++] = ',';
        buffer[at++] = digits[i];
    }
    buffer[at] = '\0';
    return buffer;
}

void file_name_of(const char *name, char *out, size_t bytes)
{
    size_t i = 0;
    for (; name[i] && i + 1 < bytes; i++)
        out[i] = name[i] == '/' ? '_' : name[i];
    out[i] = '\0';
}

/* ---- comparing */

static double half_to_double(uint16_t h)
{
    int exponent = h >> 10 & 31, mantissa = h & 1023;
    double sign = h & 0x8000 ? -1 : 1;
    if (exponent == 31)
        return mantissa ? NAN : sign * INFINITY;
    return sign * (exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24));
}

double tensor_element(const hk_tensor *t, int64_t i)
{
    uint32_t bits;
    float f;
    switch (t->dtype) {
    case HK_FLOAT32: return (double)((const float *)t->data)[i];
    case HK_FLOAT64: return ((const double *)t->data)[i];
    case HK_FLOAT16: return half_to_double(((const uint16_t *)t->data)[i]);
    case HK_BFLOAT16:
        bits = (uint32_t)((const uint16_t *)t->data)[i] << 16;
        memcpy(&f, &bits, sizeof f);
        return (double)f;
    case HK_INT64: return (double)((const int64_t *)t->data)[i];
    case HK_UINT64: return (double)((const uint64_t *)t->data)[i];
    case HK_INT32: return (double)((const int32_t *)t->data)[i];
    case HK_UINT32: return (double)((const uint32_t *)t->data)[i];
    case HK_INT16: return (double)((const int16_t *)t->data)[i];
    case HK_UINT16: return (double)((const uint16_t *)t->data)[i];
    case HK_INT8:
    case HK_INT4:
    case HK_INT2: return (double)((const int8_t *)t->data)[i];
    case HK_UINT8:
    case HK_UINT4:
    case HK_UINT2:
    case HK_BOOL: return (double)((const uint8_t *)t->data)[i];
    default: return NAN; /* floats of 4 and 8 bits are compared as bits */
    }
}

int64_t largest_in_row(const hk_tensor *scores, int64_t row)
{
    int64_t n = scores->shape[1], best = 0;
    for (int64_t k = 1; k < n; k++)
        best = tensor_element(scores, row * n + k) > tensor_element(scores, row * n + best) ? k : best;
    return best;
}

bool is_float(hk_dtype t)
{
    return t == HK_FLOAT32 || t == HK_FLOAT64 || t == HK_FLOAT16 || t == HK_BFLOAT16;
}

static bool same_shape(const hk_tensor *a, const hk_tensor *b)
{
    if (a->dtype != b->dtype || a->rank != b->rank)
        return false;
    for (int32_t d = 0; d < a->rank; d++)
        if (a->shape[d] != b->shape[d])
            return false;
    return true;
}

/* The worst of the items. */
static comparison compare_items(const hk_tensor *got, const hk_tensor *want, double rtol, double atol, double rel)
{
    comparison worst = {.same_type = true, .close = true};
    for (int64_t i = 0; i < hk_tensor_count(got); i++) {
        comparison c = compare((const hk_tensor *)got->data + i, (const hk_tensor *)want->data + i, rtol, atol, rel);
        worst.same_type &= c.same_type;
        worst.close &= c.close;
        worst.largest = fmax(worst.largest, c.largest);
        worst.norm = fmax(worst.norm, c.norm);
    }
    return worst;
}

comparison compare(const hk_tensor *got, const hk_tensor *want, double rtol, double atol, double rel)
{
    comparison c = {.same_type = same_shape(got, want)};
    if (!c.same_type)
        return c;
    if (got->dtype == HK_SEQUENCE || got->dtype == HK_OPTIONAL)
        return compare_items(got, want, rtol, atol, rel);
    int64_t count = hk_tensor_count(got);
    bool each = true;
    double error = 0, norm = 0;
    if (!is_float(got->dtype)) {
        each = !count || !memcmp(got->data, want->data, (size_t)count * hk_dtype_bytes(got->dtype));
        c.close = each;
        c.largest = c.norm = each ? 0 : INFINITY;
        return c;
    }
    for (int64_t i = 0; i < count; i++) {
        double a = tensor_element(got, i), b = tensor_element(want, i);
        if (a == b || (isnan(a) && isnan(b))) {
            norm += isfinite(b) ? b * b : 0;
            continue;
        }
        double d = fabs(a - b);
        if (!isfinite(d))
            d = INFINITY;
        each &= d <= atol + rtol * fabs(b);
        c.largest = fmax(c.largest, d);
        error += d * d;
        norm += b * b;
    }
    c.norm = error > 0 ? sqrt(error / norm) : 0;
    c.close = each || c.norm <= rel;
    return c;
}

/* ---- inputs from files */

/* What does not convert stays as it is: whoever takes it says what the model wants. */
static hk_status convert_input(const options *o, const hk_model *m, const char *name, hk_tensor *t)
{
    size_t count = 0;
    const hk_value_info *inputs = hk_model_inputs(m, &count);
    for (size_t i = 0; i < count; i++) {
        hk_dtype wanted = inputs[i].dtype;
        hk_tensor made = {0};
        if (strcmp(inputs[i].name, name) != 0 || t->dtype == wanted)
            continue;
        hk_status st = hk_tensor_convert(o->ctx, t, wanted, &made);
        if (st == HK_STATUS_USAGE)
            return HK_OK;
        if (st != HK_OK) {
            fprintf(stderr, "hillock: --input %s is %s and the model takes %s\n", name, hk_dtype_name(t->dtype),
                    hk_dtype_name(wanted));
            return st;
        }
        hk_tensor_release(t);
        *t = made;
    }
    return HK_OK;
}

hk_status each_input(const options *o, const hk_model *m, hk_status (*take)(void *user, const char *name, hk_tensor *t),
                     void *user)
{
    for (size_t i = 0; i < o->given_count; i++) {
        char name[256];
        const char *value = o->given[i].value, *equals = value ? strchr(value, '=') : NULL;
        if (strcmp(o->given[i].spec->name, "--input") != 0)
            continue;
        if (!equals || (size_t)(equals - value) >= sizeof name) {
            fprintf(stderr, "hillock: --input must read NAME=FILE, found '%s'\n", value);
            return HK_STATUS_USAGE;
        }
        memcpy(name, value, (size_t)(equals - value));
        name[equals - value] = '\0';
        hk_tensor t = {0};
        hk_status st = hk_tensor_load(o->ctx, equals + 1, &t);
        if (st == HK_OK)
            st = convert_input(o, m, name, &t);
        if (st == HK_OK)
            st = take(user, name, &t);
        hk_tensor_release(&t);
        if (st != HK_OK)
            return st;
    }
    return HK_OK;
}

/* ---- random inputs */

/* The last --shape of that name; false if it is malformed. Without one, all stays. */
static bool parse_shape(const options *o, const char *name, int32_t *rank, int64_t *shape)
{
    size_t length = strlen(name);
    for (size_t i = o->given_count; i-- > 0;) {
        const char *v = o->given[i].value;
        if (strcmp(o->given[i].spec->name, "--shape") != 0 || strncmp(v, name, length) != 0 || v[length] != '=')
            continue;
        *rank = 0;
        for (v += length + 1; *v && *rank < HK_MAX_RANK;) {
            char *end = NULL;
            shape[(*rank)++] = strtoll(v, &end, 10);
            if (end == v || (*end && *end != 'x') || shape[*rank - 1] < 0)
                return false;
            v = *end ? end + 1 : end;
        }
        return !*v;
    }
    return true;
}

hk_status choose_shape(const options *o, const hk_value_info *v, int32_t *rank, int64_t *shape)
{
    double batch = 1;
    if (!option_number(o, "--batch", 1, 1e9, 1, &batch))
        return HK_STATUS_USAGE;
    *rank = v->rank;
    for (int32_t d = 0; d < v->rank; d++)
        shape[d] = v->shape[d] >= 0 ? v->shape[d] : d == 0 ? (int64_t)batch : 1;
    if (parse_shape(o, v->name, rank, shape))
        return HK_OK;
    fprintf(stderr, "hillock: --shape must read NAME=1x3x224x224\n");
    return HK_STATUS_USAGE;
}

/* xorshift64*, a fixed seed: the same inputs in every run. Sums of four uniforms look normal enough. */
static double random_value(uint64_t *state)
{
    double sum = 0;
    for (int i = 0; i < 4; i++) {
        *state ^= *state >> 12;
        *state ^= *state << 25;
        *state ^= *state >> 27;
        sum += (double)(*state * 0x2545f4914f6cdd1dull >> 40) * 0x1p-24;
    }
    return (sum - 2) * 1.7320508;
}

hk_status random_input(const options *o, const hk_value_info *v, uint64_t *state, hk_tensor *out)
{
    hk_tensor t = {.dtype = v->dtype};
    hk_status st = choose_shape(o, v, &t.rank, t.shape);
    if (st != HK_OK)
        return st;
    t.rank = t.rank < 0 ? 0 : t.rank;
    int64_t count = hk_tensor_count(&t);
    t.data = count < 0 ? NULL : calloc((size_t)count + 1, hk_dtype_bytes(t.dtype) + 1);
    if (!t.data)
        return HK_STATUS_OUT_OF_MEMORY;
    for (int64_t i = 0; i < count; i++) {
        double x = random_value(state);
        if (t.dtype == HK_FLOAT32)
            ((float *)t.data)[i] = (float)x;
        else if (t.dtype == HK_FLOAT64)
            ((double *)t.data)[i] = x;
    }
    *out = t;
    return HK_OK;
}

hk_status write_random_inputs(const options *o, hk_session *s, const hk_model *m)
{
    size_t count = 0;
    uint64_t state = RANDOM_SEED;
    const hk_value_info *inputs = hk_model_inputs(m, &count);
    for (size_t i = 0; i < count; i++) {
        hk_tensor t = {0};
        hk_status st = random_input(o, &inputs[i], &state, &t);
        if (st == HK_OK)
            st = hk_session_write(s, inputs[i].name, &t);
        free(t.data);
        if (st != HK_OK)
            return st;
    }
    return HK_OK;
}

/* ---- a model ready to be timed */

static double first_run_spent(opened *p)
{
    hk_device_stats stats;
    hk_device_get_stats(p->dev, &stats);
    p->plan_seconds = (double)stats.plans_ns * 1e-9;
    p->pipelines_seconds = (double)stats.pipelines_ns * 1e-9;
    p->weights_seconds = (double)stats.weights_ns * 1e-9;
    return p->plan_seconds + p->pipelines_seconds + p->weights_seconds;
}

/* Linux's count of what the process has written to that is no file's; 0 elsewhere. */
static long long anonymous_bytes(void)
{
    char line[256];
    long long kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f) && sscanf(line, "RssAnon: %lld", &kib) != 1) {
    }
    if (f)
        fclose(f);
    return kib * 1024;
}

hk_status opened_create(const options *o, hk_profile profile, hk_precision precision, opened *p)
{
    hk_session_params params = {.size = sizeof params, .precision = precision, .profile = profile};
    option_tuned(o, &params);
    double begin = now_seconds();
    hk_status st = open_device(o, &p->dev);
    p->device_seconds = now_seconds() - begin;
    long long anonymous = anonymous_bytes();
    begin = now_seconds();
    if (st == HK_OK)
        st = hk_model_load(o->ctx, o->arguments[0], NULL, &p->model);
    p->load_seconds = now_seconds() - begin;
    if (st == HK_OK)
        st = hk_session_create(p->dev, p->model, &params, &p->session);
    if (st == HK_OK)
        st = write_random_inputs(o, p->session, p->model);
    if (st != HK_OK)
        return st;
    double before = first_run_spent(p);
    begin = now_seconds();
    st = opened_run(p);
    p->first_seconds = now_seconds() - begin + before - first_run_spent(p);
    p->anonymous_growth = anonymous_bytes() - anonymous;
    return st;
}

hk_status opened_run(const opened *p)
{
    size_t count = 0;
    const hk_value_info *outputs = hk_model_outputs(p->model, &count);
    hk_status st = hk_session_run(p->session);
    for (size_t i = 0; i < count && st == HK_OK; i++) {
        hk_tensor t = {0};
        st = hk_session_read(p->session, outputs[i].name, &t);
        hk_tensor_release(&t);
    }
    return st;
}

void print_start(const opened *p)
{
    printf("start      loaded in %.1f ms, planned %.1f, pipelines %.1f, weights %.1f, first run %.1f\n",
           p->load_seconds * 1e3, p->plan_seconds * 1e3, p->pipelines_seconds * 1e3, p->weights_seconds * 1e3,
           p->first_seconds * 1e3);
    printf("heap       %.1f MiB more than before the model was loaded\n", (double)p->anonymous_growth / 0x1p20);
}

void opened_destroy(opened *p)
{
    hk_session_destroy(&p->session);
    hk_device_close(&p->dev);
    hk_model_destroy(&p->model);
}
