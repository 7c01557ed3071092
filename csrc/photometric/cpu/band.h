#pragma once
// A band, one row of patches, is worked on at a time: small enough to stay in the cache, it is all that is ever stored
// of the warped frame.
#include "common/sampling.h"
#include "photometric/photometric.h"

namespace pyaction {
namespace PYACTION_SIMD_LEVEL {
namespace {

// One band of one image, and the workspace for it.
template <typename scalar_t>
struct Band {
  const PhotometricArguments<scalar_t>& a;
  int64_t image;
  int begin, end; // rows
  // [channels, patch, width] each: the warped frame and its slopes along the flow
  scalar_t *warped, *slope_x, *slope_y;
  scalar_t* moments;    // [5, width] of columns, then of the patch that a column is in
  scalar_t* patch_grad; // [channels, 4, width] of the patch that a column is in: WindowGrad
  scalar_t* row;        // [6, width + 1] of the loop that runs

  int64_t pixels() const {
    return int64_t{a.height} * a.width;
  }
  // Offset of a row in tensors of the frames' shape.
  int64_t frame_row(int64_t channel, int y) const {
    return (image * a.channels + channel) * pixels() + int64_t{y} * a.width;
  }
  const scalar_t* flow_row(int component, int y) const {
    return a.flow + (image * 2 + component) * pixels() + int64_t{y} * a.width;
  }
  // Offset of a row in warped, slope_x and slope_y.
  int64_t own_row(int64_t channel, int y) const {
    return (channel * a.patch + y - begin) * a.width;
  }
  scalar_t* grads_of(int64_t channel) const {
    return patch_grad + channel * 4 * a.width;
  }
  // The inside of a row: [margin, margin + inside_width), in rows in [margin, height - margin).
  int inside_width() const {
    return a.width - 2 * a.margin;
  }
  bool has_inside(int y) const {
    return y >= a.margin && y < a.height - a.margin;
  }
};

template <typename scalar_t>
int64_t workspace(const PhotometricArguments<scalar_t>& a) {
  return a.width * (a.channels * (3 * int64_t{a.patch} + 4) + 5) + 6 * (int64_t{a.width} + 1);
}

template <typename scalar_t>
Band<scalar_t> band_of(const PhotometricArguments<scalar_t>& a, int64_t number, scalar_t* workspace) {
  const int64_t plane = a.channels * a.patch * int64_t{a.width};
  const int begin = static_cast<int>(number % a.bands()) * a.patch;
  const int end = begin + a.patch < a.height ? begin + a.patch : a.height;
  scalar_t* moments = workspace + 3 * plane;
  scalar_t* patch_grad = moments + 5 * int64_t{a.width};
  return {a,
          number / a.bands(),
          begin,
          end,
          workspace,
          workspace + plane,
          workspace + 2 * plane,
          moments,
          patch_grad,
          patch_grad + 4 * a.channels * a.width};
}

template <bool slopes, bool border, typename scalar_t>
void warp_band(const Band<scalar_t>& band) {
  const PlaneSize size = {band.a.height, band.a.width};
  for (int y = band.begin; y < band.end; ++y) {
    const scalar_t *flow_x = band.flow_row(0, y), *flow_y = band.flow_row(1, y);
    for_each_block<scalar_t>(size.width, [&](auto zero, int x) {
      const auto taps = sample_taps<border, decltype(zero)>(flow_x, flow_y, x, y, size);
      for (int64_t c = 0; c < band.a.channels; ++c) {
        const auto s = sample(band.a.frame1 + band.frame_row(c, 0), size, taps);
        __builtin_prefetch(band.a.frame0 + band.frame_row(c, y) + x); // which comes next
        const int64_t at = band.own_row(c, y) + x;
        store(band.warped + at, s.value);
        if (slopes) {
          store(band.slope_x + at, s.slope_x);
          store(band.slope_y + at, s.slope_y);
        }
      }
    });
  }
}

template <bool slopes, typename scalar_t>
void warp_band(const Band<scalar_t>& band) {
  band.a.pad_border ? warp_band<slopes, true>(band) : warp_band<slopes, false>(band);
}

} // namespace
} // namespace PYACTION_SIMD_LEVEL
} // namespace pyaction
