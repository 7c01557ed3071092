#pragma once
// What TV-L1 computes for one pixel, for float and for vectors of float, on host and device.
#include "common/elementary.h"
#include "tvl1/tvl1.h"

namespace pyaction {

constexpr int kMaxLevels = 64;
constexpr int kMinLevelSize = 16;              // a coarser level with a shorter side is not made
constexpr float kFlatGradient = 1.1920929e-7f; // squared gradients up to this carry no data term

HOST_DEVICE int level_size(int size, double scale_step) {
  // Rounded half to even, as the default rounding mode does.
  return static_cast<int>(lrint(size * scale_step));
}

// The sizes of the pyramid's levels, finest first; returns how many there are.
HOST_DEVICE int plan_levels(int height, int width, const Tvl1Params& params, int* widths, int* heights) {
  int levels = 0;
  while (levels < params.scales && levels < kMaxLevels) {
    if (levels > 0) {
      width = level_size(width, params.scale_step);
      height = level_size(height, params.scale_step);
      if (width < kMinLevelSize || height < kMinLevelSize) {
        break;
      }
    }
    widths[levels] = width;
    heights[levels] = height;
    ++levels;
  }
  return levels;
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
HOST_DEVICE void cubic_weights(float fraction, float& w0, float& w1, float& w2, float& w3) {
  constexpr float a = -0.75f;
  const float x = fraction, y = 1.0f - fraction;
  w0 = a * (x * (y * y));
  w1 = fma_of(fma_of(a + 2.0f, x, -(a + 3.0f)), x * x, 1.0f);
  w3 = a * ((x * x) * y);
  w2 = ((1.0f - w0) - w1) - w3;
}

// Both steps come in two roundings. exact = false is what the processor does best. exact = true rounds after every
// operation, in OpenCV's order: TV-L1 is chaotic at occlusions, where one different bit ends in another flow, so only
// a twin that is equal to the last bit is a twin at all.

// What of (wx, wy) the steps divide by: |(wx, wy)|^2 itself, or its reciprocal (0 where flat).
template <bool exact>
HOST_DEVICE float data_norm(float wx, float wy) {
  if (exact) {
    return wx * wx + wy * wy;
  }
  const float norm = fma_of(wx, wx, wy * wy);
  return norm > kFlatGradient ? 1.0f / norm : 0.0f;
}

// Step of u (Zach et al., equations 12 and 15, in one). (wx, wy): warped gradient; constant + wx u1 + wy u2: residual;
// norm: see data_norm; divergence1/2: of the dual variables of u1 and u2; limit: attachment * theta.
template <bool exact, typename V>
HOST_DEVICE void primal_step(V& u1, V& u2, V wx, V wy, V constant, V norm, V divergence1, V divergence2, V limit,
                             V theta) {
  if (exact) {
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

// Step of the dual variables (px, py) of one component of u (Zach et al., equation 13); (ux, uy): its forward
// gradient; ratio: tau / theta.
template <bool exact, typename V>
HOST_DEVICE void dual_step(V& px, V& py, V ux, V uy, V ratio) {
  if (exact) {
    const V norm = V(1.0f) + ratio * hypot_of(ux, uy);
    px = (px + ratio * ux) / norm;
    py = (py + ratio * uy) / norm;
  } else {
    const V scale = V(1.0f) / fma_of(ratio, sqrt_of(fma_of(ux, ux, uy * uy)), V(1.0f));
    px = fma_of(ratio, ux, px) * scale;
    py = fma_of(ratio, uy, py) * scale;
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
