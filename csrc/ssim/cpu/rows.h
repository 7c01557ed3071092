#pragma once
// What the CPU kernels of ssim share: registers, and the steps that do not depend on whether windows overlap.
#include "common/blocks.h"
#include "ssim/ssim.h"
#include "ssim/ssim_math.h"

namespace pyaction {
namespace PYACTION_SIMD_LEVEL {
namespace {

constexpr int kMoments = 5; // rows of WindowMoments
constexpr int kGrads = 4;   // rows of WindowGrad, in the order of its members

// A register of neighbours. Loops over small arrays would say the same, but gcc 12 keeps such sums in memory or
// vectorises along the window: with AVX-512 the gaussian forward took twice as long, its gradient four times.
template <typename scalar_t, int kBytes = kVectorBytes>
struct Register {
  typedef scalar_t type __attribute__((vector_size(kBytes)));
};

template <typename scalar_t>
using RegisterOf = typename Register<scalar_t>::type;

template <typename Lanes, typename scalar_t>
HOST_DEVICE Lanes load(const scalar_t* from) {
  Lanes lanes;
  __builtin_memcpy(&lanes, from, sizeof(Lanes));
  return lanes;
}

template <typename Lanes, typename scalar_t>
HOST_DEVICE void store(scalar_t* to, const Lanes& lanes) {
  __builtin_memcpy(to, &lanes, sizeof(Lanes));
}

// The moments of each column of a row of windows, down the rows that begin at image0 and image1. kWindow 0: a.window.
template <int kWindow = 0, typename scalar_t>
void column_moments(const SsimArguments<scalar_t>& a, const scalar_t* image0, const scalar_t* image1,
                    scalar_t* columns) { // [kMoments, width]
  const int window = kWindow == 0 ? a.window : kWindow;
  const int64_t width = a.width;
  for_each_block<scalar_t, RegisterOf<scalar_t>>(a.width, [&](auto zero, int first) {
    using Lanes = decltype(zero);
    // All is taken relative to the pixel in the middle of the column.
    const scalar_t *start0 = image0 + first, *start1 = image1 + first;
    const Lanes middle0 = load<Lanes>(start0 + window / 2 * width), middle1 = load<Lanes>(start1 + window / 2 * width);
    Lanes mean0 = zero, mean1 = zero, square0 = zero, square1 = zero, product = zero;
    for (int k = 0; k < window; ++k) {
      const Lanes off0 = load<Lanes>(start0 + k * width) - middle0, off1 = load<Lanes>(start1 + k * width) - middle1;
      const Lanes weighted0 = a.weights[k] * off0, weighted1 = a.weights[k] * off1;
      mean0 += weighted0;
      mean1 += weighted1;
      square0 += weighted0 * off0;
      square1 += weighted1 * off1;
      product += weighted0 * off1;
    }
    store(columns + first, middle0 + mean0);
    store(columns + width + first, middle1 + mean1);
    store(columns + 2 * width + first, square0 - mean0 * mean0);
    store(columns + 3 * width + first, square1 - mean1 * mean1);
    store(columns + 4 * width + first, product - mean0 * mean1);
  });
}

template <typename scalar_t>
HOST_DEVICE WindowMoments<scalar_t> moments_at(const scalar_t* windows, int64_t map_width, int64_t i) {
  return {windows[i], windows[map_width + i], windows[2 * map_width + i], windows[3 * map_width + i],
          windows[4 * map_width + i]};
}

template <typename scalar_t>
HOST_DEVICE int64_t moments_workspace(const SsimArguments<scalar_t>& a) {
  return kMoments * (int64_t{a.width} + a.map_width);
}

// One row of the map, from the moments of its windows.
template <typename scalar_t>
void similarities(const SsimArguments<scalar_t>& a, const scalar_t* windows, scalar_t* map) { // [kMoments, map_width]
#pragma GCC ivdep
  for (int i = 0; i < a.map_width; ++i) {
    map[i] = window_similarity(moments_at(windows, a.map_width, i), a.c1, a.c2);
  }
}

// The gradients of a row of windows, from their moments, in rows that begin `pitch` apart. They may take the moments'
// place. `grad`: of the similarities.
template <typename scalar_t>
void window_grads(const SsimArguments<scalar_t>& a, const scalar_t* grad,
                  const scalar_t* windows,          // [kMoments, map_width]
                  scalar_t* grads, int64_t pitch) { // [kGrads, pitch]
  const int64_t map_width = a.map_width;
#pragma GCC ivdep
  for (int64_t i = 0; i < map_width; ++i) {
    const WindowGrad<scalar_t> g = window_grad(moments_at(windows, map_width, i), a.c1, a.c2, grad[i]);
    grads[i] = g.constant0;
    grads[pitch + i] = g.constant1;
    grads[2 * pitch + i] = g.own;
    grads[3 * pitch + i] = g.other;
  }
}

} // namespace
} // namespace PYACTION_SIMD_LEVEL
} // namespace pyaction
