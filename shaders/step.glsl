// The step block, ops/step.h's twin.
#ifndef STEP_GLSL
#define STEP_GLSL
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer Step {
    uvec2 seed;
    uint step;
    uint sample_number;
    float lr;
    float grad_scale;
    float accumulate;
};
#endif
