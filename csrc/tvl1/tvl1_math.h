#pragma once
// What TV-L1 computes for one pixel, for float and for vectors of float, on host and device.
#include "common/elementary.h"
#include "tvl1/tvl1.h"

namespace pyaction {

constexpr int kMaxLevels = 64;
constexpr int kMinLevelSize = 16;              // a coarser level with a shorter side is not made
constexpr float kFlatGradient = 1.1920929e-7f; // squared gradients up to this carry no data term
constexpr float kReferenceShare = 0.4f;        // of frame 0's gradient in the data term's (Wedel et al.); not as OpenCV
// Squared distance from the image up to which a pixel has not left it: what rounding makes of no motion along an edge
// must not decide.
constexpr float kOutsideDistance = 1e-4f;
constexpr float kLargestResidual = 30.0f; // grey levels that a residual counts for when two flows are compared
constexpr int kCompareRadius = 2;         // of the window in which they are

HOST_DEVICE int level_size(int size, double scale_step) {
  // Rounded half to even, as the default rounding mode does.
  return static_cast<int>(lrint(size * scale_step));
}

// The levels of the pyramid, finest first.
struct Levels {
  int count;
  int width[kMaxLevels], height[kMaxLevels];
};

HOST_DEVICE Levels plan_levels(int height, int width, const Tvl1Params& params) {
  Levels levels;
  levels.count = 0;
  while (levels.count < params.scales && levels.count < kMaxLevels) {
    if (levels.count > 0) {
      width = level_size(width, params.scale_step);
      height = level_size(height, params.scale_step);
      if (width < kMinLevelSize || height < kMinLevelSize) {
        break;
      }
    }
    levels.width[levels.count] = width;
    levels.height[levels.count] = height;
    ++levels.count;
  }
  return levels;
}

// Pixels of level `from` per pixel of level `to`, along the axis along which the levels have these sizes. OpenCV takes
// the nominal step where it shrinks.
HOST_DEVICE double level_ratio(const int* sizes, int from, int to, const Tvl1Params& params) {
  return params.as_opencv && from < to ? 1 / params.scale_step : sizes[from] / static_cast<double>(sizes[to]);
}

// What the flow's component along that axis is multiplied by when it changes from one level to another.
HOST_DEVICE double level_factor(const int* sizes, int from, int to, const Tvl1Params& params) {
  if (params.as_opencv) {
    return from < to ? params.scale_step : 1 / params.scale_step;
  }
  return 1 / level_ratio(sizes, from, to, params);
}

// Grey level 0..255 of an RGB pixel, ITU-R BT.601.
HOST_DEVICE float luma(float red, float green, float blue) {
  return 0.299f * red + 0.587f * green + 0.114f * blue;
}

// A pixel of a frame as grey level 0..255. `plane` is height * width.
template <typename pixel_t>
HOST_DEVICE float grey_level(const pixel_t* frame, int channels, int64_t plane, int64_t pixel) {
  const float scale = pixel_t(0.5) == pixel_t(0) ? 1.0f : 255.0f; // integers are grey levels already
  const float first = static_cast<float>(frame[pixel]);
  if (channels == 1) {
    return scale * first;
  }
  return scale * luma(first, static_cast<float>(frame[pixel + plane]), static_cast<float>(frame[pixel + 2 * plane]));
}

// Linear interpolation along one axis with pixel centres at half integers: value = source[index] + fraction *
// (source[index + 1] - source[index]), where the fraction is zero if there is no next pixel.
struct ResizeTap {
  int index;
  float fraction;
};

HOST_DEVICE ResizeTap resize_tap(int target, double ratio, int source_size) {
  const double position = (target + 0.5) * ratio - 0.5;
  const int index = static_cast<int>(floor_of(position));
  if (index < 0) {
    return {0, 0.0f};
  }
  if (index >= source_size - 1) {
    // The last pixel. OpenCV (in it, Intel's IPP) reaches it from the last but one where it shrinks an image, which
    // rounds differently.
    return ratio > 1 && source_size > 1 ? ResizeTap{source_size - 2, 1.0f} : ResizeTap{source_size - 1, 0.0f};
  }
  return {index, static_cast<float>(position - index)};
}

// A component of the flow, carried to another level. As OpenCV, without rounding a factor such as 0.8 to float32.
HOST_DEVICE float scaled(double factor, float component) {
  return static_cast<float>(factor * component);
}

// Where bicubic sampling takes its taps, base - 1 .. base + 2, and how far beyond base it lies. A sample far outside
// the image is moved to where all its taps are within four pixels of the image, in the zero border. NaN stays NaN, at
// a valid base.
struct CubicTap {
  int base;
  float fraction;
};

HOST_DEVICE CubicTap cubic_tap(float coordinate, int size) {
  float base = floorf(coordinate);
  base = base > -3.0f ? base : -3.0f;
  base = base < static_cast<float>(size + 1) ? base : static_cast<float>(size + 1);
  const float fraction = coordinate - base;
  return {static_cast<int>(base), fraction < 0.0f || fraction > 1.0f ? 0.0f : fraction};
}

// Weights of the taps base - 1 .. base + 2 of cubic convolution (Keys 1981) with a = -0.75, rounded as in OpenCV 5.
template <typename V>
HOST_DEVICE void cubic_weights(V fraction, V& w0, V& w1, V& w2, V& w3) {
  constexpr float a = -0.75f;
  const V x = fraction, y = V(1.0f) - fraction;
  w0 = V(a) * (x * (y * y));
  w1 = fma_of(fma_of(V(a + 2.0f), x, V(-(a + 3.0f))), x * x, V(1.0f));
  w3 = V(a) * ((x * x) * y);
  w2 = ((V(1.0f) - w0) - w1) - w3;
}

// Their derivatives.
template <typename V>
HOST_DEVICE void cubic_slopes(V fraction, V& d0, V& d1, V& d2, V& d3) {
  constexpr float a = -0.75f;
  const V x = fraction, y = V(1.0f) - fraction;
  d0 = (V(a) * y) * fma_of(V(-3.0f), x, V(1.0f));
  d1 = x * fma_of(V(3.0f * (a + 2.0f)), x, V(-2.0f * (a + 3.0f)));
  d3 = (V(a) * x) * fma_of(V(-3.0f), x, V(2.0f));
  d2 = ((-d0) - d1) - d3;
}

// Where a pixel comes from, moved into the image.
template <typename V>
struct Position {
  V x, y;
  V base_x, base_y; // rounded down
  V inside;         // 1 where the image was not left, else 0
};

template <typename V>
HOST_DEVICE Position<V> position_of(V x, V y, int width, int height) {
  const V zero(0.0f), one(1.0f), last_x(static_cast<float>(width - 1)), last_y(static_cast<float>(height - 1));
  Position<V> p;
  // max_of(NaN, 0) is 0: the address is valid whatever comes.
  p.x = min_of(max_of(x, zero), last_x);
  p.y = min_of(max_of(y, zero), last_y);
  p.base_x = floor_of(p.x);
  p.base_y = floor_of(p.y);
  const V moved = (p.x - x) * (p.x - x) + (p.y - y) * (p.y - y);
  p.inside = where_less(V(kOutsideDistance), moved, zero, one);
  return p;
}

// Both steps come in two variants (tvl1.h). as_opencv = true rounds after every operation, in OpenCV's order: TV-L1 is
// chaotic at occlusions, where one different bit ends in another flow, so only a twin that is equal to the last bit is
// a twin at all. as_opencv = false is what the processor does best.

// What of the squared gradient the steps divide by: itself, or its reciprocal (0 where flat).
template <bool as_opencv, typename V>
HOST_DEVICE V data_norm(V wx, V wy) {
  if (as_opencv) {
    return wx * wx + wy * wy;
  }
  const V norm = fma_of(wx, wx, wy * wy);
  return where_less(V(kFlatGradient), norm, V(1.0f) / norm, V(0.0f));
}

// Step of u (Zach et al., equations 12 and 15, in one). (wx, wy): warped gradient; constant + wx u1 + wy u2: residual;
// norm: see data_norm; divergence1/2: of the dual variables of u1 and u2; limit: attachment * theta.
template <bool as_opencv, typename V>
HOST_DEVICE void primal_step(V& u1, V& u2, V wx, V wy, V constant, V norm, V divergence1, V divergence2, V limit,
                             V theta) {
  if (as_opencv) {
    const V rho = constant + (wx * u1 + wy * u2), bound = limit * norm;
    V step = where_less(V(kFlatGradient), norm, -rho / norm, V(0.0f));
    step = where_less(bound, rho, -limit, step);
    step = where_less(rho, -bound, limit, step);
    u1 = (u1 + step * wx) + theta * divergence1;
    u2 = (u2 + step * wy) + theta * divergence2;
  } else {
    const V rho = fma_of(wx, u1, fma_of(wy, u2, constant));
    const V step = max_of(min_of(-rho * norm, limit), -limit);
    u1 = fma_of(theta, divergence1, fma_of(step, wx, u1));
    u2 = fma_of(theta, divergence2, fma_of(step, wy, u2));
  }
}

// Step of the dual variables (Zach et al., equation 13), in two halves between which a loop can do something else:
// roots and quotients take long. p11, p12: dual of u1; p21, p22: dual of u2.
template <typename V>
struct DualStep {
  V p11, p12, p21, p22; // before the division
  V length1, length2;   // as OpenCV: of the gradients of u1 and of u2; else length1: square of their common length
};

// (u1x, u1y), (u2x, u2y): forward gradients; ratio: tau / theta.
template <bool as_opencv, typename V>
HOST_DEVICE DualStep<V> begin_dual_step(V p11, V p12, V p21, V p22, V u1x, V u1y, V u2x, V u2y, V ratio) {
  if (as_opencv) {
    return {p11 + ratio * u1x, p12 + ratio * u1y,  p21 + ratio * u2x,
            p22 + ratio * u2y, hypot_of(u1x, u1y), hypot_of(u2x, u2y)};
  }
  const V square = fma_of(u1x, u1x, u1y * u1y) + fma_of(u2x, u2x, u2y * u2y);
  return {fma_of(ratio, u1x, p11),
          fma_of(ratio, u1y, p12),
          fma_of(ratio, u2x, p21),
          fma_of(ratio, u2y, p22),
          square,
          square};
}

template <bool as_opencv, typename V>
HOST_DEVICE void end_dual_step(const DualStep<V>& step, V& p11, V& p12, V& p21, V& p22, V ratio) {
  if (as_opencv) {
    const V norm1 = V(1.0f) + ratio * step.length1, norm2 = V(1.0f) + ratio * step.length2;
    p11 = step.p11 / norm1;
    p12 = step.p12 / norm1;
    p21 = step.p21 / norm2;
    p22 = step.p22 / norm2;
  } else {
    const V scale = V(1.0f) / fma_of(ratio, sqrt_of(step.length1), V(1.0f));
    p11 = step.p11 * scale;
    p12 = step.p12 * scale;
    p21 = step.p21 * scale;
    p22 = step.p22 * scale;
  }
}

template <typename V>
HOST_DEVICE void sort_pair(V& a, V& b) {
  const V smaller = min_of(a, b);
  b = max_of(a, b);
  a = smaller;
}

// Moves the smallest of v[first .. last] to v[first] and the largest to v[last].
template <int first, int last, typename V>
HOST_DEVICE void extremes_to_ends(V* v) {
  constexpr int pairs = (last - first + 1) / 2, half = (last - first) / 2;
  UNROLL
  for (int i = 0; i < pairs; ++i) {
    sort_pair(v[first + i], v[last - i]);
  }
  // The smallest is now in the first half, the largest in the last; an unpaired middle one is in both.
  UNROLL
  for (int i = 1; i <= half; ++i) {
    sort_pair(v[first], v[first + i]);
    sort_pair(v[last - i], v[last]);
  }
}

// Median by forgetful selection: of count / 2 + 2 values neither the smallest nor the largest can be the median of
// `count`; forget both, take in one more, and go on until three are left. sample(i) gives value i; `first` counts
// the rounds.
template <int count, int first, typename V, typename Sample>
HOST_DEVICE V forget_extremes(V* v, const Sample& sample) {
  constexpr int last = count / 2 + 1;
  extremes_to_ends<first, last>(v);
  if constexpr (last - first == 2) {
    return v[first + 1];
  } else {
    v[last] = sample(last + 1 + first);
    return forget_extremes<count, first + 1, V>(v, sample);
  }
}

template <int count, typename V, typename Sample>
HOST_DEVICE V median_of(const Sample& sample) {
  V v[count / 2 + 2];
  UNROLL
  for (int i = 0; i < count / 2 + 2; ++i) {
    v[i] = sample(i);
  }
  return forget_extremes<count, 0, V>(v, sample);
}

} // namespace pyaction
