#pragma once
// Bilinear warping of an image by an optical flow, and its gradients.
//
//   output(n, c, y, x) = image(n, c, y + flow(n, 1, y, x), x + flow(n, 0, y, x))
//
// image, output   [N, C, H, W]   float32 or float64, on CUDA also float16 and bfloat16; channels_last as well
// flow            [N, 2, H, W]   same dtype, in pixels, channel 0 = x (right), channel 1 = y (down)
// border          false: samples outside the image are zero; true: the nearest edge pixel is taken
#include <cstdint>

#include "common/compute.h"
#include "common/simd.h"

namespace pyaction {

template <typename scalar_t>
struct WarpArguments {
  const scalar_t* image;     // [N, C, H, W]; unused by grad_image
  const scalar_t* flow;      // [N, 2, H, W]
  const scalar_t* grad;      // [N, C, H, W] gradient of the output; unused by forward
  scalar_t* result;          // output, or gradient of the flow
  compute_t<scalar_t>* sums; // [N, C, H, W] gradient of the image, zeroed by the caller
  int64_t batch, channels;
  int height, width;
  // From one to the next in image, grad and their like: planes have pixel_stride 1, channels_last has channel_stride 1.
  int64_t channel_stride, pixel_stride;
  bool border;
};

template <typename scalar_t>
struct WarpKernels {
  // Work on rows [begin, end) of the batch * height rows of the flow.
  void (*forward)(const WarpArguments<scalar_t>&, int64_t begin, int64_t end);
  void (*grad_flow)(const WarpArguments<scalar_t>&, int64_t begin, int64_t end);
  // Works on planes [begin, end) of the batch * channels planes: a plane has one writer, so no atomics.
  void (*grad_image)(const WarpArguments<scalar_t>&, int64_t begin, int64_t end);
};

PYACTION_SIMD_TABLE(WarpKernels<float>, warp_float)
PYACTION_SIMD_TABLE(WarpKernels<double>, warp_double)

} // namespace pyaction
