#pragma once
// Powers of a register of floats.
#include "common/power.h"
#include "common/vec.h"

namespace pyaction {
namespace PYACTION_SIMD_LEVEL {
namespace {

using pyaction::power_of;

typedef int BitLanes __attribute__((vector_size(kVectorBytes), may_alias));

// Of numbers above zero that are not denormal: the exponent, and the logarithm of the rest as a series of
// t = (m - 1) / (m + 1), with m in [sqrt(1/2), sqrt(2)). Right to 1e-7.
HOST_DEVICE Vec log2_of(Vec a) {
  constexpr int kSqrtHalf = 0x3f3504f3;
  const BitLanes bits = BitLanes(a.lanes);
  const BitLanes exponent = (bits - kSqrtHalf) >> 23;
  const Vec mantissa = Vec::Native(bits - (exponent << 23));
  const Vec t = (mantissa - Vec(1.0f)) / (mantissa + Vec(1.0f)), square = t * t;
  constexpr float kTwice = 2.885390082f; // 2 / ln 2
  Vec series = fma_of(square, Vec(kTwice / 9), Vec(kTwice / 7));
  series = fma_of(square, series, Vec(kTwice / 5));
  series = fma_of(square, series, Vec(kTwice / 3));
  series = fma_of(square, series, Vec(kTwice));
  return fma_of(t, series, Vec(__builtin_convertvector(exponent, Vec::Native)));
}

// Right to 2e-7 of the result; 0 where it would be below 2^-126, infinity where it would be 2^128 or more.
HOST_DEVICE Vec exp2_of(Vec a) {
  const Vec bounded = min_of(max_of(a, Vec(-127.0f)), Vec(128.0f));
  const Vec whole = floor_of(bounded + Vec(0.5f)), rest = bounded - whole;
  Vec series = fma_of(rest, Vec(1.54035304e-4f), Vec(1.33335581e-3f)); // ln(2)^k / k!
  series = fma_of(rest, series, Vec(9.61812911e-3f));
  series = fma_of(rest, series, Vec(5.55041087e-2f));
  series = fma_of(rest, series, Vec(2.40226507e-1f));
  series = fma_of(rest, series, Vec(6.93147181e-1f));
  series = fma_of(rest, series, Vec(1.0f));
  const BitLanes exponent = __builtin_convertvector(whole.lanes, BitLanes);
  return series * Vec(Vec::Native((exponent + 127) << 23));
}

HOST_DEVICE Vec power_of(Vec base, float exponent) {
  return exp2_of(Vec(exponent) * log2_of(base)) + (base - base); // which is NaN where the base is not finite
}

} // namespace
} // namespace PYACTION_SIMD_LEVEL
} // namespace pyaction
