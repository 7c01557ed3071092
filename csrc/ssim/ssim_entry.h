#pragma once
// The part of ssim's entries that does not depend on the device: checks, layout, allocation, weights, dtype. `run`
// gets the arguments of the kernels and a tensor on their device.
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "common/checks.h"
#include "common/dispatch.h"
#include "ssim/ssim.h"

namespace pyaction {

constexpr double kSsimSigma = 1.5; // of the gaussian, in pixels (Wang et al. 2004)

struct SsimOptions {
  int64_t window, stride;
  bool gaussian;
  double c1, c2;
};

inline int64_t ssim_map_size(int64_t size, const SsimOptions& options) {
  return (size - options.window) / options.stride + 1;
}

inline void check_ssim(const char* op, const Tensor& image0, const Tensor& image1, const SsimOptions& options) {
  check_rank(op, "image0", image0, 4);
  check_same_shape(op, "image1", image1, image0);
  const int64_t height = image0.size(2), width = image0.size(3);
  check_plane(op, height, width);
  STD_TORCH_CHECK(options.window >= 1 && options.window <= kMaxSsimWindow, op, ": window must be 1 to ", kMaxSsimWindow,
                  "; got ", options.window);
  STD_TORCH_CHECK(options.stride >= 1, op, ": stride must be at least 1; got ", options.stride);
  STD_TORCH_CHECK(height >= options.window && width >= options.window, op, ": images of ", height, " x ", width,
                  " are smaller than the window of ", options.window, " x ", options.window);
}

// What the kernels of a dtype take.
template <typename scalar_t>
using SsimArgumentsOf = SsimArguments<scalar_t, compute_t<scalar_t>>;

template <typename scalar_t, typename number_t>
void set_ssim_weights(SsimArguments<scalar_t, number_t>& arguments, bool gaussian) {
  double weights[kMaxSsimWindow];
  double sum = 0;
  for (int i = 0; i < arguments.window; ++i) {
    const double distance = (i - (arguments.window - 1) / 2.0) / kSsimSigma;
    weights[i] = gaussian ? std::exp(-distance * distance / 2) : 1;
    sum += weights[i];
  }
  for (int i = 0; i < kMaxSsimWindow; ++i) {
    arguments.weights[i] = i < arguments.window ? static_cast<number_t>(weights[i] / sum) : number_t(0);
  }
}

// What forward and grad share; their own pointers stay null.
template <typename scalar_t>
SsimArgumentsOf<scalar_t> ssim_arguments(const Tensor& image0, const Tensor& image1, const SsimOptions& options) {
  SsimArgumentsOf<scalar_t> arguments = {};
  arguments.image0 = image0.const_data_ptr<scalar_t>();
  arguments.image1 = image1.const_data_ptr<scalar_t>();
  arguments.planes = image0.size(0) * image0.size(1);
  arguments.height = static_cast<int>(image0.size(2));
  arguments.width = static_cast<int>(image0.size(3));
  arguments.map_height = static_cast<int>(ssim_map_size(image0.size(2), options));
  arguments.map_width = static_cast<int>(ssim_map_size(image0.size(3), options));
  arguments.window = static_cast<int>(options.window);
  // Every stride beyond the largest image (check_plane) leaves one window.
  arguments.stride = static_cast<int>(std::min(options.stride, int64_t{1} << 24));
  arguments.c1 = static_cast<compute_t<scalar_t>>(options.c1);
  arguments.c2 = static_cast<compute_t<scalar_t>>(options.c2);
  set_ssim_weights(arguments, options.gaussian);
  return arguments;
}

template <typename Dtypes, typename Run>
Tensor ssim_entry(Dtypes dtypes, const Tensor& any_image0, const Tensor& any_image1, const SsimOptions& options,
                  Run&& run) {
  check_ssim("ssim", any_image0, any_image1, options);
  const Tensor image0 = torch::stable::contiguous(any_image0);
  const Tensor image1 = torch::stable::contiguous(any_image1);
  const Tensor map = torch::stable::new_empty(
      image0,
      {image0.size(0), image0.size(1), ssim_map_size(image0.size(2), options), ssim_map_size(image0.size(3), options)});
  if (map.numel() == 0) {
    return map;
  }
  dispatch(dtypes, image0.scalar_type(), "ssim", [&](auto zero) {
    using scalar_t = decltype(zero);
    auto arguments = ssim_arguments<scalar_t>(image0, image1, options);
    arguments.map = map.mutable_data_ptr<scalar_t>();
    run(arguments, image0);
  });
  return map;
}

template <typename Dtypes, typename Run>
std::tuple<Tensor, Tensor> ssim_grad_entry(Dtypes dtypes, const Tensor& any_grad, const Tensor& any_image0,
                                           const Tensor& any_image1, const SsimOptions& options, bool need0, bool need1,
                                           Run&& run) {
  const char* op = "ssim_grad";
  check_ssim(op, any_image0, any_image1, options);
  check_alike(op, "grad", any_grad, any_image0);
  check_rank(op, "grad", any_grad, 4);
  for (int64_t dim = 0; dim < 4; ++dim) {
    const int64_t size = any_image0.size(dim);
    check_size(op, "grad", any_grad, dim, dim < 2 ? size : ssim_map_size(size, options));
  }
  const Tensor grad = torch::stable::contiguous(any_grad);
  const Tensor image0 = torch::stable::contiguous(any_image0);
  const Tensor image1 = torch::stable::contiguous(any_image1);
  const auto new_grad = [&](bool needed) {
    return needed ? torch::stable::empty_like(image0) : torch::stable::new_empty(image0, {0});
  };
  const Tensor grad0 = new_grad(need0), grad1 = new_grad(need1);
  if (grad0.numel() + grad1.numel() == 0) {
    return {grad0, grad1};
  }
  dispatch(dtypes, image0.scalar_type(), op, [&](auto zero) {
    using scalar_t = decltype(zero);
    auto arguments = ssim_arguments<scalar_t>(image0, image1, options);
    arguments.grad = grad.const_data_ptr<scalar_t>();
    arguments.grad0 = need0 ? grad0.mutable_data_ptr<scalar_t>() : nullptr;
    arguments.grad1 = need1 ? grad1.mutable_data_ptr<scalar_t>() : nullptr;
    run(arguments, image0);
  });
  return {grad0, grad1};
}

} // namespace pyaction
