#pragma once
// The part of TV-L1's entries that does not depend on the device: checks, layout, allocation.
#include <torch/csrc/stable/ops.h>

#include <optional>

#include "common/checks.h"
#include "tvl1/tvl1.h"

namespace pyaction {

// The batch as its entry hands it to the device: dense tensors.
struct Tvl1Batch {
  Tensor frame0, frame1;              // [N, C, H, W]
  std::optional<Tensor> initial_flow; // [N, 2, H, W]
  Tensor flow;                        // [N, 2, H, W]
  FrameType type;
  int64_t batch;
  int channels, height, width;

  int64_t frame_bytes() const {
    const int64_t pixel = type == FrameType::kUint8 ? 1 : type == FrameType::kFloat32 ? 4 : 8;
    return pixel * channels * height * width;
  }
};

inline FrameType frame_type(const Tensor& frame) {
  const ScalarType dtype = frame.scalar_type();
  STD_TORCH_CHECK(dtype == ScalarType::Byte || dtype == ScalarType::Float || dtype == ScalarType::Double,
                  "tvl1_flow: frames must be uint8, float32 or float64");
  return dtype == ScalarType::Byte    ? FrameType::kUint8
         : dtype == ScalarType::Float ? FrameType::kFloat32
                                      : FrameType::kFloat64;
}

inline void check_params(const Tvl1Params& p) {
  STD_TORCH_CHECK(p.scales >= 1 && p.scale_step > 0 && p.scale_step < 1, "tvl1_flow: scales must be at least 1 and ",
                  "scale_step between 0 and 1; got ", p.scales, " and ", p.scale_step);
  STD_TORCH_CHECK(p.warps >= 1 && p.outer_iterations >= 1 && p.inner_iterations >= 1,
                  "tvl1_flow: warps and iterations must be at least 1");
  STD_TORCH_CHECK(p.median_size == 1 || p.median_size == 3 || p.median_size == 5,
                  "tvl1_flow: median_size must be 1, 3 or 5; got ", p.median_size);
}

// `solve(batch, params)` fills batch.flow; it is not called for an empty batch.
template <typename Solve>
Tensor tvl1_flow_entry(const Tensor& frame0, const Tensor& frame1, const std::optional<Tensor>& initial_flow,
                       const Tvl1Params& params, Solve&& solve) {
  check_params(params);
  check_rank("tvl1_flow", "frame0", frame0, 4);
  check_same_shape("tvl1_flow", "frame1", frame1, frame0);
  const int64_t n = frame0.size(0), channels = frame0.size(1), height = frame0.size(2), width = frame0.size(3);
  STD_TORCH_CHECK(channels == 1 || channels == 3, "tvl1_flow: frames must have 1 or 3 channels; got ", channels);
  check_plane("tvl1_flow", height, width);
  const int64_t shape[] = {n, 2, height, width};
  Tvl1Batch batch = {torch::stable::contiguous(frame0),
                     torch::stable::contiguous(frame1),
                     std::nullopt,
                     torch::stable::new_empty(frame0, {shape, 4}, ScalarType::Float),
                     frame_type(frame0),
                     n,
                     static_cast<int>(channels),
                     static_cast<int>(height),
                     static_cast<int>(width)};
  if (initial_flow.has_value()) {
    check_same_shape("tvl1_flow", "initial_flow", *initial_flow, batch.flow);
    batch.initial_flow = torch::stable::contiguous(*initial_flow);
  }
  if (batch.flow.numel() > 0) {
    solve(batch, params);
  }
  return batch.flow;
}

inline Tvl1Params tvl1_params(double tau, double attachment, double theta, int64_t scales, double scale_step,
                              int64_t warps, int64_t outer_iterations, int64_t inner_iterations, double epsilon,
                              int64_t median_size, bool opencv_rounding) {
  return {tau,
          attachment,
          theta,
          static_cast<int>(scales),
          scale_step,
          static_cast<int>(warps),
          static_cast<int>(outer_iterations),
          static_cast<int>(inner_iterations),
          epsilon,
          static_cast<int>(median_size),
          opencv_rounding};
}

} // namespace pyaction
