/*
 * hillock train and eval: results, resuming after kill -9 and signals, what is refused and how. HILLOCK_TEST_KILLS: how
 * many times the run is killed (default 12).
 */
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include <hillock/hillock.h>

#include "tests/support/command.h"
#include "tests/support/repeat.h"

#define DIGITS HK_TEST_DATA "/digits"
#define FIVE HK_TEST_DATA "/five_digits/model.onnx"
#define TRAIN "train " DIGITS "/model.onnx --data " DIGITS " --scale 0.0625 --seed 5 "

static char *contents(const char *name, size_t *bytes)
{
    const char *path = in_folder(name);
    FILE *f = fopen(path, "rb");
    if (!f)
        fail_msg("'%s' is not there", path);
    fseek(f, 0, SEEK_END);
    *bytes = (size_t)ftell(f);
    rewind(f);
    char *data = malloc(*bytes + 1);
    assert_true(data && fread(data, 1, *bytes, f) == *bytes);
    data[*bytes] = '\0';
    fclose(f);
    return data;
}

static void equal_files(const char *a, const char *b)
{
    size_t na, nb;
    char *x = contents(a, &na), *y = contents(b, &nb);
    if (na != nb || memcmp(x, y, na) != 0)
        fail_msg("'%s' and '%s' differ", a, b);
    free(x);
    free(y);
}

/* ---- what a run makes */

static void results(void **state)
{
    (void)state;
    size_t bytes;
    expect(TRAIN "--val 0.2 --epochs 2 --out a", 0, "epoch 2");
    const char *const files[] = {"a/model.onnx", "a/metrics.jsonl", "a/metrics.csv", "a/config.json", "a/curves.svg"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        free(contents(files[i], &bytes));
    char *csv = contents("a/metrics.csv", &bytes);
    assert_non_null(strstr(csv, "epoch,step,lr,loss,val_loss,accuracy"));
    assert_non_null(strstr(csv, "\n2,90,"));
    free(csv);
    expect("eval a/model.onnx --data " DIGITS " --scale 0.0625 --seed 5 --val 0.2 --json", 0, "\"accuracy\":");
    const char *accuracy = strstr(output, "\"accuracy\":");
    assert_true(atof(accuracy + 11) >= 0.97);
    /* what config.json says runs again, to the same weights */
    expect("train --config a/config.json --out b", 0, "epoch 2");
    equal_files("a/model.onnx", "b/model.onnx");
}

/* The five-class model learns ten classes, in every form of training; what evaluates is the written file. */
static void edited(void **state)
{
    (void)state;
    static const struct {
        const char *flags;
        double accuracy;
    } runs[] = {{"--new-head 10", 0.95},
                {"--new-head 10 --rebuild-bn --dropout 0.1", 0.95},
                {"--new-head 10 --keep-bn --safetensors --ema 0.9", 0.95},
                {"--new-head 10 --lora 4,8 --lr 1e-2", 0.9}};
    size_t bytes;
    char arguments[1024];
    const int steps = repeats(90, 9); /* two epochs, after which accuracy is looked at */
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        snprintf(arguments, sizeof arguments,
                 "train " FIVE " --data " DIGITS
                 " --scale 0.0625 --val 0.2 --seed 5 --lr 5e-3 --epochs 2 --steps %d --out e%zu %s",
                 steps, i, runs[i].flags);
        expect(arguments, 0, "updates of");
        snprintf(arguments, sizeof arguments,
                 "eval e%zu/model.onnx --data " DIGITS " --scale 0.0625 --val 0.2 --seed 5 --json", i);
        expect(arguments, 0, "\"accuracy\":");
        double accuracy = atof(strstr(output, "\"accuracy\":") + 11);
        if (accuracy < runs[i].accuracy && steps == 90)
            fail_msg("%s: accuracy %g", runs[i].flags, accuracy);
    }
    free(contents("e2/model.safetensors", &bytes));
    /* from its own configuration, resumed after half of it: the same file */
    snprintf(arguments, sizeof arguments, "train --config e1/config.json --steps %d --out f", steps * 2 / 3);
    expect(arguments, 0, "updates of");
    expect("train --config e1/config.json --out f --resume", 0, "updates of");
    equal_files("e1/model.onnx", "f/model.onnx");
    expect("train " FIVE " --data " DIGITS " --scale 0.0625", 65, "labels must be below");
    expect("train " FIVE " --data " DIGITS " --scale 0.0625 --new-head 10 --lora 2.5", 64, "RANK or RANK,ALPHA");
    expect("train " FIVE " --data " DIGITS " --scale 0.0625 --new-head 10 --output absent", 64, "no output 'absent'");
}

static void options(void **state)
{
    (void)state;
    static const char *const runs[] = {
        "--optimizer sgd --momentum 0.9 --nesterov --lr 0.01 --clip 1 --no-decay bias,norm",
        "--optimizer adam --weight-decay 0.1 --accumulate 3 --accumulate-total --label-smoothing 0.1 --ema .9 --val .1",
        "--schedule one-cycle --warmup 3 --train role:bias --class-weights 1,1,1,1,1,1,1,1,1,2 --patience 1",
        "--schedule plateau --flip --shift 1 --loss-scale 1024 --lr-scale bias=2 --freeze 'conv1*' --drop-last",
    };
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        char arguments[1024];
        snprintf(arguments, sizeof arguments, TRAIN "--epochs 1 --steps 20 --out options %s", runs[i]);
        if (i == 3 && hillock(arguments) == 64) /* the exporter's names */
            assert_non_null(strstr(output, "matches none of the model's"));
        else if (i != 3)
            expect(arguments, 0, "updates of");
    }
}

/* ---- files of numbers */

/* count samples of numbers 0 1 2 ..., as version 1 of .npy; NaN stands in sample 2. */
static void written_array(const char *name, const char *dtype, const char *shape, size_t numbers, bool nan)
{
    char path[400], header[119];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    int n = snprintf(header, sizeof header, "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", dtype, shape);
    memset(header + n, ' ', sizeof header - (size_t)n);
    header[117] = '\n';
    assert_int_equal(fwrite("\x93NUMPY\1\0\x76\0", 1, 10, f), 10);
    assert_int_equal(fwrite(header, 1, 118, f), 118);
    for (size_t i = 0; i < numbers; i++) {
        float x = nan && i == numbers / 2 ? NAN : (float)(i % 7);
        int64_t label = (int64_t)(i % 3);
        bool whole = dtype[1] == 'i';
        assert_int_equal(fwrite(whole ? (void *)&label : (void *)&x, whole ? sizeof label : sizeof x, 1, f), 1);
    }
    assert_int_equal(fclose(f), 0);
}

/* ---- other outputs than one row of scores for a sample */

/* (N,T) token numbers to (N,T,C), as language models, or (N,I) numbers to (N,C). */
static void made_model(const char *name, bool tokens, int64_t in, int64_t out)
{
    hk_context *ctx = NULL;
    hk_model *m = NULL;
    hk_value *x = NULL, *y = NULL;
    const hk_layer layers[] = {{.kind = HK_LAYER_EMBEDDING, .in = in, .out = 8}, {.kind = HK_LAYER_LINEAR, .out = out}};
    assert_int_equal(hk_context_create(NULL, &ctx), HK_OK);
    assert_int_equal(hk_model_create(ctx, &(hk_build_params){.size = sizeof(hk_build_params), .seed = 3}, &m), HK_OK);
    assert_int_equal(hk_model_input(m, "x", tokens ? HK_INT64 : HK_FLOAT32, 2, (int64_t[]){-1, tokens ? -1 : in}, &x),
                     HK_OK);
    assert_int_equal(hk_add_sequence(m, x, tokens ? layers : layers + 1, tokens ? 2 : 1, &y), HK_OK);
    assert_int_equal(hk_model_output(m, y, "y"), HK_OK);
    assert_int_equal(hk_model_save(m, in_folder(name)), HK_OK);
    hk_model_destroy(&m);
    hk_context_destroy(&ctx);
}

static double reported(const char *name)
{
    const char *at = strstr(output, name);
    if (!at)
        fail_msg("no %s in %s", name, output);
    return atof(at + strlen(name) + 1);
}

static void tokens(void **state)
{
    (void)state;
    made_model("tokens.onnx", true, 4, 3);
    written_array("ids.npy", "<i8", "16, 2", 32, false); /* 0 1 2 0 1 2 ... */
    written_array("next.npy", "<i8", "16, 2", 32, false);
    /* three classes for labels of shape (N,2): the last dimension, whatever the second is */
    expect("train tokens.onnx --data ids.npy --labels next.npy --val .25 --epochs 40 --lr .05 --out t", 0,
           "accuracy 1");
    expect("eval t/model.onnx --data ids.npy --labels next.npy --json", 0, "\"samples\":32");
    assert_true(reported("\"accuracy\"") == 1);
    expect("eval t/model.onnx --data ids.npy --labels next.npy --ignore-index 2 --json", 0, "\"samples\":22");
    /* a label beyond the classes is one only when it counts, in training too */
    made_model("two.onnx", true, 4, 2);
    written_array("ids4.npy", "<i8", "16, 4", 64, false);
    written_array("next4.npy", "<i8", "16, 4", 64, false);
    expect("train two.onnx --data ids4.npy --labels next4.npy --out u", 65, "or be --ignore-index (-100)");
    expect("train two.onnx --data ids4.npy --labels next4.npy --ignore-index 2 --val .25 --epochs 1 --out u", 0,
           "accuracy");
    written_array("floats.npy", "<f4", "16, 2", 32, false);
    expect("train two.onnx --data floats.npy --labels next.npy --out v", 65, "array.astype('int64')");
    assert_false(is_there("v"));
}

/* A model exported in half precision takes data of any float type: what batches hold is converted. */
static void halves(void **state)
{
    (void)state;
#define MIXED HK_TEST_DATA "/edits/mixed/model.onnx --data rows.npy --labels rows-labels.npy --epochs 1 "
#define HALF HK_TEST_DATA "/edits/half/model.onnx"
    size_t bytes;
    written_array("half.npy", "<f4", "16, 5", 80, false);
    written_array("half-labels.npy", "<i8", "16,", 16, false);
    expect("train " HALF " --data half.npy --labels half-labels.npy --val .25 --epochs 3 --out half", 0,
           "3 updates of 84 parameters");
    expect("eval half/model.onnx --data half.npy --labels half-labels.npy --json", 0, "\"samples\":16");
    expect("run half/model.onnx --input x=half.npy --output-dir half", 0, "y  float16 [16,4] -> half/y.npy");
    free(contents("half/y.npy", &bytes));
    expect("run half/model.onnx --input x=half-labels.npy --output-dir half", 64,
           "is int64, the model expects float16");
    expect("verify --layers half/model.onnx --input x=half.npy", 0, NULL);
#undef HALF
}

/* Weight tying that the exporter lost is told before anything is trained. */
static void ties(void **state)
{
    (void)state;
#define TIED HK_TEST_DATA "/edits/tied/model.onnx"
    static const char told[] = "parameters 'embedding' and 'val_3' have the same contents, transposed";
    written_array("tied.npy", "<i8", "9,", 9, false);
    written_array("tied-labels.npy", "<i8", "9,", 9, false);
    expect("inspect " TIED, 0, told);
    expect("inspect " TIED " --json", 0,
           "\"lost_ties\":[{\"kept\":\"embedding\",\"copy\":\"val_3\",\"transposed\":true}]");
    expect("train " TIED " --data tied.npy --labels tied-labels.npy --epochs 1 --out tied", 0, told);
    expect("train " TIED " --data tied.npy --labels tied-labels.npy --epochs 1 --out tied --tie-matrices", 0,
           "updates of 95 parameters");
    assert_null(strstr(output, told));
    expect("inspect tied/model.onnx", 0, "3 tensors, 95 elements");
#undef TIED
}

/* What is reported of the validation is the loss that is trained, when y, which is b for all samples, is known. */
static void columns(void **state)
{
    (void)state;
    made_model("column.onnx", false, 2, 1);
    write_file("column.csv", "1,1,1\n1,1,0\n1,1,1\n1,1,1\n");
    write_file("other.csv", "1,1,1\n1,1,7\n");
    expect("eval column.onnx --data column.csv --loss mse --json", 0, "\"mae\":");
    double mae = reported("\"mae\""), b = (3 - 4 * mae) / 2; /* 3 (1 - b) + b, for 0 < b < 1 */
    if (!(b > 0))                                            /* 3 (1 - b) - b */
        b = (3 - 4 * mae) / 4;
    expect("eval column.onnx --data column.csv --loss bce --json", 0, "\"samples\":4");
    assert_true(fabs(reported("\"loss\"") - (0.25 * b + log1p(exp(-b)))) < 1e-6);
    assert_true(reported("\"accuracy\"") == (b > 0 ? 0.75 : 0.25));
    expect("eval column.onnx --data column.csv --loss huber --beta 0.1 --json", 0, "\"loss\":");
    double ones = 0.1 * (1 - b - 0.05), zero = fabs(b) < 0.1 ? b * b / 2 : 0.1 * (fabs(b) - 0.05);
    assert_true(fabs(reported("\"loss\"") - (3 * ones + zero) / 4) < 1e-6);
    /* a column is what (N,1) has */
    expect("train column.onnx --data column.csv --loss bce --val column.csv --epochs 60 --lr .1 --out c", 0,
           "accuracy 0.75");
    expect("train column.onnx --data column.csv --loss mse --val column.csv --epochs 1 --out c", 0, "mae");
    expect("train column.onnx --data column.csv --targets --epochs 1 --out c", 64, "cross entropy of one class");
    /* labels of the validation are looked at before the first step */
    made_model("classes.onnx", false, 2, 3);
    expect("train classes.onnx --data column.csv --val other.csv --out d", 65, "the largest label is 7");
    assert_false(is_there("d"));
    expect("train classes.onnx --data column.csv --val column.csv --monitor mae --out d", 64, "accuracy, f1 or top-k");
    expect("train classes.onnx --data column.csv --monitor accuracy --out d", 64, "with --val");
    expect("train classes.onnx --data column.csv --freeze norm --out d", 64, "'role:norm' matches none");
    expect("train classes.onnx --data column.csv --no-decay norm --epochs 1 --out d", 0, "updates of");
}

/* The last line of metrics.csv, from a column on: epoch, step, lr, loss, validation's loss, accuracy, F1, top k. */
static double last_number(const char *name, int at)
{
    size_t bytes;
    char *text = contents(name, &bytes), *line = strrchr(text, '\n');
    assert_non_null(line);
    *line = '\0';
    line = strrchr(text, '\n');
    for (int i = 0; i < at && line; i++)
        line = strchr(line + 1, ',');
    assert_non_null(line);
    double x = atof(line + 1);
    free(text);
    return x;
}

/* The validation's loss is the criterion that is trained, with all it has; here both see the same batch. */
static void criteria(void **state)
{
    (void)state;
    static const char *const runs[] = {"", "--class-weights 1,2,4", "--label-smoothing 0.2",
                                       "--label-smoothing 0.2 --class-weights 1,2,4",
                                       "--label-smoothing 0.2 --class-weights 1,2,4 --ignore-index 1"};
    made_model("three.onnx", false, 2, 3);
    written_array("two.npy", "<f4", "8, 2", 16, false);
    written_array("hard.npy", "<i8", "8,", 8, false);
    written_array("soft.npy", "<f4", "8, 3", 24, false);
    const size_t each = (size_t)repeats(2, 8); /* few: none of the flags, and all */
    for (size_t i = 0; i < 2 * sizeof runs / sizeof *runs; i += i % 2 ? each - 1 : 1) {
        char arguments[1024];
        const char *labels = i % 2 ? "soft.npy" : "hard.npy";
        snprintf(arguments, sizeof arguments,
                 "train three.onnx --data two.npy --labels %s --val .5 --batch 4 --no-shuffle --epochs 1 --lr 1e-12 "
                 "--out criteria %s",
                 labels, runs[i / 2]);
        expect(arguments, 0, "epoch 1");
        double before = last_number("criteria/metrics.csv", 4);
        snprintf(arguments, sizeof arguments, "eval three.onnx --data two.npy --labels %s --val .5 --json %s", labels,
                 runs[i / 2]);
        expect(arguments, 0, "\"samples\":");
        assert_true(fabs(reported("\"loss\"") - before) < 1e-6 * before);
        /* what one part is trained on is the other part's validation */
        snprintf(arguments, sizeof arguments, "eval three.onnx --data two.npy --labels %s --json %s", labels,
                 runs[i / 2]);
        expect(arguments, 0, NULL);
        double whole = reported("\"loss\"");
        snprintf(arguments, sizeof arguments,
                 "train three.onnx --data two.npy --labels %s --batch 8 --epochs 1 --lr 1e-12 --out criteria %s",
                 labels, runs[i / 2]);
        expect(arguments, 0, "epoch 1");
        if (fabs(last_number("criteria/metrics.csv", 3) - whole) > 1e-5 * whole)
            fail_msg("%s %s: trained %g, evaluated %g", labels, runs[i / 2], last_number("criteria/metrics.csv", 3),
                     whole);
    }
    expect("eval three.onnx --data two.npy --labels hard.npy --top-k 1 --json", 0, "\"top1\":");
    assert_true(reported("\"top1\"") == reported("\"accuracy\""));
    expect("eval three.onnx --data two.npy --labels hard.npy --top-k 3", 0, "top 3 1.0000");
    expect("eval three.onnx --data two.npy --labels hard.npy --class-weights 1,2", 65, "2 class weights");
    expect("train three.onnx --data two.npy --labels hard.npy --val .5 --top-k 2 --monitor top-k --epochs 2 --out k", 0,
           "top 2 ");
    expect_file("k/metrics.csv", "f1,top2,seconds");
}

/* ---- interrupted */

static pid_t start(const char *arguments)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid)
        return pid;
    char command[2048];
    snprintf(command, sizeof command, "cd '%s' && exec '%s' %s >/dev/null 2>&1", folder, HK_COMMAND, arguments);
    execl("/bin/sh", "sh", "-c", command, (char *)NULL);
    _exit(127);
}

#define LONG_RUN TRAIN "--epochs 3 --val 0.1 --save-every 7 --accumulate 2 --ema 0.9 --quiet "

/* After every kill the next run goes on from the newest whole checkpoint, and the end is the uninterrupted run's. */
static void killed(void **state)
{
    (void)state;
    const char *wish = getenv("HILLOCK_TEST_KILLS");
    int kills = wish ? atoi(wish) : 12, done = 0;
    expect(LONG_RUN "--out straight", 0, NULL);
    unsigned random = 12345;
    for (int i = 0; i < kills; i++) {
        int status;
        pid_t pid = start(LONG_RUN "--out killed --resume");
        random = random * 1103515245u + 12345u;
        usleep(200000 + random / 65536u % 1000u * 900u);
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        done += WIFEXITED(status) && WEXITSTATUS(status) == 0; /* it was quicker */
    }
    expect(LONG_RUN "--out killed --resume", 0, NULL);
    equal_files("straight/model.onnx", "killed/model.onnx");
    size_t bytes;
    char *csv = contents("killed/metrics.csv", &bytes);
    assert_non_null(strstr(csv, "\n1,"));
    assert_non_null(strstr(csv, "\n3,"));
    free(csv);
    print_message("%d kills, %d runs had ended before\n", kills, done);
}

static void signalled(void **state)
{
    (void)state;
    static const int signals[] = {SIGINT, SIGTERM};
    for (int i = 0; i < 2; i++) {
        int status;
        pid_t pid = start(TRAIN "--epochs 100000 --out signalled --resume");
        sleep(2);
        kill(pid, signals[i]);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 128 + signals[i]);
    }
    expect(TRAIN "--epochs 1 --steps 1 --out signalled --resume", 0, "resumes from");
}

/* A damaged checkpoint is left aside, the one before is taken; one of another optimizer is no checkpoint of this run.
 */
static void damaged(void **state)
{
    (void)state;
    expect(TRAIN "--epochs 1 --steps 20 --save-every 5 --keep 3 --out damaged", 0, NULL);
    const char *path = in_folder("damaged/ckpt-0000000020.safetensors");
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    fseek(f, -100, SEEK_END);
    fputs("damage", f);
    fclose(f);
    expect(TRAIN "--epochs 1 --steps 22 --out damaged --resume", 0, "ckpt-0000000015");
    assert_non_null(strstr(output, "is damaged"));
    assert_int_equal(truncate(path, 1000), 0);
    expect(TRAIN "--epochs 1 --steps 23 --keep 9 --out damaged --resume", 0, "resumes from");
    /* nothing is begun anew over a run that is another */
    size_t before, after;
    char *model = contents("damaged/model.onnx", &before);
    expect(TRAIN "--epochs 1 --steps 24 --out damaged --resume --optimizer sgd", 65, "another model or optimizer");
    assert_non_null(strstr(output, "remove them to begin anew, or give another --out"));
    expect("train " FIVE " --new-head 10 --data " DIGITS " --scale 0.0625 --out damaged --resume", 65, "another model");
    char *same = contents("damaged/model.onnx", &after);
    assert_int_equal(before, after);
    assert_memory_equal(model, same, before);
    free(model);
    free(same);
}

/* The end is the same wherever the run was cut: inside epochs (23 batches) and inside accumulations (3). How many
 * places for each optimizer: HILLOCK_TEST_RESUMES (default 1). */
static void resumed(void **state)
{
    (void)state;
    static const char *const optimizers[] = {"adamw", "adam", "sgd", "sgd --momentum 0.9 --nesterov"};
    const int steps = repeats(24, 8);
    const char *wish = getenv("HILLOCK_TEST_RESUMES");
    int places = wish ? atoi(wish) : 1;
    for (size_t i = 0; i < sizeof optimizers / sizeof *optimizers; i++) {
        char run[512], arguments[1024];
        snprintf(run, sizeof run,
                 TRAIN "--epochs 9 --batch 64 --shift 1 --accumulate 3 --ema 0.9 --quiet --optimizer %s",
                 optimizers[i]);
        snprintf(arguments, sizeof arguments, "%s --steps %d --out whole%zu", run, steps, i);
        expect(arguments, 0, NULL);
        for (int k = 0; k < places; k++) {
            int at = 1 + (2 * k + 1) * (steps - 1) / (2 * places);
            char whole[64], parts[64];
            snprintf(whole, sizeof whole, "whole%zu/model.onnx", i);
            snprintf(parts, sizeof parts, "part%zu-%d/model.onnx", i, k);
            snprintf(arguments, sizeof arguments, "%s --steps %d --out part%zu-%d", run, at, i, k);
            expect(arguments, 0, NULL);
            snprintf(arguments, sizeof arguments, "%s --steps %d --out part%zu-%d --resume", run, steps, i, k);
            expect(arguments, 0, NULL);
            equal_files(whole, parts);
        }
    }
}

/* ---- refused */

/* What fills up is the file system of one run: a small one, where the kernel lets a user mount it. */
static void full_disk(void **state)
{
    (void)state;
    char command[1024];
    snprintf(command, sizeof command, "unshare -rm sh -c 'mount -t tmpfs -o size=64k none /mnt' 2>/dev/null");
    if (system(command) != 0) {
        print_message("skipped: this user cannot mount a small file system\n");
        skip();
    }
    snprintf(command, sizeof command,
             "cd '%s' && unshare -rm sh -c \"mount -t tmpfs -o size=%%s none /mnt && '%s' " TRAIN
             "--steps 6 --save-every 2 --out /mnt/o 2>&1; echo exit \\$?; ls /mnt/o\"",
             folder, HK_COMMAND);
    /* before the configuration, before the first checkpoint, before the second */
    static const char *const sizes[] = {"4k", "64k", "700k"};
    for (int i = 0; i < 3; i++) {
        char sized[1100];
        snprintf(sized, sizeof sized, command, sizes[i]);
        FILE *f = popen(sized, "r");
        assert_non_null(f);
        output[fread(output, 1, sizeof output - 1, f)] = '\0';
        pclose(f);
        if (!strstr(output, "No space left on device; make room there and run again") || !strstr(output, "exit 74"))
            fail_msg("with %s: %s", sizes[i], output);
        assert_true((strstr(output, "\nckpt-0000000002.safetensors\n") != NULL) == (i == 2));
        assert_true((strstr(output, "\nconfig.json\n") != NULL) == (i > 0));
        assert_null(strstr(output, "\nckpt-0000000004.safetensors\n"));
        assert_null(strstr(output, "\nmodel.onnx"));
        assert_null(strstr(output, ".tmp"));
    }
}

static void refused(void **state)
{
    (void)state;
    written_array("nan.npy", "<f4", "4, 1, 8, 8", 256, true);
    written_array("flat.npy", "<f4", "4, 63", 252, false);
    written_array("wide.npy", "<f4", "4, 3, 9, 7", 756, false);
    written_array("labels.npy", "<i8", "4,", 4, false);
    expect("train", 64, "--data");
    expect("train " DIGITS "/model.onnx", 64, "--data");
    expect("train absent.onnx --data " DIGITS, 66, "absent.onnx");
    expect(TRAIN "--freeze 'absent*' --out r", 64, "the parameter pattern 'absent*' matches none of the model's");
    expect(TRAIN "--train-also 'absent*' --out r", 64, "the parameter pattern 'absent*' matches none of the model's");
    expect(TRAIN "--freeze '*' --out r", 64, "all of the model's parameters are frozen");
    expect(TRAIN "--lr 0 --out r", 64, "'--lr' must be a number from");
    expect(TRAIN "--loss cross --out r", 64, "it can be ce, nll");
    expect(TRAIN "--val 1.5 --out r", 64, "share between 0 and 1");
    expect(TRAIN "--learning-rate 1", 64, "unknown option");
    expect(TRAIN "--out /proc/none/r", 73, "/proc/none/r");
    expect("train " DIGITS "/model.onnx --data absent --out r", 66, "'absent' cannot be opened");
    write_file("ragged.csv", "1,2,0\n3,4\n");
    expect("train " DIGITS "/model.onnx --data ragged.csv --out r", 65, "line 2 has 2 columns");
    write_file("wide.csv", "1,2,0\n3,4,1\n");
    expect("train " DIGITS "/model.onnx --data wide.csv --out r", 65, "cannot become [1,8,8]");
    char *line = malloc(4096);
    assert_non_null(line);
    size_t n = 0;
    for (int i = 0; i < 64; i++)
        n += (size_t)sprintf(line + n, "%d,", i % 7);
    sprintf(line + n, "10\n");
    write_file("labels.csv", line);
    free(line);
    expect("train " DIGITS "/model.onnx --data labels.csv --out r", 65, "labels must be below");
    write_file("bad.json", "{\"lr\": \"high\"}");
    expect(TRAIN "--config bad.json --out r", 78, "\"lr\"");
    write_file("unknown.json", "{\"learning\": 1}");
    expect(TRAIN "--config unknown.json --out r", 78, "\"learning\" is no setting");
    /* a batch that cannot be opened: told how to leave it as it is, which works */
    written_array("rows.npy", "<f4", "5, 3", 15, false);
    written_array("rows-labels.npy", "<i8", "5,", 5, false);
    expect("train " MIXED "--out fixed", 65, "--batch 2 --drop-last");
    assert_non_null(strstr(output, "the file fixes a batch of 2"));
    expect("train " MIXED "--batch 2 --out fixed", 65, "--batch 2 --drop-last");
    expect("train " MIXED "--batch 2 --drop-last --out fixed", 0, "");
    /* samples that are not the model's: told, and nothing is begun */
    expect("train " DIGITS "/model.onnx --data nan.npy --labels labels.npy --out n", 65, "nan.npy: sample 2 has NaN");
    expect("train " DIGITS "/model.onnx --data flat.npy --labels labels.npy --out n", 65, "cannot become [1,8,8]");
    assert_false(is_there("n"));
    assert_int_equal(hillock("train " DIGITS "/model.onnx --data wide.npy --labels labels.npy --out n --epochs 1"), 0);
    assert_non_null(
        strstr(output, "samples have shape [3,9,7] and are scaled and given other channels to become [1,8,8]"));
    /* diverging: a sentence, no model of NaN */
    expect(TRAIN "--optimizer sgd --lr 1e30 --epochs 1 --out nan", 1, "Lower --lr");
}

int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(results),   cmocka_unit_test(edited),   cmocka_unit_test(options), cmocka_unit_test(killed),
        cmocka_unit_test(signalled), cmocka_unit_test(damaged),  cmocka_unit_test(resumed), cmocka_unit_test(refused),
        cmocka_unit_test(full_disk), cmocka_unit_test(tokens),   cmocka_unit_test(columns), cmocka_unit_test(halves),
        cmocka_unit_test(ties),      cmocka_unit_test(criteria),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
