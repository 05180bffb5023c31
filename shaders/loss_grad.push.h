#include "push.h"
/* dloss: one word, or one per row without reduction. total: the sum of the rows' weights. */
PUSH_BEGIN(loss_grad_push)
ADDRESS(dloss)
ADDRESS(scores)
ADDRESS(labels)
ADDRESS(weights)
ADDRESS(total)
ADDRESS(dscores)
UINT(rows)
UINT(classes)
UINT(inner)
UINT(ignored_low)
UINT(ignored_high)
PUSH_END
