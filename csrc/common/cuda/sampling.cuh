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

template <typename compute>
struct Sample {
  compute value;
  compute slope_x, slope_y; // d value / d flow
};

// Slopes that are not used cost nothing: all is inlined.
template <typename scalar_t, typename compute, typename offset_t>
__device__ Sample<compute> sample(const scalar_t* plane, const PixelTaps<compute, offset_t>& t) {
  const compute pixels[4] = {static_cast<compute>(plane[t.upper]), static_cast<compute>(plane[t.upper + t.right]),
                             static_cast<compute>(plane[t.lower]), static_cast<compute>(plane[t.lower + t.right])};
  const compute upper = t.x.weight[0] * pixels[0] + t.x.weight[1] * pixels[1];
  const compute lower = t.x.weight[0] * pixels[2] + t.x.weight[1] * pixels[3];
  const compute upper_slope = t.x.slope[0] * pixels[0] + t.x.slope[1] * pixels[1];
  const compute lower_slope = t.x.slope[0] * pixels[2] + t.x.slope[1] * pixels[3];
  return {t.y.weight[0] * upper + t.y.weight[1] * lower, t.y.weight[0] * upper_slope + t.y.weight[1] * lower_slope,
          t.y.slope[0] * upper + t.y.slope[1] * lower};
}

} // namespace pyaction
