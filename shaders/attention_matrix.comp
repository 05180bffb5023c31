// kernel: attention_matrix needs=coopmat,fp16,subgroup glslang=15
// kernel: attention_matrix_emulated -DEMULATED=1
#version 450
#extension GL_GOOGLE_include_directive : require
#ifndef EMULATED
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#define UNROLL [[unroll]]
#else
#define UNROLL [[dont_unroll]] // software devices compile it
#endif
#include "attention_common.glsl"

// Attention on matrix units: float16 queries, keys and values, scores and results in float32, an online softmax. A
// workgroup takes FM x WM queries of a head and walks its keys KEYS at a time. Of the scores of a tile, and of the results,
// each of the WM x WN subgroups makes one row of fragments, WN of them side by side. Scores go through shared memory, where
// a row's probabilities take their place as halves. Keys and values share a tile; the next one is on its way into registers
// while one is multiplied. Results stay in fragments, which are scaled row by row with a fragment that repeats the factors.
layout(constant_id = 10) const uint KEYS = 64;
layout(constant_id = 11) const uint SIZE = 64;   // of a query and a key, with zeros to a multiple of FK
layout(constant_id = 12) const uint V_SIZE = 64; // of a value, with zeros to a multiple of FN x WN
layout(constant_id = 13) const uint WM = 4;
layout(constant_id = 14) const uint WN = 1;
layout(constant_id = 15) const uint THREADS = 128;
layout(constant_id = 16) const uint FM = 16; // the device's fragment
layout(constant_id = 17) const uint FN = 16;
layout(constant_id = 18) const uint FK = 16;

const uint SUBGROUPS = WM * WN;
const uint QUERIES = WM * FM;
const uint S_FRAGMENTS = KEYS / FN / WN; // of a subgroup
const uint Y_FRAGMENTS = V_SIZE / FN / WN;
const uint RM = 1;
const uint RN = S_FRAGMENTS + Y_FRAGMENTS;
// Rows of tiles are padded by 16 bytes against bank conflicts. All in 16-byte words.
const uint Q_ROW = SIZE / 8 + 1;
const uint V_ROW = V_SIZE / 8 + 1;
const uint S_ROW = KEYS / 4 + 1; // float32, then halves
const uint Y_ROW = V_SIZE / 4 + 1;
const uint KEEP_ROW = FN / 4;
const uint KEYS_AT = QUERIES * Q_ROW;
const uint S_AT = KEYS_AT + KEYS * (Q_ROW > V_ROW ? Q_ROW : V_ROW);
const uint KEEP_AT = S_AT + QUERIES * S_ROW;
const uint LOOP_WORDS = KEEP_AT + QUERIES * KEEP_ROW;
shared uvec4 tile[LOOP_WORDS > QUERIES * Y_ROW ? LOOP_WORDS : QUERIES * Y_ROW];
#include "matrix.glsl"

// c times the factors that lie in the tile, one for each row and repeated along it.
#ifdef EMULATED
#define SCALE_ROWS(c, at, row) emulated_scale_rows(c, at, row)
void emulated_scale_rows(uint c, uint at, uint row)
{
    for (uint i = SUBGROUP_LANE; i < FM * FN; i += LANES)
        sums[c + i] *= uintBitsToFloat(tile[at + i / FN * row + i % FN / 4u][i % 4u]);
}
#define THREAD gl_LocalInvocationIndex
#else
#define SCALE_ROWS(c, at, row)                                                                                         \
    {                                                                                                                  \
        Sums factors;                                                                                                  \
        coopMatLoad(factors, tile, at, row, gl_CooperativeMatrixLayoutRowMajor);                                       \
        c = c * factors;                                                                                               \
    }
#define THREAD (gl_SubgroupID * gl_SubgroupSize + gl_SubgroupInvocationID)
#endif

// The softmax: ACROSS neighbouring threads share a row, or a thread has ROWS of them, DOWN apart.
const uint ACROSS = THREADS > QUERIES ? THREADS / QUERIES : 1;
const uint ROWS = QUERIES > THREADS ? QUERIES / THREADS : 1;
const uint DOWN = THREADS / ACROSS;
const uint VECTORS = KEYS / 4 / ACROSS; // of a row that a thread has

#ifdef EMULATED
shared float met[THREADS];
#define ACROSS_REDUCE(name, COMBINE)                                                                                   \
    float name(float x)                                                                                                \
    {                                                                                                                  \
        barrier();                                                                                                     \
        met[THREAD] = x;                                                                                               \
        barrier();                                                                                                     \
        x = met[THREAD / ACROSS * ACROSS];                                                                             \
        for (uint i = 1u; i < ACROSS; ++i)                                                                             \
            x = COMBINE(x, met[THREAD / ACROSS * ACROSS + i]);                                                         \
        return x;                                                                                                      \
    }
#else
#define ACROSS_REDUCE(name, COMBINE)                                                                                   \
    float name(float x)                                                                                                \
    {                                                                                                                  \
        UNROLL for (uint d = 1u; d < ACROSS; d *= 2u)                                                                  \
            x = COMBINE(x, subgroupShuffleXor(x, d));                                                                  \
        return x;                                                                                                      \
    }
#endif
float add(float a, float b) { return a + b; }
ACROSS_REDUCE(across_max, max)
ACROSS_REDUCE(across_sum, add)

const uint K_WORDS = KEYS * SIZE / 8;
const uint V_WORDS = KEYS * V_SIZE / 8;
const uint K_LOADS = (K_WORDS + THREADS - 1) / THREADS;
const uint V_LOADS = (V_WORDS + THREADS - 1) / THREADS;

Head h;
uint query; // first of the workgroup
uvec4 next[K_LOADS > V_LOADS ? K_LOADS : V_LOADS];
float top[ROWS];
float total[ROWS]; // of this thread's keys

// Eight elements of a row, zeros beyond its end.
uvec4 load8(uvec2 address, uint base, uint at, uint extent)
{
    return at < extent ? U32x4(address).v[(base + at) >> 3] : uvec4(0u);
}

void place_queries()
{
    for (uint i = THREAD; i < QUERIES * (SIZE / 8u); i += THREADS) {
        uint row = i / (SIZE / 8u), d = i % (SIZE / 8u);
        tile[row * Q_ROW + d] = load8(push.q, h.q + min(query + row, push.rows - 1u) * push.q_row, d * 8u, push.size);
    }
}

// Rows outside are clamped to the last: their scores are hidden.
void fetch_keys(uint first)
{
    UNROLL for (uint i = 0u; i < K_LOADS; ++i) {
        uint s = THREAD + i * THREADS, row = min(first + s / (SIZE / 8u), push.keys - 1u);
        next[i] = load8(push.k, h.k + row * push.k_row, s % (SIZE / 8u) * 8u, push.size);
    }
}

void fetch_values(uint first)
{
    UNROLL for (uint i = 0u; i < V_LOADS; ++i) {
        uint s = THREAD + i * THREADS, row = min(first + s / (V_SIZE / 8u), push.keys - 1u);
        next[i] = load8(push.v, h.v + row * push.v_row, s % (V_SIZE / 8u) * 8u, push.v_size);
    }
}

void place_keys()
{
    UNROLL for (uint i = 0u; i < K_LOADS; ++i) {
        uint s = THREAD + i * THREADS;
        if (s < K_WORDS)
            tile[KEYS_AT + s / (SIZE / 8u) * Q_ROW + s % (SIZE / 8u)] = next[i];
    }
}

void place_values()
{
    UNROLL for (uint i = 0u; i < V_LOADS; ++i) {
        uint s = THREAD + i * THREADS;
        if (s < V_WORDS)
            tile[KEYS_AT + s / (V_SIZE / 8u) * V_ROW + s % (V_SIZE / 8u)] = next[i];
    }
}

float finite(float x) { return x == MINUS_INFINITY ? 0.0 : x; }

// A row's scores to probabilities relative to its largest score so far, and the factor that brings what was summed before to
// the same scale.
void soften(uint r, uint first_key)
{
    uint row = THREAD / ACROSS + r * DOWN, across = THREAD % ACROSS, at = S_AT + row * S_ROW;
    uint limit = row_limit(h, query + row);
    vec4 s[VECTORS];
    float most = MINUS_INFINITY, sum = 0.0;
    UNROLL for (uint i = 0u; i < VECTORS; ++i) {
        uint v = across + i * ACROSS;
        s[i] = uintBitsToFloat(tile[at + v]) * push.scale;
        UNROLL for (uint j = 0u; j < 4u; ++j)
            s[i][j] = score(h, s[i][j], query + row, first_key + v * 4u + j, limit);
        most = max(most, max(max(s[i].x, s[i].y), max(s[i].z, s[i].w)));
    }
    SUBGROUP_BARRIER; // halves take the scores' place when all of the row are read
    float larger = max(top[r], across_max(most)), base = finite(larger), keep = exp(top[r] - base);
    top[r] = larger;
    UNROLL for (uint i = 0u; i < VECTORS; ++i) {
        uint v = across + i * ACROSS;
        s[i] = exp(s[i] - base);
        sum += (s[i].x + s[i].y) + (s[i].z + s[i].w);
        uvec2 halves = pack_half_octet(s[i]);
        tile[at + v / 2u][v % 2u * 2u] = halves.x;
        tile[at + v / 2u][v % 2u * 2u + 1u] = halves.y;
    }
    total[r] = total[r] * keep + sum;
    for (uint v = across; v < KEEP_ROW; v += ACROSS)
        tile[KEEP_AT + row * KEEP_ROW + v] = uvec4(floatBitsToUint(keep));
}

void main()
{
    uint group = linear_group(), blocks = (push.rows + QUERIES - 1u) / QUERIES;
    if (group >= push.batches * push.heads * blocks)
        return;
    h = find_head(group / blocks);
    query = group % blocks * QUERIES;
    uint subgroup_m = SUBGROUP_INDEX / WN * FM, subgroup_n = SUBGROUP_INDEX % WN;
    uint limit = row_limit(h, query + QUERIES - 1u);
    fetch_keys(0u);
    place_queries();
    for (uint r = 0u; r < ROWS; ++r) {
        top[r] = MINUS_INFINITY;
        total[r] = 0.0;
    }
    Sums y[Y_FRAGMENTS];
    UNROLL for (uint j = 0u; j < Y_FRAGMENTS; ++j)
        CLEAR_SUMS(y[j], S_FRAGMENTS + j);

    for (uint first = 0u; first < limit; first += KEYS) {
        place_keys();
        barrier();
        fetch_values(first);
        Sums s[S_FRAGMENTS];
        UNROLL for (uint j = 0u; j < S_FRAGMENTS; ++j)
            CLEAR_SUMS(s[j], j);
        UNROLL for (uint k = 0u; k < SIZE; k += FK) {
            OperandA a;
            LOAD_OPERAND(a, subgroup_m * Q_ROW + k / 8u, Q_ROW, false);
            UNROLL for (uint j = 0u; j < S_FRAGMENTS; ++j) {
                OperandB b;
                LOAD_OPERAND(b, KEYS_AT + (subgroup_n * S_FRAGMENTS + j) * FN * Q_ROW + k / 8u, Q_ROW, true);
                MULTIPLY(a, b, s[j]);
            }
        }
        UNROLL for (uint j = 0u; j < S_FRAGMENTS; ++j)
            STORE_SUMS(s[j], S_AT + subgroup_m * S_ROW + (subgroup_n * S_FRAGMENTS + j) * FN / 4u, S_ROW);
        barrier();
        place_values();
        fetch_keys(first + KEYS);
        UNROLL for (uint r = 0u; r < ROWS; ++r)
            soften(r, first);
        barrier();
        UNROLL for (uint j = 0u; j < Y_FRAGMENTS; ++j)
            SCALE_ROWS(y[j], KEEP_AT + subgroup_m * KEEP_ROW, KEEP_ROW);
        UNROLL for (uint k = 0u; k < KEYS; k += FK) {
            OperandA a;
            LOAD_OPERAND(a, S_AT + subgroup_m * S_ROW + k / 8u, S_ROW, false);
            UNROLL for (uint j = 0u; j < Y_FRAGMENTS; ++j) {
                OperandB b;
                LOAD_OPERAND(b, KEYS_AT + k * V_ROW + (subgroup_n * Y_FRAGMENTS + j) * FN / 8u, V_ROW, false);
                MULTIPLY(a, b, y[j]);
            }
        }
        barrier();
    }

    barrier(); // nothing was walked: the queries are placed
    UNROLL for (uint j = 0u; j < Y_FRAGMENTS; ++j)
        STORE_SUMS(y[j], subgroup_m * Y_ROW + (subgroup_n * Y_FRAGMENTS + j) * FN / 4u, Y_ROW);
    barrier();
    UNROLL for (uint r = 0u; r < ROWS; ++r) {
        uint row = THREAD / ACROSS + r * DOWN;
        float sum = across_sum(total[r]);
        for (uint v = THREAD % ACROSS; v < V_SIZE / 4u; v += ACROSS)
            store4(h, query + row, v * 4u, quotient(uintBitsToFloat(tile[row * Y_ROW + v]), sum));
    }
}
