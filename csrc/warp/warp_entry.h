#pragma once
// The part of warp's entries that does not depend on the device: checks, layout, allocation, dtype. `run` gets the
// arguments of the kernels and a tensor on their device.
#include <torch/csrc/stable/ops.h>

#include "common/checks.h"
#include "common/dispatch.h"
#include "warp/warp.h"

namespace pyaction {

inline void check_warp(const char* op, const Tensor& image, const Tensor& flow) {
  check_rank(op, "image", image, 4);
  check_rank(op, "flow", flow, 4);
  check_alike(op, "flow", flow, image);
  check_size(op, "flow", flow, 0, image.size(0));
  check_size(op, "flow", flow, 1, 2);
  check_size(op, "flow", flow, 2, image.size(2));
  check_size(op, "flow", flow, 3, image.size(3));
  check_plane(op, image.size(2), image.size(3));
}

// `image` and `grad` have the image's shape; the one that a kernel does not read may be null.
template <typename Dtypes, typename Run>
void run_warp(Dtypes dtypes, const char* op, const Tensor* image, const Tensor& flow, const Tensor* grad,
              const Tensor& result, bool border, Run&& run) {
  const Tensor& image_like = image != nullptr ? *image : *grad;
  if (image_like.numel() == 0) {
    return;
  }
  dispatch(dtypes, flow.scalar_type(), op, [&](auto zero) {
    using scalar_t = decltype(zero);
    WarpArguments<scalar_t> arguments;
    arguments.image = image != nullptr ? image->const_data_ptr<scalar_t>() : nullptr;
    arguments.flow = flow.const_data_ptr<scalar_t>();
    arguments.grad = grad != nullptr ? grad->const_data_ptr<scalar_t>() : nullptr;
    arguments.result = result.mutable_data_ptr<scalar_t>();
    arguments.batch = image_like.size(0);
    arguments.channels = image_like.size(1);
    arguments.height = static_cast<int>(image_like.size(2));
    arguments.width = static_cast<int>(image_like.size(3));
    arguments.border = border;
    run(arguments, flow);
  });
}

template <typename Dtypes, typename Run>
Tensor warp_entry(Dtypes dtypes, const Tensor& any_image, const Tensor& any_flow, bool border, Run&& run) {
  check_warp("warp", any_image, any_flow);
  const Tensor image = torch::stable::contiguous(any_image);
  const Tensor flow = torch::stable::contiguous(any_flow);
  const Tensor output = torch::stable::empty_like(image);
  run_warp(dtypes, "warp", &image, flow, nullptr, output, border, run);
  return output;
}

template <typename Dtypes, typename Run>
Tensor warp_grad_flow_entry(Dtypes dtypes, const Tensor& any_grad, const Tensor& any_image, const Tensor& any_flow,
                            bool border, Run&& run) {
  check_warp("warp_grad_flow", any_image, any_flow);
  check_same_shape("warp_grad_flow", "grad", any_grad, any_image);
  const Tensor grad = torch::stable::contiguous(any_grad);
  const Tensor image = torch::stable::contiguous(any_image);
  const Tensor flow = torch::stable::contiguous(any_flow);
  const Tensor grad_flow = torch::stable::new_zeros(flow, flow.sizes()); // zero where the image has no channels
  run_warp(dtypes, "warp_grad_flow", &image, flow, &grad, grad_flow, border, run);
  return grad_flow;
}

template <typename Dtypes, typename Run>
Tensor warp_grad_image_entry(Dtypes dtypes, const Tensor& any_grad, const Tensor& any_flow, bool border, Run&& run) {
  check_warp("warp_grad_image", any_grad, any_flow);
  const Tensor grad = torch::stable::contiguous(any_grad);
  const Tensor flow = torch::stable::contiguous(any_flow);
  const Tensor grad_image = torch::stable::new_zeros(grad, grad.sizes());
  run_warp(dtypes, "warp_grad_image", nullptr, flow, &grad, grad_image, border, run);
  return grad_image;
}

} // namespace pyaction
