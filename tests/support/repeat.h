/*
 * How often tests repeat what does not change the path that is taken: steps, seeds, places, time steps.
 */
#ifndef HK_TEST_REPEAT_H
#define HK_TEST_REPEAT_H

#include <stdlib.h>

/* all; few where HILLOCK_TEST_STEPS is set: in passes that look at each path under a sanitizer, the validation layer or
 * a debug mode, after the plain pass has looked at the numbers. */
static inline int repeats(int all, int few)
{
    return getenv("HILLOCK_TEST_STEPS") ? few : all;
}

#endif
