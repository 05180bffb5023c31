// Teams: a workgroup works on ITEMS items side by side, LANES invocations (a power of two) on each, and this file
// adds up what a team's invocations found. ops/support/reduce.h chooses the shape. With LANES = 1, the tuning of CPU
// drivers, no barrier and no shared memory is left. Every invocation of a workgroup must reach each team_* call.
#ifndef REDUCE_GLSL
#define REDUCE_GLSL

#ifdef SUBGROUP
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#endif

layout(constant_id = 3) const uint ITEMS = 1;
layout(constant_id = 4) const uint LANES = 1;
layout(constant_id = 5) const bool SPREAD = false; // neighbouring invocations belong to neighbouring items
layout(constant_id = 6) const uint SUBGROUP_WIDTH = 32; // the size the pipeline requires (subgroup variants)
const uint TEAM_STRIDE = SPREAD ? ITEMS : 1u;

// Subgroups must lie inside teams, so with them the numbering follows the subgroups.
uint team_thread()
{
#ifdef SUBGROUP
    return gl_SubgroupID * gl_SubgroupSize + gl_SubgroupInvocationID;
#else
    return gl_LocalInvocationIndex;
#endif
}
uint team_place() { return SPREAD ? team_thread() % ITEMS : team_thread() / LANES; } // of the item in this workgroup
uint team_lane() { return SPREAD ? team_thread() / ITEMS : team_thread() % LANES; }
uint team_item() { return linear_group() * ITEMS + team_place(); }

float team_add(float a, float b) { return a + b; }
vec2 team_add(vec2 a, vec2 b) { return a + b; }
vec4 team_add(vec4 a, vec4 b) { return a + b; }
float team_larger(float a, float b) { return max(a, b); }

// TEAM_REDUCE(name, T, COMBINE) defines `T name(T x)`: the combination of x over the team, equal in all its
// invocations. The order is fixed: a tree over the lanes. (With subgroups, a COMBINE that rounds differently when its
// arguments change places gives each invocation its own rounding; then only the team's first lane may use the result.)
#ifdef SUBGROUP
#define TEAM_REDUCE(name, T, COMBINE)                                                                                  \
    shared T name##_shared[ITEMS * LANES];                                                                             \
    T name(T x)                                                                                                        \
    {                                                                                                                  \
        for (uint h = min(LANES, SUBGROUP_WIDTH) / 2u; h > 0u; h /= 2u)                                                \
            x = COMBINE(x, subgroupShuffleXor(x, h));                                                                  \
        if (LANES <= SUBGROUP_WIDTH)                                                                                   \
            return x;                                                                                                  \
        barrier();                                                                                                     \
        if (gl_SubgroupInvocationID == 0u)                                                                             \
            name##_shared[gl_SubgroupID] = x;                                                                          \
        barrier();                                                                                                     \
        uint first = team_place() * (LANES / SUBGROUP_WIDTH);                                                          \
        x = name##_shared[first];                                                                                      \
        for (uint i = 1u; i < LANES / SUBGROUP_WIDTH; i++)                                                             \
            x = COMBINE(x, name##_shared[first + i]);                                                                  \
        return x;                                                                                                      \
    }
#else
#define TEAM_REDUCE(name, T, COMBINE)                                                                                  \
    shared T name##_shared[ITEMS * LANES];                                                                             \
    T name(T x)                                                                                                        \
    {                                                                                                                  \
        if (LANES == 1u)                                                                                               \
            return x;                                                                                                  \
        uint at = team_thread();                                                                                       \
        barrier();                                                                                                     \
        name##_shared[at] = x;                                                                                         \
        for (uint h = LANES / 2u; h > 0u; h /= 2u) {                                                                   \
            barrier();                                                                                                 \
            if (team_lane() < h)                                                                                       \
                name##_shared[at] = COMBINE(name##_shared[at], name##_shared[at + h * TEAM_STRIDE]);                   \
        }                                                                                                              \
        barrier();                                                                                                     \
        return name##_shared[at - team_lane() * TEAM_STRIDE];                                                          \
    }
#endif

#endif
