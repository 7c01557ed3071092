#include "warp/warp.h"

#include <torch/csrc/stable/library.h>

#include "common/parallel.h"
#include "warp/warp_entry.h"

namespace pyaction {
namespace {

const WarpKernels<float>& kernels_for(const WarpArguments<float>& a) {
  return select_warp_float(a.width);
}

const WarpKernels<double>& kernels_for(const WarpArguments<double>&) {
  return select_warp_double();
}

Tensor warp_cpu(const Tensor& image, const Tensor& flow, bool border) {
  return warp_entry(FullTypes{}, image, flow, border, [](const auto& a, const Tensor&) {
    parallel_rows(a.batch * a.height, a.width * a.channels,
                  [&](int64_t begin, int64_t end) { kernels_for(a).forward(a, begin, end); });
  });
}

Tensor warp_grad_flow_cpu(const Tensor& grad, const Tensor& image, const Tensor& flow, bool border) {
  return warp_grad_flow_entry(FullTypes{}, grad, image, flow, border, [](const auto& a, const Tensor&) {
    parallel_rows(a.batch * a.height, a.width * a.channels,
                  [&](int64_t begin, int64_t end) { kernels_for(a).grad_flow(a, begin, end); });
  });
}

Tensor warp_grad_image_cpu(const Tensor& grad, const Tensor& flow, bool border) {
  return warp_grad_image_entry(FullTypes{}, grad, flow, border, [](const auto& a, const Tensor&) {
    parallel_rows(a.batch * a.channels, int64_t{a.height} * a.width,
                  [&](int64_t begin, int64_t end) { kernels_for(a).grad_image(a, begin, end); });
  });
}

} // namespace

STABLE_TORCH_LIBRARY_IMPL(pyaction, CPU, m) {
  m.impl("warp", TORCH_BOX(&warp_cpu));
  m.impl("warp_grad_flow", TORCH_BOX(&warp_grad_flow_cpu));
  m.impl("warp_grad_image", TORCH_BOX(&warp_grad_image_cpu));
}

} // namespace pyaction
