// The control state of a trainer, ops/step.h's hk_control: what an update needs to know and only the device can.
#ifndef CONTROL_GLSL
#define CONTROL_GLSL
struct Control {
    float updates, rest1, rest2, loss_scale, good, skipped, multiplier, apply;
};
Control load_control(uvec2 address)
{
    F32 at = F32(address);
    return Control(at.v[0], at.v[1], at.v[2], at.v[3], at.v[4], at.v[5], at.v[6], at.v[7]);
}
#endif
