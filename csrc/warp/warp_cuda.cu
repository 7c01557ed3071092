#include <torch/csrc/stable/library.h>

#include "common/bilinear.h"
#include "common/cuda/launch.h"
#include "warp/warp_entry.h"

namespace pyaction {
namespace {

// Where one output pixel samples the image: offsets into a plane and the weights along each axis.
template <typename scalar_t>
struct PixelTaps {
  AxisTaps<scalar_t> x, y;
  int64_t top_left, top_right, bottom_left, bottom_right;
};

// `pixel` counts over batch * height * width.
template <typename scalar_t>
__device__ PixelTaps<scalar_t> locate(const WarpArguments<scalar_t>& a, int64_t pixel) {
  const int64_t plane = int64_t{a.height} * a.width;
  const int64_t offset = pixel % plane;
  const scalar_t* flow = a.flow + pixel / plane * 2 * plane + offset;
  const scalar_t x = static_cast<scalar_t>(offset % a.width) + flow[0];
  const scalar_t y = static_cast<scalar_t>(offset / a.width) + flow[plane];
  PixelTaps<scalar_t> taps;
  taps.x = a.border ? axis_taps<true>(x, a.width) : axis_taps<false>(x, a.width);
  taps.y = a.border ? axis_taps<true>(y, a.height) : axis_taps<false>(y, a.height);
  taps.top_left = int64_t{taps.y.low} * a.width + taps.x.low;
  taps.top_right = int64_t{taps.y.low} * a.width + taps.x.high;
  taps.bottom_left = int64_t{taps.y.high} * a.width + taps.x.low;
  taps.bottom_right = int64_t{taps.y.high} * a.width + taps.x.high;
  return taps;
}

// One thread: one pixel of the flow, all channels.
template <typename scalar_t>
__global__ void warp_kernel(WarpArguments<scalar_t> a) {
  const int64_t plane = int64_t{a.height} * a.width;
  const int64_t pixel = thread_index();
  if (pixel >= a.batch * plane) {
    return;
  }
  const PixelTaps<scalar_t> t = locate(a, pixel);
  const int64_t first = pixel / plane * a.channels * plane;
  for (int64_t c = 0; c < a.channels; ++c) {
    const scalar_t* image = a.image + first + c * plane;
    const scalar_t top = t.x.low_weight * image[t.top_left] + t.x.high_weight * image[t.top_right];
    const scalar_t bottom = t.x.low_weight * image[t.bottom_left] + t.x.high_weight * image[t.bottom_right];
    a.result[first + c * plane + pixel % plane] = t.y.low_weight * top + t.y.high_weight * bottom;
  }
}

// One thread: one pixel of the flow, all channels. A gather: no atomics.
template <typename scalar_t>
__global__ void warp_grad_flow_kernel(WarpArguments<scalar_t> a) {
  const int64_t plane = int64_t{a.height} * a.width;
  const int64_t pixel = thread_index();
  if (pixel >= a.batch * plane) {
    return;
  }
  const PixelTaps<scalar_t> t = locate(a, pixel);
  const int64_t n = pixel / plane, offset = pixel % plane;
  scalar_t grad_x = 0, grad_y = 0;
  for (int64_t c = 0; c < a.channels; ++c) {
    const scalar_t* image = a.image + (n * a.channels + c) * plane;
    const scalar_t grad = a.grad[(n * a.channels + c) * plane + offset];
    const scalar_t top_left = image[t.top_left], top_right = image[t.top_right];
    const scalar_t bottom_left = image[t.bottom_left], bottom_right = image[t.bottom_right];
    const scalar_t top = t.x.low_weight * top_left + t.x.high_weight * top_right;
    const scalar_t bottom = t.x.low_weight * bottom_left + t.x.high_weight * bottom_right;
    const scalar_t top_slope = t.x.low_slope * top_left + t.x.high_slope * top_right;
    const scalar_t bottom_slope = t.x.low_slope * bottom_left + t.x.high_slope * bottom_right;
    grad_x += grad * (t.y.low_weight * top_slope + t.y.high_weight * bottom_slope);
    grad_y += grad * (t.y.low_slope * top + t.y.high_slope * bottom);
  }
  a.result[2 * n * plane + offset] = grad_x;
  a.result[(2 * n + 1) * plane + offset] = grad_y;
}

// One thread: one pixel of the flow, all channels; adds into the zeroed gradient of the image. The order of the
// additions, and so the last bits of the result, differ from run to run.
template <typename scalar_t>
__global__ void warp_grad_image_kernel(WarpArguments<scalar_t> a) {
  const int64_t plane = int64_t{a.height} * a.width;
  const int64_t pixel = thread_index();
  if (pixel >= a.batch * plane) {
    return;
  }
  const PixelTaps<scalar_t> t = locate(a, pixel);
  const int64_t first = pixel / plane * a.channels * plane;
  for (int64_t c = 0; c < a.channels; ++c) {
    const scalar_t grad = a.grad[first + c * plane + pixel % plane];
    scalar_t* result = a.result + first + c * plane;
    atomicAdd(result + t.top_left, grad * t.y.low_weight * t.x.low_weight);
    atomicAdd(result + t.top_right, grad * t.y.low_weight * t.x.high_weight);
    atomicAdd(result + t.bottom_left, grad * t.y.high_weight * t.x.low_weight);
    atomicAdd(result + t.bottom_right, grad * t.y.high_weight * t.x.high_weight);
  }
}

template <typename scalar_t>
void launch_per_pixel(void (*kernel)(WarpArguments<scalar_t>), const WarpArguments<scalar_t>& a, const Tensor& tensor) {
  launch(kernel, blocks_for(a.batch * a.height * a.width, kThreads), kThreads, current_stream(tensor), a);
}

Tensor warp_cuda(const Tensor& image, const Tensor& flow, bool border) {
  const torch::stable::accelerator::DeviceGuard guard(image.get_device_index());
  return warp_entry(FullTypes{}, image, flow, border,
                    [](const auto& a, const Tensor& tensor) { launch_per_pixel(warp_kernel, a, tensor); });
}

Tensor warp_grad_flow_cuda(const Tensor& grad, const Tensor& image, const Tensor& flow, bool border) {
  const torch::stable::accelerator::DeviceGuard guard(image.get_device_index());
  return warp_grad_flow_entry(FullTypes{}, grad, image, flow, border, [](const auto& a, const Tensor& tensor) {
    launch_per_pixel(warp_grad_flow_kernel, a, tensor);
  });
}

Tensor warp_grad_image_cuda(const Tensor& grad, const Tensor& flow, bool border) {
  const torch::stable::accelerator::DeviceGuard guard(grad.get_device_index());
  return warp_grad_image_entry(FullTypes{}, grad, flow, border, [](const auto& a, const Tensor& tensor) {
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
