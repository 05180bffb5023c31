/* One run of a graph on the device. */
#include "tests/support/device.h"

#include "runtime/objects.h"
#include "runtime/once.h"

hk_status hk_test_run_graph(hk_device *dev, hk_graph *g, const hk_tensor *const *inputs, hk_tensor **outputs,
                            hk_arena *arena)
{
    static const hk_step step = {.seed = {7, 9}, .step = 3, .lr = 1e-3f, .grad_scale = 1};
    return hk_run_once(dev->gpu, g, inputs, &step, outputs, arena);
}
