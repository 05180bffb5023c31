/*
 * The hillock command: one file per verb, over the public header alone.
 */
#ifndef COMMAND_H
#define COMMAND_H

#include <hillock/hillock.h>
#include <stdio.h>

/* ---- verbs */

typedef struct verb {
    const char *name;
    const char *summary;               /* one line */
    const char *usage;                 /* what --help prints, options and an example included */
    int (*run)(int argc, char **argv); /* argv[0] is the verb; returns the exit code */
} verb;

extern const verb verb_devices, verb_inspect, verb_run, verb_verify, verb_bench, verb_profile, verb_tune, verb_selftest,
    verb_demo, verb_train, verb_eval, verb_convert;

/* ---- options: every verb has --help, --json, --quiet and --device besides its own */

typedef struct option_spec {
    const char *name; /* "--rtol"; NULL ends the list */
    bool takes_value;
    bool repeats;
} option_spec;

typedef struct options {
    hk_context *ctx;
    bool json, quiet;
    const char *device;
    struct {
        const option_spec *spec;
        const char *value;
    } given[256];
    size_t given_count;
    char **arguments; /* what is no option */
    size_t argument_count;
    struct option_memory *memory;
} options;

#define EXIT_USAGE 64

size_t edit_distance(const char *a, const char *b); /* Levenshtein, for suggestions; names are short */
/* hillock.1 and hillock-VERB.1 in folder, which is made; returns an exit code. */
int write_man_pages(const char *folder, const verb *const *verbs, size_t count);

/* Parses and makes the context. Returns -1 to go on, else the exit code (after --help or a message). */
int options_parse(options *o, const verb *v, const option_spec *specs, int argc, char **argv);
void *options_allocate(options *o, size_t bytes);             /* zeroed, released by finish_code(); never NULL */
const char *option_value(const options *o, const char *name); /* the last one given, NULL if none */
bool option_given(const options *o, const char *name);
/* A number in [least, most], otherwise when absent; false after a message. */
bool option_number(const options *o, const char *name, double least, double most, double otherwise, double *out);
/* One of several words, NULL behind the last; the first when absent. False after a message. */
bool option_word(const options *o, const char *name, const char *const *words, int *which);
bool option_precision(const options *o, hk_precision *out);  /* --precision strict|high|fast */
void option_tuned(const options *o, hk_session_params *out); /* --tuned TABLE, --deterministic */
hk_status open_device(const options *o, hk_device **out);
void print_error(const options *o); /* the context's sentence to stderr, if there is one */
/* Prints the context's sentence to stderr and returns the status's exit code. Ends the context. */
int finish(options *o, hk_status st);
int finish_code(options *o, int code);

/* ---- JSON on stdout: call json_open for the object, then pairs */

void json_begin(FILE *f);
void json_end(FILE *f); /* with a newline */
void json_key(FILE *f, const char *key);
void json_string(FILE *f, const char *key, const char *value);
void json_number(FILE *f, const char *key, double value);
void json_integer(FILE *f, const char *key, long long value);
void json_bool(FILE *f, const char *key, bool value);
void json_array(FILE *f, const char *key); /* key NULL: an element that is an array */
void json_array_end(FILE *f);
void json_object(FILE *f, const char *key); /* key NULL: an element */
void json_object_end(FILE *f);
void json_shape(FILE *f, const char *key, int32_t rank, const int64_t *shape);

/* ---- tables of measurements, as hillock tune writes them */

bool is_table(const char *path);
int inspect_table(options *o); /* prints the first argument; returns the exit code */

/* ---- files of text, kept in memory until they are saved: whole, or not at all */

typedef struct text_file {
    FILE *f;
    char *text;
    size_t bytes;
} text_file;
FILE *text_begin(text_file *t); /* NULL after a message */
/* Ends it in any case. folder NULL: name is a path. */
hk_status text_save(text_file *t, const options *o, const char *folder, const char *name);

/* ---- shared */

double now_seconds(void);
/* "float32 [N,3,224,224]" into buffer. */
const char *value_text(const hk_value_info *v, char *buffer, size_t bytes);
const char *format_count(double n, char *buffer, size_t bytes); /* 1,234,567 */
/* name with '/' replaced by '_' for file names. */
void file_name_of(const char *name, char *out, size_t bytes);
/* Relative norm and largest absolute error of float tensors of equal shape; NaN equals NaN. Integers: exact. */
typedef struct comparison {
    bool same_type, close; /* close: every element within rtol and atol, or the norm error within rel */
    double largest, norm;
} comparison;
comparison compare(const hk_tensor *got, const hk_tensor *want, double rtol, double atol, double rel);
bool is_float(hk_dtype t); /* of 16 bits or more */
double tensor_element(const hk_tensor *t, int64_t i);
int64_t largest_in_row(const hk_tensor *scores, int64_t row); /* of (N,C); the first of equal ones */
/* Every --input NAME=FILE, in their order, converted to the type of the model's input of that name where one float
 * becomes another or one integer another: calls take with the tensor, which it may keep by zeroing it. */
hk_status each_input(const options *o, const hk_model *m, hk_status (*take)(void *user, const char *name, hk_tensor *t),
                     void *user);
/* The shape for an input: what the model says, and for dimensions that it leaves open --shape NAME=1x3x224x224 or, the
 * first of an input, --batch N; else 1. An unknown rank stays -1. */
hk_status choose_shape(const options *o, const hk_value_info *v, int32_t *rank, int64_t *shape);
/* Random contents (floats normal-like, integers 0) in the shape of choose_shape; data is to be freed. state begins as
 * RANDOM_SEED: every program then has the same inputs. */
#define RANDOM_SEED 0x9e3779b97f4a7c15ull
hk_status random_input(const options *o, const hk_value_info *v, uint64_t *state, hk_tensor *out);
/* Fills every input so: for bench and profile. */
hk_status write_random_inputs(const options *o, hk_session *s, const hk_model *m);

/* A model with random inputs, planned, after its first run. */
typedef struct opened {
    hk_model *model;
    hk_device *dev;
    hk_session *session;
    double load_seconds, device_seconds;
    double plan_seconds, pipelines_seconds, weights_seconds; /* of the first run, as in hk_device_stats */
    double first_seconds;                                    /* the rest of it */
    long long
        anonymous_growth; /* of the process's own pages, from before the model was loaded to the first run's end */
} opened;
hk_status opened_create(const options *o, hk_profile profile, hk_precision precision, opened *p);
hk_status opened_run(const opened *p); /* and reads all outputs */
void print_start(const opened *p);     /* what happened before the second run, and how long it took */
void opened_destroy(opened *p);

#endif
