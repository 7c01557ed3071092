#include <torch/csrc/stable/library.h>

#include <algorithm>

#include "common/cuda/launch.h"
#include "common/cuda/sampling.cuh"
#include "warp/warp_entry.h"

namespace pyaction {
namespace {

template <typename scalar_t>
using TapsOf = PixelTaps<compute_t<scalar_t>, int64_t>;

// Calls body(n, pixel, taps) once for each pixel of the flow, one a thread: neighbouring threads have neighbouring
// pixels. Blocks along y: images.
template <typename scalar_t, typename Body>
__device__ void for_each_pixel(const WarpArguments<scalar_t>& a, const Body& body) {
  const int64_t number = thread_index();
  const int pixels = a.height * a.width;
  if (number < pixels) {
    const int pixel = static_cast<int>(number), row = pixel / a.width, column = pixel - row * a.width;
    for (int64_t n = blockIdx.y; n < a.batch; n += gridDim.y) {
      const scalar_t* flow = a.flow + n * 2 * pixels + pixel;
      body(n, pixel, locate(flow, row, column, a.height, a.width, a.border, a.pixel_stride));
    }
  }
}

// The offset of a pixel of channel 0 of image n.
template <typename scalar_t>
__device__ int64_t offset_of(const WarpArguments<scalar_t>& a, int64_t n, int pixel) {
  return n * a.channels * a.height * a.width + pixel * a.pixel_stride;
}

template <typename scalar_t>
__global__ void warp_kernel(WarpArguments<scalar_t> a) {
  for_each_pixel(a, [&](int64_t n, int pixel, const TapsOf<scalar_t>& t) {
    const scalar_t* image = a.image + offset_of(a, n, 0);
    scalar_t* result = a.result + offset_of(a, n, pixel);
    for (int64_t c = 0; c < a.channels; ++c, image += a.channel_stride, result += a.channel_stride) {
      *result = static_cast<scalar_t>(sample(image, t).value);
    }
  });
}

// A gather: no atomics.
template <typename scalar_t>
__global__ void warp_grad_flow_kernel(WarpArguments<scalar_t> a) {
  using compute = compute_t<scalar_t>;
  for_each_pixel(a, [&](int64_t n, int pixel, const TapsOf<scalar_t>& t) {
    const scalar_t* image = a.image + offset_of(a, n, 0);
    const scalar_t* grad = a.grad + offset_of(a, n, pixel);
    compute grad_x = 0, grad_y = 0;
    for (int64_t c = 0; c < a.channels; ++c, image += a.channel_stride, grad += a.channel_stride) {
      const Sample<compute> s = sample(image, t);
      grad_x += static_cast<compute>(*grad) * s.slope_x;
      grad_y += static_cast<compute>(*grad) * s.slope_y;
    }
    scalar_t* result = a.result + n * 2 * a.height * a.width + pixel;
    result[0] = static_cast<scalar_t>(grad_x);
    result[a.height * a.width] = static_cast<scalar_t>(grad_y);
  });
}

// Adds into the zeroed gradient of the image. The order of the additions, and so the last bits of the result, differ
// from run to run.
template <typename scalar_t>
__global__ void warp_grad_image_kernel(WarpArguments<scalar_t> a) {
  using compute = compute_t<scalar_t>;
  for_each_pixel(a, [&](int64_t n, int pixel, const TapsOf<scalar_t>& t) {
    compute* sums = a.sums + offset_of(a, n, 0);
    const scalar_t* grad = a.grad + offset_of(a, n, pixel);
    for (int64_t c = 0; c < a.channels; ++c, sums += a.channel_stride, grad += a.channel_stride) {
      const compute upper = t.y.weight[0] * static_cast<compute>(*grad);
      const compute lower = t.y.weight[1] * static_cast<compute>(*grad);
      atomicAdd(sums + t.upper, upper * t.x.weight[0]);
      atomicAdd(sums + t.upper + t.right, upper * t.x.weight[1]);
      atomicAdd(sums + t.lower, lower * t.x.weight[0]);
      atomicAdd(sums + t.lower + t.right, lower * t.x.weight[1]);
    }
  });
}

template <typename scalar_t>
void launch_per_pixel(void (*kernel)(WarpArguments<scalar_t>), const WarpArguments<scalar_t>& a, const Tensor& tensor) {
  const dim3 grid(blocks_for(int64_t{a.height} * a.width, kThreads), std::min(a.batch, kMostBlocksY));
  launch(kernel, grid, kThreads, current_stream(tensor), a);
}

Tensor warp_cuda(const Tensor& image, const Tensor& flow, bool border) {
  const torch::stable::accelerator::DeviceGuard guard(image.get_device_index());
  return warp_entry(HalfTypes{}, image, flow, border,
                    [](const auto& a, const Tensor& tensor) { launch_per_pixel(warp_kernel, a, tensor); });
}

Tensor warp_grad_flow_cuda(const Tensor& grad, const Tensor& image, const Tensor& flow, bool border) {
  const torch::stable::accelerator::DeviceGuard guard(image.get_device_index());
  return warp_grad_flow_entry(HalfTypes{}, grad, image, flow, border, [](const auto& a, const Tensor& tensor) {
    launch_per_pixel(warp_grad_flow_kernel, a, tensor);
  });
}

Tensor warp_grad_image_cuda(const Tensor& grad, const Tensor& flow, bool border) {
  const torch::stable::accelerator::DeviceGuard guard(grad.get_device_index());
  return warp_grad_image_entry(HalfTypes{}, grad, flow, border, [](const auto& a, const Tensor& tensor) {
    launch_per_pixel(warp_grad_image_kernel, a, tensor);
  });
}

} // namespace

STABLE_TORCH_LIBRARY_IMPL(pyaction, CUDA, m) {
  m.impl("warp", TORCH_BOX(&warp_cuda));
  m.impl("warp_grad_flow", TORCH_BOX(&warp_grad_flow_cuda));
  m.impl("warp_grad_image", TORCH_BOX(&warp_grad_image_cuda));
}

} // namespace pyaction
