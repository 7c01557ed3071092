#pragma once
// The ssim term: what a band's patches look like, and what they add to the gradients of their pixels.
#include "photometric/cpu/band.h"
#include "ssim/ssim_math.h"

namespace pyaction {
namespace PYACTION_SIMD_LEVEL {
namespace {

// Calls body(first, end) for the columns of each patch.
template <typename scalar_t, typename Body>
HOST_DEVICE void for_each_patch(const PhotometricArguments<scalar_t>& a, const Body& body) {
  for (int first = 0; first < a.width; first += a.patch) {
    body(first, first + a.patch < a.width ? first + a.patch : a.width);
  }
}

// Of a patch, from the sums of its columns over so many rows.
template <typename scalar_t>
HOST_DEVICE scalar_t mean_of(const scalar_t* columns, int first, int end, int rows) {
  scalar_t sum = 0;
  for (int x = first; x < end; ++x) {
    sum += columns[x];
  }
  return sum / static_cast<scalar_t>(rows * (end - first));
}

// Calls body(moments, first, end) for each patch of a channel. Means come first, and squares are taken about them:
// nothing cancels.
template <typename scalar_t, typename Body>
HOST_DEVICE void for_each_moments(const Band<scalar_t>& band, int64_t channel, const Body& body) {
  const auto& a = band.a;
  const int width = a.width, rows = band.end - band.begin;
  const scalar_t* frame0 = a.frame0 + band.frame_row(channel, band.begin);
  const scalar_t* warped = band.warped + band.own_row(channel, band.begin);
  scalar_t *mean0 = band.moments, *mean1 = mean0 + width, *squares0 = mean1 + width, *squares1 = squares0 + width,
           *products = squares1 + width;
  for_each_block<scalar_t>(width, [&](auto zero, int x) {
    auto sum0 = zero, sum1 = zero, value0 = zero, value1 = zero;
    for (int y = 0; y < rows; ++y) {
      load_block(frame0 + y * width + x, value0);
      load_block(warped + y * width + x, value1);
      sum0 = sum0 + value0;
      sum1 = sum1 + value1;
    }
    store(mean0 + x, sum0);
    store(mean1 + x, sum1);
  });
  for_each_patch(a, [&](int first, int end) {
    const scalar_t own0 = mean_of(mean0, first, end, rows), own1 = mean_of(mean1, first, end, rows);
    for (int x = first; x < end; ++x) {
      mean0[x] = own0;
      mean1[x] = own1;
    }
  });
  for_each_block<scalar_t>(width, [&](auto zero, int x) {
    auto square0 = zero, square1 = zero, product = zero, own0 = zero, own1 = zero, value0 = zero, value1 = zero;
    load_block(mean0 + x, own0);
    load_block(mean1 + x, own1);
    for (int y = 0; y < rows; ++y) {
      load_block(frame0 + y * width + x, value0);
      load_block(warped + y * width + x, value1);
      const auto off0 = value0 - own0, off1 = value1 - own1;
      square0 = square0 + off0 * off0;
      square1 = square1 + off1 * off1;
      product = product + off0 * off1;
    }
    store(squares0 + x, square0);
    store(squares1 + x, square1);
    store(products + x, product);
  });
  for_each_patch(a, [&](int first, int end) {
    body(WindowMoments<scalar_t>{mean0[first], mean1[first], mean_of(squares0, first, end, rows),
                                 mean_of(squares1, first, end, rows), mean_of(products, first, end, rows)},
         first, end);
  });
}

// What each patch of a channel adds to the gradients of its pixels, written to all its columns.
template <typename scalar_t>
void patch_grads(const Band<scalar_t>& band, int64_t channel) {
  const auto& a = band.a;
  scalar_t* grads = band.grads_of(channel);
  for_each_moments(band, channel, [&](const WindowMoments<scalar_t>& moments, int first, int end) {
    const scalar_t rows = static_cast<scalar_t>(band.end - band.begin);
    const scalar_t grad = -a.grad[kSsimTerm] * a.share[kSsimTerm] / (rows * static_cast<scalar_t>(end - first));
    const WindowGrad<scalar_t> g = window_grad(moments, a.c1, a.c2, grad);
    for (int x = first; x < end; ++x) {
      grads[x] = g.constant0;
      grads[a.width + x] = g.constant1;
      grads[2 * a.width + x] = g.own;
      grads[3 * a.width + x] = g.other;
    }
  });
}

} // namespace
} // namespace PYACTION_SIMD_LEVEL
} // namespace pyaction
