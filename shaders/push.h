/*
 * A push-constant block is written once, in NAME.push.h, and read by C and GLSL:
 *
 *     PUSH_BEGIN(relu_push)
 *         ADDRESS(x)
 *         ADDRESS(y)
 *         UINT(count)
 *     PUSH_END
 *
 * Addresses come first (8-byte alignment in both languages), then 4-byte scalars. In C the block is a struct with
 * uint64_t addresses, which the runtime fills in when it records; in GLSL it is the push constant `push` with uvec2
 * addresses. A shader includes exactly one block.
 */
#ifdef PUSH_BEGIN
#undef PUSH_BEGIN
#undef PUSH_END
#undef ADDRESS
#undef UINT
#undef INT
#undef FLOAT
#endif

#ifdef GL_core_profile
#define PUSH_BEGIN(name) layout(push_constant) uniform name {
#define PUSH_END                                                                                                       \
    }                                                                                                                  \
    push;
#define ADDRESS(member) uvec2 member;
#define UINT(member) uint member;
#define INT(member) int member;
#define FLOAT(member) float member;
#else
#include <stdint.h>
#define PUSH_BEGIN(name) struct name {
#define PUSH_END                                                                                                       \
    }                                                                                                                  \
    ;
#define ADDRESS(member) uint64_t member;
#define UINT(member) uint32_t member;
#define INT(member) int32_t member;
#define FLOAT(member) float member;
#endif
