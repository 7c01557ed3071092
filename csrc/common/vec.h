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
using pyaction::abs_of;
using pyaction::floor_of;
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

HOST_DEVICE Vec abs_of(Vec a) {
  typedef int Bits __attribute__((vector_size(kVectorBytes), may_alias));
  return Vec::Native(Bits(a.lanes) & 0x7fffffff);
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

HOST_DEVICE Vec floor_of(Vec a) {
  return Vec::Native(_mm512_roundscale_ps(a.lanes, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC));
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

HOST_DEVICE Vec floor_of(Vec a) {
  return Vec::Native(_mm256_floor_ps(a.lanes));
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

HOST_DEVICE Vec floor_of(Vec a) {
#if defined(__x86_64__)
  return Vec::Native(_mm_floor_ps(a.lanes));
#else
  for (int i = 0; i < kLanes; ++i) {
    a.lanes[i] = floorf(a.lanes[i]);
  }
  return a;
#endif
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

typedef int IntLanes __attribute__((vector_size(kVectorBytes), may_alias, aligned(4)));

HOST_DEVICE void store_as_int(int* address, Vec value) {
  *reinterpret_cast<IntLanes*>(address) = __builtin_convertvector(value.lanes, IntLanes);
}

// 0, 1, 2, ...
HOST_DEVICE Vec counting() {
  Vec result;
  for (int i = 0; i < kLanes; ++i) {
    result.lanes[i] = static_cast<float>(i);
  }
  return result;
}

#if defined(__AVX512F__)
// The last lane of `before`, then all but the last of `a`: each lane's left neighbour.
HOST_DEVICE Vec left_of(Vec before, Vec a) {
  return Vec::Native(_mm512_castsi512_ps(
      _mm512_alignr_epi32(_mm512_castps_si512(a.lanes), _mm512_castps_si512(before.lanes), kLanes - 1)));
}

// All but the first lane of `a`, then the first of `behind`: each lane's right neighbour.
HOST_DEVICE Vec right_of(Vec a, Vec behind) {
  return Vec::Native(
      _mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(behind.lanes), _mm512_castps_si512(a.lanes), 1)));
}

// In lane i what lane index[i] of `low` holds, or lane index[i] - kLanes of `high`; 0 <= index[i] < 2 * kLanes.
HOST_DEVICE Vec pick(Vec low, Vec high, const int* index) {
  return Vec::Native(_mm512_permutex2var_ps(low.lanes, _mm512_loadu_si512(index), high.lanes));
}
#elif defined(__AVX2__)
HOST_DEVICE Vec left_of(Vec before, Vec a) {
  const __m256i middle = _mm256_castps_si256(_mm256_permute2f128_ps(before.lanes, a.lanes, 0x21));
  return Vec::Native(_mm256_castsi256_ps(_mm256_alignr_epi8(_mm256_castps_si256(a.lanes), middle, 12)));
}

HOST_DEVICE Vec right_of(Vec a, Vec behind) {
  const __m256i middle = _mm256_castps_si256(_mm256_permute2f128_ps(a.lanes, behind.lanes, 0x21));
  return Vec::Native(_mm256_castsi256_ps(_mm256_alignr_epi8(middle, _mm256_castps_si256(a.lanes), 4)));
}

HOST_DEVICE Vec pick(Vec low, Vec high, const int* index) {
  const __m256i at = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(index));
  const __m256 is_high = _mm256_castsi256_ps(_mm256_slli_epi32(at, 28)); // the sign: bit 3, 8 or more
  return Vec::Native(
      _mm256_blendv_ps(_mm256_permutevar8x32_ps(low.lanes, at), _mm256_permutevar8x32_ps(high.lanes, at), is_high));
}
#else
HOST_DEVICE Vec left_of(Vec before, Vec a) {
  Vec result;
  result.lanes[0] = before.lanes[kLanes - 1];
  for (int i = 1; i < kLanes; ++i) {
    result.lanes[i] = a.lanes[i - 1];
  }
  return result;
}

HOST_DEVICE Vec right_of(Vec a, Vec behind) {
  Vec result;
  for (int i = 0; i + 1 < kLanes; ++i) {
    result.lanes[i] = a.lanes[i + 1];
  }
  result.lanes[kLanes - 1] = behind.lanes[0];
  return result;
}

HOST_DEVICE Vec pick(Vec low, Vec high, const int* index) {
  const Vec both[2] = {low, high};
  const float* values = reinterpret_cast<const float*>(both);
  Vec result;
  for (int i = 0; i < kLanes; ++i) {
    result.lanes[i] = values[index[i]];
  }
  return result;
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
