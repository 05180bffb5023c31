/* hillock train */
#include "tools/command/train.h"

#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
    "usage: hillock train MODEL --data PATH [--labels FILE] [--val PATH|SHARE] [--out DIR] [options] [--device D] "
    "[--json]\n\n"
    "Fine-tunes an ONNX model and writes DIR/model.onnx (the best epoch by --monitor, else the last), metrics.jsonl,\n"
    "metrics.csv, curves.svg, config.json and checkpoints. PATH is an IDX, .npy, .npz, .csv or CIFAR file, or a folder "
    "of\n"
    "those or of one folder of images, or of files of events, per class.\n\n"
    "data        --labels FILE  --label-column NAME  --targets (numbers, not classes)  --shape C,H,W  --resize N\n"
    "            --scale X  --mean M,...  --std S,...  --flip  --shift N  --max-bad N  --threads 2\n"
    "            --event-bins count|time|MICROSECONDS (how events, --shape T,2,H,W, are shared among the T frames)\n"
    "order       --batch 32  --epochs 10  --steps N  --seed 0  --no-shuffle  --drop-last\n"
    "loss        --loss ce|nll|mse|l1|smooth-l1|huber|bce|kl  --reduction mean|sum|batchmean  --output NAME\n"
    "            --label-smoothing E  --class-weights W,...  --ignore-index -100  --beta 1\n"
    "            (the validation's loss is the same criterion, over all of its samples together)\n"
    "optimizer   --optimizer adamw|adam|sgd  --lr 1e-3  --beta1 0.9  --beta2 0.999  --eps 1e-8  --weight-decay W\n"
    "            --momentum M  --dampening D  --nesterov  --clip NORM  --accumulate N  --accumulate-total\n"
    "            --ema DECAY  --loss-scale S  --precision strict|high|fast\n"
    "            --checkpointing (less memory for a second forward pass)\n"
    "parameters  --freeze PATTERN,...  --train PATTERN,... (all others are frozen)  --no-decay bias,norm\n"
    "            --lr-scale PATTERN=FACTOR  --freeze-bn; patterns are names with * ? or weight, bias, norm, embedding\n"
    "            --train-also PATTERN,... (names of what has no such role: position embeddings, layer scales)\n"
    "            --allow-unreached (parameters that the trained output does not depend on)\n"
    "            --keep-state (potentials of spiking layers go on from batch to batch of an epoch; with --drop-last)\n"
    "model       --new-head CLASSES  --lora RANK[,ALPHA]  --dropout P (before the last layer)  --rebuild-bn (where it "
    "was\n"
    "            folded; folded again on export)  --keep-bn (not folded)  --tie (small tensors that layers share stay "
    "one)\n"
    "            --tie-matrices (equal ones, which were one parameter in PyTorch, are one again)\n"
    "schedule    --schedule constant|step|cosine|linear|one-cycle|plateau  --warmup UPDATES  --every UPDATES\n"
    "            --gamma 0.1  --least 0\n"
    "run         --monitor loss|accuracy|f1|top-k|mae  --top-k 5  --patience EPOCHS  --keep 2  --save-every STEPS  "
    "--resume\n"
    "            --safetensors (also DIR/model.safetensors)  --config FILE (JSON)  --dump-config\n\n"
    "--resume goes on from the newest checkpoint of DIR that can be read. SIGINT and SIGTERM finish the step, save and "
    "exit\n"
    "with 130 or 143.\n\n"
    "example: hillock train digits.onnx --data tests/data/digits --scale 0.0625 --val 0.2 --epochs 5 --out tuned\n";

static volatile sig_atomic_t interrupted;

static void interrupt(int number)
{
    if (interrupted) /* the second one does not wait: files are whole at any moment */
        _exit(128 + number);
    interrupted = number;
}

/* ---- evaluation */

static hk_status evaluate_batch(training *r, const hk_batch *b, metrics *m)
{
    hk_tensor output = {0};
    hk_status st = hk_trainer_evaluate(r->trainer, b->inputs, b->input_count, r->s.ema > 0);
    if (st == HK_OK)
        st = hk_trainer_read_output(r->trainer, r->output_name, &output);
    if (st == HK_OK && !metrics_add(m, &output, b->target))
        st = HK_STATUS_INVALID;
    hk_tensor_release(&output);
    return st;
}

hk_status evaluate_loader(training *r, hk_loader *l, metrics *m)
{
    hk_status st = HK_OK;
    for (hk_batch b; st == HK_OK;) {
        st = hk_loader_next(l, &b);
        if (st != HK_OK || !b.count)
            break;
        st = evaluate_batch(r, &b, m);
    }
    return st;
}

/* ---- telling */

static const char *metric_name(const training *r)
{
    return measures_classes(&r->by) ? "accuracy" : "mae";
}

static void show_progress(training *r, bool line_end)
{
    double now = now_seconds();
    bool terminal = isatty(STDERR_FILENO);
    if (r->o->quiet || r->o->json || (!line_end && (!terminal || now - r->shown < 0.2)))
        return;
    r->shown = now;
    uint64_t here = r->done - r->begun_at;
    double seconds = now - r->begun, rate = seconds > 0 ? (double)here * r->s.batch / seconds : 0;
    uint64_t batches = hk_loader_batches(r->loader);
    fprintf(stderr, "%sepoch %llu/%.0f  step %llu/%llu  loss %.4f", terminal ? "\r\x1b[K" : "",
            (unsigned long long)((r->done - (r->done > 0)) / batches + 1), r->s.epochs, (unsigned long long)r->done,
            (unsigned long long)r->total,
            r->state.loss_count ? r->state.loss_sum / (double)r->state.loss_count : r->last_loss);
    if (r->val && r->curves.count)
        fprintf(stderr, "  %s %.4f", metric_name(r), r->curves.rows[r->curves.count - 1].metric);
    fprintf(stderr, "  %.0f samples/s", rate);
    if (here && r->done < r->total)
        fprintf(stderr, "  %.0f s left", seconds / (double)here * (double)(r->total - r->done));
    if (line_end)
        fputc('\n', stderr);
}

/* What is monitored, the larger the better. */
static double monitored(const training *r, const epoch_row *row)
{
    const char *what = r->s.monitor ? r->s.monitor : r->val ? metric_name(r) : "loss";
    if (!strcmp(what, "accuracy"))
        return row->metric;
    if (!strcmp(what, "f1"))
        return row->f1;
    if (!strcmp(what, "top-k"))
        return row->top;
    if (!strcmp(what, "mae"))
        return -row->metric;
    return isnan(row->val_loss) ? -row->loss : -row->val_loss;
}

/* ---- the end of an epoch */

static hk_status export_model(training *r)
{
    char path[1100];
    snprintf(path, sizeof path, "%s/model.onnx", r->s.out);
    hk_status st = r->s.ema > 0 ? hk_trainer_export_average(r->trainer, path) : hk_trainer_export(r->trainer, path);
    snprintf(path, sizeof path, "%s/model.safetensors", r->s.out);
    return st == HK_OK && r->s.safetensors ? hk_trainer_export_safetensors(r->trainer, r->s.ema > 0, path) : st;
}

static hk_status measure_epoch(training *r, epoch_row *row)
{
    metrics m = {.by = r->by};
    hk_trainer_stats stats;
    hk_status st = hk_trainer_get_stats(r->trainer, &stats);
    double seconds = now_seconds() - r->begun;
    *row = (epoch_row){.epoch = (double)(r->done / hk_loader_batches(r->loader)),
                       .step = (double)r->done,
                       .loss = r->state.loss_count ? r->state.loss_sum / (double)r->state.loss_count : NAN,
                       .val_loss = NAN,
                       .metric = NAN,
                       .f1 = NAN,
                       .top = NAN,
                       .seconds = seconds,
                       .rate = seconds > 0 ? (double)(r->done - r->begun_at) * r->s.batch / seconds : 0};
    if (st == HK_OK)
        row->lr = (double)stats.lr;
    if (st == HK_OK)
        st = hk_trainer_reset(r->trainer);
    if (st == HK_OK && r->val)
        st = evaluate_loader(r, r->val, &m);
    if (st == HK_OK)
        st = hk_trainer_reset(r->trainer);
    if (st == HK_OK && r->val) {
        row->val_loss = metrics_loss(&m);
        row->metric = m.classes ? metrics_accuracy(&m) : metrics_mae(&m);
        row->f1 = m.classes ? metrics_f1(&m) : NAN;
        row->top = metrics_top(&m);
    }
    metrics_finish(&m);
    return st;
}

static void print_epoch(const training *r, const epoch_row *row)
{
    if (r->o->quiet || r->o->json)
        return;
    printf("epoch %.0f  loss %.5f", row->epoch, row->loss);
    if (r->val)
        printf("  val loss %.5f  %s %.4f", row->val_loss, metric_name(r), row->metric);
    if (!isnan(row->top) && option_given(r->o, "--top-k"))
        printf("  top %lld %.4f", (long long)r->by.top, row->top);
    printf("  lr %.3g\n", row->lr);
    fflush(stdout);
}

static hk_status end_epoch(training *r)
{
    epoch_row row;
    show_progress(r, isatty(STDERR_FILENO));
    hk_status st = measure_epoch(r, &row);
    if (st != HK_OK)
        return st;
    print_epoch(r, &row);
    st = curves_add(&r->curves, &row);
    if (st != HK_OK)
        return st;
    double now = monitored(r, &row);
    r->state.bad_epochs++;
    if (now > r->state.best) {
        r->state.best = now;
        r->state.best_epoch = (uint64_t)row.epoch;
        r->state.bad_epochs = 0;
        st = export_model(r);
    }
    if (st == HK_OK && !strcmp(r->s.schedule, "plateau"))
        st = hk_trainer_set_lr(r->trainer, (float)(r->s.lr * hk_plateau_step(&r->plateau, -now)));
    r->state.loss_sum = 0;
    r->state.loss_count = 0;
    return st == HK_OK ? save_checkpoint(r) : st;
}

/* ---- steps: two in flight, so a step's loss is known when the next one runs */

typedef struct flight {
    uint64_t ticket;
    bool up;
} flight;

static hk_status land(training *r, flight *f)
{
    float loss = 0;
    if (!f->up)
        return HK_OK;
    f->up = false;
    hk_status st = hk_trainer_wait(r->trainer, f->ticket, &loss);
    r->last_loss = (double)loss;
    if (st == HK_OK && !isfinite(loss) && !(r->s.loss_scale > 0)) {
        fprintf(
            stderr,
            "hillock train: the loss of step %llu is %s. Lower --lr, use --clip 1, or look for bad samples; the last "
            "checkpoint in '%s' is whole\n",
            (unsigned long long)r->done, isnan(loss) ? "NaN" : "infinite", r->s.out);
        return HK_STATUS_MISMATCH;
    }
    if (isfinite(loss)) {
        r->state.loss_sum += (double)loss;
        r->state.loss_count++;
    }
    return st;
}

static hk_status take_step(training *r, const hk_batch *b, flight *f)
{
    uint64_t ticket = 0;
    hk_status st = hk_trainer_submit(r->trainer, b->inputs, b->input_count, b->target, &ticket);
    if (st != HK_OK)
        return st;
    st = land(r, f);
    *f = (flight){.ticket = ticket, .up = true};
    r->done++;
    show_progress(r, false);
    return st;
}

static hk_status run_steps(training *r)
{
    uint64_t batches = hk_loader_batches(r->loader);
    flight f = {0};
    hk_status st = hk_loader_seek(r->loader, r->done / batches, r->done % batches);
    while (st == HK_OK && r->done < r->total && !interrupted) {
        hk_batch b;
        st = hk_loader_next(r->loader, &b);
        if (st != HK_OK || !b.count) /* epochs end below */
            continue;
        st = take_step(r, &b, &f);
        bool epoch = r->done % batches == 0, due = r->s.save_every > 0 && fmod((double)r->done, r->s.save_every) == 0;
        if (st == HK_OK && (epoch || due))
            st = land(r, &f);
        if (st == HK_OK && epoch)
            st = end_epoch(r);
        else if (st == HK_OK && due)
            st = save_checkpoint(r);
        if (st == HK_OK && epoch && r->s.patience > 0 && (double)r->state.bad_epochs >= r->s.patience)
            break;
    }
    return st == HK_OK ? land(r, &f) : st;
}

/* ---- the run */

/* What the leaks of ParametricLIF layers have become: 1/tau is the sigmoid of the parameter. */
static void print_leaks(const training *r)
{
    hk_snn_neuron list[256];
    size_t count = 0;
    if (hk_snn_neurons(r->model, list, sizeof list / sizeof *list, &count) != HK_OK)
        return;
    if (r->o->json)
        json_object(stdout, "tau");
    for (size_t i = 0; i < count && i < sizeof list / sizeof *list; i++) {
        hk_tensor w = {0};
        if (!list[i].parameter || hk_trainer_read_parameter(r->trainer, list[i].parameter, &w) != HK_OK)
            continue;
        double tau = 1 + exp(-tensor_element(&w, 0));
        if (r->o->json)
            json_number(stdout, list[i].node, tau);
        else if (!r->o->quiet)
            printf("%s: tau %.4f\n", list[i].node, tau);
        hk_tensor_release(&w);
    }
    if (r->o->json)
        json_object_end(stdout);
}

static void print_result(const training *r)
{
    hk_trainer_stats stats = {0};
    double seconds = now_seconds() - r->begun;
    if (hk_trainer_get_stats(r->trainer, &stats) != HK_OK)
        return;
    const epoch_row *last = r->curves.count ? &r->curves.rows[r->curves.count - 1] : NULL;
    if (r->o->json) {
        json_begin(stdout);
        json_string(stdout, "schema", "hillock-train-1");
        json_string(stdout, "device", hk_device_get_info(r->dev)->name);
        json_integer(stdout, "steps", (long long)r->done);
        json_integer(stdout, "updates", (long long)stats.updates);
        json_integer(stdout, "skipped", (long long)stats.skipped);
        json_integer(stdout, "parameters", (long long)stats.parameter_count);
        json_number(stdout, "seconds", seconds);
        if (last) {
            json_number(stdout, "loss", last->loss);
            if (r->val)
                json_number(stdout, metric_name(r), last->metric);
            json_integer(stdout, "best_epoch", (long long)r->state.best_epoch);
        }
        print_leaks(r);
        json_string(stdout, "model", r->s.out);
        json_end(stdout);
        return;
    }
    print_leaks(r);
    if (!r->o->quiet)
        printf("%llu updates of %lld parameters in %.1f s; best epoch %llu; '%s/model.onnx'\n",
               (unsigned long long)stats.updates, (long long)stats.parameter_count, seconds,
               (unsigned long long)r->state.best_epoch, r->s.out);
}

static hk_status keep_config(const training *r)
{
    text_file t;
    FILE *f = text_begin(&t);
    if (!f)
        return HK_STATUS_OUT_OF_MEMORY;
    settings_write(&r->s, f);
    return text_save(&t, r->o, r->s.out, "config.json");
}

static hk_status run_all(training *r)
{
    hk_status st = training_open(r);
    r->state.best = -INFINITY;
    if (st == HK_OK && option_given(r->o, "--resume"))
        st = resume_checkpoint(r);
    if (st == HK_OK)
        st = curves_begin(&r->curves, r->o, r->s.out, metric_name(r), r->by.top,
                          r->done / hk_loader_batches(r->loader));
    if (st == HK_OK)
        st = keep_config(r);
    r->begun = now_seconds();
    r->begun_at = r->done;
    if (st == HK_OK)
        st = run_steps(r);
    bool whole = st == HK_OK && r->done % hk_loader_batches(r->loader) == 0;
    if (st == HK_OK && !whole && r->done > r->begun_at)
        st = save_checkpoint(r);
    if (st == HK_OK && !interrupted && !isfinite(r->state.best)) /* ended within the first epoch */
        st = export_model(r);
    if (st == HK_OK)
        print_result(r);
    return st;
}

static int run(int argc, char **argv)
{
    options o;
    training r = {.o = &o};
    int code = options_parse(&o, &verb_train, settings_specs(), argc, argv);
    if (code >= 0)
        return code;
    code = training_settings(&r, &verb_train);
    if (code >= 0)
        return finish_code(&o, code);
    struct sigaction action = {.sa_handler = interrupt};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    hk_status st = run_all(&r);
    if (st != HK_OK && st != HK_STATUS_MISMATCH)
        print_error(&o);
    training_close(&r);
    code = finish_code(&o, hk_status_exit_code(st));
    return code == 0 && interrupted ? 128 + interrupted : code;
}

const verb verb_train = {"train", "fine-tune a model on data", usage, run};
