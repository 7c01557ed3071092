#include "photometric/photometric.h"

#include <torch/csrc/stable/library.h>

#include "common/parallel.h"
#include "photometric/photometric_entry.h"

namespace pyaction {
namespace {

const PhotometricKernels<float>& kernels_for(const PhotometricArguments<float>& a) {
  return select_photometric_float(a.width);
}

const PhotometricKernels<double>& kernels_for(const PhotometricArguments<double>&) {
  return select_photometric_double();
}

template <typename scalar_t, typename Kernel>
void for_each_band(const PhotometricArguments<scalar_t>& a, Kernel kernel) {
  parallel_with_workspace<scalar_t>(
      a.batch * a.bands(), a.patch * int64_t{a.width} * (a.channels + 2), kernels_for(a).workspace(a),
      [&](int64_t begin, int64_t end, scalar_t* workspace) { kernel(a, begin, end, workspace); });
}

// Each band has its own sums, added in the order of the bands: the same bits with any number of threads.
template <typename scalar_t>
void run_losses(PhotometricArguments<scalar_t> a, scalar_t* losses) {
  std::vector<double> sums(a.batch * a.bands() * kPhotometricTerms);
  a.sums = sums.data();
  for_each_band(a, kernels_for(a).losses);
  for (int term = 0; term < kPhotometricTerms; ++term) {
    double sum = 0;
    for (size_t i = term; i < sums.size(); i += kPhotometricTerms) {
      sum += sums[i];
    }
    losses[term] = static_cast<scalar_t>(sum * static_cast<double>(a.share[term]));
  }
}

Tensor photometric_loss_cpu(const Tensor& frame0, const Tensor& frame1, const Tensor& flow, std::vector<double> options,
                            int64_t window, bool pad_border) {
  return photometric_loss_entry(FullTypes{}, {frame0, frame1, flow, options, window, pad_border},
                                [](const auto& a, const Tensor& losses) {
                                  using scalar_t = std::remove_const_t<std::remove_reference_t<decltype(*a.flow)>>;
                                  run_losses(a, losses.mutable_data_ptr<scalar_t>());
                                });
}

std::tuple<Tensor, Tensor, Tensor> photometric_grad_cpu(const Tensor& grad, const Tensor& frame0, const Tensor& frame1,
                                                        const Tensor& flow, std::vector<double> options, int64_t window,
                                                        bool pad_border, bool of_frames) {
  return photometric_grad_entry(FullTypes{}, grad, {frame0, frame1, flow, options, window, pad_border}, of_frames,
                                [](const auto& a, const Tensor&) { for_each_band(a, kernels_for(a).grad); });
}

} // namespace

STABLE_TORCH_LIBRARY_IMPL(pyaction, CPU, m) {
  m.impl("photometric_loss", TORCH_BOX(&photometric_loss_cpu));
  m.impl("photometric_grad", TORCH_BOX(&photometric_grad_cpu));
}

} // namespace pyaction
