#pragma once
#include "common/elementary.h"

namespace pyaction {

// The two neighbouring pixels of one axis between which a coordinate is interpolated, and their weights. They are
// always inside the image: where one of the true neighbours is outside, the pair has moved inwards and the weights
// with it. `first` is a whole number; behind it comes first + 1, or in an axis of one pixel that pixel again, with
// weight zero.
template <typename V>
struct AxisTaps {
  V first;
  V weight[2];
  V slope[2]; // d weight / d coordinate
};

// How much a pixel weighs at so many pixels to its right: a tent. NaN never comes.
template <typename V>
HOST_DEVICE V tent(V distance) {
  return max_of(V(1) - abs_of(distance), V(0));
}

// The slope of the tent to the right of a point: on a pixel, the sample moves towards the next one.
template <typename V>
HOST_DEVICE V tent_slope(V distance) {
  return where_less(distance, V(0), where_less(distance, V(-1), V(0), V(1)), where_less(distance, V(1), V(-1), V(0)));
}

// padding "zeros": neighbours outside [0, size) count as zero. padding "border": the coordinate is clamped, and
// does not move the sample where it was clamped (the edges themselves included, as in torch's grid_sample).
// A coordinate that is NaN gives weights that are NaN. V: float, double or Vec (common/vec.h).
template <bool border, typename V>
HOST_DEVICE AxisTaps<V> axis_taps(V coordinate, int size) {
  const V zero(0), last(size - 1);
  // The maximum comes first: of NaN it makes the bound, and the index is valid whatever comes.
  const V bounded = min_of(max_of(coordinate, border ? zero : V(-2)), border ? last : V(size + 1));
  AxisTaps<V> taps;
  taps.first = max_of(min_of(floor_of(bounded), V(size - 2)), zero);
  const V to_first = bounded - taps.first, to_second = to_first - V(1);
  const V nan = where_less(coordinate, V(1), zero, where_less(zero, coordinate, zero, coordinate));
  taps.weight[0] = tent(to_first) + nan;
  taps.weight[1] = size > 1 ? tent(to_second) : zero;
  taps.slope[0] = tent_slope(to_first);
  taps.slope[1] = size > 1 ? tent_slope(to_second) : zero;
  if (border) {
    const V moves = where_less(zero, coordinate, where_less(coordinate, last, V(1), zero), zero);
    taps.slope[0] = taps.slope[0] * moves;
    taps.slope[1] = taps.slope[1] * moves;
  }
  return taps;
}

template <typename V>
struct Sample {
  V value;
  V slope_x, slope_y; // d value / d flow
};

// The values between the left and right pixels, and how they change.
template <typename V>
struct RowSample {
  V value, slope;
};

template <typename V>
HOST_DEVICE RowSample<V> sample_row(const AxisTaps<V>& x, V first, V second) {
  return {x.weight[0] * first + x.weight[1] * second, x.slope[0] * first + x.slope[1] * second};
}

template <typename V>
HOST_DEVICE Sample<V> join_rows(const AxisTaps<V>& y, const V* value, const V* slope) {
  return {y.weight[0] * value[0] + y.weight[1] * value[1], y.weight[0] * slope[0] + y.weight[1] * slope[1],
          y.slope[0] * value[0] + y.slope[1] * value[1]};
}

} // namespace pyaction
