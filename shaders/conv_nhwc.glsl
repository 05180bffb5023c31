// The end of every convolution in HK_LAYOUT_NHWC8. Include after constants EPILOGUE and ACTIVATION and the push block.
#ifndef CONV_NHWC_GLSL
#define CONV_NHWC_GLSL

// Four neighbouring channels of a pixel: bias, residual and activation, and zero where the gate is not above it; the layout's
// padding is zero.
vec4 finish4(vec4 y, uint pixel, uint channel, bool halves)
{
    if ((EPILOGUE & 1u) != 0u)
        [[unroll]] for (uint o = 0; o < 4; ++o)
            y[o] += F32(push.bias).v[min(channel + o, push.outputs - 1u)];
    if ((EPILOGUE & 2u) != 0u)
        y += load_half_octet(push.residual, pixel * push.octets_out * 2u + channel / 4u, halves);
    y = activate(ACTIVATION, y, push.alpha, push.beta);
    if ((EPILOGUE & 8u) != 0u) {
        vec4 gate = load_half_octet(push.scale, pixel * push.octets_out * 2u + channel / 4u, halves);
        y = mix(vec4(0.0), y, greaterThan(gate, vec4(0.0)));
    }
    [[unroll]] for (uint o = 0; o < 4; ++o)
        y[o] = channel + o < push.outputs ? y[o] : 0.0;
    return y;
}

// What the end of squeeze-and-excitation does to an octet of x.
Octet scaled(Octet x, uint image, uint octet)
{
    Octet s = load_octet(push.scale, image * push.scale_octets + octet, false);
    return Octet(x.low * s.low, x.high * s.high);
}

#endif
