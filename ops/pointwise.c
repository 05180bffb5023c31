/*
 * Elementwise operators with numpy broadcasting. A row says which attributes, gradient and cases an operator has; what
 * it computes is in ops/support/pointwise_encode.c, which turns a node into steps of a chain.
 *
 * Opset bumps of these operators changed type lists, except: before opset 7 two-operand ones broadcast by `broadcast`
 * and `axis`; Clip has attributes before opset 11 and inputs from then on.
 */
#include "ops/pointwise.h"

#include <float.h>

#define CONSUMED HK_INTS_ATTR(hk_pointwise_attrs, consumed_inputs)
#define ALPHA(x) HK_FLOAT_ATTR(hk_pointwise_attrs, alpha, x)
#define BETA(x) HK_FLOAT_ATTR(hk_pointwise_attrs, beta, x)
#define GAMMA(x) HK_FLOAT_ATTR(hk_pointwise_attrs, gamma, x)

static const hk_attr no_attrs[] = {CONSUMED, {0}};
static const hk_attr leaky_relu_attrs[] = {ALPHA(0.01), CONSUMED, {0}};
static const hk_attr alpha_one_attrs[] = {ALPHA(1.0), CONSUMED, {0}};
static const hk_attr selu_attrs[] = {ALPHA(1.67326319217681884765625), GAMMA(1.05070102214813232421875), {0}};
static const hk_attr hard_sigmoid_attrs[] = {ALPHA(0.2), BETA(0.5), CONSUMED, {0}};
static const hk_attr gelu_attrs[] = {HK_STRING_ATTR(hk_pointwise_attrs, approximate, "none"), {0}};
static const hk_attr mod_attrs[] = {HK_INT_ATTR(hk_pointwise_attrs, fmod, 0), {0}};
static const hk_attr clip_attrs[] = {
    HK_FLOAT_ATTR(hk_pointwise_attrs, min, -FLT_MAX), HK_FLOAT_ATTR(hk_pointwise_attrs, max, FLT_MAX), CONSUMED, {0}};
static const hk_attr cast_attrs[] = {
    {.name = "to", .kind = HK_ATTR_INT, .offset = offsetof(hk_pointwise_attrs, to), .required = true},
    HK_INT_ATTR(hk_pointwise_attrs, saturate, 1),
    HK_STRING_ATTR(hk_pointwise_attrs, round_mode, "up"),
    {0}};
static const hk_attr cast_like_attrs[] = {
    HK_INT_ATTR(hk_pointwise_attrs, saturate, 1), HK_STRING_ATTR(hk_pointwise_attrs, round_mode, "up"), {0}};
static const hk_attr shrink_attrs[] = {
    HK_FLOAT_ATTR(hk_pointwise_attrs, bias, 0), HK_FLOAT_ATTR(hk_pointwise_attrs, lambd, 0.5), {0}};
static const hk_attr is_inf_attrs[] = {
    HK_INT_ATTR(hk_pointwise_attrs, detect_positive, 1), HK_INT_ATTR(hk_pointwise_attrs, detect_negative, 1), {0}};
static const hk_attr shift_attrs[] = {
    {.name = "direction", .kind = HK_ATTR_STRING, .offset = offsetof(hk_pointwise_attrs, direction), .required = true},
    {0}};
static const hk_attr legacy_attrs[] = {
    HK_INT_ATTR(hk_pointwise_attrs, axis, -1), HK_INT_ATTR(hk_pointwise_attrs, broadcast, 0), CONSUMED, {0}};

#define CASES(name) static const char *const name##_cases[]

CASES(relu) = {"f32[7]",      "f32[]",         "f32[2,3,5,7]", "f32[2,1030]", "f32[0,4]",
               "i32[9]<-5:5", "i64[3,5]<-5:5", "i8[7]<-9:9",   NULL};
CASES(float_any) = {"f32[7]", "f32[]", "f32[2,3,5,7]", "f32[2,1030]", "f32[0,4]", "f64[5] ; ; nodevice", NULL};
CASES(float_positive) = {"f32[7]+", "f32[]+", "f32[2,3,5,7]+", "f32[2,1030]+", "f32[0,4]", "f64[5]+ ; ; nodevice",
                         NULL};
CASES(alpha) = {"f32[7]", "f32[] ; alpha=0.3", "f32[2,3,5,7] ; alpha=1.5", "f32[0,4]", NULL};
CASES(exp) = {
    "f32[7]", "f32[]", "f32[2,3,5,7]", "f32[2,1030]", "f32={0.0,-0.5,88.0,-87.0,100.0,-120.0,1e-8} ; ; nograd", NULL};
CASES(log) = {
    "f32[7]+", "f32[]+", "f32[2,3,5,7]+", "f32[2,1030]+", "f32={1.0,0.999999,1.000001,0.0,-1.0,1e30,1e-30} ; ; nograd",
    NULL};
CASES(sin) = {"f32[7]",
              "f32[]",
              "f32[2,3,5,7]",
              "f32[2,1030]",
              "f32={0.0,3.1415,100.5,-2999.0,3001.0,123456.7,-1e9,1e20} ; ; nograd",
              NULL};
CASES(tanh) = {"f32[7]", "f32[]", "f32[2,3,5,7]", "f32[2,1030]", "f32={0.0,1e-6,-1e-3,0.6,-9.0,50.0,-200.0} ; ; nograd",
               NULL};
CASES(tails) = {
    "f32[7]", "f32[]", "f32[2,3,5,7]", "f32[2,1030]", "f32={0.0,1e-6,1.0,-1.5,4.0,-9.0,50.0,-50.0} ; ; nograd", NULL};
CASES(round) = {"f32[7]", "f32[]", "f32[2,3,5,7]", "f32={0.5,1.5,2.5,-0.5,-1.5,0.49,-2.5,7.0} ; ; nograd", NULL};
/* Its gradient is not that of what it computes. */
CASES(through) = {"f32[7] ; ; nograd", "f32[2,3,5,7] ; ; nograd", "f32={0.5,1.5,-0.5,-1.5,7.0,-7.0} ; ; nograd", NULL};
CASES(number) = {"f32[7]", "f32[]", "f32[2,3,5,7]", "i32[9]<-5:5", "i64[3,5]<-5:5", "i8[4]<-120:120", NULL};
CASES(gelu) = {"f32[7]",
               "f32[] ; approximate=\"tanh\"",
               "f32[2,3,5,7]",
               "f32[2,1030] ; approximate=\"tanh\"",
               "f32={0.0,-9.0,9.0,1e-5,-30.0} ; ; nograd",
               NULL};
CASES(selu) = {"f32[7]", "f32[] ; alpha=2.0 gamma=0.5", "f32[2,3,5,7]", NULL};
CASES(hard_sigmoid) = {"f32[7]", "f32[] ; alpha=0.5 beta=0.4", "f32[2,3,5,7]", NULL};
CASES(not ) = {"bool[7]", "bool[]", "bool[2,3,5]", NULL};
CASES(is_nan) = {"f32[7]", "f32[]", "f32={nan,1.0,-inf,-nan}", NULL};
CASES(is_inf) = {"f32[7]",
                 "f32={nan,1.0,-inf,inf,3e38}",
                 "f32={nan,1.0,-inf,inf} ; detect_positive=0",
                 "f32={nan,1.0,-inf,inf} ; detect_negative=0",
                 "f32={nan,-inf} ; detect_negative=0 detect_positive=0",
                 "f16={nan,1.0,-inf,inf,60000.0}",
                 NULL};
CASES(trig) = {"f32[7000] ; ; nograd tol=2e-7",
               "f32[7]",
               "f32[]",
               "f32[2,3,5,7]",
               "f32[2,1030]",
               "f32={0.0,-0.0,1e-6,-0.5,0.9,80.5,-70.0} ; ; nograd",
               "f16[37]",
               NULL};
CASES(tan) = {"f32[7000]+ ; ; nograd tol=3e-7", "f32[7] ; ; nograd", "f32[2,3,5,7]+ ; ; nograd",
              "f32={0.0,0.5,-1.0,100.5,-2999.0,1.4} ; ; tol=1e-5", NULL};
CASES(atan) = {"f32[7000] ; ; nograd tol=2e-7",
               "f32[7]",
               "f32[]",
               "f32[2,3,5,7]",
               "f32={0.0,1e-6,0.41,-0.42,2.41,-2.42,1e9,inf,-inf} ; ; nograd",
               NULL};
CASES(acosh) = {"f32[7000]+ ; ; nograd tol=2e-7", "f32={1.0,1.00001,1.5,2.0,9.0,1e9,1e30,0.5} ; ; nograd",
                "f32={1.1,1.5,2.0,9.0}", NULL};
CASES(unit) = {"f32={0.999,-0.7,0.51,-0.49,0.3,-0.2,0.1,0.05,0.93,-0.8,1e-3} ; ; nograd tol=2e-7",
               "f32={0.0,1e-6,0.49,-0.51,0.9,-0.99,0.3} ; ; ", "f32={1.0,-1.0,1.5,0.999999} ; ; nograd",
               "f32[]+ ; ; nograd", NULL};
CASES(shrink) = {"f32[7]", "f32[2,30] ; lambd=0.3 bias=0.2", "i32[9]<-5:5 ; lambd=1.5 bias=1.5", NULL};
CASES(threshold) = {"f32[7]", "f32[] ; alpha=0.3", "f32[2,3,5,7] ; alpha=-0.5", "bf16[9] ; alpha=0.5", NULL};
CASES(shift) = {"u8[40]<0:256 u8[40]<0:10 ; direction=\"LEFT\"",
                "u8[40]<0:256 u8[40]<0:10 ; direction=\"RIGHT\"",
                "u32[40]<0:4000000000 u32[40]<0:34 ; direction=\"LEFT\"",
                "u32[40]<0:4000000000 u32[] ; direction=\"RIGHT\"",
                "u64[40]<0:9000000000000000000 u64[40]<0:66 ; direction=\"LEFT\"",
                "u64[40]<0:9000000000000000000 u64[40]<0:66 ; direction=\"RIGHT\"",
                "u16[40]<0:65536 u16[40]<0:17 ; direction=\"LEFT\"",
                NULL};
CASES(bits) = {"i32[9]<-900:900 i32[9]<-900:900",
               "u8[9]<0:256 u8[2,9]<0:256",
               "i16[9]<-900:900 i16[9]<-900:900",
               "i8[9]<-99:99 i8[]<-99:99",
               "u64[40]<0:9000000000000000000 u64[40]<0:9000000000000000000",
               "i64[40]<-9000000000000000000:9000000000000000000 i64[40]<-9000000000000000000:9000000000000000000",
               NULL};
CASES(bit_not) = {"i32[9]<-900:900",
                  "u8[9]<0:256",
                  "u16[9]<0:65536",
                  "i8[9]<-99:99",
                  "i64[4]<-900:900",
                  "u64[40]<0:9000000000000000000",
                  NULL};
CASES(add) = {"f32[7] f32[7]",
              "f32[] f32[]",
              "f32[3,4,5] f32[5]",
              "f32[2,3,4] f32[3,1]",
              "f32[8,16] f32[1,16]",
              "f32[2,8,12] f32[8,1]",
              "f32[2,3,1,5] f32[1,3,4,1]",
              "f32[4,1,3,1,2] f32[1,5,1,2,1]",
              "f32[600] f32=0.5",
              "f32[] f32[3,4]",
              "f32[0,3] f32[3]",
              "f32[1,1] f32[5]",
              "i32[5] i32[2,5]",
              "i64[3,5]<-9:9 i64[5]",
              "u8[9]<0:256 u8[9]<0:256",
              "i8[40]<-128:128 i8[40]<-128:128",
              "f32[2,3,2,3,2,3] f32[3,1,3,1,3]",
              "f32[16,260] f32[260]",
              "f16[7] f16[7]",
              "f16[3,4,5] f16[5]",
              "f16[2,8,12] f16[8,1]",
              "f16[600] f16=0.5",
              "bf16[16,260] bf16[260]",
              "bf16[1,1] bf16[5]",
              NULL};
CASES(mul) = {"f32[7] f32[7]",
              "f32[] f32[]",
              "f32[3,4,5] f32[5]",
              "f32[2,3,4] f32[3,1]",
              "f32[2,6,8,8] f32[2,6,1,1]",
              "f32[2,1,4] f32[2,3,1]",
              "f32=2.0 f32[33]",
              "i32[5]<-9:9 i32[2,5]<-9:9",
              "i64[40]<-5000000000:5000000000 i64[40]<-9:9",
              "u8[9]<0:256 u8[9]<0:256",
              NULL};
CASES(div) = {"f32[7] f32[7]+",
              "f32[] f32[]+",
              "f32[3,4,5] f32[5]+",
              "f32[2,3,4]+ f32[3,1]+",
              "f32[33] f32=3.0",
              "i32[40]<-99:99 i32[40]<-3:3",
              "i64[40]<-5000000000:5000000000 i64[40]<-3:3",
              "i64[40]<-5000000000:5000000000 i64[40]<-5000000000:5000000000",
              "u8[40]<0:256 u8[40]<0:9",
              NULL};
CASES(mod) = {"i32[60]<-99:99 i32[60]<-7:7",
              "i32[60]<-99:99 i32[60]<-7:7 ; fmod=1",
              "i64[60]<-5000000000:5000000000 i64[60]<-70:70",
              "i64[40]<-99:99 i64[] ; fmod=1",
              "f32[3,7] f32[7]+ ; fmod=1 ; tol=2e-5",
              "u8[9]<0:256 u8[9]<0:9",
              NULL};
CASES(pow) = {"f32[7]+ f32[7]",
              "f32[]+ f32=2.0",
              "f32[3,5] f32=2.0",
              "f32[3,5] f32=3.0",
              "f32[3,5]+ f32=0.5",
              "f32[3,5]+ f32=-0.5",
              "f32[6]+ f32=-1.0",
              "f32[3,5]+ f32=2.7",
              "f32[4,1]+ f32[3]",
              "f32[9] i64[9]<-3:4 ; ; nograd",
              "i32[9]<-4:5 i32[9]<0:5",
              "i64[30]<-9:9 i64[30]<-2:12",
              "i32[9]<0:5 f32[9]+ ; ; nograd",
              "f32={0.0,-2.0,-2.0,1.0,0.0,1e-20} f32={0.0,3.0,-2.0,9.0,2.0,0.5} ; ; nograd",
              NULL};
CASES(extremum) = {"f32[7] f32[7]",
                   "f32={nan,1.0,-inf,2.0} f32={1.0,nan,3.0,inf} ; ; nograd",
                   "f32[3,4]",
                   "f32[3,4,5] f32[5] f32[4,1]",
                   "f32[] f32[4]",
                   "i32[9]<-5:5 i32[9]<-5:5",
                   "i64[3,5]<-9:9 i64[5]<-9:9",
                   "f32[9] f32[9] f32[9] f32[9] f32[9] f32[9] f32[9] f32[9] f32[9] f32[9] f32[9] f32[9] f32[9] f32[9]",
                   NULL};
CASES(compare) = {"f32[7] f32[7]",
                  "f32[] f32[]",
                  "f32[3,4,5] f32[5]",
                  "i32[9]<-2:3 i32[9]<-2:3",
                  "i64[3,5]<-2:3 i64[5]<-2:3",
                  "i64[40]<-5000000000:5000000000 i64[40]<-5000000000:5000000000",
                  "u8[9]<0:4 u8[9]<0:4",
                  NULL};
CASES(equal) = {"f32[7] f32[7]",           "bool[9] bool[9]",
                "i32[9]<-2:3 i32[9]<-2:3", "i64[3,5]<-2:3 i64[5]<-2:3",
                "i64[6]<0:2 i64[]<0:2",    NULL};
CASES(logic) = {"bool[9] bool[9]", "bool[] bool[]", "bool[3,4,5] bool[4,1]", NULL};
CASES(where) = {"bool[7] f32[7] f32[7]",
                "bool[] f32[] f32[]",
                "bool[3,1,5] f32[4,1] f32[5]",
                "bool[3,8] f32=0.0 f32[3,8]",
                "bool[9] i64[9] i64[9]",
                "bool[4] i32[4] i32[4]",
                "bool[4] bool[4] bool[4]",
                "bool[2,3] f32[1] f32=-1e9 ; ; nograd",
                NULL};
CASES(clip) = {"f32[7] f32=-0.5 f32=0.5",
               "f32[3,4] f32=-0.5",
               "f32[3,4] - f32=0.5",
               "f32[5]",
               "f32[9] f32[] f32=2.0 ; ; nograd",
               "i32[9]<-9:9 i32=-3 i32=4",
               "i64[9]<-9:9 i64=-3 i64=4",
               "f32[6] f32=0.5 f32=-0.5 ; ; nograd",
               "i8[9]<-9:9 i8=-3 i8=4",
               NULL};
CASES(clip_6) = {"f32[7] ; min=-0.5 max=0.5 ; opset=6", "f32[3,4] ; max=0.2 ; opset=10", NULL};
CASES(cast) = {"f32[7] ; to=1",
               "f32[3,7] ; to=6",
               "f32={1e10,-1e10,2.9,-2.9,0.0,255.9,-129.0,300.0} ; to=6",
               "f32={1e10,-1e10,2.9,-2.9,1e19,-1e19,3e9,-3e9} ; to=7",
               "f32={1e10,-1e10,2.9,-2.9,0.0,255.9,-129.0,300.0} ; to=2",
               "f32={1e10,-1e10,2.9,-2.9,0.0,127.9,-129.0,300.0} ; to=3",
               "f32={70000.0,-70000.0,2.9,-2.9} ; to=5",
               "f32={70000.0,-1.0,2.9} ; to=4",
               "f32={5e9,-1.0,3e9} ; to=12",
               "f32={2e19,-1.0,3e9} ; to=13",
               "f32={0.0,-0.0,0.1,-3.0} ; to=9",
               "i32[9]<-900:900 ; to=1",
               "i32[9]<-900:900 ; to=7",
               "i32[9]<-900:900 ; to=2",
               "i32[9]<-900:900 ; to=3",
               "i32[9]<-3:3 ; to=9",
               "i64[40]<-5000000000:5000000000 ; to=1",
               "i64[40]<-9000000000000000000:9000000000000000000 ; to=1",
               "i64[9]<-900:900 ; to=6",
               "i64[9]<-900:900 ; to=3",
               "i64[9]<-3:3 ; to=9",
               "bool[9] ; to=1",
               "bool[9] ; to=6",
               "bool[9] ; to=7",
               "u8[9]<0:256 ; to=1",
               "u8[9]<0:256 ; to=3",
               "u8[9]<0:256 ; to=7",
               "i8[9]<-99:99 ; to=1",
               "i8[9]<-99:99 ; to=2",
               "u32[9]<0:4000000000 ; to=1",
               "u32[9]<0:4000000000 ; to=6",
               "u32[9]<0:4000000000 ; to=7",
               "f32[5] ; to=11 ; nodevice nograd",
               "f64[5] ; to=1 ; nodevice nograd",
               "f32[5] ; to=10 ; nograd",
               "f32[] ; to=6",
               "f32[0,3] ; to=6",
               "f16[41] ; to=1",
               "f16[41] ; to=16",
               "bf16[41] ; to=10",
               "f16={nan,inf,-inf,6e-8,1e-7,0.0,-0.0,65504.0} ; to=1",
               "f32={nan,inf,65519.0,65520.0,1e-8,3e-8,-6e-8,5.9e-8,6.1e-5,1.0009766,2049.0,2051.0} ; to=10",
               "f32={nan,inf,3.4e38,1e-40,1.0039062,1.01171875,-257.0} ; to=16",
               "f16[9] ; to=3",
               "f16[9] ; to=7",
               "i32[9]<-90000:90000 ; to=10",
               "i64[9]<-900:900 ; to=16",
               "bool[9] ; to=10",
               NULL};
CASES(cast_like) = {"f32[3,7] i32[2]", "i64[5] f32[0]", "bool[3] f32[]", "f32[4] f32[4]", NULL};
CASES(prelu) = {"f32[2,3,4] f32[3,1]",
                "f32[7] f32[1]",
                "f32[2,3,5,5] p.f32[3,1,1]",
                "f32[2,5] f32[5]",
                "f32[2,3,4] f32[3] ; ; opset=6",
                "i32[5]<-5:5 i32[5]<0:3",
                NULL};
CASES(sum) = {"f32[7] f32[7]", "f32[3,4]", "f32[3,4,5] f32[5] f32[4,1]",
              "f32[9] f32[9] f32[9] f32[9] f32[9] f32[9] f32[9] f32[9] f32[9] f32[9] f32[9] f32[9]", NULL};
CASES(legacy) = {"f32[2,3,4,5] f32[3,4] ; broadcast=1 axis=1 ; opset=6", "f32[2,3,4] f32[4] ; broadcast=1 ; opset=6",
                 "f32[2,3] f32[2,3] ; ; opset=6", "f32[2,3,4] f32[2] ; broadcast=1 axis=0 ; opset=6", NULL};
CASES(legacy_positive) = {"f32[2,3,4,5]+ f32[3,4]+ ; broadcast=1 axis=1 ; opset=6",
                          "f32[2,3,4]+ f32[4]+ ; broadcast=1 ; opset=6", NULL};
CASES(legacy_logic) = {"bool[2,3,4,5] bool[3,4] ; broadcast=1 axis=1 ; opset=6", "bool[2,3] bool[2,3] ; ; opset=6",
                       NULL};

#define ROW(name, first, last, least, most, attributes, rule, cases_name)                                              \
    ROLE_ROW(name, first, last, least, most, 0, attributes, rule, cases_name)
#define ROLE_ROW(name, first, last, least, most, weights, attributes, rule, cases_name)                                \
    {                                                                                                                  \
        .type = name, .since = first, .until = last, .in_min = least, .in_max = most, .out_min = 1, .out_max = 1,      \
        .flags = HK_OP_POINTWISE | HK_OP_HALF, .parameters = weights, .half_in = UINT32_MAX, .half_out = UINT32_MAX,   \
        .attrs_bytes = sizeof(hk_pointwise_attrs), .attrs = attributes, .infer = hk_pointwise_infer,                   \
        .eval = hk_pointwise_eval, .lower = hk_pointwise_lower, .backward = rule, .cases = cases_name##_cases          \
    }
#define UNARY(name, first, attributes, rule, cases_name) ROW(name, first, 0, 1, 1, attributes, rule, cases_name)
/* Before opset 7 and from then on. */
#define BINARY(name, rule, cases_name, old_cases)                                                                      \
    ROW(name, 7, 0, 2, 2, no_attrs, rule, cases_name), ROW(name, 1, 6, 2, 2, legacy_attrs, rule, old_cases)

const hk_op hk_ops_pointwise[] = {
    UNARY("Relu", 1, no_attrs, hk_relu_backward, relu),
    UNARY("LeakyRelu", 1, leaky_relu_attrs, hk_leaky_relu_backward, alpha),
    UNARY("Sigmoid", 1, no_attrs, hk_sigmoid_backward, tails),
    UNARY("Tanh", 1, no_attrs, hk_tanh_backward, tanh),
    UNARY("Exp", 1, no_attrs, hk_exp_backward, exp),
    UNARY("Log", 1, no_attrs, hk_log_backward, log),
    UNARY("Sqrt", 1, no_attrs, hk_sqrt_backward, float_positive),
    UNARY("Reciprocal", 1, no_attrs, hk_reciprocal_backward, float_positive),
    UNARY("Neg", 1, no_attrs, hk_neg_backward, number),
    UNARY("Abs", 1, no_attrs, hk_abs_backward, number),
    UNARY("Floor", 1, no_attrs, hk_zero_backward, round),
    UNARY("hk.FloorThrough", 1, no_attrs, hk_through_backward, through),
    UNARY("Ceil", 1, no_attrs, hk_zero_backward, round),
    UNARY("Round", 11, no_attrs, hk_zero_backward, round),
    UNARY("Sign", 9, no_attrs, hk_zero_backward, number),
    UNARY("Erf", 9, no_attrs, hk_erf_backward, tails),
    UNARY("Sin", 7, no_attrs, hk_sin_backward, sin),
    UNARY("Cos", 7, no_attrs, hk_cos_backward, sin),
    UNARY("Softplus", 1, no_attrs, hk_softplus_backward, tails),
    UNARY("HardSigmoid", 1, hard_sigmoid_attrs, hk_hard_sigmoid_backward, hard_sigmoid),
    UNARY("HardSwish", 14, no_attrs, hk_hard_swish_backward, float_any),
    UNARY("Gelu", 20, gelu_attrs, hk_gelu_backward, gelu),
    UNARY("Elu", 1, alpha_one_attrs, hk_elu_backward, alpha),
    UNARY("Selu", 6, selu_attrs, hk_selu_backward, selu),
    UNARY("Celu", 12, alpha_one_attrs, hk_celu_backward, alpha),
    UNARY("Mish", 18, no_attrs, hk_mish_backward, tails),
    UNARY("Swish", 24, alpha_one_attrs, hk_swish_backward, alpha),
    UNARY("Not", 1, no_attrs, NULL, not ),
    UNARY("IsNaN", 9, no_attrs, NULL, is_nan),
    UNARY("IsInf", 10, is_inf_attrs, NULL, is_inf),
    UNARY("Tan", 7, no_attrs, hk_tan_backward, tan),
    UNARY("Sinh", 9, no_attrs, hk_sinh_backward, trig),
    UNARY("Cosh", 9, no_attrs, hk_cosh_backward, trig),
    UNARY("Asinh", 9, no_attrs, hk_asinh_backward, trig),
    UNARY("Acosh", 9, no_attrs, hk_acosh_backward, acosh),
    UNARY("Atanh", 9, no_attrs, hk_atanh_backward, unit),
    UNARY("Atan", 7, no_attrs, hk_atan_backward, atan),
    UNARY("Asin", 7, no_attrs, hk_asin_backward, unit),
    UNARY("Acos", 7, no_attrs, hk_acos_backward, unit),
    UNARY("Softsign", 1, no_attrs, hk_softsign_backward, float_any),
    UNARY("ThresholdedRelu", 10, alpha_one_attrs, hk_thresholded_relu_backward, threshold),
    UNARY("Shrink", 9, shrink_attrs, hk_shrink_backward, shrink),
    ROW("BitShift", 11, 0, 2, 2, shift_attrs, NULL, shift),
    ROW("BitwiseAnd", 18, 0, 2, 2, no_attrs, NULL, bits),
    ROW("BitwiseOr", 18, 0, 2, 2, no_attrs, NULL, bits),
    ROW("BitwiseXor", 18, 0, 2, 2, no_attrs, NULL, bits),
    UNARY("BitwiseNot", 18, no_attrs, NULL, bit_not),
    BINARY("Add", hk_add_backward, add, legacy),
    BINARY("Sub", hk_sub_backward, add, legacy),
    BINARY("Mul", hk_mul_backward, mul, legacy),
    BINARY("Div", hk_div_backward, div, legacy_positive),
    BINARY("Pow", hk_pow_backward, pow, legacy_positive),
    BINARY("Equal", NULL, equal, legacy),
    BINARY("Less", NULL, compare, legacy),
    BINARY("Greater", NULL, compare, legacy),
    BINARY("And", NULL, logic, legacy_logic),
    BINARY("Or", NULL, logic, legacy_logic),
    BINARY("Xor", NULL, logic, legacy_logic),
    ROW("LessOrEqual", 12, 0, 2, 2, no_attrs, NULL, compare),
    ROW("GreaterOrEqual", 12, 0, 2, 2, no_attrs, NULL, compare),
    ROW("Mod", 10, 0, 2, 2, mod_attrs, hk_mod_backward, mod),
    ROLE_ROW("PRelu", 1, 0, 2, 2, 2, no_attrs, hk_prelu_backward, prelu), /* the slope is a weight */
    ROW("Where", 9, 0, 3, 3, no_attrs, hk_where_backward, where),
    ROW("Clip", 1, 10, 1, 1, clip_attrs, hk_clip_backward, clip_6),
    ROW("Clip", 11, 0, 1, 3, no_attrs, hk_clip_backward, clip),
    ROW("Cast", 6, 0, 1, 1, cast_attrs, hk_cast_backward, cast),
    ROW("CastLike", 15, 0, 2, 2, cast_like_attrs, hk_cast_backward, cast_like),
    ROW("Min", 1, 0, 1, -1, no_attrs, hk_extremum_backward, extremum),
    ROW("Max", 1, 0, 1, -1, no_attrs, hk_extremum_backward, extremum),
    ROW("Sum", 1, 0, 1, -1, no_attrs, hk_add_backward, sum),
    ROW("Mean", 1, 0, 1, -1, no_attrs, hk_mean_backward, sum),
    {0},
};
