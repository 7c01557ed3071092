#pragma once
// Windows that do not overlap: a pixel belongs to one window, or to none.
#include "ssim/cpu/rows.h"

namespace pyaction {
namespace PYACTION_SIMD_LEVEL {
namespace {

// The moments of the windows of a row, one after the other, from those of their columns.
template <typename scalar_t>
void join_patches(const SsimArguments<scalar_t>& a, const scalar_t* columns, // [kMoments, width]
                  scalar_t* windows) {                                       // [kMoments, map_width]
  const int64_t width = a.width, map_width = a.map_width;
  for (int64_t i = 0; i < map_width; ++i) {
    const scalar_t* first = columns + i * a.stride;
    scalar_t mean0 = 0, mean1 = 0, variance0 = 0, variance1 = 0, covariance = 0;
    for (int k = 0; k < a.window; ++k) {
      mean0 += a.weights[k] * first[k];
      mean1 += a.weights[k] * first[width + k];
    }
    for (int k = 0; k < a.window; ++k) {
      const scalar_t off0 = first[k] - mean0, off1 = first[width + k] - mean1;
      variance0 += a.weights[k] * (first[2 * width + k] + off0 * off0);
      variance1 += a.weights[k] * (first[3 * width + k] + off1 * off1);
      covariance += a.weights[k] * (first[4 * width + k] + off0 * off1);
    }
    windows[i] = mean0;
    windows[map_width + i] = mean1;
    windows[2 * map_width + i] = variance0;
    windows[3 * map_width + i] = variance1;
    windows[4 * map_width + i] = covariance;
  }
}

// Where row `row` of all planes' rows of windows begins in the images.
template <typename scalar_t>
HOST_DEVICE int64_t patch_top(const SsimArguments<scalar_t>& a, int64_t row) {
  return (row / a.map_height * a.height + row % a.map_height * a.stride) * a.width;
}

template <typename scalar_t>
void forward_patches(const SsimArguments<scalar_t>& a, int64_t begin, int64_t end, scalar_t* workspace) {
  scalar_t* windows = workspace + kMoments * int64_t{a.width};
  for (int64_t row = begin; row < end; ++row) {
    const int64_t top = patch_top(a, row);
    column_moments(a, a.image0 + top, a.image1 + top, workspace);
    join_patches(a, workspace, windows);
    similarities(a, windows, a.map + row * a.map_width);
  }
}

// One number per window times the weights of its columns. Leaves columns without a window as they are.
template <typename scalar_t>
void spread_patches(const SsimArguments<scalar_t>& a, const scalar_t* windows, scalar_t* spread) { // [width]
  for (int64_t i = 0; i < a.map_width; ++i) {
    for (int k = 0; k < a.window; ++k) {
      spread[i * a.stride + k] = a.weights[k] * windows[i];
    }
  }
}

// The gradient of one image in a row of windows. constant, own, other: WindowGrad per column.
template <typename scalar_t>
void patch_grads(const SsimArguments<scalar_t>& a, const scalar_t* constant, const scalar_t* own, const scalar_t* other,
                 const scalar_t* image, const scalar_t* partner, scalar_t* grad) { // the rows that begin there
  for_each_block<scalar_t, RegisterOf<scalar_t>>(a.width, [&](auto zero, int first) {
    using Lanes = decltype(zero);
    const Lanes c = load<Lanes>(constant + first), x = load<Lanes>(own + first), y = load<Lanes>(other + first);
    for (int k = 0; k < a.window; ++k) {
      const int64_t offset = int64_t{k} * a.width + first;
      const scalar_t weight = a.weights[k];
      store(grad + offset, pixel_grad<Lanes>(weight * c, weight * x, weight * y, load<Lanes>(image + offset),
                                             load<Lanes>(partner + offset)));
    }
  });
}

// Zeros below the windows of a row, down to the next row's or to the end of the plane.
template <typename scalar_t>
HOST_DEVICE void clear_below(const SsimArguments<scalar_t>& a, int64_t row, scalar_t* grad) {
  const int64_t top = row % a.map_height * a.stride;
  const int64_t bottom = row % a.map_height + 1 < a.map_height ? top + a.stride : a.height;
  for (int64_t i = a.window * int64_t{a.width}; i < (bottom - top) * a.width; ++i) {
    grad[i] = 0;
  }
}

template <typename scalar_t>
void grad_patches(const SsimArguments<scalar_t>& a, int64_t begin, int64_t end, scalar_t* workspace) {
  const int64_t width = a.width;
  scalar_t* windows = workspace + kMoments * width;
  scalar_t* spread = windows + kMoments * int64_t{a.map_width}; // [kGrads, width]
  for (int64_t i = 0; i < kGrads * width; ++i) {
    spread[i] = 0;
  }
  for (int64_t row = begin; row < end; ++row) {
    const int64_t top = patch_top(a, row);
    column_moments(a, a.image0 + top, a.image1 + top, workspace);
    join_patches(a, workspace, windows);
    window_grads(a, a.grad + row * a.map_width, windows, windows, a.map_width);
    for (int g = 0; g < kGrads; ++g) {
      spread_patches(a, windows + g * int64_t{a.map_width}, spread + g * width);
    }
    if (a.grad0 != nullptr) {
      patch_grads(a, spread, spread + 2 * width, spread + 3 * width, a.image0 + top, a.image1 + top, a.grad0 + top);
      clear_below(a, row, a.grad0 + top);
    }
    if (a.grad1 != nullptr) {
      patch_grads(a, spread + width, spread + 2 * width, spread + 3 * width, a.image1 + top, a.image0 + top,
                  a.grad1 + top);
      clear_below(a, row, a.grad1 + top);
    }
  }
}

} // namespace
} // namespace PYACTION_SIMD_LEVEL
} // namespace pyaction
