#include "push.h"
/* x and y are [rows / inner][extent][inner]; a row runs over extent in chunks of `chunk` elements. totals: one element
 * for each chunk of each row. */
PUSH_BEGIN(cumulative_push)
ADDRESS(x)
ADDRESS(y)
ADDRESS(totals)
UINT(rows)
UINT(extent)
UINT(inner)
UINT(chunk)
UINT(chunks)
PUSH_END
