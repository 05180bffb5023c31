// Matrix units: a subgroup's fragments, which lie in registers in an order that only the driver knows, and the scales that
// keep split operands in range. Include after constants FM, FN, FK (the device's fragment), THREADS, SUBGROUPS and the
// shared array `tile` of uvec4, which holds halves.
//
// With EMULATED the same source runs without matrix units: operands are read from the tile when they are multiplied, and sums
// lie in shared memory. It is slow, and there so that every device can test these kernels.
#ifndef MATRIX_GLSL
#define MATRIX_GLSL

#ifndef EMULATED

#define Sums coopmat<float, gl_ScopeSubgroup, FM, FN, gl_MatrixUseAccumulator>
#define OperandA coopmat<float16_t, gl_ScopeSubgroup, FM, FK, gl_MatrixUseA>
#define OperandB coopmat<float16_t, gl_ScopeSubgroup, FK, FN, gl_MatrixUseB>
#define CLEAR_SUMS(c, number) c = Sums(0.0)
#define SUBGROUP_INDEX gl_SubgroupID
#define SUBGROUP_LANE gl_SubgroupInvocationID
#define SUBGROUP_BARRIER subgroupBarrier()
// From the tile at a word, rows (or, if they are stored so, columns) as many words apart.
#define LOAD_OPERAND(x, at, row, columns)                                                                              \
    {                                                                                                                  \
        if (columns)                                                                                                   \
            coopMatLoad(x, tile, at, row, gl_CooperativeMatrixLayoutColumnMajor);                                      \
        else                                                                                                           \
            coopMatLoad(x, tile, at, row, gl_CooperativeMatrixLayoutRowMajor);                                         \
    }
#define MULTIPLY(a, b, c) c = coopMatMulAdd(a, b, c)
#define ADD_SUMS(c, d) c += d
#define SCALE_SUMS(c, f) c = c * f
#define STORE_SUMS(c, at, row) coopMatStore(c, tile, at, row, gl_CooperativeMatrixLayoutRowMajor)

#else

const uint LANES = THREADS / SUBGROUPS;
shared float sums[SUBGROUPS * (RM * RN + 1) * FM * FN]; // of all fragments, and one for a few products
#define Sums uint // where they begin
struct Operand {
    uint at;
    uint row;
    bool columns;
};
#define OperandA Operand
#define OperandB Operand
#define SUBGROUP_INDEX (gl_LocalInvocationIndex / LANES)
#define SUBGROUP_LANE (gl_LocalInvocationIndex % LANES)
#define SUBGROUP_BARRIER barrier()
#define LOAD_OPERAND(x, at_, row_, columns_) x = Operand(at_, row_, columns_)
#define CLEAR_SUMS(c, number)                                                                                          \
    {                                                                                                                  \
        c = (SUBGROUP_INDEX * (RM * RN + 1) + number) * FM * FN;                                                       \
        emulated_scale(c, 0.0);                                                                                        \
    }
#define MULTIPLY(a, b, c) emulated_multiply(a, b, c)
#define ADD_SUMS(c, d) emulated_add(c, d)
#define SCALE_SUMS(c, f) emulated_scale(c, f)
#define STORE_SUMS(c, at, row) emulated_store(c, at, row)

// Eight halves along K.
struct Chunk {
    vec4 low;
    vec4 high;
};

Chunk emulated_chunk(Operand x, bool along, uint outer, uint k)
{
    uvec4 w = uvec4(0u);
    if (along) {
        w = tile[x.at + outer * x.row + k / 8u];
    } else {
        for (uint j = 0; j < 8; ++j)
            w[j / 2] |= (tile[x.at + (k + j) * x.row + outer / 8u][outer / 2u % 4u] >> 16u * (outer % 2u) & 0xffffu)
                        << 16u * (j % 2u);
    }
    return Chunk(vec4(unpackHalf2x16(w.x), unpackHalf2x16(w.y)), vec4(unpackHalf2x16(w.z), unpackHalf2x16(w.w)));
}

void emulated_multiply(Operand a, Operand b, uint c)
{
    for (uint i = SUBGROUP_LANE; i < FM * FN; i += LANES)
        for (uint k = 0; k < FK; k += 8) {
            Chunk x = emulated_chunk(a, !a.columns, i / FN, k), y = emulated_chunk(b, b.columns, i % FN, k);
            sums[c + i] += dot(x.low, y.low) + dot(x.high, y.high);
        }
}

void emulated_add(uint c, uint d)
{
    for (uint i = SUBGROUP_LANE; i < FM * FN; i += LANES)
        sums[c + i] += sums[d + i];
}

void emulated_scale(uint c, float f)
{
    for (uint i = SUBGROUP_LANE; i < FM * FN; i += LANES)
        sums[c + i] = f == 0.0 ? 0.0 : sums[c + i] * f;
}

void emulated_store(uint c, uint at, uint row)
{
    for (uint i = SUBGROUP_LANE; i < FM * FN; i += LANES)
        tile[at + i / FN * row + i % FN / 4u][i % 4u] = floatBitsToUint(sums[c + i]);
}

#endif

// ---- fp32 operands as two halves, x = (high + low) / scale
//
// The scale is a power of two that brings the largest element met so far to 2^14 .. 2^15. When a larger one comes, the
// scale falls and the sums follow. An element 2^-17 of the largest keeps 21 bits; below that the error stays 2^-40 of the
// largest. Infinities and NaN do not count and make their sums NaN.
shared uint largest[2]; // of A and B: bits of the absolute value

uvec4 pack8(vec4 x, vec4 y)
{
    return uvec4(packHalf2x16(x.xy), packHalf2x16(x.zw), packHalf2x16(y.xy), packHalf2x16(y.zw));
}

// Eight elements as stored, two words: their high halves, or what those leave. The high ones are cut off by their bits, for a
// compiler may take the way to a half and back for nothing.
void split8(uvec4 x, uvec4 y, float scale, out uvec4 high, out uvec4 low)
{
    vec4 f = uintBitsToFloat(x) * scale, g = uintBitsToFloat(y) * scale;
    vec4 fh = uintBitsToFloat(floatBitsToUint(f) & 0xffffe000u), gh = uintBitsToFloat(floatBitsToUint(g) & 0xffffe000u);
    high = pack8(fh, gh);
    low = pack8(f - fh, g - gh);
}

float largest4(uvec4 x)
{
    vec4 f = abs(uintBitsToFloat(x));
    return max(max(f.x, f.y), max(f.z, f.w));
}

float largest_finite4(uvec4 x)
{
    uvec4 y = x & 0x7fffffffu;
    y = mix(y, uvec4(0u), greaterThanEqual(y, uvec4(0x7f800000u)));
    return uintBitsToFloat(max(max(y.x, y.y), max(y.z, y.w)));
}

bool is_finite(float x) { return (floatBitsToUint(x) & 0x7fffffffu) < 0x7f800000u; }

void note_largest(uint operand, float x)
{
#ifndef EMULATED
    uint most = subgroupMax(floatBitsToUint(x));
    if (subgroupElect())
        atomicMax(largest[operand], most);
#else
    atomicMax(largest[operand], floatBitsToUint(x));
#endif
}

uint scale_exponent(uint operand) { return min(268u - max(largest[operand] >> 23, 1u), 253u); }
// What takes sums from a scale to a smaller one.
float scale_change(uint from, uint to) { return uintBitsToFloat(uint(max(int(127u + to) - int(from), 0)) << 23); }
float power_of_two(uint exponent) { return uintBitsToFloat(exponent << 23); }

#endif
