#include <torch/csrc/stable/library.h>

#include "common/cuda/launch.h"
#include "ssim/ssim_entry.h"
#include "ssim/ssim_math.h"

namespace pyaction {
namespace {

// The moments of the window at map(row, column) of a plane. One pass, with every pixel taken relative to the one in the
// middle: E[x^2] - E[x]^2 would lose a small variance beside a large mean.
template <typename scalar_t>
__device__ WindowMoments<scalar_t> window_moments(const SsimArguments<scalar_t>& a, int64_t plane, int row,
                                                  int column) {
  const int64_t top_left = plane * a.height * a.width + int64_t{row} * a.stride * a.width + int64_t{column} * a.stride;
  const scalar_t* image0 = a.image0 + top_left;
  const scalar_t* image1 = a.image1 + top_left;
  const int64_t middle = int64_t{a.window / 2} * a.width + a.window / 2;
  const scalar_t middle0 = image0[middle], middle1 = image1[middle];
  scalar_t mean0 = 0, mean1 = 0, square0 = 0, square1 = 0, product = 0;
  for (int y = 0; y < a.window; ++y) {
    // Rows are summed on their own first: short sums round less.
    scalar_t row_mean0 = 0, row_mean1 = 0, row_square0 = 0, row_square1 = 0, row_product = 0;
    for (int x = 0; x < a.window; ++x) {
      const scalar_t off0 = image0[y * a.width + x] - middle0, off1 = image1[y * a.width + x] - middle1;
      const scalar_t weighted0 = a.weights[x] * off0, weighted1 = a.weights[x] * off1;
      row_mean0 += weighted0;
      row_mean1 += weighted1;
      row_square0 += weighted0 * off0;
      row_square1 += weighted1 * off1;
      row_product += weighted0 * off1;
    }
    mean0 += a.weights[y] * row_mean0;
    mean1 += a.weights[y] * row_mean1;
    square0 += a.weights[y] * row_square0;
    square1 += a.weights[y] * row_square1;
    product += a.weights[y] * row_product;
  }
  return {middle0 + mean0, middle1 + mean1, square0 - mean0 * mean0, square1 - mean1 * mean1, product - mean0 * mean1};
}

// One thread: one window. Counts over planes * map_height * map_width.
template <typename scalar_t>
__global__ void ssim_kernel(SsimArguments<scalar_t> a) {
  const int64_t map_plane = int64_t{a.map_height} * a.map_width;
  const int64_t i = thread_index();
  if (i >= a.planes * map_plane) {
    return;
  }
  const int in_plane = static_cast<int>(i % map_plane);
  const WindowMoments<scalar_t> moments =
      window_moments(a, i / map_plane, in_plane / a.map_width, in_plane % a.map_width);
  a.map[i] = window_similarity(moments, a.c1, a.c2);
}

// One thread: one window. Writes what the window adds to the gradients of its pixels.
template <typename scalar_t>
__global__ void ssim_window_grad_kernel(SsimArguments<scalar_t> a,
                                        WindowGrad<scalar_t>* window_grads) { // [planes, map_height, map_width]
  const int64_t map_plane = int64_t{a.map_height} * a.map_width;
  const int64_t i = thread_index();
  if (i >= a.planes * map_plane) {
    return;
  }
  const int in_plane = static_cast<int>(i % map_plane);
  const WindowMoments<scalar_t> moments =
      window_moments(a, i / map_plane, in_plane / a.map_width, in_plane % a.map_width);
  window_grads[i] = window_grad(moments, a.c1, a.c2, a.grad[i]);
}

// One thread: one pixel of both images. Gathers from the windows that cover it, always in the same order: no atomics.
template <typename scalar_t>
__global__ void ssim_pixel_grad_kernel(SsimArguments<scalar_t> a,
                                       const WindowGrad<scalar_t>* window_grads) { // [planes, map_height, map_width]
  const int64_t plane_size = int64_t{a.height} * a.width;
  const int64_t pixel = thread_index();
  if (pixel >= a.planes * plane_size) {
    return;
  }
  const int in_plane = static_cast<int>(pixel % plane_size);
  const int y = in_plane / a.width, x = in_plane % a.width;
  const WindowGrad<scalar_t>* windows = window_grads + pixel / plane_size * a.map_height * a.map_width;
  // The last window that begins at or before the pixel; `row` and `column` turn negative after the first.
  const int last_row = min(y / a.stride, a.map_height - 1), last_column = min(x / a.stride, a.map_width - 1);
  WindowGrad<scalar_t> sum = {0, 0, 0, 0};
  for (int row = last_row; row >= 0 && y - row * a.stride < a.window; --row) {
    for (int column = last_column; column >= 0 && x - column * a.stride < a.window; --column) {
      const scalar_t weight = a.weights[y - row * a.stride] * a.weights[x - column * a.stride];
      const WindowGrad<scalar_t> g = windows[row * a.map_width + column];
      sum.constant0 += weight * g.constant0;
      sum.constant1 += weight * g.constant1;
      sum.own += weight * g.own;
      sum.other += weight * g.other;
    }
  }
  const scalar_t pixel0 = a.image0[pixel], pixel1 = a.image1[pixel];
  a.grad0[pixel] = pixel_grad(sum.constant0, sum.own, sum.other, pixel0, pixel1);
  a.grad1[pixel] = pixel_grad(sum.constant1, sum.own, sum.other, pixel1, pixel0);
}

template <typename scalar_t>
void launch_forward(const SsimArguments<scalar_t>& a, const Tensor& tensor) {
  const int64_t windows = a.planes * a.map_height * a.map_width;
  launch(ssim_kernel<scalar_t>, blocks_for(windows, kThreads), kThreads, current_stream(tensor), a);
}

template <typename scalar_t>
void launch_grad(const SsimArguments<scalar_t>& a, const Tensor& tensor) {
  const int64_t windows = a.planes * a.map_height * a.map_width;
  const int64_t pixels = a.planes * a.height * a.width;
  const Tensor scratch = torch::stable::new_empty(tensor, {windows, 4});
  auto* window_grads = reinterpret_cast<WindowGrad<scalar_t>*>(scratch.mutable_data_ptr<scalar_t>());
  const cudaStream_t stream = current_stream(tensor);
  launch(ssim_window_grad_kernel<scalar_t>, blocks_for(windows, kThreads), kThreads, stream, a, window_grads);
  launch(ssim_pixel_grad_kernel<scalar_t>, blocks_for(pixels, kThreads), kThreads, stream, a,
         static_cast<const WindowGrad<scalar_t>*>(window_grads));
}

Tensor ssim_cuda(const Tensor& image0, const Tensor& image1, int64_t window, int64_t stride, bool gaussian, double c1,
                 double c2) {
  const torch::stable::accelerator::DeviceGuard guard(image0.get_device_index());
  const SsimOptions options = {window, stride, gaussian, c1, c2};
  return ssim_entry(FullTypes{}, image0, image1, options,
                    [](const auto& a, const Tensor& tensor) { launch_forward(a, tensor); });
}

std::tuple<Tensor, Tensor> ssim_grad_cuda(const Tensor& grad, const Tensor& image0, const Tensor& image1,
                                          int64_t window, int64_t stride, bool gaussian, double c1, double c2) {
  const torch::stable::accelerator::DeviceGuard guard(image0.get_device_index());
  const SsimOptions options = {window, stride, gaussian, c1, c2};
  return ssim_grad_entry(FullTypes{}, grad, image0, image1, options,
                         [](const auto& a, const Tensor& tensor) { launch_grad(a, tensor); });
}

} // namespace

STABLE_TORCH_LIBRARY_IMPL(pyaction, CUDA, m) {
  m.impl("ssim", TORCH_BOX(&ssim_cuda));
  m.impl("ssim_grad", TORCH_BOX(&ssim_grad_cuda));
}

} // namespace pyaction
