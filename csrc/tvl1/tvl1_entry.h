#pragma once
// The part of TV-L1's entries that does not depend on the device: checks, layout, allocation.
#include <torch/csrc/stable/ops.h>

#include <optional>
#include <vector>

#include "common/checks.h"
#include "tvl1/tvl1.h"

namespace pyaction {

// What an entry hands to its device: sequences of frames of one size, and where their flow goes.
struct Tvl1Batch {
  std::vector<Tensor> held;       // keeps what `frame` points into
  std::vector<const char*> frame; // frame t of sequence 0; those of sequence n are n * frame_stride bytes behind it
  int64_t frame_stride;
  FrameType type;
  int64_t sequences;
  int channels, height, width;
  int64_t first_index = 0;            // index of frame[0] within its sequence
  bool last = true;                   // no call follows that goes on with the state
  std::optional<Tensor> initial_flow; // [sequences, 2, H, W]
  Tensor flow;                        // [sequences, pairs, 2, H, W]: one pair ends at each frame but a sequence's first

  int64_t frames() const {
    return static_cast<int64_t>(frame.size());
  }
  int64_t flow_size() const { // of one pair, in floats
    return int64_t{2} * height * width;
  }
  // The flow that ends at frame t of sequence n; null for a sequence's first frame.
  float* flow_at(int64_t n, int64_t t) const {
    const int64_t first = first_index == 0 ? 1 : 0; // frame with the first flow
    return t < first ? nullptr : flow.mutable_data_ptr<float>() + (n * (frames() - first) + t - first) * flow_size();
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

// The fields of Tvl1Params in their order, as the schemas pass them.
inline Tvl1Params tvl1_params(const std::vector<double>& values) {
  STD_TORCH_CHECK(values.size() == 11, "tvl1_flow: params must have 11 values; got ", values.size());
  const Tvl1Params p = {values[0],
                        values[1],
                        values[2],
                        static_cast<int>(values[3]),
                        values[4],
                        static_cast<int>(values[5]),
                        static_cast<int>(values[6]),
                        static_cast<int>(values[7]),
                        values[8],
                        static_cast<int>(values[9]),
                        values[10] != 0};
  STD_TORCH_CHECK(p.scales >= 1 && p.scale_step > 0 && p.scale_step < 1, "tvl1_flow: scales must be at least 1 and ",
                  "scale_step between 0 and 1; got ", p.scales, " and ", p.scale_step);
  STD_TORCH_CHECK(p.warps >= 1 && p.outer_iterations >= 1 && p.inner_iterations >= 1,
                  "tvl1_flow: warps and iterations must be at least 1");
  STD_TORCH_CHECK(p.median_size == 1 || p.median_size == 3 || p.median_size == 5,
                  "tvl1_flow: median_size must be 1, 3 or 5; got ", p.median_size);
  return p;
}

// A batch of sequences whose frame t is frames[t], [N, C, H, W]; or, of a clip [N, T, C, H, W], its slice t.
inline Tvl1Batch tvl1_batch(const std::vector<Tensor>& frames, bool clip) {
  Tvl1Batch batch;
  const Tensor& first = frames[0];
  const int64_t dims = clip ? 5 : 4;
  check_rank("tvl1_flow", clip ? "clip" : "frame", first, dims);
  const int64_t channels = first.size(dims - 3), height = first.size(dims - 2), width = first.size(dims - 1);
  STD_TORCH_CHECK(channels == 1 || channels == 3, "tvl1_flow: frames must have 1 or 3 channels; got ", channels);
  check_plane("tvl1_flow", height, width);
  batch.type = frame_type(first);
  batch.sequences = first.size(0);
  batch.channels = static_cast<int>(channels);
  batch.height = static_cast<int>(height);
  batch.width = static_cast<int>(width);
  const int64_t pixel = batch.type == FrameType::kUint8 ? 1 : batch.type == FrameType::kFloat32 ? 4 : 8;
  const int64_t frame_bytes = pixel * channels * height * width;
  batch.frame_stride = clip ? first.size(1) * frame_bytes : frame_bytes;
  for (const Tensor& frame : frames) {
    check_same_shape("tvl1_flow", "frame1", frame, first);
    batch.held.push_back(torch::stable::contiguous(frame));
    const char* data = static_cast<const char*>(batch.held.back().const_data_ptr());
    for (int64_t t = 0; t < (clip ? first.size(1) : 1); ++t) {
      batch.frame.push_back(data + t * frame_bytes);
    }
  }
  return batch;
}

inline Tensor new_flow(const Tvl1Batch& batch, const std::vector<int64_t>& shape) {
  return torch::stable::new_empty(batch.held[0], {shape.data(), shape.size()}, ScalarType::Float);
}

// The four entries. Device::run(batch, params, state) fills batch.flow; state, [sequences * state_size], is null where
// nothing lasts beyond the call. It is not called where there is nothing to do.
template <typename Device>
struct Tvl1Entries {
  static Tensor flow(const Tensor& frame0, const Tensor& frame1, const std::optional<Tensor>& initial_flow,
                     std::vector<double> values) {
    const Tvl1Params params = tvl1_params(values);
    Tvl1Batch batch = tvl1_batch({frame0, frame1}, false);
    batch.flow = new_flow(batch, {batch.sequences, 2, batch.height, batch.width});
    if (initial_flow.has_value()) {
      check_same_shape("tvl1_flow", "initial_flow", *initial_flow, batch.flow);
      batch.initial_flow = torch::stable::contiguous(*initial_flow);
    }
    return run(batch, params, nullptr);
  }

  static Tensor flow_clip(const Tensor& clip, std::vector<double> values) {
    const Tvl1Params params = tvl1_params(values);
    Tvl1Batch batch = tvl1_batch({clip}, true);
    STD_TORCH_CHECK(batch.frames() >= 1, "tvl1_flow_clip: clip must have a frame");
    batch.flow = new_flow(batch, {batch.sequences, batch.frames() - 1, 2, batch.height, batch.width});
    return run(batch, params, nullptr);
  }

  static Tensor begin(const Tensor& frame, std::vector<double> values) {
    const Tvl1Params params = tvl1_params(values);
    Tvl1Batch batch = tvl1_batch({frame}, false);
    batch.last = false;
    batch.flow = new_flow(batch, {batch.sequences, 0, 2, batch.height, batch.width});
    const Tensor state = new_flow(batch, {batch.sequences * Device::state_size(batch, params)});
    run(batch, params, &state);
    return state;
  }

  static Tensor next(Tensor state, const Tensor& frame, int64_t index, std::vector<double> values) {
    const Tvl1Params params = tvl1_params(values);
    Tvl1Batch batch = tvl1_batch({frame}, false);
    batch.first_index = index;
    batch.last = false;
    batch.flow = new_flow(batch, {batch.sequences, 2, batch.height, batch.width});
    check_alike("tvl1_next", "state", state, batch.flow);
    STD_TORCH_CHECK(
        index >= 1 && state.is_contiguous() && state.numel() == batch.sequences * Device::state_size(batch, params),
        "tvl1_next: state must be that of a sequence of frames of the same size and params");
    return run(batch, params, &state);
  }

 private:
  static Tensor run(const Tvl1Batch& batch, const Tvl1Params& params, const Tensor* state) {
    const bool unread = batch.last && batch.frames() == 1; // there is no pair, and none follows
    if (batch.sequences > 0 && batch.height > 0 && batch.width > 0 && !unread) {
      Device::run(batch, params, state);
    }
    return batch.flow;
  }
};

} // namespace pyaction
