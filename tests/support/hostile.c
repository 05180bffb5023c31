/* See hostile.h. */
#include "tests/support/hostile.h"

#include <stdio.h>
#include <time.h>

enum { MIB = 1 << 20, PEAK_ALLOWED = 256 * MIB };
/* Seconds a file below 1 MiB may take; sanitizers are slower. */
#ifdef SANITIZED
static const double seconds_allowed = 20;
#else
static const double seconds_allowed = 1;
#endif

/* Of this process: other work on the machine does not count. */
static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void check(hostile_load *h, hk_context *ctx, hk_model *m)
{
    hk_model_info info;
    hk_status st = hk_model_check(m);
    hk_model_get_info(m, &info);
    h->nodes = info.nodes;
    const hk_problem *list = hk_model_problems(m, &h->problems);
    if (st != HK_OK) { /* out of memory */
        h->status = st;
        snprintf(h->error, sizeof h->error, "%s", hk_context_error(ctx));
    } else if (h->problems != 0) {
        snprintf(h->error, sizeof h->error, "%s (%s): %s", list[0].node, list[0].op, list[0].reason);
    }
}

void hostile_open(hostile_load *h, const char *path, const void *data, size_t bytes)
{
    counted c = {0};
    hk_model *m = NULL;
    *h = (hostile_load){0};
    counted_open(&c);
    double start = now();
    h->status = path == NULL ? hk_model_load_memory(c.ctx, data, bytes, NULL, &m)
                             : hk_model_load(c.ctx, path, NULL, &m);
    h->loading = now() - start;
    if (h->status == HK_OK)
        check(h, c.ctx, m);
    else
        snprintf(h->error, sizeof h->error, "%s", hk_context_error(c.ctx));
    h->seconds = now() - start;
    hk_model_destroy(&m);
    h->peak_bytes = c.peak;
    h->leaked = !counted_close(&c);
}

const char *hostile_bounds(const hostile_load *h, size_t bytes, char text[160])
{
    if (h->leaked)
        return "memory was leaked";
    if (h->status != HK_OK && h->error[0] == '\0')
        return "it failed without a sentence";
    if (h->status == HK_STATUS_INTERNAL)
        return h->error;
    if (h->seconds <= seconds_allowed && h->peak_bytes <= PEAK_ALLOWED + bytes)
        return NULL;
    snprintf(text, 160, "took %.2f s, %.2f of them to load, and %zu MiB for %zu bytes", h->seconds, h->loading,
             h->peak_bytes / MIB, bytes);
    return text;
}
