/* Candidates, the cheapest few of them, and tables that know better. */
#include "ops/support/choice.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { SPLITS_MOST = 2 }; /* candidates kept of one variant: numbers of splits beside each other tell little */

hk_tuned *hk_tuning_add(hk_tuning *t, const char *problem)
{
    hk_tuned *known = hk_map_get(&t->map, problem);
    if (known)
        return known;
    if (t->count == t->capacity && !hk_arena_grow(t->arena, (void **)&t->list, t->count, &t->capacity, sizeof *t->list))
        return NULL;
    known = hk_arena_new(t->arena, hk_tuned);
    if (!known || !(known->problem = hk_arena_string(t->arena, problem)) || !hk_map_set(&t->map, known->problem, known))
        return NULL;
    t->list[t->count++] = known;
    return known;
}

const char *hk_choice_precision(const hk_lower *l)
{
    return l->precision == HK_PRECISION_FAST ? "fast" : l->precision == HK_PRECISION_HIGH ? "high" : "strict";
}

void hk_choice_begin(const hk_lower *l, hk_choice *c, hk_choice_kind kind, const char *format, ...)
{
    *c = (hk_choice){.kind = kind};
    if (!l->tuning)
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(c->problem, sizeof c->problem, format, args);
    va_end(args);
    c->known = hk_map_get(&l->tuning->map, c->problem);
}

static bool is_wanted(const hk_choice *c, const hk_candidate *x)
{
    return c->known && c->known->kernel && c->known->splits == x->splits && !strcmp(c->known->kernel, x->name);
}

void hk_choice_add(hk_choice *c, const hk_candidate *x)
{
    uint32_t same = 0, dearest = 0, at = c->count;
    if (is_wanted(c, x))
        c->wanted = *x;
    for (uint32_t i = 0; i < c->count; i++) {
        bool equal = c->best[i].variant == x->variant;
        if (equal && c->best[i].splits == x->splits)
            return;
        same += equal;
        dearest = equal ? i : dearest;
    }
    uint32_t end = same == SPLITS_MOST ? dearest : c->count < HK_CANDIDATES_MOST ? c->count : HK_CANDIDATES_MOST - 1;
    while (at > 0 && x->cost < c->best[at - 1].cost)
        at--;
    if (at > end || at == HK_CANDIDATES_MOST)
        return;
    c->count += end == c->count;
    memmove(&c->best[at + 1], &c->best[at], (end - at) * sizeof *c->best);
    c->best[at] = *x;
}

/* Which candidate the making of a table is at. */
static const hk_candidate *measured(hk_lower *l, const hk_choice *c)
{
    hk_tuning *t = l->tuning;
    hk_tuned *known = c->known ? c->known : hk_tuning_add(t, c->problem);
    if (!known) {
        l->failed = true;
        return &c->best[0];
    }
    if (!known->count) {
        known->kind = c->kind;
        known->count = c->count;
        memcpy(known->candidate, c->best, sizeof c->best);
    }
    known->places++;
    l->choice[c->kind] = known;
    uint32_t take = t->take[c->kind];
    return c->wanted.name ? &c->wanted : &c->best[take < c->count ? take : 0];
}

const hk_candidate *hk_choice_end(hk_lower *l, const hk_choice *c)
{
    if (!c->count)
        return NULL;
    if (hk_choice_measures(l))
        return measured(l, c);
    if (!c->wanted.name)
        return &c->best[0];
    l->choice[c->kind] = c->known;
    return &c->wanted;
}

void hk_choice_leave(hk_lower *l, hk_choice_kind kind)
{
    l->choice[kind] = NULL;
}
