#pragma once
#include "common/elementary.h"

namespace pyaction {

// The two neighbours of a coordinate along one axis. Both indices are always inside the image; a neighbour that
// the padding turns into zero has weight zero.
template <typename scalar_t>
struct AxisTaps {
  int low, high;
  scalar_t low_weight, high_weight;
  scalar_t low_slope, high_slope; // d weight / d coordinate
};

// padding "zeros": neighbours outside [0, size) count as zero. padding "border": the coordinate is clamped, and
// does not move the sample where it was clamped (the edges themselves included, as in torch's grid_sample).
// A coordinate that is NaN gives weights that are NaN.
template <bool border, typename scalar_t>
HOST_DEVICE AxisTaps<scalar_t> axis_taps(scalar_t coordinate, int size) {
  const scalar_t last = static_cast<scalar_t>(size - 1);
  const scalar_t smallest = border ? scalar_t(0) : scalar_t(-2);
  const scalar_t largest = border ? last : last + 1;
  // Written so that NaN takes the smallest value: the indices below must be valid whatever comes.
  scalar_t bounded = coordinate > smallest ? coordinate : smallest;
  bounded = bounded < largest ? bounded : largest;
  const scalar_t base = floor_of(bounded);
  const scalar_t fraction = bounded - base;
  const int low = static_cast<int>(base);
  const int high = low + 1;

  AxisTaps<scalar_t> taps;
  taps.low = low > 0 ? (low < size ? low : size - 1) : 0;
  taps.high = high > 0 ? (high < size ? high : size - 1) : 0;
  if (border) {
    const scalar_t slope = coordinate > 0 && coordinate < last ? scalar_t(1) : scalar_t(0);
    taps.low_weight = 1 - fraction;
    taps.high_weight = fraction;
    taps.low_slope = -slope;
    taps.high_slope = slope;
  } else {
    const bool low_inside = low >= 0 && low < size;
    const bool high_inside = high >= 0 && high < size;
    taps.low_weight = low_inside ? 1 - fraction : scalar_t(0);
    taps.high_weight = high_inside ? fraction : scalar_t(0);
    taps.low_slope = low_inside ? scalar_t(-1) : scalar_t(0);
    taps.high_slope = high_inside ? scalar_t(1) : scalar_t(0);
  }
  taps.low_weight = coordinate != coordinate ? coordinate : taps.low_weight;
  return taps;
}

} // namespace pyaction
