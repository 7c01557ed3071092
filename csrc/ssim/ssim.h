#pragma once
// Structural similarity of two images, window by window, and its gradients.
//
//   map(n, c, j, i) = similarity of the windows whose top left pixels are (j * stride, i * stride)
//
// image0, image1   [N, C, H, W]   float32 or float64; on CUDA also float16 or bfloat16, computed in float32
// map              [N, C, h, w]   same dtype; h = (H - window) / stride + 1, w likewise: whole windows only
// grad0, grad1     [N, C, H, W]   same dtype; one that is not needed is an empty tensor
// gaussian         false: the pixels of a window weigh alike; true: by a gaussian about the window's centre
// The formulas: ssim_math.h.
#include <cstdint>

#include "common/host_device.h"
#include "common/simd.h"

namespace pyaction {

constexpr int kMaxSsimWindow = 64; // the weights travel in the arguments, which CUDA limits to 4 KB

// scalar_t: in memory; number_t: what is computed in.
template <typename scalar_t, typename number_t = scalar_t>
struct SsimArguments {
  const scalar_t* image0; // [N, C, H, W]
  const scalar_t* image1; // [N, C, H, W]
  const scalar_t* grad;   // [N, C, h, w] gradient of the map; unused by forward
  scalar_t* map;          // [N, C, h, w]; unused by grad
  scalar_t* grad0;        // [N, C, H, W] gradient of image0, or null; unused by forward
  scalar_t* grad1;        // [N, C, H, W] gradient of image1, or null, but not both
  int64_t planes;         // N * C
  int height, width, map_height, map_width;
  int window, stride;
  number_t c1, c2;
  number_t weights[kMaxSsimWindow]; // along one axis, sum 1: pixel (y, x) of a window weighs weights[y] * weights[x]
};

// At most so many windows of one axis cover a pixel.
HOST_DEVICE int ssim_overlap(int window, int stride) {
  return (window - 1) / stride + 1;
}

template <typename scalar_t>
struct SsimKernels {
  // Elements of workspace that one call of forward or grad needs.
  int64_t (*forward_workspace)(const SsimArguments<scalar_t>&);
  int64_t (*grad_workspace)(const SsimArguments<scalar_t>&);
  // Works on rows [begin, end) of the planes * map_height rows of the map.
  void (*forward)(const SsimArguments<scalar_t>&, int64_t begin, int64_t end, scalar_t* workspace);
  // Works on rows [begin, end) of ssim_grad_rows() rows. Every pixel is written once.
  void (*grad)(const SsimArguments<scalar_t>&, int64_t begin, int64_t end, scalar_t* workspace);
};

// Rows of pixels; where windows do not overlap, rows of windows, each with the pixels down to the next.
template <typename scalar_t>
HOST_DEVICE int64_t ssim_grad_rows(const SsimArguments<scalar_t>& a) {
  return a.planes * (a.stride < a.window ? a.height : a.map_height);
}

PYACTION_SIMD_TABLE(SsimKernels<float>, ssim_float)
PYACTION_SIMD_TABLE(SsimKernels<double>, ssim_double)

} // namespace pyaction
