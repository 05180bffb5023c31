// What every kernel includes: buffer references, the linear workgroup number, and the workgroup size constants.
#ifndef COMMON_GLSL
#define COMMON_GLSL

#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_scalar_block_layout : require
#extension GL_EXT_control_flow_attributes : require

layout(local_size_x_id = 0, local_size_y_id = 1, local_size_z_id = 2) in;

layout(buffer_reference, std430, buffer_reference_align = 4) buffer F32 { float v[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) buffer U32 { uint v[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) buffer I32 { int v[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) buffer F32x4 { vec4 v[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) buffer U32x4 { uvec4 v[]; };
layout(buffer_reference, std430, buffer_reference_align = 8) buffer U32x2 { uvec2 v[]; }; // 64-bit words as (low, high)
layout(buffer_reference, std430, buffer_reference_align = 8) buffer F32x2 { vec2 v[]; };

// Work in one dimension is folded into x and y because a grid dimension may end at 65,535.
uint linear_group() { return gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x; }
uint linear_invocation() { return linear_group() * gl_WorkGroupSize.x + gl_LocalInvocationIndex; }

// An index read from data (int32 or the low word of an int64 with its sign), made safe: negative ones count from the
// end, anything outside is clamped.
uint clamp_index(int i, uint extent)
{
    i = i < 0 ? i + int(extent) : i;
    return uint(clamp(i, 0, int(extent) - 1));
}
uint clamp_index(uvec2 i, uint extent)
{
    bool fits = (i.y == 0u && int(i.x) >= 0) || (i.y == 0xffffffffu && int(i.x) < 0);
    return fits ? clamp_index(int(i.x), extent) : (int(i.y) < 0 ? 0u : extent - 1u);
}

#endif
