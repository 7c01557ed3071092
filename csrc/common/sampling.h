#pragma once
// Bilinear sampling of planes where a flow points, a block of neighbouring pixels at a time.
#include <stdint.h>

#include "common/bilinear.h"
#include "common/blocks.h"
#include "common/gather.h"
#include "common/window.h"

namespace pyaction {
namespace PYACTION_SIMD_LEVEL {
namespace {

struct PlaneSize {
  int height, width;

  inline __attribute__((always_inline)) int64_t pixels() const {
    return int64_t{height} * width;
  }
};

// Where a block of output pixels samples a plane. Computed once, used for every channel.
template <typename V>
struct SampleTaps {
  static constexpr int kLanes = kLanesOf<V>;
  const V zero = V(0);
  AxisTaps<V> x, y;
  int offset[kLanes]; // of the top left pixel; where a window holds, of the window's alone
#if defined(__AVX512F__)
  Window window; // of a register
#endif
};

// Of the pixels from (x, y) on, whose flow is at flow_x + x and flow_y + x.
template <bool border, typename V, typename scalar_t>
HOST_DEVICE SampleTaps<V> sample_taps(const scalar_t* flow_x, const scalar_t* flow_y, int x, int y, PlaneSize size) {
  V u, v;
  load_block(flow_x + x, u);
  load_block(flow_y + x, v);
  SampleTaps<V> taps;
  taps.x = axis_taps<border>(counting_from(x, u) + u, size.width);
  taps.y = axis_taps<border>(V(y) + v, size.height);
#if defined(__AVX512F__)
  if constexpr (kLanesOf<V> > 1) {
    taps.window = window_of(taps.x, taps.y, size.height, size.width);
    if (taps.window.holds) {
      taps.offset[0] = taps.window.offset;
      return taps;
    }
  }
#endif
  offsets_of(taps.x.first, taps.y.first, size.width, taps.offset);
  return taps;
}

// Slopes that are not used cost nothing: all is inlined.
template <typename V, typename scalar_t>
HOST_DEVICE Sample<V> sample(const scalar_t* plane, PlaneSize size, const SampleTaps<V>& taps) {
  // Processors do not foresee which lines a sample needs: the ones that it needs a few rows on are fetched now.
  __builtin_prefetch(plane + taps.offset[0] + 6 * size.width);
  V value[2], slope[2]; // of the upper and the lower row
#if defined(__AVX512F__)
  if constexpr (kLanesOf<V> > 1) {
    if (taps.window.holds) {
      V values[kWindowRows], slopes[kWindowRows];
      UNROLL
      for (int i = 0; i < kWindowRows; ++i) {
        V first, second;
        pick_columns(taps.window, plane + taps.window.offset + i * size.width, first, second);
        const RowSample<V> row = sample_row(taps.x, first, second);
        values[i] = row.value;
        slopes[i] = row.slope;
      }
      pick_rows(taps.window, values, value[0], value[1]);
      pick_rows(taps.window, slopes, slope[0], slope[1]);
      return join_rows(taps.y, value, slope);
    }
  }
#endif
  const int right = size.width > 1, down = size.height > 1 ? size.width : 0;
  UNROLL
  for (int i = 0; i < 2; ++i) {
    V first, second;
    load_pairs(plane + i * down, taps.offset, right, first, second);
    const RowSample<V> row = sample_row(taps.x, first, second);
    value[i] = row.value;
    slope[i] = row.slope;
  }
  return join_rows(taps.y, value, slope);
}

} // namespace
} // namespace PYACTION_SIMD_LEVEL
} // namespace pyaction
