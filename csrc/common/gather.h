#pragma once
// Loads from addresses that the lanes of a register give.
#include "common/vec.h"

namespace pyaction {
namespace PYACTION_SIMD_LEVEL {
namespace {

// Where the pixels (column, row) are in a plane with `stride` floats from row to row.
HOST_DEVICE void offsets_of(Vec column, Vec row, int stride, int* offset) {
  alignas(kVectorBytes) int columns[kLanes], rows[kLanes];
  store_as_int(columns, column);
  store_as_int(rows, row);
  for (int i = 0; i < kLanes; ++i) {
    offset[i] = rows[i] * stride + columns[i];
  }
}

#if defined(__AVX2__)
HOST_DEVICE __m128 load_two_pairs(const float* one, const float* other) {
  const __m128 low = _mm_loadl_pi(_mm_setzero_ps(), reinterpret_cast<const __m64*>(one));
  return _mm_loadh_pi(low, reinterpret_cast<const __m64*>(other));
}
#endif

// load_fours: four neighbouring floats from each of kLanes addresses; taps[k] holds the k-th of each.
// load_pairs: two of each. `step` is 1: only single numbers come from a plane of one column, whose second is the first.
#if defined(__AVX512F__)
HOST_DEVICE void load_fours(const float* base, const int* offset, Vec* taps) {
  __m512 of[4]; // of[i]: the fours of addresses i, i + 4, i + 8, i + 12
  UNROLL
  for (int i = 0; i < 4; ++i) {
    const __m512 first = _mm512_castps128_ps512(_mm_loadu_ps(base + offset[i]));
    const __m512 second = _mm512_insertf32x4(first, _mm_loadu_ps(base + offset[i + 4]), 1);
    const __m512 third = _mm512_insertf32x4(second, _mm_loadu_ps(base + offset[i + 8]), 2);
    of[i] = _mm512_insertf32x4(third, _mm_loadu_ps(base + offset[i + 12]), 3);
  }
  const __m512 a = _mm512_unpacklo_ps(of[0], of[1]), b = _mm512_unpacklo_ps(of[2], of[3]);
  const __m512 c = _mm512_unpackhi_ps(of[0], of[1]), d = _mm512_unpackhi_ps(of[2], of[3]);
  taps[0] = Vec::Native(_mm512_shuffle_ps(a, b, 0x44));
  taps[1] = Vec::Native(_mm512_shuffle_ps(a, b, 0xEE));
  taps[2] = Vec::Native(_mm512_shuffle_ps(c, d, 0x44));
  taps[3] = Vec::Native(_mm512_shuffle_ps(c, d, 0xEE));
}

HOST_DEVICE void load_pairs(const float* base, const int* offset, int, Vec& first, Vec& second) {
  __m512 of[2]; // of[i]: the pairs of addresses 8 i, 8 i + 1, 8 i + 2, ...
  UNROLL
  for (int i = 0; i < 2; ++i) {
    __m128 two[4];
    UNROLL
    for (int j = 0; j < 4; ++j) {
      const int* at = offset + 8 * i + 2 * j;
      two[j] = load_two_pairs(base + at[0], base + at[1]);
    }
    const __m256 low = _mm256_insertf128_ps(_mm256_castps128_ps256(two[0]), two[1], 1);
    const __m256 high = _mm256_insertf128_ps(_mm256_castps128_ps256(two[2]), two[3], 1);
    of[i] = _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
  }
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  first = Vec::Native(_mm512_permutex2var_ps(of[0], even, of[1]));
  second = Vec::Native(_mm512_permutex2var_ps(of[0], _mm512_or_si512(even, _mm512_set1_epi32(1)), of[1]));
}
#elif defined(__AVX2__)
HOST_DEVICE void load_fours(const float* base, const int* offset, Vec* taps) {
  __m256 of[4]; // of[i]: the fours of addresses i and i + 4
  UNROLL
  for (int i = 0; i < 4; ++i) {
    of[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(base + offset[i])),
                                 _mm_loadu_ps(base + offset[i + 4]), 1);
  }
  const __m256 a = _mm256_unpacklo_ps(of[0], of[1]), b = _mm256_unpacklo_ps(of[2], of[3]);
  const __m256 c = _mm256_unpackhi_ps(of[0], of[1]), d = _mm256_unpackhi_ps(of[2], of[3]);
  taps[0] = Vec::Native(_mm256_shuffle_ps(a, b, 0x44));
  taps[1] = Vec::Native(_mm256_shuffle_ps(a, b, 0xEE));
  taps[2] = Vec::Native(_mm256_shuffle_ps(c, d, 0x44));
  taps[3] = Vec::Native(_mm256_shuffle_ps(c, d, 0xEE));
}

HOST_DEVICE void load_pairs(const float* base, const int* offset, int, Vec& first, Vec& second) {
  __m128 two[4]; // of addresses 0 and 1, 4 and 5, 2 and 3, 6 and 7: the shuffle below works within halves
  UNROLL
  for (int j = 0; j < 4; ++j) {
    const int* at = offset + (j % 2 * 4 + j / 2 * 2);
    two[j] = load_two_pairs(base + at[0], base + at[1]);
  }
  const __m256 a = _mm256_insertf128_ps(_mm256_castps128_ps256(two[0]), two[1], 1);
  const __m256 b = _mm256_insertf128_ps(_mm256_castps128_ps256(two[2]), two[3], 1);
  first = Vec::Native(_mm256_shuffle_ps(a, b, 0x88));
  second = Vec::Native(_mm256_shuffle_ps(a, b, 0xDD));
}
#else
HOST_DEVICE void load_fours(const float* base, const int* offset, Vec* taps) {
  for (int k = 0; k < 4; ++k) {
    for (int i = 0; i < kLanes; ++i) {
      taps[k].lanes[i] = base[offset[i] + k];
    }
  }
}

HOST_DEVICE void load_pairs(const float* base, const int* offset, int, Vec& first, Vec& second) {
  for (int i = 0; i < kLanes; ++i) {
    first.lanes[i] = base[offset[i]];
    second.lanes[i] = base[offset[i] + 1];
  }
}
#endif

template <typename scalar_t>
HOST_DEVICE void offsets_of(scalar_t column, scalar_t row, int stride, int* offset) {
  *offset = static_cast<int>(row) * stride + static_cast<int>(column);
}

template <typename scalar_t>
HOST_DEVICE void load_pairs(const scalar_t* base, const int* offset, int step, scalar_t& first, scalar_t& second) {
  first = base[*offset];
  second = base[*offset + step];
}

} // namespace
} // namespace PYACTION_SIMD_LEVEL
} // namespace pyaction
