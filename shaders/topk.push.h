#include "push.h"
/* x: [rows / inner][extent][inner]. Candidates are (key, index) in uvec2, or (key's high and low word, index, unused) in
 * uvec4 where x has 64 bits: `count` to a row, in `runs` runs of `span`, of each of which (or pair of which) `kept` stay.
 * The values and indices, [rows / inner][k][inner], are written by the last dispatch. */
PUSH_BEGIN(topk_push)
ADDRESS(x)
ADDRESS(from)
ADDRESS(to)
ADDRESS(values)
ADDRESS(indices)
UINT(rows)
UINT(extent)
UINT(inner)
UINT(k)
UINT(count)
UINT(runs)
UINT(span)
UINT(kept)
PUSH_END
