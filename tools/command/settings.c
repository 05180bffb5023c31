/* Settings of a training run, from table, file and flags. */
#include "tools/command/settings.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#ifdef HK_HAVE_CJSON
#include <cjson/cJSON.h>
#endif

#define TEXT(flag, member, otherwise)                                                                                  \
    {                                                                                                                  \
        flag, SETTING_TEXT, offsetof(settings, member), 0, 0, 0, otherwise                                             \
    }
#define LIST(flag, member)                                                                                             \
    {                                                                                                                  \
        flag, SETTING_LIST, offsetof(settings, member), 0, 0, 0, NULL                                                  \
    }
#define NUMBER(flag, member, otherwise, least, most)                                                                   \
    {                                                                                                                  \
        flag, SETTING_NUMBER, offsetof(settings, member), otherwise, least, most, NULL                                 \
    }
#define SWITCH(flag, member)                                                                                           \
    {                                                                                                                  \
        flag, SETTING_SWITCH, offsetof(settings, member), 0, 0, 0, NULL                                                \
    }

const setting settings_table[] = {
    TEXT("--data", data, NULL),
    TEXT("--labels", labels, NULL),
    TEXT("--label-column", column, NULL),
    TEXT("--val", val, NULL),
    TEXT("--out", out, "train-out"),
    TEXT("--loss", loss, "ce"),
    TEXT("--reduction", reduction, "mean"),
    TEXT("--optimizer", optimizer, "adamw"),
    TEXT("--schedule", schedule, "constant"),
    TEXT("--precision", precision, "strict"),
    TEXT("--output", output, NULL),
    TEXT("--monitor", monitor, NULL),
    TEXT("--event-bins", event_bins, "count"),
    LIST("--freeze", freeze),
    LIST("--train", train),
    LIST("--train-also", train_also),
    LIST("--no-decay", no_decay),
    LIST("--lr-scale", lr_scale),
    LIST("--shape", shape),
    LIST("--mean", mean),
    LIST("--std", std),
    LIST("--class-weights", class_weights),
    NUMBER("--lr", lr, 1e-3, 1e-12, 1e30),
    NUMBER("--beta1", beta1, 0.9, 0, 0.9999999),
    NUMBER("--beta2", beta2, 0.999, 0, 0.9999999),
    NUMBER("--eps", eps, 1e-8, 1e-30, 1),
    NUMBER("--weight-decay", weight_decay, -1, -1, 1e3),
    NUMBER("--momentum", momentum, 0, 0, 0.9999999),
    NUMBER("--dampening", dampening, 0, 0, 1),
    NUMBER("--clip", clip, 0, 0, 1e9),
    NUMBER("--ema", ema, 0, 0, 0.9999999),
    NUMBER("--loss-scale", loss_scale, 0, 0, 1e9),
    NUMBER("--label-smoothing", label_smoothing, 0, 0, 1),
    NUMBER("--beta", beta, 1, 1e-9, 1e9),
    NUMBER("--gamma", gamma, 0.1, 1e-9, 1e3),
    NUMBER("--least", least, 0, 0, 1),
    NUMBER("--ignore-index", ignore_index, -100, -1e9, 1e9),
    NUMBER("--scale", scale, 0, 0, 1e9),
    NUMBER("--batch", batch, 32, 1, 1e6),
    NUMBER("--epochs", epochs, 10, 1, 1e6),
    NUMBER("--steps", steps, 0, 0, 1e12),
    NUMBER("--seed", seed, 0, 0, 4294967295.0),
    NUMBER("--warmup", warmup, 0, 0, 1e12),
    NUMBER("--every", every, 0, 0, 1e12),
    NUMBER("--accumulate", accumulate, 1, 1, 1e6),
    NUMBER("--patience", patience, 0, 0, 1e6),
    NUMBER("--keep", keep, 2, 1, 1e6),
    NUMBER("--save-every", save_every, 0, 0, 1e12),
    NUMBER("--max-bad", max_bad, 0, 0, 1e12),
    NUMBER("--resize", resize, 0, 0, 32768),
    NUMBER("--shift", shift, 0, 0, 1024),
    NUMBER("--threads", threads, 2, 1, 16),
    NUMBER("--new-head", new_head, 0, 0, 2147483647),
    NUMBER("--dropout", dropout, 0, 0, 0.9999999),
    NUMBER("--top-k", top_k, 5, 1, 1e6),
    LIST("--lora", lora),
    SWITCH("--keep-state", keep_state),
    SWITCH("--tie", tie),
    SWITCH("--tie-matrices", tie_matrices),
    SWITCH("--rebuild-bn", rebuild_bn),
    SWITCH("--keep-bn", keep_bn),
    SWITCH("--safetensors", safetensors),
    SWITCH("--nesterov", nesterov),
    SWITCH("--accumulate-total", accumulate_total),
    SWITCH("--freeze-bn", freeze_bn),
    SWITCH("--allow-unreached", allow_unreached),
    SWITCH("--checkpointing", checkpointing),
    SWITCH("--flip", flip),
    SWITCH("--targets", targets),
    SWITCH("--drop-last", drop_last),
    SWITCH("--no-shuffle", no_shuffle),
    {0},
};
#define SETTINGS (sizeof settings_table / sizeof *settings_table - 1)

const option_spec *settings_specs(void)
{
    static option_spec specs[SETTINGS + 4];
    for (size_t i = 0; i < SETTINGS; i++)
        specs[i] = (option_spec){settings_table[i].flag, settings_table[i].kind != SETTING_SWITCH,
                                 settings_table[i].kind == SETTING_LIST};
    specs[SETTINGS] = (option_spec){"--config", true, false};
    specs[SETTINGS + 1] = (option_spec){"--dump-config", false, false};
    specs[SETTINGS + 2] = (option_spec){"--resume", false, false};
    return specs;
}

static void *member(const settings *s, const setting *t)
{
    return (char *)(uintptr_t)s + t->offset;
}

static const char *copied(const settings *s, const char *text, size_t length)
{
    char *copy = options_allocate(s->owner, length + 1);
    memcpy(copy, text, length);
    return copy;
}

/* Adds what stands between commas. */
static void add_items(const settings *s, text_list *list, const char *text)
{
    size_t most = list->count + 1;
    for (const char *c = text; *c; c++)
        most += *c == ',';
    const char **items = options_allocate(s->owner, most * sizeof *items);
    if (list->count)
        memcpy(items, list->items, list->count * sizeof *items);
    list->items = items;
    while (*text) {
        size_t n = strcspn(text, ",");
        list->items[list->count++] = copied(s, text, n);
        text += n + (text[n] == ',');
    }
}

static bool set_number(const setting *t, const char *text, double x, double *out)
{
    *out = x;
    if (x >= t->least && x <= t->most)
        return true;
    fprintf(stderr, "hillock train: '%s' must be a number from %g to %g, found '%s'\n", t->flag, t->least, t->most,
            text);
    return false;
}

static bool set_from_text(settings *s, const setting *t, const char *text)
{
    char *end = NULL;
    switch (t->kind) {
    case SETTING_TEXT: *(const char **)member(s, t) = copied(s, text, strlen(text)); return true;
    case SETTING_LIST: add_items(s, member(s, t), text); return true;
    case SETTING_SWITCH: *(bool *)member(s, t) = true; return true;
    case SETTING_NUMBER: break;
    }
    double x = strtod(text, &end);
    return set_number(t, text, *text && !*end ? x : t->most + 1, member(s, t));
}

/* ---- the file */

#ifdef HK_HAVE_CJSON
#define CONFIG_LIMIT ((size_t)1 << 20)

static const setting *find(const char *name)
{
    for (size_t i = 0; i < SETTINGS; i++)
        if (!strcmp(settings_table[i].flag + 2, name))
            return &settings_table[i];
    return NULL;
}

static bool set_from_json(settings *s, const setting *t, const cJSON *v)
{
    if (t->kind == SETTING_TEXT && (cJSON_IsString(v) || cJSON_IsNull(v))) {
        if (cJSON_IsString(v))
            *(const char **)member(s, t) = copied(s, v->valuestring, strlen(v->valuestring));
        return true;
    }
    if (t->kind == SETTING_SWITCH && cJSON_IsBool(v)) {
        *(bool *)member(s, t) = cJSON_IsTrue(v);
        return true;
    }
    if (t->kind == SETTING_NUMBER && cJSON_IsNumber(v))
        return set_number(t, "a number of the configuration", v->valuedouble, member(s, t));
    if (t->kind != SETTING_LIST || !cJSON_IsArray(v))
        return false;
    *(text_list *)member(s, t) = (text_list){0};
    for (const cJSON *item = v->child; item; item = item->next) {
        if (!cJSON_IsString(item))
            return false;
        add_items(s, member(s, t), item->valuestring);
    }
    return true;
}

static char *read_text(const char *path)
{
    FILE *f = fopen(path, "rb");
    char *text = f ? calloc(1, CONFIG_LIMIT + 1) : NULL;
    if (text && (fread(text, 1, CONFIG_LIMIT, f) == 0 || !feof(f))) {
        free(text);
        text = NULL;
    }
    if (f)
        fclose(f);
    return text;
}

static int set_all(settings *s, const char *path, const cJSON *root)
{
    for (const cJSON *v = root->child; v; v = v->next) {
        const setting *t = find(v->string);
        const cJSON *before = root->child;
        while (before != v && strcmp(before->string, v->string) != 0)
            before = before->next;
        const char *problem = before != v                             ? "stands twice"
                              : !t && strcmp(v->string, "model") != 0 ? "is no setting"
                              : t                 ? set_from_json(s, t, v) ? NULL : "has a value that does not fit"
                              : cJSON_IsString(v) ? NULL
                                                  : "is no text";
        if (problem) {
            fprintf(stderr, "hillock train: '%s': \"%s\" %s\n", path, v->string, problem);
            return 78;
        }
        if (!t)
            s->model = copied(s, v->valuestring, strlen(v->valuestring));
    }
    return -1;
}

static int read_file(settings *s, const char *path)
{
    char *text = read_text(path);
    const char *end = text;
    cJSON *root = text ? cJSON_ParseWithOpts(text, &end, true) : NULL;
    int code = 78;
    if (!text)
        fprintf(stderr, "hillock train: '%s' cannot be read, or is empty or larger than 1 MiB\n", path);
    else if (!cJSON_IsObject(root))
        fprintf(stderr, "hillock train: '%s' is no JSON object: it stops making sense at byte %td\n", path, end - text);
    else
        code = set_all(s, path, root);
    cJSON_Delete(root);
    free(text);
    return code;
}
#else
static int read_file(settings *s, const char *path)
{
    (void)s;
    fprintf(stderr, "hillock train: '%s' cannot be read: this build has no JSON library (cJSON)\n", path);
    return 78;
}
#endif

int settings_read(settings *s, options *o)
{
    *s = (settings){.owner = o};
    for (size_t i = 0; i < SETTINGS; i++) {
        const setting *t = &settings_table[i];
        if (t->kind == SETTING_TEXT)
            *(const char **)member(s, t) = t->text;
        if (t->kind == SETTING_NUMBER)
            *(double *)member(s, t) = t->otherwise;
    }
    const char *config = option_value(o, "--config");
    int code = config ? read_file(s, config) : -1;
    bool begun[SETTINGS] = {false};
    for (size_t i = 0; i < o->given_count && code < 0; i++)
        for (size_t k = 0; k < SETTINGS; k++) {
            const setting *t = &settings_table[k];
            if (strcmp(o->given[i].spec->name, t->flag) != 0)
                continue;
            if (t->kind == SETTING_LIST && !begun[k]) /* flags replace the file's list */
                *(text_list *)member(s, t) = (text_list){0};
            begun[k] = true;
            if (!set_from_text(s, t, o->given[i].value))
                code = EXIT_USAGE;
        }
    return code;
}

void settings_write(const settings *s, FILE *f)
{
    json_begin(f);
    if (s->model)
        json_string(f, "model", s->model);
    for (size_t i = 0; i < SETTINGS; i++) {
        const setting *t = &settings_table[i];
        const char *name = t->flag + 2;
        const text_list *list = member(s, t);
        switch (t->kind) {
        case SETTING_TEXT:
            if (*(const char **)member(s, t))
                json_string(f, name, *(const char **)member(s, t));
            break;
        case SETTING_NUMBER: json_number(f, name, *(double *)member(s, t)); break;
        case SETTING_SWITCH: json_bool(f, name, *(bool *)member(s, t)); break;
        case SETTING_LIST:
            json_array(f, name);
            for (size_t k = 0; k < list->count; k++)
                json_string(f, NULL, list->items[k]);
            json_array_end(f);
            break;
        }
    }
    json_end(f);
}

bool list_numbers(const char *flag, const text_list *list, float *values, size_t most, size_t *count)
{
    *count = list->count;
    if (list->count > most) {
        fprintf(stderr, "hillock: '%s' has %zu numbers, at most %zu are taken\n", flag, list->count, most);
        return false;
    }
    for (size_t i = 0; i < list->count; i++) {
        char *end = NULL;
        values[i] = strtof(list->items[i], &end);
        if (!*list->items[i] || *end) {
            fprintf(stderr, "hillock: '%s' takes numbers between commas, found '%s'\n", flag, list->items[i]);
            return false;
        }
    }
    return true;
}
