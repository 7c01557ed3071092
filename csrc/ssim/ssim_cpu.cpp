// The CPU kernels of ssim, compiled once per instruction set (common/simd.h).
//
// Both axes are weighted separately. First every column of a row of windows gets its own moments, then the columns of
// a window are joined by the law of total variance:
//
//   variance = sum_k w_k (variance_k + (mean_k - mean)^2)
//
// with every column taken relative to the one in the middle, and every pixel of a column relative to its middle pixel:
// E[x^2] - E[x]^2, which in float32 loses a small variance beside a large mean, is only taken of what is left.
#include "ssim/cpu/eights.h"
#include "ssim/cpu/overlapping.h"

namespace pyaction {
namespace PYACTION_SIMD_LEVEL {
namespace {

template <typename scalar_t>
int64_t forward_workspace(const SsimArguments<scalar_t>& a) {
  return moments_workspace(a);
}

template <typename scalar_t>
int64_t grad_workspace(const SsimArguments<scalar_t>& a) {
  return moments_workspace(a) + (a.stride < a.window ? overlapping_grad_workspace(a) : kGrads * int64_t{a.width});
}

constexpr int kWangsWindow = 11; // the usual one, compiled with its size known

template <typename scalar_t>
void forward(const SsimArguments<scalar_t>& a, int64_t begin, int64_t end, scalar_t* workspace) {
  if (a.stride == kEight && a.window == kEight) {
    forward_eights(a, begin, end);
  } else if (a.stride >= a.window) {
    forward_patches(a, begin, end, workspace);
  } else if (a.window == kWangsWindow && a.stride == 1) {
    forward_overlapping<kWangsWindow>(a, begin, end, workspace);
  } else {
    forward_overlapping<0>(a, begin, end, workspace);
  }
}

template <typename scalar_t>
void grad(const SsimArguments<scalar_t>& a, int64_t begin, int64_t end, scalar_t* workspace) {
  if (a.stride == kEight && a.window == kEight) {
    grad_eights(a, begin, end);
  } else if (a.stride >= a.window) {
    grad_patches(a, begin, end, workspace);
  } else if (a.window == kWangsWindow && a.stride == 1) {
    grad_overlapping<kWangsWindow>(a, begin, end, workspace);
  } else {
    grad_overlapping<0>(a, begin, end, workspace);
  }
}

} // namespace

extern const SsimKernels<float> ssim_float = {forward_workspace<float>, grad_workspace<float>, forward<float>,
                                              grad<float>};
extern const SsimKernels<double> ssim_double = {forward_workspace<double>, grad_workspace<double>, forward<double>,
                                                grad<double>};

} // namespace PYACTION_SIMD_LEVEL
} // namespace pyaction
