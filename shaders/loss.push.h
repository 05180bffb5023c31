#include "push.h"
/* partial: two planes of `groups` words, sums of loss and of weights. ignored: the label that counts for nothing. */
PUSH_BEGIN(loss_push)
ADDRESS(scores)
ADDRESS(labels)
ADDRESS(weights)
ADDRESS(loss)
ADDRESS(log_sums)
ADDRESS(partial)
UINT(rows)
UINT(classes)
UINT(inner)
UINT(groups)
UINT(ignored_low)
UINT(ignored_high)
PUSH_END
