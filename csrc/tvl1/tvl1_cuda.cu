// TV-L1 of a batch of pairs. Every launch works on all pairs (grid.z), the host only queues launches: sizes and
// iteration counts are known beforehand, and the stopping rule is decided on the device.
#include <torch/csrc/stable/library.h>

#include <algorithm>

#include "common/cuda/launch.h"
#include "tvl1/cuda/kernels.cuh"
#include "tvl1/tvl1_entry.h"

namespace pyaction {
namespace {

// Solved at a time: no more pairs than grid.z takes, and than fit into this scratch memory (one at least).
constexpr int64_t kMaxPairs = 1024;
constexpr int64_t kScratchBytes = int64_t{4} << 30;

// A field that kernels cannot update in place: they read one copy and write the other.
struct Field {
  float* copies[2];
  int current;

  float* source() const {
    return copies[current];
  }
  float* target() const {
    return copies[1 - current];
  }
  void flip() {
    current = 1 - current;
  }
};

// The memory of one solve. Planes are dense, [pairs, components, height, width] of the level in work.
struct Buffers {
  int levels;
  int width[kMaxLevels], height[kMaxLevels];
  float* frame[2][kMaxLevels];
  Field flow, dual;
  float4* texels;
  float4* term;
  float* changes; // per pair and tile: sum of squared updates
  uint8_t* state; // per pair, see tvl1/cuda/kernels.cuh
};

int tiles_of(int width, int height, int halo) {
  return static_cast<int>(blocks_for(width, kTileWidth - 2 * halo) * blocks_for(height, kTileHeight - 2 * halo));
}

// Places the buffers in `memory`, or only counts: returns the floats they need.
int64_t place_buffers(Buffers& b, int64_t pairs, int height, int width, const Tvl1Params& params, float* memory) {
  int64_t used = 0;
  const auto take = [&](int64_t floats) {
    float* part = memory == nullptr ? nullptr : memory + used;
    used += (floats + 63) / 64 * 64;
    return part;
  };
  b.levels = plan_levels(height, width, params, b.width, b.height);
  for (int level = 0; level < b.levels; ++level) {
    const int64_t plane = int64_t{b.width[level]} * b.height[level];
    b.frame[0][level] = take(pairs * plane);
    b.frame[1][level] = take(pairs * plane);
  }
  const int64_t plane = int64_t{width} * height;
  b.flow = {{take(2 * pairs * plane), take(2 * pairs * plane)}, 0};
  b.dual = {{take(4 * pairs * plane), take(4 * pairs * plane)}, 0};
  b.texels = reinterpret_cast<float4*>(take(4 * pairs * plane));
  b.term = reinterpret_cast<float4*>(take(4 * pairs * plane));
  b.changes = take(pairs * tiles_of(width, height, 1));
  b.state = reinterpret_cast<uint8_t*>(take((pairs + 3) / 4));
  return used;
}

// The queue of launches that solves pairs [first, first + pairs) of the batch.
class Solver {
 public:
  Solver(const Tvl1Batch& batch, const Tvl1Params& params, int64_t first, int64_t pairs, float* memory,
         cudaStream_t stream)
      : batch_(batch), params_(params), first_(first), pairs_(pairs), stream_(stream) {
    place_buffers(b_, pairs, batch.height, batch.width, params, memory);
  }

  void run() {
    make_pyramids();
    start_flow();
    const double ratio = 1 / params_.scale_step;
    for (int level = b_.levels - 1; level >= 0; --level) {
      if (level < b_.levels - 1) {
        carry_flow(level + 1, level, b_.width[level + 1] / static_cast<double>(b_.width[level]),
                   b_.height[level + 1] / static_cast<double>(b_.height[level]), ratio);
      }
      solve_level(level);
    }
    const int64_t flow_size = int64_t{2} * batch_.height * batch_.width;
    check_cuda(cudaMemcpyAsync(batch_.flow.mutable_data_ptr<float>() + first_ * flow_size, b_.flow.source(),
                               sizeof(float) * pairs_ * flow_size, cudaMemcpyDeviceToDevice, stream_),
               "copy of the flow");
  }

 private:
  dim3 pixel_grid(int level, int64_t planes) const {
    return dim3(blocks_for(b_.width[level], kPixelBlock.x), blocks_for(b_.height[level], kPixelBlock.y),
                static_cast<unsigned>(planes));
  }

  Level level_at(int level) const {
    return {b_.width[level], b_.height[level]};
  }

  template <typename pixel_t>
  void load(const Tensor& frames, float* grey) {
    const int64_t pixels = int64_t{batch_.channels} * batch_.height * batch_.width;
    launch(load_kernel<pixel_t>, pixel_grid(0, pairs_), kPixelBlock, stream_,
           static_cast<const pixel_t*>(frames.const_data_ptr()) + first_ * pixels, batch_.channels, level_at(0), grey);
  }

  void make_pyramids() {
    const Tensor* frames[2] = {&batch_.frame0, &batch_.frame1};
    const double ratio = 1 / params_.scale_step;
    for (int i = 0; i < 2; ++i) {
      if (batch_.type == FrameType::kUint8) {
        load<uint8_t>(*frames[i], b_.frame[i][0]);
      } else if (batch_.type == FrameType::kFloat32) {
        load<float>(*frames[i], b_.frame[i][0]);
      } else {
        load<double>(*frames[i], b_.frame[i][0]);
      }
      for (int level = 1; level < b_.levels; ++level) {
        launch(resize_kernel, pixel_grid(level, pairs_), kPixelBlock, stream_, b_.frame[i][level - 1],
               level_at(level - 1), b_.frame[i][level], level_at(level), ratio, ratio, 1.0);
      }
    }
  }

  void carry_flow(int from, int level, double x_ratio, double y_ratio, double factor) {
    launch(resize_kernel, pixel_grid(level, 2 * pairs_), kPixelBlock, stream_, b_.flow.source(), level_at(from),
           b_.flow.target(), level_at(level), x_ratio, y_ratio, factor);
    b_.flow.flip();
  }

  void start_flow() {
    const int64_t floats = int64_t{2} * pairs_ * batch_.height * batch_.width;
    if (!batch_.initial_flow) {
      check_cuda(cudaMemsetAsync(b_.flow.source(), 0, sizeof(float) * floats, stream_), "clearing the flow");
      return;
    }
    check_cuda(
        cudaMemcpyAsync(b_.flow.source(), batch_.initial_flow->const_data_ptr<float>() + floats / pairs_ * first_,
                        sizeof(float) * floats, cudaMemcpyDeviceToDevice, stream_),
        "copy of the initial flow");
    const double step = params_.scale_step;
    for (int level = 1; level < b_.levels; ++level) {
      carry_flow(level - 1, level, 1 / step, 1 / step, step);
    }
  }

  void solve_level(int level) {
    const int64_t plane = int64_t{b_.width[level]} * b_.height[level];
    check_cuda(cudaMemsetAsync(b_.dual.source(), 0, sizeof(float) * 4 * pairs_ * plane, stream_), "clearing the dual");
    launch(texel_kernel, pixel_grid(level, pairs_), kPixelBlock, stream_, b_.frame[1][level], level_at(level),
           b_.texels);
    for (int warp = 0; warp < params_.warps; ++warp) {
      launch(params_.opencv_rounding ? data_term_kernel<true> : data_term_kernel<false>, pixel_grid(level, pairs_),
             kPixelBlock, stream_, b_.frame[0][level], b_.texels, b_.flow.source(), level_at(level), b_.term);
      check_cuda(cudaMemsetAsync(b_.state, kMoving, pairs_, stream_), "clearing the state");
      for (int outer = 0; outer < params_.outer_iterations; ++outer) {
        filter_flow(level);
        iterate(level);
      }
    }
  }

  void filter_flow(int level) {
    if (params_.median_size == 1) {
      return;
    }
    launch(params_.median_size == 3 ? median_kernel<3> : median_kernel<5>, pixel_grid(level, 2 * pairs_), kPixelBlock,
           stream_, b_.flow.source(), b_.flow.target(), level_at(level), b_.state);
    b_.flow.flip();
  }

  // The iterations of one outer round: several per launch, or one by one where each may be the last.
  void iterate(int level) {
    const bool measure = params_.epsilon > 0;
    const int per_launch = measure ? 1 : kTileIterations;
    const int width = b_.width[level], height = b_.height[level];
    const float threshold = params_.stop_threshold(width, height);
    for (int done = 0; done < params_.inner_iterations; done += per_launch) {
      IterateArguments a;
      a.iterations = std::min(per_launch, params_.inner_iterations - done);
      a.flow = b_.flow.source();
      a.new_flow = b_.flow.target();
      a.dual = b_.dual.source();
      a.new_dual = b_.dual.target();
      a.term = b_.term;
      a.level = level_at(level);
      a.limit = params_.limit();
      a.theta = static_cast<float>(params_.theta);
      a.ratio = params_.dual_ratio();
      a.state = b_.state;
      a.changes = measure ? b_.changes : nullptr;
      const dim3 grid(blocks_for(width, kTileWidth - 2 * a.iterations),
                      blocks_for(height, kTileHeight - 2 * a.iterations), static_cast<unsigned>(pairs_));
      launch(params_.opencv_rounding ? iterate_kernel<true> : iterate_kernel<false>, grid,
             dim3(kTileWidth, kTileHeight / kRowsPerThread), stream_, a);
      b_.flow.flip();
      b_.dual.flip();
      if (measure) {
        launch(update_state_kernel, dim3(static_cast<unsigned>(pairs_)), dim3(kThreads), stream_, b_.changes,
               tiles_of(width, height, 1), threshold, b_.state);
      }
    }
  }

  const Tvl1Batch& batch_;
  const Tvl1Params& params_;
  const int64_t first_, pairs_;
  const cudaStream_t stream_;
  Buffers b_;
};

void solve_batch(const Tvl1Batch& batch, const Tvl1Params& params) {
  const cudaStream_t stream = current_stream(batch.flow);
  Buffers count;
  const int64_t one = sizeof(float) * place_buffers(count, 1, batch.height, batch.width, params, nullptr);
  const int64_t pairs = std::min({batch.batch, kMaxPairs, std::max<int64_t>(kScratchBytes / one, 1)});
  const int64_t floats = place_buffers(count, pairs, batch.height, batch.width, params, nullptr);
  const Tensor memory = torch::stable::new_empty(batch.flow, {&floats, 1});
  for (int64_t first = 0; first < batch.batch; first += pairs) {
    Solver(batch, params, first, std::min(pairs, batch.batch - first), memory.mutable_data_ptr<float>(), stream).run();
  }
}

Tensor tvl1_flow_cuda(const Tensor& frame0, const Tensor& frame1, const std::optional<Tensor>& initial_flow, double tau,
                      double attachment, double theta, int64_t scales, double scale_step, int64_t warps,
                      int64_t outer_iterations, int64_t inner_iterations, double epsilon, int64_t median_size,
                      bool opencv_rounding) {
  const torch::stable::accelerator::DeviceGuard guard(frame0.get_device_index());
  return tvl1_flow_entry(frame0, frame1, initial_flow,
                         tvl1_params(tau, attachment, theta, scales, scale_step, warps, outer_iterations,
                                     inner_iterations, epsilon, median_size, opencv_rounding),
                         solve_batch);
}

} // namespace

STABLE_TORCH_LIBRARY_IMPL(pyaction, CUDA, m) {
  m.impl("tvl1_flow", TORCH_BOX(&tvl1_flow_cuda));
}

} // namespace pyaction
