// What the convolution GEMMs on contiguous float32 share (conv_gemm.comp, conv_matrix.comp): which part of the problem a
// workgroup has, where the columns of a thread are in the source, and the end of a sum. Include after the constants BM, BN, KH,
// KW, STRIDE_*, DILATION_*, FORWARD, CLASSES, POINT, EPILOGUE, ACTIVATION and COLUMNS, the columns a thread owns.
#ifndef CONV_GATHER_GLSL
#define CONV_GATHER_GLSL

// What of the problem a workgroup computes. With CLASSES: pixels (y0 + i STRIDE_H, x0 + j STRIDE_W).
uint part_m;      // first row
uint part_column; // first column
uint part_group;
uint part_split;
uint k_first;
uint k_end;
uint table_first;
uint grid_h;
uint grid_w;
uint y0;
uint x0;

bool find_part()
{
    uint g = linear_group();
    uint rest = g / push.tiles_m;
    part_m = (g - rest * push.tiles_m) * BM;
    uint tile = rest % push.tiles_n;
    rest /= push.tiles_n;
    part_split = rest / push.groups;
    part_group = rest - part_split * push.groups;
    if (part_split >= push.splits)
        return false;
    table_first = 0u;
    grid_h = push.out_h;
    grid_w = push.out_w;
    y0 = 0u;
    x0 = 0u;
    uint k = push.k;
    if (CLASSES) {
        // Classes take turns, so that those whose pixels share a sector are written at about the same time.
        uint at = tile % (STRIDE_H * STRIDE_W) * 8u;
        tile /= STRIDE_H * STRIDE_W;
        table_first = U32(push.table).v[at];
        k = U32(push.table).v[at + 1u];
        grid_h = U32(push.table).v[at + 2u];
        grid_w = U32(push.table).v[at + 3u];
        y0 = U32(push.table).v[at + 4u];
        x0 = U32(push.table).v[at + 5u];
    }
    part_column = tile * BN;
    k_first = part_split * push.k_split;
    k_end = min(k_first + push.k_split, k);
    if (k_first >= k) { // a class with fewer taps than the longest one: this split of it is zero
        k_first = 0u;
        k_end = 0u;
    }
    return grid_h * grid_w > 0u;
}

// A destination column taken apart; image = push.images and more: no such column.
struct Pixel {
    uint image;
    uint y;
    uint x;
};

Pixel find_pixel(uint column)
{
    Pixel p;
    uint plane = grid_h * grid_w;
    p.image = column / plane;
    uint rest = column - p.image * plane;
    p.y = rest / grid_w;
    p.x = rest - p.y * grid_w;
    if (CLASSES) {
        p.y = y0 + p.y * STRIDE_H;
        p.x = x0 + p.x * STRIDE_W;
    }
    return p;
}

// The thread's columns as sources: the address of tap offset 0, and the taps that lie inside (TAP_BITS: a bit for each;
// else a bit for each row of taps, and for each column in the upper half).
const bool TAP_BITS = KH * KW < 32;
uint base[COLUMNS];
uint mask[COLUMNS];
uint scale_base[COLUMNS]; // SCALED

uint tap_mask(Pixel p)
{
    uint pad_h = push.pads & 0xffffu, pad_w = push.pads >> 16, rows = 0u, columns = 0u, taps = 0u;
    for (uint r = 0u; r < KH; ++r)
        rows |= within(tap_source(FORWARD, int(p.y), r, STRIDE_H, DILATION_H, pad_h), push.source_h) ? 1u << r : 0u;
    for (uint s = 0u; s < KW; ++s)
        columns |= within(tap_source(FORWARD, int(p.x), s, STRIDE_W, DILATION_W, pad_w), push.source_w) ? 1u << s : 0u;
    if (!TAP_BITS)
        return rows | columns << 16;
    for (uint r = 0u; r < KH; ++r)
        taps |= (rows >> r & 1u) != 0u ? columns << (r * KW) : 0u;
    return taps;
}

void find_source(uint i, uint column)
{
    Pixel p = find_pixel(column);
    base[i] = (p.image * push.groups + part_group) * push.source_group;
    mask[i] = p.image < push.images ? 1u : 0u;
    scale_base[i] = p.image * push.k;
    if (POINT) {
        base[i] += p.y * STRIDE_H * push.source_w + p.x * STRIDE_W;
        return;
    }
    if (p.image < push.images)
        mask[i] = tap_mask(p);
    // Tap offsets in the table count from here; the sum with one is inside wherever the mask says so.
    if (FORWARD)
        base[i] += (p.y * STRIDE_H - (push.pads & 0xffffu)) * push.source_w + p.x * STRIDE_W - (push.pads >> 16);
    else
        base[i] += p.y / STRIDE_H * push.source_w + p.x / STRIDE_W;
}

bool tap_inside(uint m, uint tap)
{
    if (TAP_BITS)
        return (m >> (tap & 31u) & 1u) != 0u;
    return ((m & 0xffffu) >> (tap >> 5 & 31u) & m >> 16 >> (tap & 31u) & 1u) != 0u;
}

// ---- the store phase

uint out_index(Pixel p, uint m)
{
    return ((p.image * push.groups + part_group) * push.m + m) * push.out_h * push.out_w + p.y * push.out_w + p.x;
}

void store_wide(vec4 y, uint index, uint channel)
{
    if ((EPILOGUE & 4u) == 0u) {
        if ((EPILOGUE & 1u) != 0u)
            y += F32(push.bias).v[channel];
        if ((EPILOGUE & 2u) != 0u)
            y += F32x4(push.residual).v[index >> 2];
        y = activate(ACTIVATION, y, push.alpha, push.beta);
    }
    F32x4(push.result).v[index >> 2] = y;
}

void store_one(float y, uint index, uint channel)
{
    if ((EPILOGUE & 4u) == 0u) {
        if ((EPILOGUE & 1u) != 0u)
            y += F32(push.bias).v[channel];
        if ((EPILOGUE & 2u) != 0u)
            y += F32(push.residual).v[index];
        y = activate(ACTIVATION, y, push.alpha, push.beta);
    }
    F32(push.result).v[index] = y;
}

#endif
