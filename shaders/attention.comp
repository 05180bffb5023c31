// kernel: attention
// kernel: attention_subgroup -DSUBGROUP=1 needs=subgroup,subgroup-size
#version 450
#extension GL_GOOGLE_include_directive : require
#ifdef SUBGROUP
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#endif
#include "attention_common.glsl"

// Attention on shared-memory tiles with an online softmax: no scores leave the workgroup. A workgroup takes QUERIES
// queries of a head; its SLICES groups of threads take every SLICES-th tile of 32 keys each, and their results meet at
// the end, which keeps an SM busy where there are few queries. A thread holds 4 queries x 4 keys of the scores and,
// of the results, 4 queries x 4 columns of every 32. Tiles of keys and values are CHUNK elements wide; the next one is on
// its way into registers while one is multiplied.
layout(constant_id = 10) const uint QUERIES = 16;
layout(constant_id = 11) const uint SLICES = 1;
layout(constant_id = 12) const uint CHUNK = 64;
layout(constant_id = 13) const uint Q_CHUNKS = 1; // of a query and a key
layout(constant_id = 14) const uint V_CHUNKS = 1; // of a value, at most 4

layout(constant_id = 15) const uint STEP = 16; // elements or keys multiplied in a row, code without a jump: 4, 8, 16

const uint KEYS = 32;
const uint ACROSS = 8; // threads side by side along keys and columns
const uint DOWN = QUERIES / 4;
const uint SLICE_THREADS = ACROSS * DOWN;
const uint THREADS = SLICE_THREADS * SLICES;
const uint UNITS = CHUNK / 4;   // vectors of a row of a tile
const uint VECTORS = CHUNK / 32; // of a chunk's columns that a thread holds
const uint LOADS = KEYS * UNITS / SLICE_THREADS;
// Queries and keys are transposed, [element][query or key], with a vector of padding after every four elements against
// bank conflicts of the scattered stores. All sizes below are vectors.
const uint TILE = CHUNK * KEYS / 4 + UNITS;
const uint Q_TILE = Q_CHUNKS * (CHUNK * DOWN + UNITS);
const uint P_TILE = KEYS * DOWN + KEYS / 4;
shared vec4 q_tile[Q_TILE];
shared vec4 tile[SLICES * TILE];
shared vec4 p_tile[SLICES * P_TILE]; // probabilities, [key][query]

uint thread()
{
#ifdef SUBGROUP
    return gl_SubgroupID * gl_SubgroupSize + gl_SubgroupInvocationID;
#else
    return gl_LocalInvocationIndex;
#endif
}

// The reduction of x over the threads side by side; every thread of the workgroup calls it.
#ifdef SUBGROUP
#define ACROSS_REDUCE(name, COMBINE)                                                                                   \
    vec4 name(vec4 x)                                                                                                  \
    {                                                                                                                  \
        [[unroll]] for (uint h = 1u; h < ACROSS; h *= 2u)                                                              \
            x = COMBINE(x, subgroupShuffleXor(x, h));                                                                  \
        return x;                                                                                                      \
    }
#else
shared vec4 met[THREADS];
#define ACROSS_REDUCE(name, COMBINE)                                                                                   \
    vec4 name(vec4 x)                                                                                                  \
    {                                                                                                                  \
        uint first = thread() / ACROSS * ACROSS;                                                                       \
        barrier();                                                                                                     \
        met[thread()] = x;                                                                                             \
        barrier();                                                                                                     \
        x = met[first];                                                                                                \
        [[unroll]] for (uint i = 1u; i < ACROSS; ++i)                                                                  \
            x = COMBINE(x, met[first + i]);                                                                            \
        return x;                                                                                                      \
    }
#endif
vec4 add4(vec4 a, vec4 b) { return a + b; }
ACROSS_REDUCE(across_max, max)
ACROSS_REDUCE(across_sum, add4)

Head h;
uint query; // first of the workgroup
uint slice, lane, across, down;
vec4 next[LOADS];
vec4 scores[4];                        // [key], over the queries
vec4 sums[4 * V_CHUNKS * VECTORS];     // [query][vector of columns]
vec4 largest = vec4(MINUS_INFINITY);   // over the queries
vec4 total = vec4(0.0);                // of this thread's keys

uint q_place(uint element) { return element * DOWN + (element >> 2); }
uint k_place(uint element) { return element * (KEYS / 4) + (element >> 2); }
uint p_place(uint key) { return key * DOWN + (key >> 2); }

void load_queries()
{
    for (uint i = thread(); i < QUERIES * UNITS * Q_CHUNKS; i += THREADS) {
        uint row = i / (UNITS * Q_CHUNKS), d = i % (UNITS * Q_CHUNKS) * 4u;
        uint from = h.q + min(query + row, push.rows - 1u) * push.q_row;
        vec4 x = load4(push.q, WIDE_Q, from, d, push.size) * push.scale;
        [[unroll]] for (uint j = 0u; j < 4u; ++j)
            q_tile[q_place(d + j) + row / 4u][row & 3u] = x[j];
    }
}

// The chunk of keys or values of a tile, rows outside clamped to the last.
void fetch(uvec2 address, uint operand, uint base, uint row_stride, uint first_key, uint first_column, uint extent)
{
    [[unroll]] for (uint i = 0u; i < LOADS; ++i) {
        uint s = lane + i * SLICE_THREADS;
        uint row = min(first_key + s / UNITS, push.keys - 1u);
        next[i] = load4(address, operand, base + row * row_stride, first_column + s % UNITS * 4u, extent);
    }
}

void fetch_keys(uint first, uint chunk)
{
    fetch(push.k, WIDE_K, h.k, push.k_row, first, chunk * CHUNK, push.size);
}

void fetch_values(uint first, uint chunk)
{
    fetch(push.v, WIDE_V, h.v, push.v_row, first, chunk * CHUNK, push.v_size);
}

void place_keys()
{
    [[unroll]] for (uint i = 0u; i < LOADS; ++i) {
        uint s = lane + i * SLICE_THREADS, key = s / UNITS;
        [[unroll]] for (uint j = 0u; j < 4u; ++j)
            tile[slice * TILE + k_place(s % UNITS * 4u + j) + key / 4u][key & 3u] = next[i][j];
    }
}

void place_values()
{
    [[unroll]] for (uint i = 0u; i < LOADS; ++i)
        tile[slice * TILE + lane + i * SLICE_THREADS] = next[i];
}

void multiply_keys(uint chunk)
{
    uint q = q_place(chunk * CHUNK) + down, k = slice * TILE + across;
    [[dont_unroll]] for (uint i = 0u; i < CHUNK; i += STEP, q += q_place(STEP), k += k_place(STEP))
        [[unroll]] for (uint e = 0u; e < STEP; ++e) {
            vec4 a = q_tile[q + q_place(e)], b = tile[k + k_place(e)];
            [[unroll]] for (uint j = 0u; j < 4u; ++j)
                scores[j] = fma(vec4(b[j]), a, scores[j]);
        }
}

void multiply_values(uint chunk)
{
    uint p = slice * P_TILE + down, v = slice * TILE + across;
    [[dont_unroll]] for (uint i = 0u; i < KEYS; i += STEP, p += p_place(STEP), v += STEP * UNITS)
        [[unroll]] for (uint key = 0u; key < STEP; ++key) {
            vec4 a = p_tile[p + p_place(key)];
            [[unroll]] for (uint c = 0u; c < VECTORS; ++c) {
                vec4 b = tile[v + key * UNITS + c * ACROSS];
                [[unroll]] for (uint r = 0u; r < 4u; ++r) {
                    uint at = (r * V_CHUNKS + chunk) * VECTORS + c;
                    sums[at] = fma(vec4(a[r]), b, sums[at]);
                }
            }
        }
}

vec4 finite(vec4 x) { return mix(x, vec4(0.0), equal(x, vec4(MINUS_INFINITY))); }

// Scores to probabilities relative to the largest score so far; what was summed before is brought to the same scale.
void soften(uint first_key)
{
    [[unroll]] for (uint r = 0u; r < 4u; ++r) {
        uint row = query + down * 4u + r, limit = row_limit(h, row);
        [[unroll]] for (uint j = 0u; j < 4u; ++j)
            scores[j][r] = score(h, scores[j][r], row, first_key + across * 4u + j, limit);
    }
    vec4 larger = max(largest, across_max(max(max(scores[0], scores[1]), max(scores[2], scores[3]))));
    vec4 base = finite(larger), keep = exp(largest - base);
    largest = larger;
    [[unroll]] for (uint j = 0u; j < 4u; ++j) {
        scores[j] = exp(scores[j] - base);
        p_tile[slice * P_TILE + p_place(across * 4u + j) + down] = scores[j];
    }
    total = total * keep + ((scores[0] + scores[1]) + (scores[2] + scores[3]));
    [[unroll]] for (uint r = 0u; r < 4u; ++r)
        [[unroll]] for (uint c = 0u; c < V_CHUNKS * VECTORS; ++c)
            sums[r * V_CHUNKS * VECTORS + c] *= keep[r];
}

// Chunk c of the values; then what comes next, of the values or of the next tile's keys, is on its way.
void add_values(uint c, uint first, uint next_first)
{
    place_values();
    barrier();
    if (c + 1u < V_CHUNKS)
        fetch_values(first, c + 1u);
    else
        fetch_keys(next_first, 0u);
    multiply_values(c);
    barrier();
}

void walk(uint limit)
{
    const uint step = KEYS * SLICES;
    uint first = slice * KEYS;
    for (uint start = 0u; start < limit; start += step, first += step) {
        [[unroll]] for (uint j = 0u; j < 4u; ++j)
            scores[j] = vec4(0.0);
        for (uint c = 0u; c < Q_CHUNKS; ++c) {
            place_keys();
            barrier();
            if (c + 1u < Q_CHUNKS)
                fetch_keys(first, c + 1u);
            else
                fetch_values(first, 0u);
            multiply_keys(c);
            barrier();
        }
        soften(first);
        // Written out: a driver that left this as a loop would put the sums, which c indexes, into memory.
        add_values(0u, first, first + step);
        if (V_CHUNKS > 1u)
            add_values(1u, first, first + step);
        if (V_CHUNKS > 2u)
            add_values(2u, first, first + step);
        if (V_CHUNKS > 3u)
            add_values(3u, first, first + step);
    }
}

// Brings the slices' results to one scale, leaving in each its share of the quotient.
void level_slices()
{
    barrier();
    if (across == 0u) {
        p_tile[(slice * DOWN + down) * 2u] = largest;
        p_tile[(slice * DOWN + down) * 2u + 1u] = total;
    }
    barrier();
    vec4 top = vec4(MINUS_INFINITY), all = vec4(0.0);
    [[unroll]] for (uint s = 0u; s < SLICES; ++s)
        top = max(top, p_tile[(s * DOWN + down) * 2u]);
    top = finite(top);
    [[unroll]] for (uint s = 0u; s < SLICES; ++s)
        all += p_tile[(s * DOWN + down) * 2u + 1u] * exp(p_tile[(s * DOWN + down) * 2u] - top);
    total = all / exp(largest - top); // infinite for a slice that saw nothing: its share is 0
    total = mix(total, all, equal(all, vec4(0.0))); // no slice saw anything: 0 / 0 below
}

void store_slices()
{
    [[unroll]] for (uint c = 0u; c < V_CHUNKS; ++c) {
        barrier();
        [[unroll]] for (uint r = 0u; r < 4u; ++r)
            [[unroll]] for (uint i = 0u; i < VECTORS; ++i)
                tile[slice * TILE + (down * 4u + r) * UNITS + i * ACROSS + across] =
                    quotient(sums[(r * V_CHUNKS + c) * VECTORS + i], total[r]);
        barrier();
        for (uint i = thread(); i < QUERIES * UNITS; i += THREADS) {
            vec4 y = tile[i];
            [[unroll]] for (uint s = 1u; s < SLICES; ++s)
                y += tile[s * TILE + i];
            store4(h, query + i / UNITS, c * CHUNK + i % UNITS * 4u, y);
        }
    }
}

void main()
{
    uint group = linear_group(), blocks = (push.rows + QUERIES - 1u) / QUERIES;
    if (group >= push.batches * push.heads * blocks)
        return;
    h = find_head(group / blocks);
    query = group % blocks * QUERIES;
    slice = thread() / SLICE_THREADS;
    lane = thread() % SLICE_THREADS;
    across = lane % ACROSS;
    down = lane / ACROSS;
    [[unroll]] for (uint i = 0u; i < 4u * V_CHUNKS * VECTORS; ++i)
        sums[i] = vec4(0.0);
    fetch_keys(slice * KEYS, 0u); // on their way while the queries are placed
    load_queries();
    walk(row_limit(h, query + QUERIES - 1u));
    total = across_sum(total);
    if (SLICES > 1u) {
        level_slices();
        store_slices();
        return;
    }
    [[unroll]] for (uint r = 0u; r < 4u; ++r)
        [[unroll]] for (uint c = 0u; c < V_CHUNKS; ++c)
            [[unroll]] for (uint i = 0u; i < VECTORS; ++i)
                store4(h, query + down * 4u + r, c * CHUNK + i * 32u + across * 4u,
                       quotient(sums[(r * V_CHUNKS + c) * VECTORS + i], total[r]));
}
