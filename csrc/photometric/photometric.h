#pragma once
// The losses of a flow that is learned without ground truth, and their gradients: paper 002 (Zhu et al., "Hidden
// Two-Stream Convolutional Networks for Action Recognition", 2018), equations 1 to 4.
//
//   warped(x, y) = frame1(x + u, y + v)            bilinear, see warp/warp.h
//   pixel        = mean of rho(frame0 - warped)     over the pixels inside the margin, channels and batch
//   smoothness   = mean of rho(du/dx) + rho(du/dy) + rho(dv/dx) + rho(dv/dy)       over the same pixels
//   ssim         = mean of 1 - similarity           over the patches of frame0 and warped, channels and batch
//   rho(x)       = ((scale x)^2 + epsilon^2)^alpha, with a scale and an alpha each for frames and flow
//
// Slopes of the flow are differences to the next pixel; in the last column and row they are zero. Patches lie side by
// side; those that the image cuts off count with the pixels that they have. The margin, of round(border * smaller side)
// pixels on each side, holds what cannot be seen in both frames.
//
// frame0, frame1   [N, C, H, W]   float32 or float64, on CUDA also float16 and bfloat16
// flow             [N, 2, H, W]   same dtype, in pixels
// losses           [3]            pixel, smoothness, ssim; float32 for half precision
// grad_warped      [N, C, H, W]   gradient of the warped frame, from which warp_grad_image makes that of frame1
#include <cstdint>

#include "common/compute.h"
#include "common/simd.h"

namespace pyaction {

constexpr int kLeastPatch = 2, kLargestPatch = 16;
enum PhotometricTerm { kPixelTerm, kSmoothnessTerm, kSsimTerm, kPhotometricTerms };

// Of one rho.
template <typename compute>
struct Charbonnier {
  compute alpha, scale, epsilon_squared;
};

template <typename scalar_t>
struct PhotometricArguments {
  using compute = compute_t<scalar_t>;
  const scalar_t* frame0; // [N, C, H, W]
  const scalar_t* frame1; // [N, C, H, W]
  const scalar_t* flow;   // [N, 2, H, W]
  const compute* grad;    // [3] gradients of the losses; unused by losses
  scalar_t* grad_flow;    // [N, 2, H, W]; unused by losses
  scalar_t* grad_frame0;  // [N, C, H, W], or null where it is not wanted; unused by losses
  scalar_t* grad_warped;  // [N, C, H, W], likewise
  double* sums;           // [.., 3] what each band of patches, on CUDA each block, adds; unused by grad
  int64_t batch, channels;
  int height, width;
  int patch;                        // side, in pixels
  int margin;                       // in pixels
  bool pad_border;                  // of the frame, for samples outside: as in warp/warp.h
  compute share[kPhotometricTerms]; // of one pixel, pixel, or patch in the mean
  Charbonnier<compute> frames, slopes;
  compute c1, c2;

  int bands() const { // rows of patches
    return (height + patch - 1) / patch;
  }
};

template <typename scalar_t>
struct PhotometricKernels {
  // Elements of workspace that one call needs.
  int64_t (*workspace)(const PhotometricArguments<scalar_t>&);
  // Work on bands [begin, end) of the batch * bands rows of patches.
  void (*losses)(const PhotometricArguments<scalar_t>&, int64_t begin, int64_t end, scalar_t* workspace);
  void (*grad)(const PhotometricArguments<scalar_t>&, int64_t begin, int64_t end, scalar_t* workspace);
};

PYACTION_SIMD_TABLE(PhotometricKernels<float>, photometric_float)
PYACTION_SIMD_TABLE(PhotometricKernels<double>, photometric_double)

} // namespace pyaction
