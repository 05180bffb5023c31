/* The push block of every GEMM kernel: what shaders/gemm_common.glsl says about it holds for all of them. */
#include "push.h"
PUSH_BEGIN(gemm_push)
ADDRESS(a)
ADDRESS(b)
ADDRESS(c)        /* the result, or the partial sums of split-K */
ADDRESS(bias)
ADDRESS(residual) /* same indices as c */
ADDRESS(batch)    /* table of batch dimensions, read if batch_inner is 0 */
UINT(m)
UINT(n)
UINT(k)
UINT(lda) /* elements from one row of A as stored to the next; A split (halves.glsl): 4-byte words to its undos */
UINT(ldb)
UINT(work)        /* the grid may be larger: number of workgroups; gemm_reduce, gemm_int: elements of C */
UINT(k_split)     /* K range of one split; k when there is one split */
UINT(batch_inner) /* batch z is (z / batch_inner, z % batch_inner) */
UINT(a_outer)     /* element strides of the two batch dimensions; of split operands in blocks */
UINT(a_inner)
UINT(b_outer)
UINT(b_inner)
UINT(bias_outer)
UINT(bias_inner)
UINT(bias_m) /* element strides of the bias along rows and columns; 0 broadcasts */
UINT(bias_n)
FLOAT(alpha)
FLOAT(beta)
FLOAT(act_a)
FLOAT(act_b)
PUSH_END
