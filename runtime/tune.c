/*
 * hk_tune: the model runs again and again, each time with the next candidate of every problem at once, and each of its
 * records says how long it took. First tiles are measured under every way (all problems take their way w and their tile
 * t), then, with the best tiles, the ways.
 */
#include "runtime/tune.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "runtime/model.h"
#include "runtime/objects.h"

/* A device clocks down while pipelines are made, and takes its time to come back. */
#define WARM_NS UINT64_C(500000000)
#define SHORT_WARM_NS UINT64_C(50000000) /* in a round without a new pipeline */
#define NOISE 0.98 /* of the predicted kernel's time: another that is not faster than this is not kept */

typedef struct tuner {
    hk_context *ctx;
    hk_device *dev;
    const hk_model *m;
    const hk_tensor *inputs;
    hk_tune_params params;
    hk_tuning *tuning;
    bool warm;
    /* of the round under way, by record in the order in which they are visited */
    double *least; /* nanoseconds */
    size_t count, capacity, next;
    double total; /* the last round's, of all records */
} tuner;

/* ---- a round: one session */

static void visit_record(void *user, const hk_record *r, uint64_t ns)
{
    tuner *t = user;
    size_t i = t->next++;
    (void)r;
    if (i >= t->capacity)
        return;
    t->least[i] = i < t->count ? HK_MIN(t->least[i], (double)ns) : (double)ns;
    t->count = HK_MAX(t->count, t->next);
}

static void count_record(void *user, const hk_record *r, uint64_t ns)
{
    tuner *t = user;
    size_t i = t->next++;
    double least = i < t->count ? t->least[i] : (double)ns;
    t->total += least;
    for (int kind = 0; kind < 2; kind++) {
        hk_tuned *k = r->choice[kind] ? hk_map_get(&t->tuning->map, r->choice[kind]->problem) : NULL;
        if (k)
            k->sum += least;
    }
}

static void only_count(void *user, const hk_record *r, uint64_t ns)
{
    (void)r;
    (void)ns;
    ((tuner *)user)->next++;
}

static hk_status visit_run(tuner *t, hk_session *s, void (*visit)(void *user, const hk_record *r, uint64_t ns))
{
    t->next = 0;
    return hk_session_each_record(s, visit, t);
}

static hk_status warm_up(tuner *t, hk_session *s)
{
    hk_device_stats before, after;
    hk_device_get_stats(t->dev, &before);
    HK_TRY(hk_session_run(s)); /* which makes them */
    hk_device_get_stats(t->dev, &after);
    uint64_t warm = !t->warm || after.pipelines_created > before.pipelines_created ? WARM_NS : SHORT_WARM_NS;
    if (hk_device_get_info(t->dev)->type == HK_DEVICE_SOFTWARE)
        warm = 0;
    for (uint64_t begin = hk_now_ns(); hk_now_ns() - begin < warm;)
        HK_TRY(hk_session_run(s));
    t->warm = true;
    return HK_OK;
}

static hk_status run_session(tuner *t, hk_session *s)
{
    size_t count = 0;
    const hk_value_info *inputs = hk_model_inputs(t->m, &count);
    hk_session_use_tuning(s, t->tuning);
    for (size_t i = 0; i < count; i++)
        HK_TRY(hk_session_write(s, inputs[i].name, &t->inputs[i]));
    HK_TRY(warm_up(t, s));
    HK_TRY(visit_run(t, s, only_count));
    hk_free(t->ctx, t->least);
    t->capacity = t->next;
    t->count = 0;
    t->least = hk_alloc_array(t->ctx, t->capacity + 1, sizeof *t->least);
    if (!t->least)
        return hk_out_of_memory(t->ctx, "times");
    for (uint32_t i = 0; i < t->params.runs; i++) {
        HK_TRY(hk_session_run(s));
        HK_TRY(visit_run(t, s, visit_record));
    }
    t->total = 0;
    return visit_run(t, s, count_record);
}

static uint32_t taken_of(const tuner *t, const hk_tuned *k)
{
    uint32_t take = t->tuning->take[k->kind];
    return take < k->count ? take : 0;
}

/* One round, after which undecided problems of that kind know what the candidate took that was their turn. */
static hk_status run_round(tuner *t, hk_choice_kind kind)
{
    hk_session_params params = {
        .size = sizeof params, .precision = t->params.precision, .profile = HK_PROFILE_DISPATCHES, .max_plans = 1};
    hk_session *s = NULL;
    for (size_t i = 0; i < t->tuning->count; i++) {
        t->tuning->list[i]->places = 0;
        t->tuning->list[i]->sum = 0;
    }
    HK_TRY(hk_session_create(t->dev, t->m, &params, &s));
    hk_status st = run_session(t, s);
    hk_session_destroy(&s);
    for (size_t i = 0; i < t->tuning->count && st == HK_OK; i++) {
        hk_tuned *k = t->tuning->list[i];
        if (k->kind != kind || k->kernel || !k->places || !(k->sum > 0))
            continue;
        double ns = k->sum / k->places, *measured = &k->measured[taken_of(t, k)];
        *measured = *measured > 0 ? HK_MIN(*measured, ns) : ns;
    }
    return st;
}

/* ---- all rounds */

/* The most candidates that an undecided problem of that kind has, as many as are wanted. */
static uint32_t most_candidates(const tuner *t, hk_choice_kind kind)
{
    uint32_t most = 1;
    for (size_t i = 0; i < t->tuning->count; i++)
        if (t->tuning->list[i]->kind == kind)
            most = HK_MAX(most, t->tuning->list[i]->count);
    return HK_MIN(most, t->params.candidates);
}

static void decide(tuner *t, hk_choice_kind kind)
{
    for (size_t i = 0; i < t->tuning->count; i++) {
        hk_tuned *k = t->tuning->list[i];
        uint32_t best = 0;
        if (k->kind != kind || k->count < 2 || !(k->measured[0] > 0)) /* one candidate is no choice */
            continue;
        for (uint32_t c = 1; c < k->count; c++)
            if (k->measured[c] > 0 && k->measured[c] < k->measured[best])
                best = c;
        if (k->measured[best] > NOISE * k->measured[0])
            best = 0;
        k->kernel = k->candidate[best].name;
        k->splits = k->candidate[best].splits;
        k->ns = k->measured[best];
        k->first_ns = k->measured[0];
    }
}

/* A candidate that needs more memory than there is, is none: those of its round that would have fitted are lost too. */
static hk_status try_round(tuner *t, hk_choice_kind kind)
{
    hk_status st = run_round(t, kind);
    if (st != HK_STATUS_OUT_OF_MEMORY || !t->warm)
        return st;
    hk_log(t->ctx, HK_LOG_WARN, "kernels of choice %u are left out: %s", t->tuning->take[kind] + 1,
           hk_context_error(t->ctx));
    return HK_OK;
}

static hk_status measure(tuner *t, hk_tune_result *result)
{
    uint32_t *way = &t->tuning->take[HK_CHOICE_WAY], *tile = &t->tuning->take[HK_CHOICE_TILE];
    for (*way = 0; *way == 0 || *way < most_candidates(t, HK_CHOICE_WAY); ++*way)
        for (*tile = 0; *tile == 0 || *tile < most_candidates(t, HK_CHOICE_TILE); ++*tile) {
            HK_TRY(try_round(t, HK_CHOICE_TILE));
            if (*way == 0 && *tile == 0)
                result->predicted_ns = t->total;
        }
    decide(t, HK_CHOICE_TILE);
    *tile = 0;
    for (*way = 0; *way < most_candidates(t, HK_CHOICE_WAY); ++*way)
        HK_TRY(try_round(t, HK_CHOICE_WAY));
    decide(t, HK_CHOICE_WAY);
    *way = 0;
    HK_TRY(run_round(t, HK_CHOICE_WAY));
    result->ns = t->total;
    return HK_OK;
}

/* ---- what comes of it */

static void report(const tuner *t, hk_tune_result *result)
{
    for (size_t i = 0; i < t->tuning->count; i++) {
        const hk_tuned *k = t->tuning->list[i];
        if (!k->kernel)
            continue;
        const hk_candidate *first = &k->candidate[0];
        uint32_t measured = 0;
        for (uint32_t c = 0; c < k->count; c++)
            measured += k->measured[c] > 0;
        result->problems++;
        result->changed += strcmp(k->kernel, first->name) != 0 || k->splits != first->splits;
        const hk_tune_row row = {.problem = k->problem,
                                 .kernel = k->kernel,
                                 .splits = k->splits,
                                 .predicted = first->name,
                                 .predicted_splits = first->splits,
                                 .ns = k->ns,
                                 .predicted_ns = k->first_ns,
                                 .places = k->places,
                                 .measured = measured};
        if (t->params.report)
            t->params.report(t->params.user, &row);
    }
}

static hk_status add_to_table(const tuner *t, const char *path, hk_tuning *table)
{
    for (size_t i = 0; i < t->tuning->count; i++) {
        const hk_tuned *k = t->tuning->list[i];
        hk_tuned *kept = k->kernel ? hk_tuning_add(table, k->problem) : NULL;
        if (k->kernel && !kept)
            return hk_out_of_memory(t->ctx, "a table of measurements");
        if (!kept)
            continue;
        kept->kernel = k->kernel;
        kept->splits = k->splits;
        kept->ns = k->ns;
        kept->first_ns = k->first_ns;
    }
    return hk_tuning_save(t->dev->gpu, table, path);
}

static hk_status tune(tuner *t, const char *path, hk_tune_result *result)
{
    hk_tuning *table = NULL;
    HK_TRY(access(path, F_OK) == 0 ? hk_tuning_load(t->dev->gpu, path, &table) : hk_tuning_create(t->ctx, &table));
    /* Written now too: a path that cannot be written ends the call before it measures. */
    hk_status st = hk_tuning_save(t->dev->gpu, table, path);
    if (st == HK_OK)
        st = measure(t, result);
    if (st == HK_OK)
        st = add_to_table(t, path, table);
    if (st == HK_OK)
        report(t, result);
    hk_tuning_destroy(&table);
    return st;
}

static hk_status check(const tuner *t, size_t input_count)
{
    size_t count = 0;
    (void)hk_model_inputs(t->m, &count);
    if (input_count != count)
        return hk_fail(t->ctx, HK_STATUS_USAGE, "hk_tune got %zu inputs, the model has %zu", input_count, count);
    if (t->params.candidates > HK_CANDIDATES_MOST)
        return hk_fail(t->ctx, HK_STATUS_USAGE, "hk_tune_params.candidates is %u: at most %d are kept of a problem",
                       t->params.candidates, HK_CANDIDATES_MOST);
    if (!(hk_device_get_info(t->dev)->caps >> HK_CAP_TIMESTAMPS & 1u))
        return hk_fail(t->ctx, HK_STATUS_UNSUPPORTED,
                       "the device '%s' has no timestamps, so its kernels cannot be timed: tune on another, or run "
                       "without a table",
                       hk_device_get_info(t->dev)->name);
    return HK_OK;
}

hk_status hk_tune(hk_device *dev, const hk_model *m, const hk_tensor *inputs, size_t input_count,
                  const hk_tune_params *params, hk_tune_result *result)
{
    hk_tune_result made = {0};
    tuner t = {.ctx = dev->ctx, .dev = dev, .m = m, .inputs = inputs};
    if (params)
        memcpy(&t.params, params, HK_MIN(params->size, sizeof t.params));
    t.params.candidates = t.params.candidates ? t.params.candidates : 4;
    t.params.runs = t.params.runs ? t.params.runs : 5;
    HK_TRY(check(&t, input_count));
    HK_TRY(hk_tuning_create(t.ctx, &t.tuning));
    t.tuning->measuring = true;
    const char *path = NULL;
    hk_status st = hk_tuning_path(dev->gpu, t.tuning->arena, t.params.path ? t.params.path : "device", true, &path);
    if (st == HK_OK)
        st = tune(&t, path, &made);
    if (st == HK_OK)
        snprintf(made.path, sizeof made.path, "%s", path);
    if (st == HK_OK && result)
        *result = made;
    hk_free(t.ctx, t.least);
    hk_tuning_destroy(&t.tuning);
    return st;
}
