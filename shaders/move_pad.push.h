#include "push.h"
/* table: rank entries of nine words, the innermost dimension first: {extent, multiplier, shift} of the destination,
 * {lead, count, stride} of the source, {step or period, multiplier, shift}; ops/support/move_pad.c says what they
 * are. */
PUSH_BEGIN(move_pad_push)
ADDRESS(from)
ADDRESS(to)
ADDRESS(table)
UINT(count)
UINT(rank)
UINT(from_base)
UINT(value_low)
UINT(value_high)
PUSH_END
