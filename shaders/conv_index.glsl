// Index arithmetic that convolution and pooling share.
#ifndef CONV_INDEX_GLSL
#define CONV_INDEX_GLSL

// n / d for n < 2^31 by what hk_divisor_of (ops/divisor.h) made of d.
uint divide_by(uint n, uint magic, uint shift)
{
    uint high, low;
    umulExtended(n, magic, high, low);
    return (high + n) >> shift;
}

// Where tap `tap` of a window finds its source along one axis, for destination coordinate `at`; what is outside of the
// source comes out negative or too large, which one unsigned comparison with the extent tells.
// Forward: the input under an output. Data gradient: the output whose window's tap lies over an input, if there is one.
int tap_source(bool forward, int at, uint tap, uint stride, uint dilation, uint pad)
{
    if (forward)
        return at * int(stride) - int(pad) + int(tap * dilation);
    int t = at + int(pad) - int(tap * dilation);
    if (stride == 1u)
        return t;
    int q = t / int(stride);
    return t >= 0 && q * int(stride) == t ? q : -1;
}
ivec4 tap_source(bool forward, ivec4 at, uint tap, uint stride, uint dilation, uint pad)
{
    if (forward)
        return at * int(stride) - int(pad) + int(tap * dilation);
    ivec4 t = at + int(pad) - int(tap * dilation);
    if (stride == 1u)
        return t;
    ivec4 q = t / int(stride);
    return mix(ivec4(-1), q, equal(t, q * int(stride))); // a negative multiple stays negative
}

// The comparison, for one coordinate and for four.
bool within(int i, uint extent) { return uint(i) < extent; }
bvec4 within(ivec4 i, uint extent) { return lessThan(uvec4(i), uvec4(extent)); }
bool both(bool a, bool b) { return a && b; }
bvec4 both(bvec4 a, bvec4 b) { return bvec4(uvec4(a) & uvec4(b)); }

#endif
