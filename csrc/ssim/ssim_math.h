#pragma once
// The maths of one window, for both devices. With the weighted means, biased variances and covariance of a window,
//
//   S = A1 A2 / (B1 B2),   A1 = 2 mean0 mean1 + c1,   B1 = mean0^2 + mean1^2 + c1,
//                          A2 = 2 covariance + c2,    B2 = variance0 + variance1 + c2
//
// (Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004, eq. 13; paper 002,
// eq. 3). A pixel x of image0, its partner y in image1 and their weight w move the moments by
//
//   d mean0 = w,   d variance0 = 2 w (x - mean0),   d covariance = w (y - mean1)
//
// so dS/dx = w (constant0 + own x + other y), with three numbers of the window; image1 likewise, by symmetry.
#include "common/host_device.h"

namespace pyaction {

template <typename scalar_t>
struct WindowMoments {
  scalar_t mean0, mean1, variance0, variance1, covariance;
};

// What a window adds to the gradients of its pixels, before their weight.
template <typename scalar_t>
struct WindowGrad {
  scalar_t constant0, constant1; // image0, image1
  scalar_t own, other;           // times the pixel itself; times its partner in the other image
};

template <typename scalar_t>
HOST_DEVICE scalar_t window_similarity(const WindowMoments<scalar_t>& m, scalar_t c1, scalar_t c2) {
  const scalar_t a1 = 2 * m.mean0 * m.mean1 + c1, a2 = 2 * m.covariance + c2;
  const scalar_t b1 = m.mean0 * m.mean0 + m.mean1 * m.mean1 + c1, b2 = m.variance0 + m.variance1 + c2;
  return a1 * a2 / (b1 * b2);
}

// `grad` is the gradient of the window's similarity.
template <typename scalar_t>
HOST_DEVICE WindowGrad<scalar_t> window_grad(const WindowMoments<scalar_t>& m, scalar_t c1, scalar_t c2,
                                             scalar_t grad) {
  const scalar_t a1 = 2 * m.mean0 * m.mean1 + c1, a2 = 2 * m.covariance + c2;
  const scalar_t b1 = m.mean0 * m.mean0 + m.mean1 * m.mean1 + c1, b2 = m.variance0 + m.variance1 + c2;
  const scalar_t inverse = 1 / (b1 * b2), twice = 2 * grad * inverse; // one division for all three
  const scalar_t by_mean = twice * a1 * a2 * (inverse * b2);          // 2 grad S / B1
  WindowGrad<scalar_t> g;
  g.own = -twice * a1 * a2 * (inverse * b1); // from the variance
  g.other = twice * a1;                      // from the covariance
  g.constant0 = twice * a2 * m.mean1 - by_mean * m.mean0 - g.own * m.mean0 - g.other * m.mean1;
  g.constant1 = twice * a2 * m.mean0 - by_mean * m.mean1 - g.own * m.mean1 - g.other * m.mean0;
  return g;
}

// The gradient of a pixel, from the weighted sums over the windows that cover it. A pixel without a window has
// gradient zero even where it is not finite. Works on numbers and on registers of them.
template <typename Lanes>
HOST_DEVICE Lanes pixel_grad(Lanes constant, Lanes own, Lanes other, Lanes pixel, Lanes partner) {
  const Lanes sum = constant + own * pixel + other * partner;
  return (own == 0) & (other == 0) ? constant : sum;
}

} // namespace pyaction
