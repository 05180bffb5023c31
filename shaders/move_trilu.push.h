#include "push.h"
/* Matrices of rows x columns, one behind the other; k is the diagonal. */
PUSH_BEGIN(move_trilu_push)
ADDRESS(x)
ADDRESS(y)
UINT(count)
UINT(columns)
UINT(columns_multiplier)
UINT(columns_shift)
UINT(rows)
UINT(rows_multiplier)
UINT(rows_shift)
INT(k)
PUSH_END
