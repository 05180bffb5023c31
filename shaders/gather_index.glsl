// An index tensor of int32 or int64, chosen when the pipeline is made: constant 3 of every gather kernel.
#ifndef GATHER_INDEX_GLSL
#define GATHER_INDEX_GLSL

layout(constant_id = 3) const bool INDEX64 = false;

// Entry i, negative ones counted from the end, clamped into 0 .. extent - 1.
uint read_index(uvec2 address, uint i, uint extent)
{
    return INDEX64 ? clamp_index(U32x2(address).v[i], extent) : clamp_index(I32(address).v[i], extent);
}

#endif
