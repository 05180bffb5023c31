// Matrix units: a subgroup's fragments, which lie in registers in an order that only the driver knows. Include after constants
// FM, FN, FK (the device's fragment), THREADS, SUBGROUPS and the shared array `tile` of uvec4, which holds slots of 16 bits: halves;
// with BF16 bfloat16; with INT8 pairs of signed bytes that follow each other along K, whose sums are int. FK counts slots.
//
// With EMULATED the same source runs without matrix units: operands are read from the tile when they are multiplied, and sums
// lie in shared memory. It is slow, and there so that every device can test these kernels.
#ifndef MATRIX_GLSL
#define MATRIX_GLSL

const uint LANES = THREADS / SUBGROUPS; // of a subgroup

#ifdef INT8
#define SUM int
#define SUM4 ivec4
#define SUM_BITS(x) uint(x)
#define SUM4_OF(bits) ivec4(bits)
#else
#define SUM float
#define SUM4 vec4
#define SUM_BITS(x) floatBitsToUint(x)
#define SUM4_OF(bits) uintBitsToFloat(bits)
#endif

#ifndef EMULATED

#ifdef INT8
#define ELEMENT int8_t
#define ELEMENTS FRAGMENT_K // bytes along K, two a slot
#elif defined(BF16)
#define ELEMENT bfloat16_t
#define ELEMENTS FK
#else
#define ELEMENT float16_t
#define ELEMENTS FK
#endif
#define Sums coopmat<SUM, gl_ScopeSubgroup, FM, FN, gl_MatrixUseAccumulator>
#define OperandA coopmat<ELEMENT, gl_ScopeSubgroup, FM, ELEMENTS, gl_MatrixUseA>
#define OperandB coopmat<ELEMENT, gl_ScopeSubgroup, ELEMENTS, FN, gl_MatrixUseB>
#define CLEAR_SUMS(c, number) c = Sums(SUM(0))
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
#ifdef INT8
#define ADD_SCALED(c, d, f, g) c += d // never split, so there are no scales
#else
#define ADD_SCALED(c, d, f, g) c += d * (f) * (g)
#endif
#define SUBGROUP_MAXIMA true
#define SUBGROUP_MAX(x) subgroupMax(x)
#define STORE_SUMS(c, at, row) coopMatStore(c, tile, at, row, gl_CooperativeMatrixLayoutRowMajor)

#else

shared SUM sums[SUBGROUPS * (RM * RN + 1) * FM * FN]; // of all fragments, and one for a few products
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
        emulated_clear(c);                                                                                             \
    }
#define MULTIPLY(a, b, c) emulated_multiply(a, b, c)
#define ADD_SCALED(c, d, f, g) emulated_add(c, d, f, g)
#define SUBGROUP_MAXIMA false
#define SUBGROUP_MAX(x) (x)
#define STORE_SUMS(c, at, row) emulated_store(c, at, row)

// Eight slots along K.
uvec4 emulated_chunk(Operand x, bool along, uint outer, uint k)
{
    if (along)
        return tile[x.at + outer * x.row + k / 8u];
    uvec4 w = uvec4(0u);
    for (uint j = 0; j < 8; ++j)
        w[j / 2] |= (tile[x.at + (k + j) * x.row + outer / 8u][outer / 2u % 4u] >> 16u * (outer % 2u) & 0xffffu)
                    << 16u * (j % 2u);
    return w;
}

#ifdef INT8
int emulated_dot(uint x, uint y)
{
    int sum = 0;
    for (int j = 0; j < 32; j += 8)
        sum += bitfieldExtract(int(x), j, 8) * bitfieldExtract(int(y), j, 8);
    return sum;
}
#elif defined(BF16)
float emulated_dot(uint x, uint y)
{
    return dot(uintBitsToFloat(uvec2(x << 16u, x & 0xffff0000u)), uintBitsToFloat(uvec2(y << 16u, y & 0xffff0000u)));
}
#else
float emulated_dot(uint x, uint y) { return dot(unpackHalf2x16(x), unpackHalf2x16(y)); }
#endif

void emulated_multiply(Operand a, Operand b, uint c)
{
    for (uint i = SUBGROUP_LANE; i < FM * FN; i += LANES)
        for (uint k = 0; k < FK; k += 8) {
            uvec4 x = emulated_chunk(a, !a.columns, i / FN, k), y = emulated_chunk(b, b.columns, i % FN, k);
            for (uint j = 0; j < 4; ++j)
                sums[c + i] += emulated_dot(x[j], y[j]);
        }
}

void emulated_add(uint c, uint d, float f, float g)
{
    for (uint i = SUBGROUP_LANE; i < FM * FN; i += LANES)
        sums[c + i] += SUM(sums[d + i] * f * g);
}

void emulated_clear(uint c)
{
    for (uint i = SUBGROUP_LANE; i < FM * FN; i += LANES)
        sums[c + i] = SUM(0);
}

void emulated_store(uint c, uint at, uint row)
{
    for (uint i = SUBGROUP_LANE; i < FM * FN; i += LANES)
        tile[at + i / FN * row + i % FN / 4u][i % 4u] = SUM_BITS(sums[c + i]);
}

#endif

// The largest of the numbers of 32 neighbours, whose first one's index is a multiple of 32; all the workgroup's invocations
// ask at once.
#ifdef SPLIT_HERE
const bool ACROSS_LANES = LANES == 32u && SUBGROUP_MAXIMA;
shared uint numbers[ACROSS_LANES ? 1 : THREADS];

uint largest_of_32(uint x)
{
    if (ACROSS_LANES)
        return SUBGROUP_MAX(x);
    numbers[gl_LocalInvocationIndex] = x;
    barrier();
    for (uint i = 0; i < 32; ++i)
        x = max(x, numbers[(gl_LocalInvocationIndex & ~31u) + i]);
    barrier();
    return x;
}
#endif

#endif
