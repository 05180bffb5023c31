#include "push.h"
/* gemm_norm.comp: partial sums [splits][rows][extent]; addends and results are [rows][extent], bias and the rest one row. */
PUSH_BEGIN(gemm_norm_push)
ADDRESS(sums)
ADDRESS(addend)   /* the product's bias */
ADDRESS(residual)
ADDRESS(z)        /* the finished product */
ADDRESS(scale)
ADDRESS(bias)
ADDRESS(y)
UINT(rows)
UINT(extent)
FLOAT(alpha)
FLOAT(beta)
FLOAT(epsilon)
PUSH_END
