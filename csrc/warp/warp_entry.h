#pragma once
// The part of warp's entries that does not depend on the device: checks, layout, allocation, dtype. `run` gets the
// arguments of the kernels and a tensor on their device.
#include <torch/csrc/stable/ops.h>

#include "common/checks.h"
#include "common/dispatch.h"
#include "warp/warp.h"

namespace pyaction {

using torch::headeronly::MemoryFormat;

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

// channels_last where that is the layout already; planes otherwise.
inline MemoryFormat layout_of(const Tensor& image) {
  if (image.is_contiguous()) {
    return MemoryFormat::Contiguous;
  }
  int64_t expected = 1;
  for (int64_t dim : {1, 3, 2, 0}) {
    if (image.size(dim) != 1 && image.stride(dim) != expected) {
      return MemoryFormat::Contiguous;
    }
    expected *= image.size(dim);
  }
  return MemoryFormat::ChannelsLast;
}

// `like` has the shape of the image and the layout of all tensors of this shape. What a kernel does not read is null.
template <typename Dtypes, typename Run>
void run_warp(Dtypes dtypes, const char* op, const Tensor& like, const Tensor* image, const Tensor& flow,
              const Tensor* grad, const Tensor* result, const Tensor* sums, bool border, Run&& run) {
  if (like.numel() == 0) {
    return;
  }
  dispatch(dtypes, flow.scalar_type(), op, [&](auto zero) {
    using scalar_t = decltype(zero);
    WarpArguments<scalar_t> arguments;
    arguments.image = image != nullptr ? image->const_data_ptr<scalar_t>() : nullptr;
    arguments.flow = flow.const_data_ptr<scalar_t>();
    arguments.grad = grad != nullptr ? grad->const_data_ptr<scalar_t>() : nullptr;
    arguments.result = result != nullptr ? result->mutable_data_ptr<scalar_t>() : nullptr;
    arguments.sums = sums != nullptr ? sums->mutable_data_ptr<compute_t<scalar_t>>() : nullptr;
    arguments.batch = like.size(0);
    arguments.channels = like.size(1);
    arguments.height = static_cast<int>(like.size(2));
    arguments.width = static_cast<int>(like.size(3));
    const bool planes = like.is_contiguous();
    arguments.channel_stride = planes ? like.size(2) * like.size(3) : 1;
    arguments.pixel_stride = planes ? 1 : like.size(1);
    arguments.border = border;
    run(arguments, flow);
  });
}

template <typename Dtypes, typename Run>
Tensor warp_entry(Dtypes dtypes, const Tensor& any_image, const Tensor& any_flow, bool border, Run&& run) {
  check_warp("warp", any_image, any_flow);
  const Tensor image = torch::stable::contiguous(any_image, layout_of(any_image));
  const Tensor flow = torch::stable::contiguous(any_flow);
  const Tensor output = torch::stable::empty_like(image);
  run_warp(dtypes, "warp", image, &image, flow, nullptr, &output, nullptr, border, run);
  return output;
}

template <typename Dtypes, typename Run>
Tensor warp_grad_flow_entry(Dtypes dtypes, const Tensor& any_grad, const Tensor& any_image, const Tensor& any_flow,
                            bool border, Run&& run) {
  check_warp("warp_grad_flow", any_image, any_flow);
  check_same_shape("warp_grad_flow", "grad", any_grad, any_image);
  const Tensor grad = torch::stable::contiguous(any_grad, layout_of(any_image));
  const Tensor image = torch::stable::contiguous(any_image, layout_of(any_image));
  const Tensor flow = torch::stable::contiguous(any_flow);
  const Tensor grad_flow = image.numel() > 0
                               ? torch::stable::new_empty(flow, flow.sizes())
                               : torch::stable::new_zeros(flow, flow.sizes()); // an image without channels
  run_warp(dtypes, "warp_grad_flow", image, &image, flow, &grad, &grad_flow, nullptr, border, run);
  return grad_flow;
}

template <typename Dtypes, typename Run>
Tensor warp_grad_image_entry(Dtypes dtypes, const Tensor& any_grad, const Tensor& any_flow, bool border, Run&& run) {
  check_warp("warp_grad_image", any_grad, any_flow);
  const Tensor grad = torch::stable::contiguous(any_grad, layout_of(any_grad));
  const Tensor flow = torch::stable::contiguous(any_flow);
  // Sums of half precision would lose what is added last.
  const ScalarType dtype = grad.scalar_type();
  const bool half = dtype == ScalarType::Half || dtype == ScalarType::BFloat16;
  Tensor sums = half ? torch::stable::to(grad, ScalarType::Float) : torch::stable::empty_like(grad);
  torch::stable::zero_(sums);
  run_warp(dtypes, "warp_grad_image", grad, nullptr, flow, &grad, nullptr, &sums, border, run);
  return torch::stable::to(sums, dtype);
}

} // namespace pyaction
