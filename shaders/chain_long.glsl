// 64-bit integers as (low, high) pairs, for devices with and without 64-bit arithmetic alike: GPUs split it themselves.
#ifndef CHAIN_LONG_GLSL
#define CHAIN_LONG_GLSL

uvec2 long_neg(uvec2 a)
{
    uint low = 0u - a.x;
    return uvec2(low, ~a.y + (a.x == 0u ? 1u : 0u));
}

uvec2 long_add(uvec2 a, uvec2 b)
{
    uint carry;
    uint low = uaddCarry(a.x, b.x, carry);
    return uvec2(low, a.y + b.y + carry);
}

uvec2 long_sub(uvec2 a, uvec2 b)
{
    uint borrow;
    uint low = usubBorrow(a.x, b.x, borrow);
    return uvec2(low, a.y - b.y - borrow);
}

uvec2 long_mul(uvec2 a, uvec2 b)
{
    uint high, low;
    umulExtended(a.x, b.x, high, low);
    return uvec2(low, high + a.x * b.y + a.y * b.x);
}

bool long_negative(uvec2 a, bool is_signed) { return is_signed && int(a.y) < 0; }

uvec2 long_abs(uvec2 a, bool is_signed) { return long_negative(a, is_signed) ? long_neg(a) : a; }

bool long_less(uvec2 a, uvec2 b, bool is_signed)
{
    uint flip = is_signed ? 0x80000000u : 0u;
    return a.y == b.y ? a.x < b.x : (a.y ^ flip) < (b.y ^ flip);
}

// Unsigned quotient and remainder, d not 0: long division bit by bit where 32 bits do not do.
uvec2 long_divide(uvec2 a, uvec2 d, out uvec2 remainder)
{
    if ((a.y | d.y) == 0u) {
        remainder = uvec2(a.x % d.x, 0u);
        return uvec2(a.x / d.x, 0u);
    }
    uvec2 q = uvec2(0u), r = uvec2(0u);
    for (int i = 0; i < 64; i++) {
        bool over = int(r.y) < 0; // the shift loses this bit
        r = uvec2(r.x << 1 | a.y >> 31, r.y << 1 | r.x >> 31);
        a = uvec2(a.x << 1, a.y << 1 | a.x >> 31);
        q = uvec2(q.x << 1, q.y << 1 | q.x >> 31);
        if (over || !long_less(r, d, false)) {
            r = long_sub(r, d);
            q.x |= 1u;
        }
    }
    remainder = r;
    return q;
}

// C's truncating quotient and the remainder that goes with it (sign of a); both 0 for b = 0.
uvec2 long_quotient(uvec2 a, uvec2 b, bool is_signed, out uvec2 remainder)
{
    remainder = uvec2(0u);
    if ((b.x | b.y) == 0u)
        return uvec2(0u);
    uvec2 q = long_divide(long_abs(a, is_signed), long_abs(b, is_signed), remainder);
    if (long_negative(a, is_signed))
        remainder = long_neg(remainder);
    return long_negative(a, is_signed) != long_negative(b, is_signed) ? long_neg(q) : q;
}

#ifdef RARE
uvec2 long_shift_left(uvec2 a, uvec2 b)
{
    uint s = b.x & 31u;
    uvec2 y = s == 0u ? a : uvec2(a.x << s, a.y << s | a.x >> (32u - s));
    y = (b.x & 32u) != 0u ? uvec2(0u, y.x) : y;
    return b.y != 0u || b.x > 63u ? uvec2(0u) : y;
}

uvec2 long_shift_right(uvec2 a, uvec2 b)
{
    uint s = b.x & 31u;
    uvec2 y = s == 0u ? a : uvec2(a.x >> s | a.y << (32u - s), a.y >> s);
    y = (b.x & 32u) != 0u ? uvec2(y.y, 0u) : y;
    return b.y != 0u || b.x > 63u ? uvec2(0u) : y;
}
#endif

uvec2 long_pow(uvec2 a, uvec2 b, bool is_signed)
{
    uvec2 y = uvec2(1u, 0u);
    if (long_negative(b, is_signed)) {
        bool minus = a == uvec2(0xffffffffu);
        return a == y || (minus && (b.x & 1u) == 0u) ? y : (minus ? a : uvec2(0u));
    }
    for (int i = 0; i < 64 && (b.x | b.y) != 0u; i++) {
        if ((b.x & 1u) != 0u)
            y = long_mul(y, a);
        a = long_mul(a, a);
        b = uvec2(b.x >> 1 | b.y << 31, b.y >> 1);
    }
    return y;
}

// Rounded to nearest even once: the upper 32 bits of the normalized number, with a sticky bit for the rest.
float long_to_float(uvec2 a, bool is_signed)
{
    bool minus = long_negative(a, is_signed);
    a = long_abs(a, is_signed);
    if (a.y == 0u)
        return minus ? -float(a.x) : float(a.x);
    int s = 31 - findMSB(a.y);
    uint high = s == 0 ? a.y : a.y << s | a.x >> (32 - s);
    uint low = a.x << s;
    float y = float(high | (low != 0u ? 1u : 0u)) * uintBitsToFloat(uint(127 + 32 - s) << 23);
    return minus ? -y : y;
}

// Truncated and saturated; NaN gives 0. The parts are exact: a float has 24 bits.
uvec2 long_from_float(float x, bool is_signed)
{
    float m = trunc(abs(x));
    float high = floor(m * 2.32830644e-10); // 2^-32
    uvec2 a = uvec2(uint(m - high * 4294967296.0), uint(high));
    bool minus = x < 0.0;
    if (is_signed) {
        if (m >= 9223372036854775808.0)
            return minus ? uvec2(0u, 0x80000000u) : uvec2(0xffffffffu, 0x7fffffffu);
        return is_nan(x) ? uvec2(0u) : (minus ? long_neg(a) : a);
    }
    if (m >= 18446744073709551616.0 && !minus)
        return uvec2(0xffffffffu);
    return is_nan(x) || minus ? uvec2(0u) : a;
}

#endif
