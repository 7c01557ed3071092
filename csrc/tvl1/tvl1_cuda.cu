// TV-L1 of a batch of sequences. Every launch works on all sequences (grid.z), the host only queues launches: sizes and
// iteration counts are known beforehand, and the stopping rule is decided on the device.
#include <torch/csrc/stable/library.h>

#include <algorithm>

#include "common/cuda/launch.h"
#include "tvl1/cuda/data_term.cuh"
#include "tvl1/cuda/iterate.cuh"
#include "tvl1/cuda/pyramid.cuh"
#include "tvl1/tvl1_entry.h"

namespace pyaction {
namespace {

// A chunk of sequences is solved at a time: no more than grid.z takes with four planes of each, and than fit into this
// scratch memory (one at least).
constexpr int64_t kMaxSequences = 1024;
constexpr int64_t kScratchBytes = int64_t{4} << 30;

// Hands out parts of memory, aligned to 256 bytes. Without memory it only counts.
struct Memory {
  float* start;
  int64_t used;

  float* take(int64_t floats) {
    float* part = start == nullptr ? nullptr : start + used;
    used += (floats + 63) / 64 * 64;
    return part;
  }
};

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

// What is kept of a chunk from one frame to the next. Planes are dense, [sequences, components, height, width].
struct State {
  float* frame[2][kMaxLevels]; // pyramids of the frames with even and with odd index
  float* flow[kMaxLevels];     // of the last pair; not for OpenCV, which begins anew
};

State place_state(const Levels& levels, int64_t sequences, const Tvl1Params& params, Memory& memory) {
  State state;
  for (int level = 0; level < levels.count; ++level) {
    const int64_t planes = sequences * levels.width[level] * levels.height[level];
    state.frame[0][level] = memory.take(planes);
    state.frame[1][level] = memory.take(planes);
    state.flow[level] = memory.take(params.as_opencv ? 0 : 2 * planes);
  }
  return state;
}

// What solving needs besides, at its largest: the finest level. Planes are as above, of the level in work.
struct Buffers {
  Field flow, dual;
  float4* texels;    // for OpenCV
  float* difference; // of two residuals; not for OpenCV
  float4* term;
  float* changes;    // per sequence and tile: sum of squared updates
  uint8_t* statuses; // per sequence, see tvl1/cuda/iterate.cuh
};

int tiles_of(int width, int height, int halo) {
  return static_cast<int>(blocks_for(width, kTileWidth - 2 * halo) * blocks_for(height, kTileHeight - 2 * halo));
}

Buffers place_buffers(const Levels& levels, int64_t sequences, const Tvl1Params& params, Memory& memory) {
  const int64_t planes = sequences * levels.width[0] * levels.height[0];
  Buffers b;
  b.flow = {{memory.take(2 * planes), memory.take(2 * planes)}, 0};
  b.dual = {{memory.take(4 * planes), memory.take(4 * planes)}, 0};
  b.texels = reinterpret_cast<float4*>(memory.take(params.as_opencv ? 4 * planes : 0));
  b.difference = memory.take(params.as_opencv ? 0 : planes);
  b.term = reinterpret_cast<float4*>(memory.take(4 * planes));
  b.changes = memory.take(sequences * tiles_of(levels.width[0], levels.height[0], 1));
  b.statuses = reinterpret_cast<uint8_t*>(memory.take((sequences + 3) / 4));
  return b;
}

// The queue of launches that solves sequences [first, first + sequences) of the batch.
class Solver {
 public:
  Solver(const Tvl1Batch& batch, const Tvl1Params& params, int64_t first, int64_t sequences, const State& state,
         const Buffers& buffers, cudaStream_t stream)
      : batch_(batch),
        params_(params),
        levels_(plan_levels(batch.height, batch.width, params)),
        first_(first),
        sequences_(sequences),
        stream_(stream),
        state_(state),
        b_(buffers) {
  }

  void run() {
    for (int64_t t = 0; t < batch_.frames(); ++t) {
      make_pyramid(t);
      if (batch_.first_index + t > 0) {
        solve(t);
      }
    }
  }

 private:
  dim3 pixel_grid(int level, int64_t components) const {
    return dim3(blocks_for(levels_.width[level], kPixelBlock.x), blocks_for(levels_.height[level], kPixelBlock.y),
                static_cast<unsigned>(components * sequences_));
  }

  Level level_at(int level) const {
    return {levels_.width[level], levels_.height[level]};
  }

  int64_t plane_at(int level) const {
    return int64_t{levels_.width[level]} * levels_.height[level];
  }

  float* frame_at(int64_t index, int level) const {
    return state_.frame[index % 2][level];
  }

  template <typename pixel_t>
  void load(int64_t t) {
    const int64_t stride = batch_.frame_stride / static_cast<int64_t>(sizeof(pixel_t));
    launch(load_kernel<pixel_t>, pixel_grid(0, 1), kPixelBlock, stream_,
           reinterpret_cast<const pixel_t*>(batch_.frame[t]) + first_ * stride, stride, batch_.channels, level_at(0),
           frame_at(batch_.first_index + t, 0));
  }

  void make_pyramid(int64_t t) {
    if (batch_.type == FrameType::kUint8) {
      load<uint8_t>(t);
    } else if (batch_.type == FrameType::kFloat32) {
      load<float>(t);
    } else {
      load<double>(t);
    }
    const int64_t index = batch_.first_index + t;
    for (int level = 1; level < levels_.count; ++level) {
      resize(frame_at(index, level - 1), level - 1, frame_at(index, level), level, 1, 1.0, 1.0);
    }
  }

  void resize(const float* source, int from, float* target, int to, int64_t components, double x_factor,
              double y_factor) const {
    launch(resize_kernel, pixel_grid(to, components), kPixelBlock, stream_, source, level_at(from), target,
           level_at(to), level_ratio(levels_.width, from, to, params_), level_ratio(levels_.height, from, to, params_),
           x_factor, y_factor);
  }

  void carry_flow(int from, int to) {
    resize(b_.flow.source(), from, b_.flow.target(), to, 2, level_factor(levels_.width, from, to, params_),
           level_factor(levels_.height, from, to, params_));
    b_.flow.flip();
  }

  // To a finer level, whose last pixel takes the value of the last pixel: across the right and the lower edge, where
  // there is no gradient, the dual variables stay zero.
  void carry_dual(int from, int to) {
    resize(b_.dual.source(), from, b_.dual.target(), to, 4, 1.0, 1.0);
    b_.dual.flip();
  }

  void clear_dual(int level) {
    check_cuda(cudaMemsetAsync(b_.dual.source(), 0, sizeof(float) * 4 * sequences_ * plane_at(level), stream_),
               "clearing the dual");
  }

  // The flow at the coarsest level before anything is known: zero, or an initial flow, carried down.
  void start_flow() {
    const int64_t flow_size = batch_.flow_size(), bytes = sizeof(float) * sequences_ * flow_size;
    if (!batch_.initial_flow) {
      check_cuda(cudaMemsetAsync(b_.flow.source(), 0, bytes, stream_), "clearing the flow");
      return;
    }
    check_cuda(cudaMemcpyAsync(b_.flow.source(), batch_.initial_flow->const_data_ptr<float>() + first_ * flow_size,
                               bytes, cudaMemcpyDeviceToDevice, stream_),
               "copy of the initial flow");
    for (int level = 1; level < levels_.count; ++level) {
      carry_flow(level - 1, level);
    }
  }

  // The pair that ends at frame t of the batch.
  void solve(int64_t t) {
    const int64_t index = batch_.first_index + t;
    const bool keeps = !params_.as_opencv && !(batch_.last && t + 1 == batch_.frames());
    start_flow();
    for (int level = levels_.count - 1; level >= 0; --level) {
      const bool coarsest = level == levels_.count - 1;
      if (!coarsest) {
        carry_flow(level + 1, level);
      }
      if (coarsest || params_.as_opencv) {
        clear_dual(level);
      } else {
        carry_dual(level + 1, level);
      }
      if (index > 1 && !params_.as_opencv) {
        prefer_kept_flow(index, level);
      }
      solve_level(index, level);
      if (keeps) {
        check_cuda(cudaMemcpyAsync(state_.flow[level], b_.flow.source(),
                                   sizeof(float) * 2 * sequences_ * plane_at(level), cudaMemcpyDeviceToDevice, stream_),
                   "copy of the flow");
      }
    }
    launch(store_kernel, pixel_grid(0, 2), kPixelBlock, stream_, b_.flow.source(), level_at(0),
           batch_.flow_at(first_, t), batch_.flow_at(1, t) - batch_.flow_at(0, t));
  }

  // Where the flow of the pair before explains this pair better than what the coarser level says, it is taken.
  void prefer_kept_flow(int64_t index, int level) {
    launch(compare_residuals_kernel, pixel_grid(level, 1), kPixelBlock, stream_, frame_at(index - 1, level),
           frame_at(index, level), b_.flow.source(), state_.flow[level], level_at(level), b_.difference);
    launch(take_better_kernel, pixel_grid(level, 1), kPixelBlock, stream_, b_.difference, state_.flow[level],
           level_at(level), b_.flow.source());
  }

  void solve_level(int64_t index, int level) {
    const float *frame0 = frame_at(index - 1, level), *frame1 = frame_at(index, level);
    const dim3 grid = pixel_grid(level, 1);
    if (params_.as_opencv) {
      launch(texel_kernel, grid, kPixelBlock, stream_, frame1, level_at(level), b_.texels);
    }
    for (int warp = 0; warp < params_.warps; ++warp) {
      if (params_.as_opencv) {
        launch(opencv_term_kernel, grid, kPixelBlock, stream_, frame0, b_.texels, b_.flow.source(), level_at(level),
               b_.term);
      } else {
        launch(data_term_kernel, grid, kPixelBlock, stream_, frame0, frame1, b_.flow.source(), level_at(level),
               b_.term);
      }
      check_cuda(cudaMemsetAsync(b_.statuses, kMoving, sequences_, stream_), "clearing the statuses");
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
    launch(params_.median_size == 3 ? median_kernel<3> : median_kernel<5>, pixel_grid(level, 2), kPixelBlock, stream_,
           b_.flow.source(), b_.flow.target(), level_at(level), b_.statuses);
    b_.flow.flip();
  }

  // The iterations of one outer round: several per launch, or one by one where each may be the last.
  void iterate(int level) {
    const bool measure = params_.epsilon > 0;
    const int per_launch = measure ? 1 : kTileIterations;
    const int width = levels_.width[level], height = levels_.height[level];
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
      a.statuses = b_.statuses;
      a.changes = measure ? b_.changes : nullptr;
      const dim3 grid(blocks_for(width, kTileWidth - 2 * a.iterations),
                      blocks_for(height, kTileHeight - 2 * a.iterations), static_cast<unsigned>(sequences_));
      const auto kernel = params_.as_opencv ? (measure ? iterate_kernel<true, true> : iterate_kernel<true, false>)
                                            : (measure ? iterate_kernel<false, true> : iterate_kernel<false, false>);
      launch(kernel, grid, dim3(kTileWidth, kThreadRows), stream_, a);
      b_.flow.flip();
      b_.dual.flip();
      if (measure) {
        launch(update_status_kernel, dim3(static_cast<unsigned>(sequences_)), dim3(kThreads), stream_, b_.changes,
               tiles_of(width, height, 1), threshold, b_.statuses);
      }
    }
  }

  const Tvl1Batch& batch_;
  const Tvl1Params& params_;
  const Levels levels_;
  const int64_t first_, sequences_;
  const cudaStream_t stream_;
  const State state_;
  Buffers b_;
};

struct Cuda {
  // In floats, of one sequence. A chunk of them needs no more, if not as much: its planes are rounded up together.
  static int64_t state_size(const Tvl1Batch& batch, const Tvl1Params& params) {
    Memory count = {nullptr, 0};
    place_state(plan_levels(batch.height, batch.width, params), 1, params, count);
    return count.used;
  }

  // How many sequences a chunk has depends on nothing but the sizes: all calls lay out one state alike.
  static void run(const Tvl1Batch& batch, const Tvl1Params& params, const Tensor* state) {
    const torch::stable::accelerator::DeviceGuard guard(batch.held[0].get_device_index());
    const cudaStream_t stream = current_stream(batch.held[0]);
    const Levels levels = plan_levels(batch.height, batch.width, params);
    const int64_t own_state = state_size(batch, params);
    const int64_t own_bytes = sizeof(float) * (own_state + scratch_size(levels, 1, params));
    const int64_t most = std::min({batch.sequences, kMaxSequences, std::max<int64_t>(kScratchBytes / own_bytes, 1)});
    const int64_t scratch = scratch_size(levels, most, params);
    const Tensor memory = new_flow(batch, {scratch + (state ? 0 : most * own_state)});
    for (int64_t first = 0; first < batch.sequences; first += most) {
      const int64_t sequences = std::min(most, batch.sequences - first);
      Memory free = {memory.mutable_data_ptr<float>(), 0};
      const Buffers buffers = place_buffers(levels, sequences, params, free);
      Memory kept = {state ? state->mutable_data_ptr<float>() + first * own_state : free.start + scratch, 0};
      Solver(batch, params, first, sequences, place_state(levels, sequences, params, kept), buffers, stream).run();
    }
  }

 private:
  static int64_t scratch_size(const Levels& levels, int64_t sequences, const Tvl1Params& params) {
    Memory count = {nullptr, 0};
    place_buffers(levels, sequences, params, count);
    return count.used;
  }
};

} // namespace

STABLE_TORCH_LIBRARY_IMPL(pyaction, CUDA, m) {
  m.impl("tvl1_flow", TORCH_BOX(&Tvl1Entries<Cuda>::flow));
  m.impl("tvl1_flow_clip", TORCH_BOX(&Tvl1Entries<Cuda>::flow_clip));
  m.impl("tvl1_begin", TORCH_BOX(&Tvl1Entries<Cuda>::begin));
  m.impl("tvl1_next", TORCH_BOX(&Tvl1Entries<Cuda>::next));
}

} // namespace pyaction
