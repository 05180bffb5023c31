/*
 * The hillock command: exit codes, sentences, outputs. Runs the program that this build made.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/command.h"

#define DATA HK_TEST_DATA

static void usage(void **state)
{
    (void)state;
    expect("", 64, "usage");
    expect("--help", 0, "verify");
    expect("--version", 0, "glslang");
    expect("absent", 64, "unknown verb");
    expect("verifi", 64, "did you mean 'verify'?");
    expect("help bench", 0, "usage: hillock bench");
    expect("--man-pages man", 0, NULL);
    expect("--man-pages absent/man", 73, "absent/man");
    expect_file("man/hillock.1", ".BR hillock\\-verify (1)");
    static const char *const verbs[] = {"devices", "inspect", "run",      "verify", "bench",
                                        "profile", "tune",    "selftest", "demo"};
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
        char arguments[64];
        snprintf(arguments, sizeof arguments, "%s --help", verbs[i]);
        expect(arguments, 0, "example: hillock");
        snprintf(arguments, sizeof arguments, "man/hillock-%s.1", verbs[i]);
        expect_file(arguments, ".SH EXAMPLE\nhillock ");
    }
    expect("verify --rtoll 1 x", 64, "did you mean '--rtol'?");
    expect("verify --rtol", 64, "needs a value");
    expect("verify --rtol many " DATA "/digits", 64, "must be a number");
    expect("run " DATA "/digits/model.onnx --output-dir out --precision double", 64, "strict, high or fast");
}

static void files(void **state)
{
    (void)state;
    expect("inspect absent.onnx", 66, "absent.onnx");
    expect("inspect " DATA "/models/truncated.onnx", 65, "truncated.onnx");
    expect("inspect " DATA "/models/unknown_op/model.onnx", 65, "Frobnicate");
    expect("inspect " DATA "/models/custom_domain/model.onnx", 65, "Twist");
    expect("inspect " DATA "/digits/model.onnx", 0, "38,282 elements");
    expect("inspect --json " DATA "/digits/model.onnx", 0, "\"schema\":\"hillock-inspect-2\"");
    expect("demo --data absent", 66, "absent");
}

static void devices(void **state)
{
    (void)state;
    expect("devices", 0, "subgroup");
    expect("devices --json", 0, "\"usable\":true");
    expect_in("VK_DRIVER_FILES=/dev/null VK_ICD_FILENAMES=/dev/null", "devices", 69, "install a driver");
    expect_in("VK_DRIVER_FILES=/dev/null VK_ICD_FILENAMES=/dev/null", "verify " DATA "/digits", 69, "Vulkan");
    expect("verify --device no-such-device " DATA "/digits", 69, "no-such-device");
    expect_in("HILLOCK_CAPS=nonsense", "verify " DATA "/digits", 78, "nonsense");
    expect_in("HILLOCK_DEBUG=nonsense", "verify " DATA "/digits", 78, "nonsense");
}

static void runs(void **state)
{
    (void)state;
    expect("verify " DATA "/digits " DATA "/digits_script", 0, "2 passed, 0 failed");
    expect("verify --rel 1e-12 --rtol 0 --atol 0 " DATA "/digits", 1, "FAIL");
    expect("verify --twice --device-floats " DATA "/digits", 0, "1 passed, 0 failed");
    expect("run " DATA "/digits/model.onnx --input image=" DATA "/digits/test_data_set_0/input_0.pb --output-dir out",
           0, "out/logits.npy");
    expect("run --json " DATA "/digits/model.onnx --input image=" DATA
           "/digits/test_data_set_0/input_0.pb --output-dir out",
           0, "\"where\":\"device\"");
    expect("run " DATA "/digits/model.onnx --output-dir out", 64, "not written");
    expect("run " DATA "/digits/model.onnx --input pixels=" DATA "/digits/test_data_set_0/input_0.pb --output-dir out",
           64, "pixels");
    expect("run " DATA "/digits/model.onnx --input image=absent.npy --output-dir out", 66, "absent.npy");
    expect("run " DATA "/digits/model.onnx --input image=" DATA
           "/digits/test_data_set_0/input_0.pb --output-dir out/logits.npy/x",
           73, "cannot be created");
    expect("demo --data " DATA "/digits", 0, "accuracy 98.89 % before");
    assert_true(atof(strstr(output, "before, ") + 8) >= 97);
    expect("bench --seconds 0.05 --warm-up 0 --json " DATA "/digits/model.onnx", 0, "\"p50_ms\":");
    expect("profile --runs 2 " DATA "/digits/model.onnx --shape image=4x1x8x8", 0, "barrier groups");
    expect("selftest Softmax", 0, "0 failed");
    expect("selftest NoSuchOperator", 64, "NoSuchOperator");
}

/* One bad folder does not stop the others; lists, bounds and expected failures. */
static void verifies_lists(void **state)
{
    (void)state;
    expect("verify absent " DATA "/digits " DATA "/models/unknown_op", 1, "1 passed, 2 failed");
    expect("verify absent", 66, "FAIL absent");
    expect("verify absent " DATA "/models/unknown_op", 65, "0 passed, 2 failed");
    write_file("list", "# two exporters\ndigits\t1e-5\ndigits_script\n");
    expect("verify --list list --root " DATA, 0, "2 passed, 0 failed");
    write_file("strict", "digits\t1e-12\r\n\ndigits_script\n");
    expect("verify --list strict --root " DATA, 1, "1 passed, 1 failed");
    write_file("broken", "digits\tmany\n");
    expect("verify --list broken --root " DATA, 65, "line 1: expected a bound");
    expect("verify --list absent", 66, "'absent' cannot be opened");
    write_file("may-fail", "models/unknown_op\tno such operator\n");
    expect("verify --expect may-fail " DATA "/digits " DATA "/models/unknown_op", 0, "1 failed as expected");
    write_file("passes", "digits\tonce it did\n");
    expect("verify --expect passes " DATA "/digits " DATA "/digits_script", 1, "remove it from the list");
    write_file("no-reason", "digits\n");
    expect("verify --expect no-reason " DATA "/digits", 65, "expected a reason behind 'digits'");
    expect("verify --write-expect found absent " DATA "/digits", 1, "1 passed, 1 failed");
    expect("verify --expect found absent " DATA "/digits", 0, "1 passed, 0 failed, 1 failed as expected");
}

static void layers(void **state)
{
    (void)state;
    expect("verify --layers " DATA "/digits", 0, "9 values compared, 0 wrong");
    expect("verify --layers --all " DATA "/digits", 0, "ok   Gemm");
    expect("verify --layers --rel 1e-9 " DATA "/digits", 1, "first wrong node 'node_Conv_19' (Conv)");
    expect("verify --layers --rel 1e-9 " DATA "/digits", 1, "operand 1 '0.weight' float32 [16,1,3,3]");
    expect("verify --layers --json --all " DATA "/digits", 0, "\"wrong\":0,\"pass\":\"\"");
    expect("verify --layers --set 1 " DATA "/exports/dynamo_cond", 0, " 0 wrong");
    expect("verify --layers " DATA "/digits/model.onnx --input image=" DATA "/digits/test_data_set_0/input_0.pb", 0,
           " 0 wrong");
    expect("verify --layers " DATA "/digits/model.onnx", 64, "'image' has no contents");
    expect("verify --layers " DATA "/digits/model.onnx --input pixels=" DATA "/digits/test_data_set_0/input_0.pb", 64,
           "no input 'pixels'");
    expect("verify --layers " DATA "/digits/model.onnx --input image", 64, "NAME=FILE");
    expect("verify --layers " DATA "/models/unknown_op", 65, "Frobnicate");
}

static void profiles(void **state)
{
    (void)state;
    expect("profile --runs 2 --batch 3 --trace t.json " DATA "/digits/model.onnx", 0, "roofline  operator");
    expect_file("t.json", "\"traceEvents\":[");
    expect_file("t.json", "\"ph\":\"X\",\"pid\":1,\"tid\":1,\"ts\":0,");
    expect("profile --runs 2 --copy-rate 100 --fma-rate 500 --json " DATA "/digits/model.onnx", 0,
           "\"copy_bytes_per_second\":1e+11,\"flops_per_second\":5e+11");
    expect("profile --runs 2 --trace t.json --shape x=3x4 " DATA "/models/nonzero/model.onnx", 0, "NonZero x 1");
    expect_file("t.json", "\"name\":\"nonzero0\",\"cat\":\"NonZero\",\"ph\":\"X\",\"pid\":1,\"tid\":2");
    expect("profile --runs 2 --trace absent/t.json " DATA "/digits/model.onnx", 73, "absent/t.json");
    expect("profile --runs many " DATA "/digits/model.onnx", 64, "must be a number");
    expect("bench --seconds 0.05 --warm-up 0 --batch 5 " DATA "/digits/model.onnx", 0, "first run");
    expect("bench --shape image=5xk " DATA "/digits/model.onnx", 64, "--shape must read");
}

static void tunes(void **state)
{
    (void)state;
    expect("tune", 64, "one model file is needed");
    expect("tune " DATA "/models/mlp/model.onnx --candidates 9", 64, "from 1 to 8");
    expect("tune " DATA "/models/mlp/model.onnx --table absent/table", 73, "absent/table");
    expect("tune --batch 3 --candidates 2 --runs 1 --table tuned " DATA "/models/mlp/model.onnx", 0, "table tuned\n");
    expect("tune --candidates 2 --runs 1 --table tuned --json " DATA "/models/mlp/model.onnx", 0,
           "\"problem\":\"gemm strict 1 x 1x24x12 NT");
    expect_file("tuned", "gemm strict 1 x 3x24x12 NT float32 float32 float32\t");
    expect("inspect tuned", 0, "problems   4, of which ");
    expect("inspect " DATA "/../../share/tune/llvmpipe", 0, "device     llvmpipe");
    expect("inspect " DATA "/../../share/tune/nvidia-h200", 0, "device     NVIDIA H200");
    expect("inspect --json tuned", 0, "\"schema\":\"hillock-table-1\"");
    const char *profile = "profile --runs 1 --copy-rate 1 --fma-rate 1 " DATA "/models/mlp/model.onnx --json --tuned ";
    char words[512];
    snprintf(words, sizeof words, "%stuned", profile);
    expect(words, 0, "\"tuned\":true");
    snprintf(words, sizeof words, "%stuned --deterministic", profile);
    expect(words, 0, "\"tuned\":false");
    snprintf(words, sizeof words, "%sabsent", profile);
    expect(words, 66, "absent");
    expect("bench --tuned " DATA "/digits/model.onnx " DATA "/models/mlp/model.onnx", 65,
           "is no table of measurements");
}

static void inspects(void **state)
{
    (void)state;
    expect("inspect " DATA "/digits/model.onnx", 0, "3.weight  float32 [32,16,3,3]  weight");
    expect("inspect " DATA "/networks/convnext/model.onnx", 0, "features.2.scale  float32 [12]");
    expect("inspect --batch 32 --json " DATA "/digits/model.onnx", 0, "\"whole\":true,\"weight_bytes\":");
    expect("inspect --json --shape image=2x1x8x8 " DATA "/digits/model.onnx", 0,
           "\"needs\":{\"known\":true,\"whole\":true");
    expect("inspect --shape image=2x1xk " DATA "/digits/model.onnx", 64, "--shape must read");
    expect("inspect --shape image=2x3x8x8 " DATA "/digits/model.onnx", 0, "no estimate for these shapes");
    expect("inspect " DATA "/models/nonzero/model.onnx", 0, "up to the first step of the host");
    expect("inspect " DATA "/exports/script_eval_kept/model.onnx", 0, "bn_a.bias  float32 [8]  norm");
    expect("inspect --dot " DATA "/digits/model.onnx", 0, "n8 -> o0 [label=\"float32 [batch,10]\"];");
    expect("inspect --json " DATA "/models/unknown_op/model.onnx", 65, "\"op\":\"Frobnicate\"");
}

static void selftest(void **state)
{
    (void)state;
    expect("selftest Softmax 'ReduceS*' --kernels", 0, "ran      reduce_f32 ");
    expect("selftest Softmax --kernels", 0, "not run  reduce_f32 ");
    expect_in("HILLOCK_CAPS=-subgroup", "selftest Relu --kernels", 0, "the device lacks subgroup");
    expect("selftest Softmax --verbose", 0, "ok   Softmax f32[2,3,4,5];axis=1");
    expect("selftest Softmax --json", 0, "\"failed\":0");
    expect_in("VK_DRIVER_FILES=/dev/null VK_ICD_FILENAMES=/dev/null", "selftest --list Softmax", 0,
              "Softmax                  strict f32[2,3,4,5];axis=1");
    expect("selftest --list --json Einsum", 0, "\"precision\":\"fast\"");
    expect("selftest --list --json Softmax", 0, "\"case\":\"f32[3,0]\"");
    expect("selftest Softmax NoSuchOperator", 64, "NoSuchOperator");
}

int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(usage),    cmocka_unit_test(files),          cmocka_unit_test(devices),
        cmocka_unit_test(runs),     cmocka_unit_test(verifies_lists), cmocka_unit_test(layers),
        cmocka_unit_test(profiles), cmocka_unit_test(tunes),          cmocka_unit_test(inspects),
        cmocka_unit_test(selftest),
    };
    return cmocka_run_group_tests_name("command", tests, make_folder, remove_folder);
}
