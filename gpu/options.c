/*
 * Parameters and environment of a device: HILLOCK_DEVICE, _CACHE_DIR, _CAPS, _DEBUG, _TIMEOUT_MS.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/internal.h"

enum { DEFAULT_TIMEOUT_MS = 120000, WORD_BYTES = 64 };

/* An environment variable; NULL when unset or empty. */
static const char *environment(const char *name)
{
    const char *value = getenv(name);
    return value != NULL && value[0] != '\0' ? value : NULL;
}

/* Takes the next word of a comma-separated list; false at its end. Words too long to be known come out cut. */
static bool next_word(const char **list, char word[WORD_BYTES])
{
    *list += strspn(*list, ", ");
    size_t length = strcspn(*list, ", ");
    if (length == 0)
        return false;
    snprintf(word, WORD_BYTES, "%.*s", (int)HK_MIN(length, (size_t)WORD_BYTES - 1), *list);
    *list += length;
    return true;
}

static hk_status read_caps(hk_context *ctx, const char *list, const char *where, hk_status st, hk_gpu_options *out)
{
    static const char *const names[] = {
#define HK_X(name, text) text,
        HK_CAP_MAP(HK_X)
#undef HK_X
    };
    char word[WORD_BYTES];
    while (next_word(&list, word)) {
        if (strcmp(word, "min") == 0) {
            out->minimal = true;
            continue;
        }
        size_t cap = 0;
        while (cap < HK_COUNT(names) && (word[0] != '-' || strcmp(word + 1, names[cap]) != 0))
            cap++;
        if (cap == HK_COUNT(names))
#define HK_X(name, text) " -" text
            return hk_fail(ctx, st, "%s: '%s' is not one of: min" HK_CAP_MAP(HK_X), where, word);
#undef HK_X
        out->caps_off |= 1u << cap;
    }
    if (out->minimal)
        out->caps_off = (1u << HK_CAP_COUNT) - 1;
    return HK_OK;
}

static hk_status read_debug(hk_context *ctx, const char *list, const char *where, hk_status st, hk_gpu_options *out)
{
    static const struct {
        const char *name;
        unsigned bit;
    } modes[] = {{"check-plan", HK_DEBUG_CHECK_PLAN},
                 {"shuffle", HK_DEBUG_SHUFFLE},
                 {"poison", HK_DEBUG_POISON},
                 {"isolate", HK_DEBUG_ISOLATE},
                 {"validate", HK_DEBUG_VALIDATE},
                 {"gpu-tuning", HK_DEBUG_GPU_TUNING},
#define HK_X(name, text) {"no-" text, HK_DEBUG_NO_PASS(HK_PASS_##name)},
                 HK_PASS_MAP(HK_X)
#undef HK_X
    };
    char word[WORD_BYTES];
    while (next_word(&list, word)) {
        size_t i = 0;
        while (i < HK_COUNT(modes) && strcmp(word, modes[i].name) != 0)
            i++;
        if (i == HK_COUNT(modes))
#define HK_X(name, text) ", no-" text
            return hk_fail(
                ctx, st,
                "%s: '%s' is not one of check-plan, shuffle, poison, isolate, validate, gpu-tuning" HK_PASS_MAP(HK_X),
                where, word);
#undef HK_X
        out->debug |= modes[i].bit;
    }
    return HK_OK;
}

static hk_status read_timeout(hk_context *ctx, hk_gpu_options *out)
{
    uint64_t ms = DEFAULT_TIMEOUT_MS;
    const char *text = environment("HILLOCK_TIMEOUT_MS");
    if (text != NULL) {
        char *end = NULL;
        errno = 0;
        unsigned long long value = strtoull(text, &end, 10);
        /* A day is more than any submission may take, and its nanoseconds fit. */
        if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || value == 0 || value > 86400000u)
            return hk_fail(ctx, HK_STATUS_CONFIG,
                           "HILLOCK_TIMEOUT_MS: '%s' is not a number of milliseconds from 1 to 86400000", text);
        ms = value;
    }
    out->timeout_ns = ms * 1000000u;
    return HK_OK;
}

static char *join(hk_context *ctx, const char *a, const char *b)
{
    size_t bytes = strlen(a) + strlen(b) + 1;
    char *s = hk_alloc(ctx, bytes);
    if (s != NULL)
        snprintf(s, bytes, "%s%s", a, b);
    return s;
}

/* Parameter, HILLOCK_CACHE_DIR, then the XDG base directory specification's cache folder; a machine without a home
 * folder has none. */
static hk_status read_cache_dir(hk_context *ctx, const hk_device_params *params, hk_gpu_options *out)
{
    const char *base = params->cache_dir, *below = "";
    if (base == NULL)
        base = environment("HILLOCK_CACHE_DIR");
    if (base == NULL) {
        base = environment("XDG_CACHE_HOME");
        below = "/hillock";
        if (base != NULL && base[0] != '/')
            base = NULL; /* the specification: relative paths are to be ignored */
    }
    if (base == NULL) {
        base = environment("HOME");
        below = "/.cache/hillock";
    }
    if (base == NULL || base[0] == '\0')
        return HK_OK;
    out->cache_dir = join(ctx, base, below);
    return out->cache_dir == NULL ? hk_out_of_memory(ctx, "the cache folder's path") : HK_OK;
}

hk_status hk_gpu_options_read(hk_context *ctx, const hk_device_params *params, hk_gpu_options *out)
{
    hk_device_params p = {0};
    if (params != NULL) {
        if (params->size < sizeof params->size)
            return hk_fail(ctx, HK_STATUS_USAGE, "hk_device_params.size is %zu: set it to sizeof(hk_device_params)",
                           params->size);
        memcpy(&p, params, HK_MIN(params->size, sizeof p));
    }
    *out = (hk_gpu_options){.max_memory_bytes = p.max_memory_bytes == 0 ? UINT64_MAX : p.max_memory_bytes};

    out->select = p.select;
    if (out->select == NULL) {
        out->select = environment("HILLOCK_DEVICE");
        out->select_from_environment = out->select != NULL;
    }
    const char *text;
    if (p.caps != NULL)
        HK_TRY(read_caps(ctx, p.caps, "hk_device_params.caps", HK_STATUS_USAGE, out));
    else if ((text = environment("HILLOCK_CAPS")) != NULL)
        HK_TRY(read_caps(ctx, text, "HILLOCK_CAPS", HK_STATUS_CONFIG, out));
    if (p.debug != NULL)
        HK_TRY(read_debug(ctx, p.debug, "hk_device_params.debug", HK_STATUS_USAGE, out));
    else if ((text = environment("HILLOCK_DEBUG")) != NULL)
        HK_TRY(read_debug(ctx, text, "HILLOCK_DEBUG", HK_STATUS_CONFIG, out));
    HK_TRY(read_timeout(ctx, out));
    return read_cache_dir(ctx, &p, out);
}

void hk_gpu_options_release(hk_context *ctx, hk_gpu_options *options)
{
    hk_free(ctx, options->cache_dir);
    options->cache_dir = NULL;
}
