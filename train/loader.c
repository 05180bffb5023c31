/* Batches: order, augmentation, and threads that prepare them ahead. Everything that is random is Philox of (seed,
 * what, epoch, sample), so neither the number of threads nor a seek changes it. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/philox.h"
#include "train/dataset.h"

enum { SLOTS = 4, MAX_THREADS = 16 };
enum { STREAM_SPLIT = 0x4c500001, STREAM_ORDER = 0x4c500002, STREAM_AUGMENT = 0x4c500003 };

typedef enum slot_state { SLOT_EMPTY, SLOT_FILLING, SLOT_READY } slot_state;

typedef struct slot {
    slot_state state;
    uint64_t epoch, index;
    size_t count;
    hk_tensor inputs[HK_MAX_FIELDS], target;
    float *wide; /* one sample of an array whose floats are converted */
    size_t *samples;
    uint64_t bad;
    char error[1400]; /* of the first sample that could not be read */
} slot;

/* An array of a batch: a field of the dataset's, and the type it is given. */
typedef struct batch_input {
    const hk_field *field;
    hk_dtype dtype;
} batch_input;

struct hk_loader {
    hk_context *ctx;
    hk_dataset *d;
    hk_loader_params p;
    batch_input inputs[HK_MAX_FIELDS];
    size_t input_count;
    size_t *samples, count; /* of this part, in the dataset's order */
    size_t *order;          /* of the epoch that is handed to threads */
    uint64_t order_epoch;
    size_t batches;
    slot slots[SLOTS];
    pthread_t threads[MAX_THREADS];
    uint32_t thread_count;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool stop, begun;
    uint64_t next_epoch, next_index; /* to be handed to a thread */
    uint64_t read_epoch, read_index; /* to be handed to the caller */
    slot *lent;
};

static uint64_t random_below(uint64_t seed, uint32_t stream, uint64_t a, uint32_t b, uint64_t below)
{
    const uint32_t counter[4] = {(uint32_t)a, (uint32_t)(a >> 32), b, stream};
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t out[4];
    hk_philox(key, counter, out);
    return (((uint64_t)out[1] << 32) | out[0]) % below; /* below is far less than 2^64: the bias is not measurable */
}

/* Fisher and Yates. */
static void permute(size_t *list, size_t count, uint64_t seed, uint32_t stream, uint32_t epoch)
{
    for (size_t n = count; n > 1; n--) {
        size_t k = (size_t)random_below(seed, stream, n, epoch, n), swap = list[n - 1];
        list[n - 1] = list[k];
        list[k] = swap;
    }
}

/* ---- filling a batch, in a thread */

static size_t element_bytes(const hk_field *f, size_t *elements)
{
    hk_shape s = {.rank = f->info.rank};
    memcpy(s.dim, f->info.shape, (size_t)s.rank * sizeof *s.dim);
    *elements = (size_t)hk_shape_count(&s);
    return hk_dtype_bytes(f->info.dtype);
}

static void mirror(float *x, int64_t lines, int64_t width)
{
    for (int64_t l = 0; l < lines; l++)
        for (int64_t i = 0; i < width / 2; i++) {
            float *a = &x[l * width + i], *b = &x[l * width + width - 1 - i], swap = *a;
            *a = *b;
            *b = swap;
        }
}

/* Rows in an order in which none is overwritten before it is moved. */
static void move_by(float *x, int64_t planes, int64_t h, int64_t w, int64_t dy, int64_t dx)
{
    for (int64_t p = 0; p < planes; p++)
        for (int64_t n = 0; n < h; n++) {
            int64_t y = dy > 0 ? h - 1 - n : n, from = y - dy, keep = w - (dx < 0 ? -dx : dx);
            float *row = x + (p * h + y) * w;
            if (from < 0 || from >= h || keep <= 0) {
                memset(row, 0, (size_t)w * sizeof *row);
                continue;
            }
            const float *source = x + (p * h + from) * w;
            memmove(row + (dx > 0 ? dx : 0), source + (dx < 0 ? -dx : 0), (size_t)keep * sizeof *row);
            memset(dx > 0 ? row : row + keep, 0, (size_t)(w - keep) * sizeof *row);
        }
}

static void augment(const hk_loader *l, const hk_field *f, uint64_t epoch, size_t sample, float *x)
{
    if (f->info.rank != 3 || f->info.dtype != HK_FLOAT32)
        return;
    const int64_t *s = f->info.shape;
    uint64_t span = 2 * (uint64_t)l->p.shift + 1, below = span * span * 2;
    uint64_t r = random_below(l->p.seed, STREAM_AUGMENT, sample, (uint32_t)epoch, below);
    if (l->p.flip && r & 1)
        mirror(x, s[0] * s[1], s[2]);
    int64_t dy = (int64_t)(r / 2 % span) - (int64_t)l->p.shift, dx = (int64_t)(r / 2 / span) - (int64_t)l->p.shift;
    if (dy || dx)
        move_by(x, s[0], s[1], s[2], dy, dx);
}

static bool fill_input(const hk_loader *l, slot *s, size_t k, size_t sample, char *error)
{
    const hk_field *f = l->inputs[k].field;
    hk_dtype dtype = l->inputs[k].dtype;
    size_t elements;
    element_bytes(f, &elements);
    char *to = (char *)s->inputs[k].data + s->count * elements * hk_dtype_bytes(dtype);
    hk_tensor given = {.data = to, .dtype = dtype, .rank = 1, .shape = {(int64_t)elements}};
    if (!hk_dtype_is_float(dtype)) { /* numbers as the dataset stores them, so of the sample's own number */
        const hk_tensor stored = hk_dataset_stored(f, sample);
        return hk_tensor_fill_from(&given, &stored) < 0;
    }
    bool as_is = dtype == f->info.dtype;
    hk_tensor wide = {.data = as_is ? (void *)to : s->wide, .dtype = HK_FLOAT32, .rank = 1, .shape = {given.shape[0]}};
    if (!hk_dataset_sample(l->d, f, sample, wide.data, error))
        return false;
    if (l->p.flip || l->p.shift)
        augment(l, f, s->epoch, sample, wide.data);
    int64_t misfit = as_is ? -1 : hk_tensor_fill_from(&given, &wide);
    if (misfit >= 0)
        snprintf(error, 256, "number %lld is %g, which %s cannot hold", (long long)misfit, hk_get_double(&wide, misfit),
                 hk_dtype_name(dtype));
    return misfit < 0;
}

static bool read_sample(const hk_loader *l, slot *s, size_t sample, char *error)
{
    for (size_t k = 0; k < l->input_count; k++)
        if (!fill_input(l, s, k, sample, error))
            return false;
    size_t elements, bytes = element_bytes(&l->d->target, &elements) * elements;
    return hk_dataset_sample(l->d, &l->d->target, sample, (char *)s->target.data + s->count * bytes, error);
}

/* A sample that cannot be read is left out: the batch is that much smaller. */
static void fill(const hk_loader *l, slot *s, const size_t *samples, size_t count)
{
    s->count = s->bad = 0;
    for (size_t i = 0; i < count; i++) {
        char error[256];
        if (read_sample(l, s, samples[i], error)) {
            s->samples[s->count++] = samples[i];
            continue;
        }
        if (!s->bad++)
            snprintf(s->error, sizeof s->error, "sample %zu%s%s%s: %s", samples[i], l->d->images ? " ('" : "",
                     l->d->images ? l->d->images[samples[i]].path : "", l->d->images ? "')" : "", error);
    }
    for (size_t k = 0; k < l->input_count; k++)
        s->inputs[k].shape[0] = (int64_t)s->count;
    s->target.shape[0] = (int64_t)s->count;
}

/* ---- threads */

/* The batch that comes next, if its slot is free. Called with the lock held. */
static slot *take_work(hk_loader *l, size_t *samples, size_t *count)
{
    uint64_t number = l->next_epoch * l->batches + l->next_index;
    slot *s = &l->slots[number % SLOTS];
    if (s->state != SLOT_EMPTY || s == l->lent)
        return NULL;
    if (l->order_epoch != l->next_epoch || !l->begun) {
        memcpy(l->order, l->samples, l->count * sizeof *l->order);
        if (l->p.shuffle)
            permute(l->order, l->count, l->p.seed, STREAM_ORDER, (uint32_t)l->next_epoch);
        l->order_epoch = l->next_epoch;
        l->begun = true;
    }
    size_t first = (size_t)l->next_index * l->p.batch;
    *count = HK_MIN(l->p.batch, l->count - first);
    memcpy(samples, l->order + first, *count * sizeof *samples);
    s->state = SLOT_FILLING;
    s->epoch = l->next_epoch;
    s->index = l->next_index;
    if (++l->next_index == l->batches) {
        l->next_index = 0;
        l->next_epoch++;
    }
    return s;
}

/* Allocates nothing from the context, which belongs to the caller's thread. */
static void *work(void *user)
{
    hk_loader *l = user;
    size_t *samples = malloc(l->p.batch * sizeof *samples), count = 0;
    pthread_mutex_lock(&l->lock);
    while (!l->stop && samples) {
        slot *s = take_work(l, samples, &count);
        if (!s) {
            pthread_cond_wait(&l->changed, &l->lock);
            continue;
        }
        pthread_mutex_unlock(&l->lock);
        fill(l, s, samples, count);
        pthread_mutex_lock(&l->lock);
        s->state = SLOT_READY;
        pthread_cond_broadcast(&l->changed);
    }
    if (!samples) {
        l->stop = true;
        pthread_cond_broadcast(&l->changed);
    }
    pthread_mutex_unlock(&l->lock);
    free(samples);
    return NULL;
}

static void stop_threads(hk_loader *l)
{
    pthread_mutex_lock(&l->lock);
    l->stop = true;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
    for (uint32_t i = 0; i < l->thread_count; i++)
        pthread_join(l->threads[i], NULL);
    l->thread_count = 0;
    l->stop = false;
}

static hk_status start_threads(hk_loader *l)
{
    for (uint32_t i = 0; i < l->p.threads; i++) {
        if (pthread_create(&l->threads[i], NULL, work, l) != 0)
            return i ? HK_OK : hk_out_of_memory(l->ctx, "a thread that loads data");
        l->thread_count++;
    }
    return HK_OK;
}

/* ---- life */

static hk_status split(hk_loader *l)
{
    size_t all = l->d->count, held = (size_t)((double)all * l->p.holdout + 0.5);
    size_t *order = hk_alloc_array(l->ctx, all, sizeof *order);
    bool *is_held = hk_alloc_array(l->ctx, all, sizeof *is_held);
    l->samples = hk_alloc_array(l->ctx, all, sizeof *l->samples);
    l->order = hk_alloc_array(l->ctx, all, sizeof *l->order);
    bool ok = order && is_held && l->samples && l->order;
    for (size_t i = 0; ok && i < all; i++)
        order[i] = i;
    if (ok && held)
        permute(order, all, l->p.seed, STREAM_SPLIT, 0);
    for (size_t i = 0; ok && i < held; i++)
        is_held[order[i]] = true;
    for (size_t i = 0; ok && i < all; i++)
        if (is_held[i] == l->p.held_out)
            l->samples[l->count++] = i;
    hk_free(l->ctx, order);
    hk_free(l->ctx, is_held);
    if (!ok)
        return hk_out_of_memory(l->ctx, "a loader");
    l->batches = l->p.drop_last ? l->count / l->p.batch : (l->count + l->p.batch - 1) / l->p.batch;
    if (!l->batches)
        return hk_fail(l->ctx, HK_STATUS_INVALID,
                       "'%s': %zu samples are left in this part of the data, which make no batch of %zu", l->d->path,
                       l->count, l->p.batch);
    return HK_OK;
}

/* ---- what batches hold */

static const hk_field *field_of(const hk_dataset *d, const char *name)
{
    for (size_t k = 0; k < d->field_count; k++)
        if (!strcmp(d->fields[k].info.name, name))
            return &d->fields[k];
    return NULL;
}

/* Every number of an array, before the first batch is made. */
static hk_status check_whole(const hk_loader *l, const hk_field *f, hk_dtype dtype)
{
    int64_t x[1];
    hk_tensor to = {.data = x, .dtype = dtype, .rank = 1, .shape = {1}};
    for (size_t i = 0; i < l->d->count; i++) {
        hk_tensor one = hk_dataset_stored(f, i), all = one;
        size_t item = hk_dtype_bytes(f->stored);
        for (one.shape[0] = 1; (const char *)one.data < (const char *)all.data + (size_t)f->elements * item;
             one.data = (char *)one.data + item)
            if (hk_tensor_fill_from(&to, &one) >= 0)
                return hk_fail(l->ctx, HK_STATUS_INVALID,
                               "'%s': array '%s' has %lld in sample %zu, which %s cannot hold", l->d->path,
                               f->info.name, (long long)hk_get_int(&one, 0), i, hk_dtype_name(dtype));
    }
    return HK_OK;
}

/* Floats of any size are made of what is float32 in a batch, others of what is stored. */
static hk_status choose_type(const hk_loader *l, batch_input *b, const hk_value_info *wanted)
{
    const hk_field *f = b->field;
    hk_dtype from = hk_dtype_is_float(wanted->dtype) ? f->info.dtype : f->contents ? f->stored : HK_FLOAT32;
    b->dtype = wanted->dtype;
    if (!hk_dtype_converts(from, wanted->dtype))
        return hk_fail(l->ctx, HK_STATUS_INVALID,
                       "'%s': array '%s' is %s, and input '%s' takes %s: write the data as that (in NumPy "
                       "array.astype('%s'))",
                       l->d->path, f->info.name, hk_dtype_name(from), wanted->name, hk_dtype_name(wanted->dtype),
                       hk_dtype_name(wanted->dtype));
    if (hk_dtype_is_float(wanted->dtype) || from == wanted->dtype)
        return HK_OK;
    hk_shape shape = {.rank = f->info.rank};
    memcpy(shape.dim, f->info.shape, sizeof shape.dim);
    if (hk_shape_count(&shape) != f->elements)
        return hk_fail(l->ctx, HK_STATUS_INVALID, "'%s': array '%s' is not scaled to another size as %s", l->d->path,
                       f->info.name, hk_dtype_name(wanted->dtype));
    return check_whole(l, f, wanted->dtype);
}

static hk_status choose_inputs(hk_loader *l)
{
    const hk_dataset *d = l->d;
    const hk_value_info *wanted = l->p.inputs;
    l->input_count = wanted ? l->p.input_count : d->field_count;
    l->p.inputs = NULL; /* the caller's */
    if (l->input_count > d->field_count)
        return hk_fail(l->ctx, HK_STATUS_INVALID,
                       "'%s' has %zu arrays per sample besides the labels, and %zu inputs are wanted (at most %d): an "
                       ".npz file has one for each, by its name",
                       d->path, d->field_count, l->input_count, HK_MAX_FIELDS);
    for (size_t i = 0; i < l->input_count; i++) {
        batch_input *b = &l->inputs[i];
        *b = (batch_input){.field = &d->fields[i], .dtype = d->fields[i].info.dtype};
        if (!wanted)
            continue;
        const hk_field *named = field_of(d, wanted[i].name);
        if (!named && (d->field_count > 1 || l->input_count > 1))
            return hk_fail(l->ctx, HK_STATUS_INVALID, "'%s' has no array '%s', which is wanted as an input", d->path,
                           wanted[i].name);
        b->field = named ? named : &d->fields[0];
        HK_TRY(choose_type(l, b, &wanted[i]));
    }
    if (l->input_count < d->field_count)
        hk_log(l->ctx, HK_LOG_WARN, "'%s': %zu of its %zu arrays are inputs; the others are left out", d->path,
               l->input_count, d->field_count);
    return HK_OK;
}

static hk_status make_tensor(hk_loader *l, const hk_field *f, hk_dtype dtype, hk_tensor *out)
{
    hk_shape s = {.rank = f->info.rank + 1, .dim = {(int64_t)l->p.batch}};
    if (s.rank > HK_MAX_RANK)
        return hk_fail(l->ctx, HK_STATUS_UNSUPPORTED, "'%s': samples of rank %d are too deep for a batch", l->d->path,
                       f->info.rank);
    memcpy(s.dim + 1, f->info.shape, (size_t)f->info.rank * sizeof *s.dim);
    return hk_tensor_create(l->ctx, dtype, &s, out);
}

static hk_status make_slots(hk_loader *l)
{
    size_t widest = 1;
    for (size_t k = 0; k < l->input_count; k++) {
        size_t elements;
        element_bytes(l->inputs[k].field, &elements);
        widest = HK_MAX(widest, elements);
    }
    for (size_t i = 0; i < SLOTS; i++) {
        slot *s = &l->slots[i];
        s->samples = hk_alloc_array(l->ctx, l->p.batch, sizeof *s->samples);
        s->wide = hk_alloc_array(l->ctx, widest, sizeof *s->wide);
        if (!s->samples || !s->wide)
            return hk_out_of_memory(l->ctx, "a loader");
        for (size_t k = 0; k < l->input_count; k++)
            HK_TRY(make_tensor(l, l->inputs[k].field, l->inputs[k].dtype, &s->inputs[k]));
        HK_TRY(make_tensor(l, &l->d->target, l->d->target.info.dtype, &s->target));
    }
    return HK_OK;
}

hk_status hk_loader_create(hk_dataset *d, const hk_loader_params *params, hk_loader **out)
{
    hk_loader_params p = {.size = sizeof p};
    if (params)
        memcpy(&p, params, HK_MIN(params->size, sizeof p));
    p.batch = p.batch ? p.batch : 32;
    p.threads = HK_MIN(p.threads ? p.threads : 2u, (uint32_t)MAX_THREADS);
    if (!(p.holdout >= 0 && p.holdout < 1))
        return hk_fail(d->ctx, HK_STATUS_USAGE, "the share held out is %g, expected 0 to below 1", p.holdout);
    hk_loader *l = hk_alloc(d->ctx, sizeof *l);
    if (!l)
        return hk_out_of_memory(d->ctx, "a loader");
    *l = (hk_loader){.ctx = d->ctx, .d = d, .p = p};
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->changed, NULL);
    hk_status st = choose_inputs(l);
    if (st == HK_OK)
        st = split(l);
    if (st == HK_OK)
        st = make_slots(l);
    if (st == HK_OK)
        st = start_threads(l);
    if (st == HK_OK)
        *out = l;
    else
        hk_loader_destroy(&l);
    return st;
}

void hk_loader_destroy(hk_loader **loader)
{
    hk_loader *l = *loader;
    if (!l)
        return;
    *loader = NULL;
    stop_threads(l);
    for (size_t i = 0; i < SLOTS; i++) {
        for (size_t k = 0; k < HK_MAX_FIELDS; k++)
            hk_tensor_release(&l->slots[i].inputs[k]);
        hk_tensor_release(&l->slots[i].target);
        hk_free(l->ctx, l->slots[i].samples);
        hk_free(l->ctx, l->slots[i].wide);
    }
    pthread_cond_destroy(&l->changed);
    pthread_mutex_destroy(&l->lock);
    hk_free(l->ctx, l->samples);
    hk_free(l->ctx, l->order);
    hk_free(l->ctx, l);
}

size_t hk_loader_samples(const hk_loader *l)
{
    return l->p.drop_last ? l->batches * l->p.batch : l->count;
}

size_t hk_loader_batches(const hk_loader *l)
{
    return l->batches;
}

/* ---- reading */

static void give_back(hk_loader *l)
{
    if (l->lent)
        l->lent->state = SLOT_EMPTY;
    l->lent = NULL;
    pthread_cond_broadcast(&l->changed);
}

static hk_status count_bad(hk_loader *l, const slot *s)
{
    l->d->bad += s->bad;
    if (!s->bad)
        return HK_OK;
    if (l->d->bad > l->d->params.max_bad)
        return hk_fail(l->ctx, HK_STATUS_INVALID, "%s; %llu samples could not be read, %llu are allowed (max_bad)",
                       s->error, (unsigned long long)l->d->bad, (unsigned long long)l->d->params.max_bad);
    hk_log(l->ctx, HK_LOG_WARN, "left out: %s", s->error);
    return HK_OK;
}

hk_status hk_loader_next(hk_loader *l, hk_batch *out)
{
    *out = (hk_batch){.epoch = l->read_epoch, .index = l->read_index};
    pthread_mutex_lock(&l->lock);
    give_back(l);
    if (l->read_index == l->batches) { /* the end of an epoch is told once */
        l->read_epoch++;
        l->read_index = 0;
        pthread_mutex_unlock(&l->lock);
        return HK_OK;
    }
    slot *s = &l->slots[(l->read_epoch * l->batches + l->read_index) % SLOTS];
    while (s->state != SLOT_READY && !l->stop)
        pthread_cond_wait(&l->changed, &l->lock);
    l->lent = l->stop ? NULL : s;
    pthread_mutex_unlock(&l->lock);
    if (!l->lent)
        return hk_out_of_memory(l->ctx, "a thread that loads data");
    l->read_index++;
    HK_TRY(count_bad(l, s));
    if (!s->count) /* every sample of it is bad */
        return hk_loader_next(l, out);
    out->inputs = s->inputs;
    out->input_count = l->input_count;
    out->target = &s->target;
    out->count = s->count;
    out->samples = s->samples;
    return HK_OK;
}

hk_status hk_loader_seek(hk_loader *l, uint64_t epoch, uint64_t batch)
{
    if (batch > l->batches)
        return hk_fail(l->ctx, HK_STATUS_USAGE, "batch %llu is behind the end of an epoch of %zu",
                       (unsigned long long)batch, l->batches);
    stop_threads(l);
    l->lent = NULL;
    for (size_t i = 0; i < SLOTS; i++)
        l->slots[i].state = SLOT_EMPTY;
    l->read_epoch = epoch;
    l->read_index = batch;
    l->next_epoch = batch == l->batches ? epoch + 1 : epoch;
    l->next_index = batch == l->batches ? 0 : batch;
    return start_threads(l);
}
