#include "tvl1/tvl1.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>

#include "common/parallel.h"
#include "tvl1/tvl1_entry.h"

namespace pyaction {
namespace {

struct FreeMemory {
  void operator()(float* memory) const {
    std::free(memory);
  }
};

std::unique_ptr<float, FreeMemory> allocate_floats(int64_t count) {
  const int64_t bytes = (count * int64_t{sizeof(float)} + 63) / 64 * 64;
  std::unique_ptr<float, FreeMemory> memory(static_cast<float*>(std::aligned_alloc(64, bytes)));
  STD_TORCH_CHECK(memory != nullptr, "tvl1_flow: ", bytes >> 20, " MiB of workspace could not be allocated");
  return memory;
}

Tvl1Pair pair_at(const Tvl1Batch& batch, int64_t index) {
  const int64_t bytes = batch.frame_bytes(), flow_size = int64_t{2} * batch.height * batch.width;
  const auto frame = [&](const Tensor& frames) {
    return Tvl1Frame{static_cast<const char*>(frames.const_data_ptr()) + index * bytes, batch.type, batch.channels};
  };
  return {frame(batch.frame0),
          frame(batch.frame1),
          batch.initial_flow ? batch.initial_flow->const_data_ptr<float>() + index * flow_size : nullptr,
          batch.flow.mutable_data_ptr<float>() + index * flow_size,
          batch.height,
          batch.width};
}

// One thread per pair; each takes the next pair that nobody has begun.
void solve_batch(const Tvl1Batch& batch, const Tvl1Params& params) {
  const Tvl1Kernels& kernels = select_tvl1_kernels();
  const int64_t workspace_size = kernels.workspace_size(batch.height, batch.width, params);
  const int64_t workers = std::min<int64_t>(batch.batch, torch::stable::get_num_threads());
  const auto workspaces = allocate_floats(workers * workspace_size); // before the threads: they must not throw
  std::atomic<int64_t> next{0};
  torch::stable::parallel_for(0, workers, 1, [&](int64_t begin, int64_t end) {
    for (int64_t worker = begin; worker < end; ++worker) {
      for (int64_t index = next++; index < batch.batch; index = next++) {
        kernels.solve(pair_at(batch, index), params, workspaces.get() + worker * workspace_size);
      }
    }
  });
}

Tensor tvl1_flow_cpu(const Tensor& frame0, const Tensor& frame1, const std::optional<Tensor>& initial_flow, double tau,
                     double attachment, double theta, int64_t scales, double scale_step, int64_t warps,
                     int64_t outer_iterations, int64_t inner_iterations, double epsilon, int64_t median_size,
                     bool opencv_rounding) {
  return tvl1_flow_entry(frame0, frame1, initial_flow,
                         tvl1_params(tau, attachment, theta, scales, scale_step, warps, outer_iterations,
                                     inner_iterations, epsilon, median_size, opencv_rounding),
                         solve_batch);
}

} // namespace

STABLE_TORCH_LIBRARY_IMPL(pyaction, CPU, m) {
  m.impl("tvl1_flow", TORCH_BOX(&tvl1_flow_cpu));
}

} // namespace pyaction
