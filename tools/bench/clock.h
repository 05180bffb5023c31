/* The wall clock of the benchmarks. */
#ifndef HK_BENCH_CLOCK_H
#define HK_BENCH_CLOCK_H

#include <time.h>

/* Seconds from some fixed time on. */
static inline double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

#endif
