/*
 * Choosing among kernels. Whoever has several that compute the same (tiles, splits, ways) names them as candidates,
 * each with its predicted cost; the cheapest is taken. A table of measurements (hk_tuning, of a session that was given
 * one) can name another candidate for a problem, and while such a table is made (runtime/tune.c) one after the other is
 * taken. So one list serves the choice by reckoning and the choice by measuring.
 *
 *     hk_choice c;
 *     hk_choice_begin(l, &c, HK_CHOICE_TILE, "gemm %lldx%lld ...", ...);
 *     hk_choice_add(&c, &(hk_candidate){.name = tile->name, .variant = tile, .splits = 2, .cost = ...});
 *     const hk_candidate *taken = hk_choice_end(l, &c);
 *     ... emit its records ...
 *     hk_choice_leave(l, HK_CHOICE_TILE);
 */
#ifndef HK_CHOICE_H
#define HK_CHOICE_H

#include "ops/op.h"

enum { HK_CANDIDATES_MOST = 8, HK_PROBLEM_BYTES = 192 };

/* A way (Winograd's transforms, a general kernel, ...) may hold choices of tiles; it is measured with the best of them.
 */
typedef enum hk_choice_kind { HK_CHOICE_TILE, HK_CHOICE_WAY } hk_choice_kind;

typedef struct hk_candidate {
    const char *name;    /* static text: with splits what a table calls it by */
    const void *variant; /* the family's own */
    uint32_t splits;     /* 1: none */
    double cost;         /* predicted; compared within one problem only */
} hk_candidate;

/* A problem of a table: while the table is used kernel and splits say what to take, while it is made the rest counts.
 */
typedef struct hk_tuned {
    const char *problem;
    hk_choice_kind kind;
    const char *kernel; /* NULL: not decided */
    uint32_t splits;
    double ns, first_ns; /* of that kernel, and of the one predicted to be the cheapest */
    uint32_t places;     /* lowerings in the round under way, */
    double sum;          /* and what their records took */
    uint32_t count;
    hk_candidate candidate[HK_CANDIDATES_MOST]; /* cheapest first, */
    double measured[HK_CANDIDATES_MOST];        /* and what each took in one place; 0: not measured */
} hk_tuned;

typedef struct hk_tuning {
    hk_arena *arena;
    hk_map map; /* problem to hk_tuned */
    hk_tuned **list;
    size_t count, capacity;
    bool measuring;
    uint32_t
        take[2]; /* by kind, while measuring: this candidate of undecided problems; of those with fewer the first */
} hk_tuning;

/* Whether candidates are tried one after the other. */
static inline bool hk_choice_measures(const hk_lower *l)
{
    return l->tuning && l->tuning->measuring;
}

/* The problem of that text, made if it is not there; NULL when out of memory. */
hk_tuned *hk_tuning_add(hk_tuning *t, const char *problem);

typedef struct hk_choice {
    hk_choice_kind kind;
    char problem[HK_PROBLEM_BYTES]; /* "" without a table */
    hk_tuned *known;
    hk_candidate wanted; /* what the table says; no name: not among the candidates so far */
    uint32_t count;
    hk_candidate best[HK_CANDIDATES_MOST]; /* cheapest first; of equal ones the one added first */
} hk_choice;

/* The text is the problem: family, precision, and all that decides which candidate is fast. */
void hk_choice_begin(const hk_lower *l, hk_choice *c, hk_choice_kind kind, const char *format, ...) HK_PRINTF(4, 5);
void hk_choice_add(hk_choice *c, const hk_candidate *candidate);
/* What to take, NULL if nothing was added. Records emitted from here on count as its, until hk_choice_leave. */
const hk_candidate *hk_choice_end(hk_lower *l, const hk_choice *c);
void hk_choice_leave(hk_lower *l, hk_choice_kind kind);
/* "strict", "high", "fast", for problems. */
const char *hk_choice_precision(const hk_lower *l);

#endif
