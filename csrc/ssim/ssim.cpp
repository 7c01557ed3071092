#include "ssim/ssim.h"

#include <torch/csrc/stable/library.h>

#include "common/parallel.h"
#include "ssim/ssim_entry.h"

namespace pyaction {
namespace {

const SsimKernels<float>& kernels_for(const SsimArguments<float>&) {
  return select_ssim_float();
}

const SsimKernels<double>& kernels_for(const SsimArguments<double>&) {
  return select_ssim_double();
}

template <typename scalar_t, typename Kernel>
void share_rows(const SsimArguments<scalar_t>& a, int64_t rows, int64_t elements_per_row, int64_t workspace_size,
                Kernel kernel) {
  parallel_with_workspace<scalar_t>(
      rows, elements_per_row, workspace_size,
      [&](int64_t begin, int64_t end, scalar_t* workspace) { kernel(a, begin, end, workspace); });
}

Tensor ssim_cpu(const Tensor& image0, const Tensor& image1, int64_t window, int64_t stride, bool gaussian, double c1,
                double c2) {
  const SsimOptions options = {window, stride, gaussian, c1, c2};
  return ssim_entry(FullTypes{}, image0, image1, options, [](const auto& a, const Tensor&) {
    const auto& kernels = kernels_for(a);
    share_rows(a, a.planes * a.map_height, int64_t{a.width} * a.window, kernels.forward_workspace(a), kernels.forward);
  });
}

std::tuple<Tensor, Tensor> ssim_grad_cpu(const Tensor& grad, const Tensor& image0, const Tensor& image1, int64_t window,
                                         int64_t stride, bool gaussian, double c1, double c2, bool need0, bool need1) {
  const SsimOptions options = {window, stride, gaussian, c1, c2};
  return ssim_grad_entry(FullTypes{}, grad, image0, image1, options, need0, need1, [](const auto& a, const Tensor&) {
    const auto& kernels = kernels_for(a);
    const int64_t rows = ssim_grad_rows(a), pixels = a.planes * a.height * a.width;
    share_rows(a, rows, pixels / rows * ssim_overlap(a.window, a.stride), kernels.grad_workspace(a), kernels.grad);
  });
}

} // namespace

STABLE_TORCH_LIBRARY_IMPL(pyaction, CPU, m) {
  m.impl("ssim", TORCH_BOX(&ssim_cpu));
  m.impl("ssim_grad", TORCH_BOX(&ssim_grad_cpu));
}

} // namespace pyaction
