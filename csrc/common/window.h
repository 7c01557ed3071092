#pragma once
// Sampling a plane at neighbouring points: with AVX-512, two registers hold all columns that a block of 16 samples
// needs of a row where the flow is smooth. Permuting them costs a third of loading each sample's pixels.
#include "common/bilinear.h"
#include "common/vec.h"

namespace pyaction {
namespace PYACTION_SIMD_LEVEL {
namespace {

#if defined(__AVX512F__)
constexpr int kWindowRows = 4, kWindowColumns = 2 * kLanes;

// The part of a plane around a block of samples.
struct Window {
  bool holds;    // all the block's samples: the rest means nothing otherwise
  int offset;    // of the window's top left pixel in the plane
  __m512i first; // columns of the samples' left and right pixels, in the window
  __m512i second;
  __mmask16 below[2]; // samples whose upper row is at least the window's second, third
};

HOST_DEVICE int clamp_start(int start, int largest) {
  return start < 0 ? 0 : start < largest ? start : largest;
}

// Around the first sample of a block.
HOST_DEVICE Window window_of(const AxisTaps<Vec>& x, const AxisTaps<Vec>& y, int height, int width) {
  Window window;
  window.holds = height >= kWindowRows && width >= kWindowColumns;
  if (window.holds) {
    const __m512i column = _mm512_cvttps_epi32(x.first.lanes), row = _mm512_cvttps_epi32(y.first.lanes);
    const int left = clamp_start(_mm512_cvtsi512_si32(column) - kLanes / 2, width - kWindowColumns);
    const int top = clamp_start(_mm512_cvtsi512_si32(row) - 1, height - kWindowRows);
    const __m512i below = _mm512_sub_epi32(row, _mm512_set1_epi32(top));
    window.offset = top * width + left;
    window.first = _mm512_sub_epi32(column, _mm512_set1_epi32(left));
    window.second = _mm512_add_epi32(window.first, _mm512_set1_epi32(1));
    // Negative numbers are large ones.
    const __mmask16 outside = _mm512_cmpgt_epu32_mask(window.first, _mm512_set1_epi32(kWindowColumns - 2)) |
                              _mm512_cmpgt_epu32_mask(below, _mm512_set1_epi32(kWindowRows - 2));
    window.below[0] = _mm512_cmpge_epi32_mask(below, _mm512_set1_epi32(1));
    window.below[1] = _mm512_cmpge_epi32_mask(below, _mm512_set1_epi32(2));
    window.holds = outside == 0;
  }
  return window;
}

// What each sample's own rows hold of four rows of the window.
HOST_DEVICE void pick_rows(const Window& window, const Vec* rows, Vec& upper, Vec& lower) {
  const __m512 second = _mm512_mask_blend_ps(window.below[0], rows[0].lanes, rows[1].lanes);
  const __m512 third = _mm512_mask_blend_ps(window.below[0], rows[1].lanes, rows[2].lanes);
  upper = Vec::Native(_mm512_mask_blend_ps(window.below[1], second, rows[2].lanes));
  lower = Vec::Native(_mm512_mask_blend_ps(window.below[1], third, rows[3].lanes));
}

// The left and right pixels of the samples in a row of the window.
HOST_DEVICE void pick_columns(const Window& window, const float* row, Vec& first, Vec& second) {
  const __m512 low = _mm512_loadu_ps(row), high = _mm512_loadu_ps(row + kLanes);
  first = Vec::Native(_mm512_permutex2var_ps(low, window.first, high));
  second = Vec::Native(_mm512_permutex2var_ps(low, window.second, high));
}
#endif

} // namespace
} // namespace PYACTION_SIMD_LEVEL
} // namespace pyaction
