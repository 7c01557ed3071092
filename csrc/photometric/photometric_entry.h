#pragma once
// The part of the entries of the photometric losses that does not depend on the device: checks, layout, allocation,
// dtype. `run` gets the arguments of the kernels and the result of the op, on their device.
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cmath>
#include <tuple>
#include <vector>

#include "common/checks.h"
#include "common/dispatch.h"
#include "photometric/photometric.h"

namespace pyaction {

// In the order in which Python lists them.
enum PhotometricOption {
  kPixelAlpha,
  kPixelScale,
  kSmoothnessAlpha,
  kSmoothnessScale,
  kEpsilon,
  kMarginShare,
  kC1,
  kC2,
  kPhotometricOptions
};

struct PhotometricInput {
  const Tensor& frame0;
  const Tensor& frame1;
  const Tensor& flow;
  const std::vector<double>& options;
  int64_t patch;
  bool pad_border;
};

inline void check_photometric(const char* op, const PhotometricInput& in) {
  check_rank(op, "frame0", in.frame0, 4);
  check_same_shape(op, "frame1", in.frame1, in.frame0);
  check_rank(op, "flow", in.flow, 4);
  check_alike(op, "flow", in.flow, in.frame0);
  check_size(op, "flow", in.flow, 0, in.frame0.size(0));
  check_size(op, "flow", in.flow, 1, 2);
  check_size(op, "flow", in.flow, 2, in.frame0.size(2));
  check_size(op, "flow", in.flow, 3, in.frame0.size(3));
  check_plane(op, in.frame0.size(2), in.frame0.size(3));
  STD_TORCH_CHECK(in.options.size() == kPhotometricOptions, op, ": ", int{kPhotometricOptions}, " options; got ",
                  in.options.size());
  STD_TORCH_CHECK(in.patch >= kLeastPatch && in.patch <= kLargestPatch, op, ": window must be ", kLeastPatch, " to ",
                  kLargestPatch, "; got ", in.patch);
  STD_TORCH_CHECK(in.options[kMarginShare] >= 0 && in.options[kMarginShare] < 0.5, op, ": border must be in [0, 0.5)");
}

// Rounds half up; leaves at least one pixel.
inline int margin_of(int64_t height, int64_t width, double share) {
  const int64_t smaller = std::min(height, width);
  return static_cast<int>(std::min(static_cast<int64_t>(std::floor(share * smaller + 0.5)), (smaller - 1) / 2));
}

// Of contiguous frames and flow. What only one op has stays null.
template <typename scalar_t>
PhotometricArguments<scalar_t> photometric_arguments(const PhotometricInput& in) {
  using compute = compute_t<scalar_t>;
  const auto option = [&](PhotometricOption number) { return static_cast<compute>(in.options[number]); };
  PhotometricArguments<scalar_t> a = {};
  a.frame0 = in.frame0.const_data_ptr<scalar_t>();
  a.frame1 = in.frame1.const_data_ptr<scalar_t>();
  a.flow = in.flow.const_data_ptr<scalar_t>();
  a.batch = in.frame0.size(0);
  a.channels = in.frame0.size(1);
  a.height = static_cast<int>(in.frame0.size(2));
  a.width = static_cast<int>(in.frame0.size(3));
  a.patch = static_cast<int>(in.patch);
  a.margin = margin_of(a.height, a.width, in.options[kMarginShare]);
  a.pad_border = in.pad_border;
  const double inside = static_cast<double>(a.batch) * (a.height - 2 * a.margin) * (a.width - 2 * a.margin);
  const int64_t patches = a.bands() * int64_t{(a.width + a.patch - 1) / a.patch};
  a.share[kPixelTerm] = static_cast<compute>(1 / (inside * a.channels));
  a.share[kSmoothnessTerm] = static_cast<compute>(1 / inside);
  a.share[kSsimTerm] = static_cast<compute>(1 / (static_cast<double>(a.batch * a.channels) * patches));
  // Not zero: its power is part of every slope.
  const compute epsilon_squared = std::max(option(kEpsilon) * option(kEpsilon), std::numeric_limits<compute>::min());
  a.frames = {option(kPixelAlpha), option(kPixelScale), epsilon_squared};
  a.slopes = {option(kSmoothnessAlpha), option(kSmoothnessScale), epsilon_squared};
  a.c1 = option(kC1);
  a.c2 = option(kC2);
  return a;
}

inline ScalarType compute_dtype(const Tensor& tensor) {
  return tensor.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

template <typename Dtypes, typename Run>
Tensor photometric_loss_entry(Dtypes dtypes, const PhotometricInput& any, Run&& run) {
  const char* op = "photometric_loss";
  check_photometric(op, any);
  const Tensor frame0 = torch::stable::contiguous(any.frame0), frame1 = torch::stable::contiguous(any.frame1);
  const Tensor flow = torch::stable::contiguous(any.flow);
  Tensor losses = torch::stable::new_empty(frame0, {int64_t{kPhotometricTerms}}, compute_dtype(frame0));
  if (frame0.numel() == 0) {
    return torch::stable::zero_(losses);
  }
  dispatch(dtypes, frame0.scalar_type(), op, [&](auto zero) {
    run(photometric_arguments<decltype(zero)>({frame0, frame1, flow, any.options, any.patch, any.pad_border}), losses);
  });
  return losses;
}

// Of the flow; and where they are wanted of frame0 and the warped frame, else two empty tensors.
template <typename Dtypes, typename Run>
std::tuple<Tensor, Tensor, Tensor> photometric_grad_entry(Dtypes dtypes, const Tensor& any_grad,
                                                          const PhotometricInput& any, bool of_frames, Run&& run) {
  const char* op = "photometric_grad";
  check_photometric(op, any);
  check_rank(op, "grad", any_grad, 1);
  check_size(op, "grad", any_grad, 0, kPhotometricTerms);
  STD_TORCH_CHECK(any_grad.scalar_type() == compute_dtype(any.frame0) &&
                      any_grad.get_device_index() == any.frame0.get_device_index() &&
                      any_grad.is_cuda() == any.frame0.is_cuda(),
                  op, ": grad must be of the losses' dtype and on the device of the frames");
  const Tensor grad = torch::stable::contiguous(any_grad);
  const Tensor frame0 = torch::stable::contiguous(any.frame0), frame1 = torch::stable::contiguous(any.frame1);
  const Tensor flow = torch::stable::contiguous(any.flow);
  Tensor grad_flow = torch::stable::new_empty(flow, flow.sizes());
  const std::vector<int64_t> none = {0}, shape(frame0.sizes().begin(), frame0.sizes().end());
  const Tensor grad_frame0 = torch::stable::new_empty(frame0, of_frames ? shape : none);
  const Tensor grad_warped = torch::stable::new_empty(frame0, of_frames ? shape : none);
  if (frame0.numel() == 0) {
    return {torch::stable::zero_(grad_flow), grad_frame0, grad_warped};
  }
  dispatch(dtypes, frame0.scalar_type(), op, [&](auto zero) {
    using scalar_t = decltype(zero);
    auto a = photometric_arguments<scalar_t>({frame0, frame1, flow, any.options, any.patch, any.pad_border});
    a.grad = grad.const_data_ptr<compute_t<scalar_t>>();
    a.grad_flow = grad_flow.mutable_data_ptr<scalar_t>();
    a.grad_frame0 = of_frames ? grad_frame0.mutable_data_ptr<scalar_t>() : nullptr;
    a.grad_warped = of_frames ? grad_warped.mutable_data_ptr<scalar_t>() : nullptr;
    run(a, grad_flow);
  });
  return {grad_flow, grad_frame0, grad_warped};
}

} // namespace pyaction
