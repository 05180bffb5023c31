/* The push block of the attention kernels: what shaders/attention_common.glsl says holds for all of them. */
#include "push.h"
PUSH_BEGIN(attention_push)
ADDRESS(q)
ADDRESS(k)
ADDRESS(v)
ADDRESS(y)
ADDRESS(mask)    /* float32 or bool, read as MASK says */
ADDRESS(lengths) /* int64, one for each batch: the keys that are no padding */
ADDRESS(extra)   /* see extra_* in attention_common.glsl; read if there is a mask or a soft cap */
UINT(q_batch)    /* element strides of batch, head and row; elements of a row follow each other */
UINT(q_head)
UINT(q_row)
UINT(k_batch)
UINT(k_head)
UINT(k_row)
UINT(v_batch)
UINT(v_head)
UINT(v_row)
UINT(rows) /* queries of a head */
UINT(keys)
UINT(size) /* elements of a query and of a key */
UINT(v_size)
UINT(heads)
UINT(group) /* heads that share one head of keys and values */
UINT(past)  /* causal: query i sees keys 0 .. past + i */
UINT(batches)
FLOAT(scale)
PUSH_END
