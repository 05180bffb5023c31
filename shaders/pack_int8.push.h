/* The push block of pack_int8.comp. */
#include "push.h"
PUSH_BEGIN(pack_int8_push)
ADDRESS(from)
ADDRESS(zeros) /* zero points, read if there are any */
ADDRESS(to)
ADDRESS(edges)
UINT(outer)  /* rows of A or columns of B, */
UINT(k)      /* and how many elements they have: of one matrix */
UINT(row)    /* 32-bit words of a packed row, a multiple of four */
UINT(ld)     /* elements from one stored row to the next; of images from one channel to the next */
UINT(matrix) /* from one matrix to the next; of images from one group to the next */
UINT(image)  /* of images: from one to the next */
UINT(groups) /* of images: matrices are [image][group] */
UINT(matrices)
UINT(in_h) /* of images, */
UINT(in_w)
UINT(out_w) /* of the result of a convolution */
PUSH_END
