#pragma once
// Bilinear sampling of planes where a flow points, one pixel a thread.
#include "common/bilinear.h"
#include "common/compute.h"

namespace pyaction {

// Where an output pixel samples a plane. Computed once, used for every channel.
template <typename compute, typename offset_t>
struct PixelTaps {
  AxisTaps<compute> x, y;
  offset_t upper, lower, right; // the upper left and lower left pixel; from these to the right ones
};

// Of the pixel (column, row), whose flow is at flow[0] and, a plane further, flow[height * width]. From a pixel to the
// next in its row, `step` elements.
template <typename offset_t, typename scalar_t, typename compute = compute_t<scalar_t>>
__device__ PixelTaps<compute, offset_t> locate(const scalar_t* flow, int row, int column, int height, int width,
                                               bool border, offset_t step) {
  const compute x = static_cast<compute>(column) + static_cast<compute>(flow[0]);
  const compute y = static_cast<compute>(row) + static_cast<compute>(flow[height * width]);
  PixelTaps<compute, offset_t> taps;
  taps.x = border ? axis_taps<true>(x, width) : axis_taps<false>(x, width);
  taps.y = border ? axis_taps<true>(y, height) : axis_taps<false>(y, height);
  const int upper = static_cast<int>(taps.y.first) * width + static_cast<int>(taps.x.first);
  taps.upper = upper * step;
  taps.lower = (upper + (height > 1 ? width : 0)) * step;
  taps.right = width > 1 ? step : 0;
  return taps;
}

// Slopes that are not used cost nothing: all is inlined.
template <typename scalar_t, typename compute, typename offset_t>
__device__ Sample<compute> sample(const scalar_t* plane, const PixelTaps<compute, offset_t>& t) {
  const offset_t rows[2] = {t.upper, t.lower};
  compute value[2], slope[2];
  UNROLL
  for (int i = 0; i < 2; ++i) {
    const RowSample<compute> row =
        sample_row(t.x, static_cast<compute>(plane[rows[i]]), static_cast<compute>(plane[rows[i] + t.right]));
    value[i] = row.value;
    slope[i] = row.slope;
  }
  return join_rows(t.y, value, slope);
}

} // namespace pyaction
