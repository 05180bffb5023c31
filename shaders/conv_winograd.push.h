/* Push block of conv_winograd.comp. */
#include "push.h"
PUSH_BEGIN(conv_winograd_push)
ADDRESS(from) /* w, x or the products */
ADDRESS(to)   /* their transforms, or y */
ADDRESS(bias)
ADDRESS(residual)
UINT(count)    /* invocations */
UINT(channels) /* of x, or of y */
UINT(tiles)    /* of all images */
UINT(row)      /* elements from one channel's tiles to the next: tiles and more */
UINT(height)   /* of x, or of y */
UINT(width)
UINT(pads)     /* of rows, and of columns << 16 */
UINT(row_magic) /* divisors: row, tiles of an image, tiles of a row of tiles */
UINT(row_shift)
UINT(plane_tiles)
UINT(plane_magic)
UINT(plane_shift)
UINT(line_tiles)
UINT(line_magic)
UINT(line_shift)
FLOAT(alpha)
FLOAT(beta)
PUSH_END
