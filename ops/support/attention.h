/*
 * Scaled dot-product attention, y = softmax(hide(cap(scale q k' + mask))) v for every head of every batch: one
 * description for Attention and hk.Attention (ops/attention.c), evaluated on the host and lowered to one kernel that
 * stores no scores.
 *
 * A query may be hidden from a key by a mask entry of minus infinity or false, by a mask that is too short, by
 * causality, and by its batch's length. Hidden positions stay hidden under the soft cap. A query that sees no key gives
 * NaN, as softmax of nothing but minus infinity does.
 */
#ifndef HK_ATTENTION_H
#define HK_ATTENTION_H

#include "ops/op.h"

/* Where q, k or v lies in its value: elements. The elements of a row follow each other. */
typedef struct hk_attention_view {
    int64_t offset, batch, head, row;
} hk_attention_view;

/* How y lies in memory, contiguous in each case. */
typedef enum hk_attention_order {
    HK_ATTENTION_HEADS, /* [batch, heads, rows, v_size] */
    HK_ATTENTION_ROWS,  /* [batch, rows, heads * v_size] */
    HK_ATTENTION_BATCH, /* [rows, batch, heads * v_size] */
    HK_ATTENTION_ORDERS
} hk_attention_order;

typedef struct hk_attention {
    int64_t batch, heads, kv_heads; /* heads is a multiple of kv_heads */
    int64_t rows, keys;             /* queries and keys of a head */
    int64_t size, v_size;           /* elements of a query or key, and of a value */
    hk_attention_view q, k, v;
    hk_attention_order order;
    bool zero;   /* a query that sees no key gives 0 instead of NaN */
    bool causal; /* query i sees keys up to past + i */
    int64_t past;
    bool lengths;         /* key j of batch b is hidden if j >= lengths[b]; causal: past is lengths[b] - rows */
    bool mask;            /* broadcast by these strides (elements); keys from mask_columns on are hidden */
    int64_t mask_batches; /* batch b uses the mask's b mod this */
    int64_t mask_batch, mask_head, mask_row, mask_column, mask_columns;
    float scale, softcap; /* softcap 0: none */
} hk_attention;

typedef struct hk_attention_values {
    hk_value *q, *k, *v, *y;
    hk_value *mask;    /* float32 or bool; NULL as hk_attention.mask says */
    hk_value *lengths; /* int64 [batch] */
} hk_attention_values;
typedef struct hk_attention_tensors {
    const hk_tensor *q, *k, *v, *mask, *lengths;
    hk_tensor *y;      /* NULL: not wanted */
    hk_tensor *scores; /* [batch, heads, rows, keys] as of `stage`; NULL: not wanted */
} hk_attention_tensors;

/* What can be seen of the scores: qk_matmul_output_mode. */
typedef enum hk_attention_stage {
    HK_ATTENTION_PRODUCTS,
    HK_ATTENTION_MASKED,
    HK_ATTENTION_CAPPED,
    HK_ATTENTION_PROBABILITIES
} hk_attention_stage;

/* Batches, heads, rows and columns of a view that shows each of `count` elements once: order[d] is the axis (0 to 3) of
 * dimension d of the value in which they lie. False: it leaves elements out, or repeats them. */
bool hk_attention_is_whole(const hk_attention_view *v, const int64_t extent[4], int64_t count, int64_t order[4]);
/* Sets mask strides of p for a mask of this shape, which broadcasts to [batch, heads, rows, keys]; a first dimension of
 * four may also divide the batch, which then takes the mask's in turn. short_mask: fewer columns than keys hide the
 * rest, else one column is broadcast. False if it does not fit. */
bool hk_attention_set_mask(hk_attention *p, const hk_shape *mask, bool short_mask);

hk_status hk_attention_eval(hk_context *ctx, hk_arena *arena, const hk_attention *p, hk_attention_stage stage,
                            const hk_attention_tensors *t);
/* Emits y; nothing when it is empty. q, k, v and y are stored as float32 or float16, the mask as float32 or bool. */
void hk_attention_emit(hk_lower *l, const hk_attention *p, const hk_attention_values *v);
/* Emits the scores of a stage into a float32 value of batch * heads * rows * keys elements. */
hk_status hk_attention_emit_scores(hk_lower *l, const hk_attention *p, const hk_attention_values *v,
                                   hk_attention_stage stage, hk_value *scores);

#endif
