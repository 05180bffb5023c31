// Matrix units: a subgroup's fragments, which lie in registers in an order that only the driver knows. Include after constants
// FM, FN, FK (the device's fragment), THREADS, SUBGROUPS and the shared array `tile` of uvec4, which holds halves.
//
// With EMULATED the same source runs without matrix units: operands are read from the tile when they are multiplied, and sums
// lie in shared memory. It is slow, and there so that every device can test these kernels.
#ifndef MATRIX_GLSL
#define MATRIX_GLSL

const uint LANES = THREADS / SUBGROUPS; // of a subgroup

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
#define ADD_SCALED(c, d, f, g) c += d * (f) * (g)
#define SUBGROUP_MAXIMA true
#define SUBGROUP_MAX(x) subgroupMax(x)
#define STORE_SUMS(c, at, row) coopMatStore(c, tile, at, row, gl_CooperativeMatrixLayoutRowMajor)

#else

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
        emulated_clear(c);                                                                                             \
    }
#define MULTIPLY(a, b, c) emulated_multiply(a, b, c)
#define ADD_SCALED(c, d, f, g) emulated_add(c, d, f, g)
#define SUBGROUP_MAXIMA false
#define SUBGROUP_MAX(x) (x)
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

void emulated_add(uint c, uint d, float f, float g)
{
    for (uint i = SUBGROUP_LANE; i < FM * FN; i += LANES)
        sums[c + i] += sums[d + i] * f * g;
}

void emulated_clear(uint c)
{
    for (uint i = SUBGROUP_LANE; i < FM * FN; i += LANES)
        sums[c + i] = 0.0;
}

void emulated_store(uint c, uint at, uint row)
{
    for (uint i = SUBGROUP_LANE; i < FM * FN; i += LANES)
        tile[at + i / FN * row + i % FN / 4u][i % 4u] = floatBitsToUint(sums[c + i]);
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
