/*
 * The elementwise functions: X(name, code, operands, meaning), read by C (ops/pointwise.h) and by chain.comp.
 * Floats and integers share the first rows; the class in a step (CHAIN_CLASS_MAP) says which arithmetic is meant.
 * Gradient functions take the gradient dy of the result y first. chain_apply.glsl relies on the order of the last rows;
 * codes are never stored in files. CHAIN_IS_RARE: what only the variants for rare functions know.
 */
#ifndef HK_CHAIN_CODES_H
#define HK_CHAIN_CODES_H

#define CHAIN_CODE_MAP(X)                                                                                              \
    X(ADD, 0, 2, a + b)                                                                                                \
    X(SUB, 1, 2, a - b)                                                                                                \
    X(MUL, 2, 2, a * b)                                                                                                \
    X(DIV, 3, 2, a / b)                                             /* integers truncate; x / 0 is 0 */                \
    X(MOD, 4, 2, a mod b)                                           /* integers, sign of b; x mod 0 is 0 */            \
    X(FMOD, 5, 2, a mod b)                                          /* sign of a, as in C */                           \
    X(MIN, 6, 2, min(a, b))                                         /* NaN wins */                                     \
    X(MAX, 7, 2, max(a, b))                                                                                            \
    X(NEG, 8, 1, - a)                                                                                                  \
    X(ABS, 9, 1, abs(a))                                                                                               \
    X(SIGN, 10, 1, sign(a))                                                                                            \
    X(EQUAL, 11, 2, a == b)                                         /* comparisons give 0 or 1 of class UINT */        \
    X(LESS, 12, 2, a < b)                                                                                              \
    X(LESS_EQUAL, 13, 2, a <= b)                                                                                       \
    X(WHERE, 14, 3, a ? b : c)                                      /* a is of class UINT */                           \
    X(CLIP, 15, 3, min(max(a, b), c))                               /* NaN in a stays */                               \
    X(NOT, 16, 1, not a)                                            /* these four on bools, class UINT */              \
    X(AND, 17, 2, a and b)                                                                                             \
    X(OR, 18, 2, a or b)                                                                                               \
    X(XOR, 19, 2, a xor b)                                                                                             \
    X(TO_FLOAT, 20, 1, float(a))                                    /* conversions: class of the operand */            \
    X(TO_INT, 21, 1, int(a))                                        /* floats truncate and saturate, NaN gives 0 */    \
    X(TO_UINT, 22, 1, uint(a))                                      /* wide integers lose their high bits */           \
    X(TO_LONG, 23, 1, long(a))                                                                                         \
    X(TO_ULONG, 24, 1, ulong(a))                                                                                       \
    X(TO_BOOL, 25, 1, a != 0)                                                                                          \
    X(WRAP_INT8, 26, 1, low 8 bits of a)                            /* INT and UINT: what an int8 holds */             \
    X(WRAP_UINT8, 27, 1, low 8 bits of a)                                                                              \
    X(WRAP_INT16, 28, 1, low 16 bits of a)                                                                             \
    X(WRAP_UINT16, 29, 1, low 16 bits of a)                                                                            \
    X(IS_NAN, 30, 1, a is NaN)                                      /* from here on: floats alone */                   \
    X(RECIPROCAL, 31, 1, 1 / a)                                                                                        \
    X(SQRT, 32, 1, sqrt(a))                                                                                            \
    X(FLOOR, 33, 1, floor(a))                                                                                          \
    X(CEIL, 34, 1, ceil(a))                                                                                            \
    X(ROUND, 35, 1, round(a))                                       /* halves to even */                               \
    X(RELU, 36, 1, max(a, 0))                                                                                          \
    X(LEAKY_RELU, 37, 2, a < 0 ? b a : a)                                                                              \
    X(HARD_SIGMOID, 38, 3, min(max(b a + c, 0), 1))                                                                    \
    X(HARD_SWISH, 39, 1, a min(max(a / 6 + 1 / 2, 0), 1))                                                              \
    X(RELU_GRAD, 40, 2, y > 0 ? dy : 0)                             /* dy, y */                                        \
    X(LEAKY_RELU_GRAD, 41, 3, x <= 0 ? slope dy : dy)               /* dy, x, slope */                                 \
    X(SIGMOID_GRAD, 42, 2, dy y (1 - y))                            /* dy, y */                                        \
    X(TANH_GRAD, 43, 2, dy (1 - y y))                               /* dy, y */                                        \
    X(HARD_SIGMOID_GRAD, 44, 3, 0 < y && y < 1 ? alpha dy : 0)      /* dy, y, alpha */                                 \
    X(HARD_SWISH_GRAD, 45, 2, dy d hardswish(x) / dx)               /* dy, x */                                        \
    X(CLIP_GRAD, 46, 3, x == y ? dy : 0)                            /* dy, x, y */                                     \
    X(POW, 47, 2, a ^ b)                                                                                               \
    X(POW_BASE_GRAD, 48, 2, b a ^ (b - 1))                          /* 0 where b is 0 */                               \
    X(SIN, 49, 1, sin(a))                                                                                              \
    X(COS, 50, 1, cos(a))                                                                                              \
    X(EXP, 51, 1, exp(a))                                           /* EXP to SOFTPLUS share an exponential */         \
    X(TANH, 52, 1, tanh(a))                                                                                            \
    X(SIGMOID, 53, 1, 1 / (1 + exp(-a)))                                                                               \
    X(ERF, 54, 1, erf(a))                                                                                              \
    X(ELU, 55, 2, a < 0 ? b (exp(a) - 1) : a)                                                                          \
    X(CELU, 56, 2, a < 0 ? b (exp(a / b) - 1) : a)                                                                     \
    X(GELU, 57, 1, a / 2 (1 + erf(a / sqrt 2)))                                                                        \
    X(GELU_TANH, 58, 1, a / 2 (1 + tanh(sqrt(2 / pi) (a + 0.044715 a ^ 3))))                                           \
    X(MISH, 59, 1, a tanh(log(1 + exp(a))))                                                                            \
    X(SWISH, 60, 2, a / (1 + exp(-b a)))                                                                               \
    X(ELU_GRAD, 61, 3, x <= 0 ? dy alpha exp(x) : dy)               /* dy, x, alpha */                                 \
    X(CELU_GRAD, 62, 3, x < 0 ? dy exp(x / alpha) : dy)             /* dy, x, alpha */                                 \
    X(GELU_GRAD, 63, 2, dy d gelu(x) / dx)                          /* dy, x */                                        \
    X(GELU_TANH_GRAD, 64, 2, dy d gelu(x) / dx)                     /* dy, x */                                        \
    X(MISH_GRAD, 65, 2, dy d mish(x) / dx)                          /* dy, x */                                        \
    X(SWISH_GRAD, 66, 3, dy d swish(x) / dx)                        /* dy, x, alpha */                                 \
    X(SINH, 67, 1, sinh(a))                                                                                            \
    X(COSH, 68, 1, cosh(a))                                                                                            \
    X(SOFTPLUS, 69, 1, log(1 + exp(a)))                             /* SOFTPLUS and below share a logarithm */         \
    X(LOG, 70, 1, log(a))                                                                                              \
    X(POW_EXPONENT_GRAD, 71, 3, c log(a))                           /* 0 where a is 0 and b >= 0 */                    \
    X(ASINH, 72, 1, asinh(a))                                                                                          \
    X(ACOSH, 73, 1, acosh(a))                                                                                          \
    X(ATANH, 74, 1, atanh(a))                                                                                          \
    X(ATAN, 75, 1, atan(a))                                                                                            \
    X(ASIN, 76, 1, asin(a))                                                                                            \
    X(ACOS, 77, 1, acos(a))                                                                                            \
    X(ROUND_HALF, 78, 1, a as float16)                              /* 16-bit floats are computed in float32, each result rounded */\
    X(ROUND_BFLOAT, 79, 1, a as bfloat16)                                                                              \
    X(SHIFT_LEFT, 80, 2, a << b)                                    /* integers; 0 where b is no less than their width */\
    X(SHIFT_RIGHT, 81, 2, a >> b)                                   /* unsigned */                                     \
    X(BIT_AND, 82, 2, a & b)                                        /* integers, bit by bit */                         \
    X(BIT_OR, 83, 2, a | b)                                                                                            \
    X(BIT_XOR, 84, 2, a ^ b)                                                                                           \
    X(BIT_NOT, 85, 1, ~a)

#define CHAIN_IS_RARE(code) ((code) == 67 || (code) == 68 || ((code) >= 72 && (code) <= 77) || (code) >= 80)

/* How a step takes its operands. Bool and unsigned integers up to 32 bits are UINT, signed ones INT. */
#define CHAIN_CLASS_MAP(X)                                                                                             \
    X(FLOAT, 0)                                                                                                        \
    X(INT, 1)                                                                                                          \
    X(UINT, 2)                                                                                                         \
    X(LONG, 3)                                                                                                         \
    X(ULONG, 4)

/*
 * A program's registers are numbered inputs, immediates, steps. A step is one word:
 *     code | class << 7 | a << 10 | b << 15 | c << 20 | operands << 25
 * and a result is the number of a register, CHAIN_NONE for none, + CHAIN_WIDE if its elements have 8 bytes,
 * + CHAIN_HALF or CHAIN_BFLOAT if they are 16-bit floats, + CHAIN_ALIGNED if four can be stored at a time.
 */
#define CHAIN_INPUTS 6
#define CHAIN_IMMEDIATES 12
#define CHAIN_STEPS 12
#define CHAIN_OUTPUTS 2
#define CHAIN_FIRST_IMMEDIATE 6
#define CHAIN_FIRST_STEP 18
#define CHAIN_NONE 31
#define CHAIN_WIDE 32
#define CHAIN_ALIGNED 64
#define CHAIN_HALF 128
#define CHAIN_BFLOAT 256

/* How an input is read (an input word is access | position << 2 | the same flags): 16 bytes at a time, one element for all
 * four, or four on their own; and where: at the output's index, at element 0, or at an index found from its coordinates
 * for each four or for each one. */
#define CHAIN_ACCESS_VECTOR 0
#define CHAIN_ACCESS_ONE 1
#define CHAIN_ACCESS_FOUR 2
#define CHAIN_AT_INDEX 0
#define CHAIN_AT_ZERO 1
#define CHAIN_AT_COORDINATES 2

#define CHAIN_WORDS 12    /* of immediates and dimensions in the push block; more go to a parameter block */
#define CHAIN_PUSH_RANK 3 /* dimensions that the push block may hold */

#endif
