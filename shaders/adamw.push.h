#include "push.h"
/* beta*_rest is 1 - beta*, rounded once on the host. */
PUSH_BEGIN(adamw_push)
ADDRESS(parameters)
ADDRESS(gradients)
ADDRESS(first)
ADDRESS(second)
ADDRESS(new_parameters)
ADDRESS(new_first)
ADDRESS(new_second)
ADDRESS(step)
UINT(count)
FLOAT(beta1_rest)
FLOAT(beta2)
FLOAT(beta2_rest)
FLOAT(eps)
FLOAT(weight_decay)
PUSH_END
