/* Push block of gemm_split.comp. */
#include "push.h"
PUSH_BEGIN(gemm_split_push)
ADDRESS(from)
ADDRESS(to)
UINT(rows) /* as stored */
UINT(columns)
UINT(ld)     /* elements from one stored row to the next */
UINT(matrix) /* elements from one matrix, or image, to the next */
UINT(blocks) /* of all matrices */
PUSH_END
