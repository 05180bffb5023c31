#include "push.h"
/* Words, here or all of them in the block: first the immediates, then the dimensions, innermost first:
 * {shift | present << 8, extent, multiplier}, the outermost one {present << 8} alone. Bit i of present: input i varies
 * along it. An input's stride is the product of the extents inside it along which it varies. */
PUSH_BEGIN(chain_push)
ADDRESS(in0)
ADDRESS(in1)
ADDRESS(in2)
ADDRESS(in3)
ADDRESS(in4)
ADDRESS(in5)
ADDRESS(out0)
ADDRESS(out1)
ADDRESS(block)
UINT(count)
UINT(rank)
UINT(word0)
UINT(word1)
UINT(word2)
UINT(word3)
UINT(word4)
UINT(word5)
UINT(word6)
UINT(word7)
UINT(word8)
UINT(word9)
UINT(word10)
UINT(word11)
PUSH_END
