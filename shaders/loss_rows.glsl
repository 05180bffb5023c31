// The softmax denominator of a row of scores, for the loss and its gradient.
#define MINUS_INFINITY uintBitsToFloat(0xff800000u)

TEAM_REDUCE(team_sum, float, team_add)
TEAM_REDUCE(team_max, float, team_larger)

vec4 load_scores(uint base, uint unit)
{
    return row_load(push.scores, base, push.inner, push.classes, unit, MINUS_INFINITY);
}

// (maximum, sum of exp(score - maximum)) in one walk: the sum is rescaled whenever the maximum grows.
vec2 largest_and_sum(uint base, uint units)
{
    float largest = MINUS_INFINITY, sum = 0.0;
    for (uint unit = team_lane(); unit < units; unit += LANES) {
        vec4 x = load_scores(base, unit);
        float m = max4(x);
        if (m > largest) {
            sum *= exp(largest - m);
            largest = m;
        }
        if (largest > MINUS_INFINITY) // else there was no term yet, and inf - inf is none
            sum += sum4(exp(x - largest));
    }
    float own = largest;
    largest = team_max(largest);
    return vec2(largest, team_sum(own > MINUS_INFINITY ? sum * exp(own - largest) : sum));
}
