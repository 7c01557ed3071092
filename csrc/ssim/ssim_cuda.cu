#include <torch/csrc/stable/library.h>

#include <type_traits>

#include "ssim/cuda/gather.cuh"
#include "ssim/cuda/patches.cuh"
#include "ssim/cuda/tiles.cuh"

namespace pyaction {
namespace {

constexpr int kWangsWindow = 11; // the usual one, compiled with its size known

// Calls body(window) with the kWindow of the tiles' kernels, as a type.
template <typename scalar_t, typename number_t, typename Body>
void with_window(const SsimArguments<scalar_t, number_t>& a, const Body& body) {
  if constexpr (std::is_same_v<number_t, float>) {
    if (a.window == kWangsWindow && a.stride == 1) {
      body(std::integral_constant<int, kWangsWindow>());
      return;
    }
  }
  body(std::integral_constant<int, 0>());
}

template <typename number_t>
dim3 tile_grid(int height, int width, int tile_width, int64_t planes) {
  const int64_t down = blocks_for(height, kTileRows<number_t>), across = blocks_for(width, tile_width);
  return plane_grid(blocks_for(down * across, 1), planes);
}

template <bool kGrad, typename scalar_t, typename number_t>
void launch_tiles(const SsimArguments<scalar_t, number_t>& a, const WindowGradPlanes<number_t>& planes,
                  cudaStream_t stream) {
  with_window(a, [&](auto window) {
    constexpr int kWindow = decltype(window)::value;
    const dim3 grid = tile_grid<number_t>(a.map_height, a.map_width, tile_width<kWindow>(a.window, a.stride), a.planes);
    launch(ssim_tile_kernel<scalar_t, kWindow, kGrad>, grid, kTileColumns, stream, a, planes);
  });
}

template <bool kBoth, typename scalar_t, typename number_t>
void launch_gather(const SsimArguments<scalar_t, number_t>& a, const WindowGradPlanes<number_t>& planes,
                   cudaStream_t stream) {
  with_window(a, [&](auto window) {
    constexpr int kWindow = decltype(window)::value;
    const dim3 grid = tile_grid<number_t>(a.height, a.width, tile_width<kWindow>(a.window, 1), a.planes);
    launch(ssim_gather_kernel<scalar_t, kWindow, kBoth>, grid, kTileColumns, stream, a, planes);
  });
}

template <typename scalar_t, typename number_t>
void launch_forward(const SsimArguments<scalar_t, number_t>& a, const Tensor& tensor) {
  const cudaStream_t stream = current_stream(tensor);
  if (a.stride >= a.window) {
    launch_patches<false>(a, stream);
  } else {
    launch_tiles<false>(a, WindowGradPlanes<number_t>{}, stream);
  }
}

// Bytes per pixel in float32, one gradient, windows one pixel apart: the first kernel reads the images (8) and writes
// three numbers per window (12), the second reads those and the images (20) and writes the gradient (4). To recompute
// the moments within one kernel would leave 12 of these 44, but every tile would have to compute them for a margin of
// `window - 1` on each side: for tiles of 32 x 32 and a window of 11 twice the arithmetic, which is what limits.
template <typename scalar_t, typename number_t>
void launch_overlapping_grad(SsimArguments<scalar_t, number_t> a, const Tensor& tensor, cudaStream_t stream) {
  const bool both = a.grad0 != nullptr && a.grad1 != nullptr;
  WindowGradPlanes<number_t> planes = {};
  planes.pitch = (a.map_width + 3) / 4 * 4;
  const int64_t size = a.planes * a.map_height * planes.pitch;
  const Tensor scratch = torch::stable::new_empty(tensor, {(both ? 4 : 3) * size},
                                                  torch::headeronly::CppTypeToScalarType<number_t>::value);
  planes.own = scratch.mutable_data_ptr<number_t>();
  planes.other = planes.own + size;
  planes.constant0 = a.grad0 != nullptr ? planes.other + size : nullptr;
  planes.constant1 = a.grad1 != nullptr ? planes.other + (both ? 2 : 1) * size : nullptr;
  launch_tiles<true>(a, planes, stream);
  if (both) {
    launch_gather<true>(a, planes, stream);
    return;
  }
  if (a.grad0 == nullptr) { // to the gather, the image that needs it is image0
    std::swap(a.image0, a.image1);
    std::swap(a.grad0, a.grad1);
    std::swap(planes.constant0, planes.constant1);
  }
  launch_gather<false>(a, planes, stream);
}

template <typename scalar_t, typename number_t>
void launch_grad(const SsimArguments<scalar_t, number_t>& a, const Tensor& tensor) {
  const cudaStream_t stream = current_stream(tensor);
  if (a.stride >= a.window) {
    launch_patches<true>(a, stream);
  } else {
    launch_overlapping_grad(a, tensor, stream);
  }
}

Tensor ssim_cuda(const Tensor& image0, const Tensor& image1, int64_t window, int64_t stride, bool gaussian, double c1,
                 double c2) {
  const torch::stable::accelerator::DeviceGuard guard(image0.get_device_index());
  const SsimOptions options = {window, stride, gaussian, c1, c2};
  return ssim_entry(HalfTypes{}, image0, image1, options,
                    [](const auto& a, const Tensor& tensor) { launch_forward(a, tensor); });
}

std::tuple<Tensor, Tensor> ssim_grad_cuda(const Tensor& grad, const Tensor& image0, const Tensor& image1,
                                          int64_t window, int64_t stride, bool gaussian, double c1, double c2,
                                          bool need0, bool need1) {
  const torch::stable::accelerator::DeviceGuard guard(image0.get_device_index());
  const SsimOptions options = {window, stride, gaussian, c1, c2};
  return ssim_grad_entry(HalfTypes{}, grad, image0, image1, options, need0, need1,
                         [](const auto& a, const Tensor& tensor) { launch_grad(a, tensor); });
}

} // namespace

STABLE_TORCH_LIBRARY_IMPL(pyaction, CUDA, m) {
  m.impl("ssim", TORCH_BOX(&ssim_cuda));
  m.impl("ssim_grad", TORCH_BOX(&ssim_grad_cuda));
}

} // namespace pyaction
