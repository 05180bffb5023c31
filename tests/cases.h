/*
 * The grammar of hk_op.cases, one string a case, parsed by tests/support/cases.c:
 *
 *     inputs ; attributes ; options
 *
 * inputs, separated by spaces:
 *     f32[2,3,8]      random normal        f32[2,3]+       random in 0.1 .. 2
 *     i64[4]<7        random in 0 .. 6     i64[4]<-3:5     random in -3 .. 4     bool[2,2]  random
 *     i64={1,-2}      these contents, rank 1, known on the host (an initializer)
 *     f32=0.5         a scalar known on the host
 *     i64[2,1]={0,3}  contents with a shape, known on the host
 *     f32[]           a random scalar (rank 0)
 *     -               absent
 *     p.f32[4,3]      any of the above, kind PARAMETER instead of a graph input
 *     step            the step block
 * dtypes: f32 f64 i32 i64 u8 i8 u32 bool f16.
 * attributes: name=3 (int), name=0.5 (float: has a '.' or 'e'), name=[1,2] (ints), name=[0.5,1.0] (floats), name="text",
 *     name=i64={1,2} and name=f32=0.5 (tensors); the operator's table decides between int and float where 3 is written
 * options: out=3 (ask for 3 outputs; default out_min), nograd (no gradient check: kinks or no rule),
 *     gradall (check gradients through all float outputs instead of the first), tol=1e-4 (relative norm
 *     error allowed instead of 5e-6), opset=13, nodevice (host op: device run left out), min-skip
 *
 * What the generic test (tests/test_ops.c) does with each: infer; host evaluation in float32; lowering and a run on the
 * device, NaN-poisoned buffers, every output compared (norm and shape, integers equal); and, unless nograd, the gradient
 * graph of sum(y * r) for random r evaluated on the host in float64 against central differences for every float input.
 * `test_ops Relu` runs one operator.
 */
