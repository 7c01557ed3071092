#pragma once
// One vector register of floats, as wide as the instruction set that the including file is compiled for. Operators
// come from the compiler's vector extension; minimum, maximum and square root from the instruction set, because the
// compiler does not find them in a comparison.
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "common/elementary.h"
#include "common/simd.h"

namespace pyaction {
namespace PYACTION_SIMD_LEVEL {
namespace {

constexpr int kLanes = kVectorBytes / 4;

// The vector forms below would hide the ones for float.
using pyaction::fma_of;
using pyaction::hypot_of;
using pyaction::max_of;
using pyaction::min_of;
using pyaction::sqrt_of;
using pyaction::where_less;

struct Vec {
  typedef float Native __attribute__((vector_size(kVectorBytes), may_alias));
  typedef float Unaligned __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));
  Native lanes;

  Vec() = default;
  HOST_DEVICE Native all(float value) {
    return value - Native{};
  }
  inline __attribute__((always_inline)) Vec(Native native) : lanes(native) {
  }
  inline __attribute__((always_inline)) Vec(float value) : lanes(all(value)) {
  }
};

HOST_DEVICE Vec load(const float* address) {
  return Vec(*reinterpret_cast<const Vec::Unaligned*>(address));
}

HOST_DEVICE void store(float* address, Vec value) {
  *reinterpret_cast<Vec::Unaligned*>(address) = value.lanes;
}

HOST_DEVICE Vec operator+(Vec a, Vec b) {
  return a.lanes + b.lanes;
}

HOST_DEVICE Vec operator-(Vec a, Vec b) {
  return a.lanes - b.lanes;
}

HOST_DEVICE Vec operator*(Vec a, Vec b) {
  return a.lanes * b.lanes;
}

HOST_DEVICE Vec operator/(Vec a, Vec b) {
  return a.lanes / b.lanes;
}

HOST_DEVICE Vec operator-(Vec a) {
  return -a.lanes;
}

// a < b ? x : y
HOST_DEVICE Vec where_less(Vec a, Vec b, Vec x, Vec y) {
  return a.lanes < b.lanes ? x.lanes : y.lanes;
}

#if defined(__AVX512F__)
HOST_DEVICE Vec min_of(Vec a, Vec b) {
  return Vec::Native(_mm512_min_ps(a.lanes, b.lanes));
}

HOST_DEVICE Vec max_of(Vec a, Vec b) {
  return Vec::Native(_mm512_max_ps(a.lanes, b.lanes));
}

HOST_DEVICE Vec sqrt_of(Vec a) {
  return Vec::Native(_mm512_sqrt_ps(a.lanes));
}

HOST_DEVICE Vec fma_of(Vec a, Vec b, Vec c) {
  return Vec::Native(_mm512_fmadd_ps(a.lanes, b.lanes, c.lanes));
}

HOST_DEVICE __m256 hypot_of_half(__m256 a, __m256 b) {
  const __m512d x = _mm512_cvtps_pd(a), y = _mm512_cvtps_pd(b);
  return _mm512_cvtpd_ps(_mm512_sqrt_pd(x * x + y * y));
}

HOST_DEVICE Vec hypot_of(Vec a, Vec b) {
  const __m256 low = hypot_of_half(_mm512_castps512_ps256(a.lanes), _mm512_castps512_ps256(b.lanes));
  const __m256 high = hypot_of_half(_mm512_extractf32x8_ps(a.lanes, 1), _mm512_extractf32x8_ps(b.lanes, 1));
  return Vec::Native(_mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1));
}
#elif defined(__AVX2__)
HOST_DEVICE Vec min_of(Vec a, Vec b) {
  return Vec::Native(_mm256_min_ps(a.lanes, b.lanes));
}

HOST_DEVICE Vec max_of(Vec a, Vec b) {
  return Vec::Native(_mm256_max_ps(a.lanes, b.lanes));
}

HOST_DEVICE Vec sqrt_of(Vec a) {
  return Vec::Native(_mm256_sqrt_ps(a.lanes));
}

HOST_DEVICE Vec fma_of(Vec a, Vec b, Vec c) {
  return Vec::Native(_mm256_fmadd_ps(a.lanes, b.lanes, c.lanes));
}

HOST_DEVICE __m128 hypot_of_half(__m128 a, __m128 b) {
  const __m256d x = _mm256_cvtps_pd(a), y = _mm256_cvtps_pd(b);
  return _mm256_cvtpd_ps(_mm256_sqrt_pd(x * x + y * y));
}

HOST_DEVICE Vec hypot_of(Vec a, Vec b) {
  const __m128 low = hypot_of_half(_mm256_castps256_ps128(a.lanes), _mm256_castps256_ps128(b.lanes));
  const __m128 high = hypot_of_half(_mm256_extractf128_ps(a.lanes, 1), _mm256_extractf128_ps(b.lanes, 1));
  return Vec::Native(_mm256_insertf128_ps(_mm256_castps128_ps256(low), high, 1));
}
#else
HOST_DEVICE Vec min_of(Vec a, Vec b) {
#if defined(__x86_64__)
  return Vec::Native(_mm_min_ps(a.lanes, b.lanes));
#else
  return where_less(a, b, a, b);
#endif
}

HOST_DEVICE Vec max_of(Vec a, Vec b) {
#if defined(__x86_64__)
  return Vec::Native(_mm_max_ps(a.lanes, b.lanes));
#else
  return where_less(b, a, a, b);
#endif
}

HOST_DEVICE Vec sqrt_of(Vec a) {
  for (int i = 0; i < kLanes; ++i) {
    a.lanes[i] = sqrtf(a.lanes[i]);
  }
  return a;
}

HOST_DEVICE Vec fma_of(Vec a, Vec b, Vec c) {
  for (int i = 0; i < kLanes; ++i) {
    a.lanes[i] = fma_of(a.lanes[i], b.lanes[i], c.lanes[i]);
  }
  return a;
}

HOST_DEVICE Vec hypot_of(Vec a, Vec b) {
  for (int i = 0; i < kLanes; ++i) {
    a.lanes[i] = hypot_of(a.lanes[i], b.lanes[i]);
  }
  return a;
}
#endif

HOST_DEVICE float sum_of(Vec value) {
  float sum = 0;
  for (int i = 0; i < kLanes; ++i) {
    sum += value.lanes[i];
  }
  return sum;
}

} // namespace
} // namespace PYACTION_SIMD_LEVEL
} // namespace pyaction
