#include "tests/support/importer_bench.h"

#include <time.h>

int start(void **state)
{
    bench *b = calloc(1, sizeof *b);
    if (b == NULL)
        return -1;
    counted_open(&b->memory);
    *state = b;
    return 0;
}

int stop(void **state)
{
    bench *b = *state;
    hk_import_destroy(&b->r);
    ob_free(&b->o);
    bool clean = counted_close(&b->memory);
    free(b);
    return clean ? 0 : -1;
}

/* Of this process: other work on the machine does not count. */
static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

const char *error_of(const bench *b)
{
    return hk_context_error(b->memory.ctx);
}

hk_status import_bytes(bench *b)
{
    while (b->o.depth > 0)
        ob_close(&b->o);
    hk_import_destroy(&b->r);
    double t = now();
    b->st = hk_import(b->memory.ctx, NULL, b->o.data, b->o.count, NULL, &b->r);
    b->seconds = now() - t;
    if (b->st != HK_OK)
        assert_null(b->r);
    return b->st;
}

hk_status import_path(bench *b, const char *path)
{
    hk_import_destroy(&b->r);
    b->st = hk_import(b->memory.ctx, path, NULL, 0, NULL, &b->r);
    return b->st;
}

void restart(bench *b)
{
    b->o.count = 0;
    b->o.depth = 0;
}

void assert_ok(bench *b)
{
    if (b->st != HK_OK)
        fail_msg("%d: %s", (int)b->st, error_of(b));
    for (size_t i = 0; i < b->r->problem_count; i++)
        fail_msg("problem: %s (%s): %s", b->r->problems[i].node, b->r->problems[i].op, b->r->problems[i].reason);
}

void assert_fails(bench *b, hk_status expected, const char *says)
{
    if (b->st != expected || strstr(error_of(b), says) == NULL)
        fail_msg("%d '%s', expected %d with '%s'", (int)b->st, b->st == HK_OK ? "" : error_of(b), (int)expected, says);
}

void assert_problem(bench *b, size_t i, const char *node, const char *op, const char *reason)
{
    if (b->st != HK_OK)
        fail_msg("%d: %s", (int)b->st, error_of(b));
    assert_true(i < b->r->problem_count);
    const hk_problem *p = &b->r->problems[i];
    if (strcmp(p->node, node) != 0 || strcmp(p->op, op) != 0 || strstr(p->reason, reason) == NULL)
        fail_msg("problem %zu is: %s (%s): %s", i, p->node, p->op, p->reason);
}

hk_value *value(bench *b, const char *name)
{
    hk_value *v = hk_graph_find(b->r->graph, name);
    if (v == NULL)
        fail_msg("no value '%s'", name);
    return v;
}

size_t parameters(const bench *b)
{
    size_t count = 0;
    for (size_t i = 0; i < b->r->graph->value_count; i++)
        count += b->r->graph->values[i]->kind == HK_VALUE_PARAMETER;
    return count;
}
