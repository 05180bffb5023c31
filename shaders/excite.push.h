/* Push block of excite.comp. */
#include "push.h"
PUSH_BEGIN(excite_push)
ADDRESS(x)  /* (images, rows, octets * 8) */
ADDRESS(w1) /* (squeezed, octets * 8) */
ADDRESS(b1) /* (squeezed) */
ADDRESS(w2) /* (squeezed, outputs) */
ADDRESS(b2) /* (outputs) */
ADDRESS(y)  /* (images, outputs) */
UINT(images)
UINT(octets)
UINT(squeezed)
UINT(outputs)
UINT(rows)    /* of x, summed up and multiplied with the factor */
FLOAT(factor)
FLOAT(alpha1) /* of the activations */
FLOAT(beta1)
FLOAT(alpha2)
FLOAT(beta2)
PUSH_END
