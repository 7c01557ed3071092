// TV-L1 of one pair on one thread, compiled once per instruction set (common/simd.h).
#include "tvl1/cpu/iterate.h"
#include "tvl1/cpu/median.h"
#include "tvl1/cpu/pyramid.h"
#include "tvl1/tvl1.h"

namespace pyaction {
namespace PYACTION_SIMD_LEVEL {
namespace {

// Everything that solving a pair needs, at its largest: the finest level. Planes of one level share these sizes.
struct Buffers {
  int levels;
  int width[kMaxLevels], height[kMaxLevels];
  float* frame[2][kMaxLevels];
  float *flow[2], *spare[2]; // u1 and u2, and the targets of what cannot work in place
  float* dual[4];
  float* term[4];
  float* texels;
  float* change;
  float* zero_row;
  ResizeScratch resize;
};

Buffers make_buffers(int height, int width, const Tvl1Params& params, Workspace& workspace) {
  Buffers b;
  b.levels = plan_levels(height, width, params, b.width, b.height);
  for (int level = 0; level < b.levels; ++level) {
    b.frame[0][level] = workspace.take(plane_size(b.width[level], b.height[level]));
    b.frame[1][level] = workspace.take(plane_size(b.width[level], b.height[level]));
  }
  const int64_t size = plane_size(b.width[0], b.height[0]);
  for (int i = 0; i < 2; ++i) {
    b.flow[i] = workspace.take(size);
    b.spare[i] = workspace.take(size);
  }
  for (int i = 0; i < 4; ++i) {
    b.dual[i] = workspace.take(size);
    b.term[i] = workspace.take(size);
  }
  b.texels = workspace.take(texel_plane_size(b.width[0], b.height[0]));
  b.change = workspace.take(size);
  b.zero_row = workspace.take(2 * kPad + round_up(b.width[0]));
  b.resize = take_resize_scratch(workspace, b.width[0]);
  return b;
}

Plane plane_at(const Buffers& b, int level, float* memory) {
  return make_plane(memory, b.width[level], b.height[level]);
}

// What was just written to the spare planes becomes the flow.
void swap_flow(Buffers& b) {
  for (int i = 0; i < 2; ++i) {
    float* written = b.spare[i];
    b.spare[i] = b.flow[i];
    b.flow[i] = written;
  }
}

// Resamples the flow of level `from` for `level`; its vectors become longer by `factor`.
void carry_flow(Buffers& b, int from, int level, double x_ratio, double y_ratio, double factor) {
  for (int i = 0; i < 2; ++i) {
    resize(plane_at(b, from, b.flow[i]), plane_at(b, level, b.spare[i]), x_ratio, y_ratio, factor, b.resize);
  }
  swap_flow(b);
}

// The flow at the coarsest level before anything is known: zero, or the initial flow carried down.
void start_flow(Buffers& b, const float* initial_flow, double scale_step) {
  const int64_t pixels = static_cast<int64_t>(b.width[0]) * b.height[0];
  for (int i = 0; i < 2; ++i) {
    if (initial_flow == nullptr) {
      clear(plane_at(b, b.levels - 1, b.flow[i]));
    } else {
      load_rows(initial_flow + i * pixels, plane_at(b, 0, b.flow[i]));
    }
  }
  for (int level = 1; initial_flow != nullptr && level < b.levels; ++level) {
    carry_flow(b, level - 1, level, 1 / scale_step, 1 / scale_step, scale_step);
  }
}

void filter_flow(Buffers& b, int level, int median_size) {
  if (median_size == 1) {
    return;
  }
  for (int i = 0; i < 2; ++i) {
    const Plane flow = plane_at(b, level, b.flow[i]), filtered = plane_at(b, level, b.spare[i]);
    if (median_size == 3) {
      median_filter<3>(flow, filtered);
    } else {
      median_filter<5>(flow, filtered);
    }
  }
  swap_flow(b);
}

Solution solution_at(const Buffers& b, int level) {
  return {plane_at(b, level, b.flow[0]), plane_at(b, level, b.flow[1]),
          plane_at(b, level, b.dual[0]), plane_at(b, level, b.dual[1]),
          plane_at(b, level, b.dual[2]), plane_at(b, level, b.dual[3]),
          plane_at(b, level, b.change),  b.zero_row + kPad};
}

// The iterations of one warp. With a stopping threshold they are run one by one, else in one sweep per outer round.
template <bool exact>
void solve_warp(Buffers& b, int level, const DataTerm& term, const Tvl1Params& params) {
  const bool stops = params.epsilon > 0;
  const float threshold = params.stop_threshold(b.width[level], b.height[level]);
  bool moving = true;
  for (int outer = 0; moving && outer < params.outer_iterations; ++outer) {
    filter_flow(b, level, params.median_size);
    const Solution solution = solution_at(b, level);
    if (!stops) {
      iterate<exact, false>(solution, term, params.inner_iterations, params);
      continue;
    }
    for (int inner = 0; moving && inner < params.inner_iterations; ++inner) {
      iterate<exact, true>(solution, term, 1, params);
      moving = sum_exceeds(solution.change, threshold);
    }
  }
}

template <bool exact>
void solve_level(Buffers& b, int level, const Tvl1Params& params) {
  const TexelPlane texels = make_texel_plane(b.texels, b.width[level], b.height[level]);
  make_texels(plane_at(b, level, b.frame[1][level]), texels);
  const DataTerm term = {plane_at(b, level, b.term[0]), plane_at(b, level, b.term[1]), plane_at(b, level, b.term[2]),
                         plane_at(b, level, b.term[3])};
  for (float* dual : b.dual) {
    clear(plane_at(b, level, dual));
  }
  for (int warp = 0; warp < params.warps; ++warp) {
    make_data_term<exact>(plane_at(b, level, b.frame[0][level]), texels, plane_at(b, level, b.flow[0]),
                          plane_at(b, level, b.flow[1]), term);
    solve_warp<exact>(b, level, term, params);
  }
}

int64_t workspace_size(int height, int width, const Tvl1Params& params) {
  Workspace count = {nullptr, 0};
  make_buffers(height, width, params, count);
  return count.used;
}

void solve(const Tvl1Pair& pair, const Tvl1Params& params, float* memory) {
  Workspace workspace = {memory, 0};
  Buffers b = make_buffers(pair.height, pair.width, params, workspace);
  memset(b.zero_row, 0, sizeof(float) * (2 * kPad + round_up(pair.width)));
  load_frame(pair.frame0, plane_at(b, 0, b.frame[0][0]));
  load_frame(pair.frame1, plane_at(b, 0, b.frame[1][0]));
  const double ratio = 1 / params.scale_step;
  for (int level = 1; level < b.levels; ++level) {
    for (float** frame : b.frame) {
      resize(plane_at(b, level - 1, frame[level - 1]), plane_at(b, level, frame[level]), ratio, ratio, 1.0, b.resize);
    }
  }

  start_flow(b, pair.initial_flow, params.scale_step);
  for (int level = b.levels - 1; level >= 0; --level) {
    if (level < b.levels - 1) {
      carry_flow(b, level + 1, level, b.width[level + 1] / static_cast<double>(b.width[level]),
                 b.height[level + 1] / static_cast<double>(b.height[level]), ratio);
    }
    if (params.opencv_rounding) {
      solve_level<true>(b, level, params);
    } else {
      solve_level<false>(b, level, params);
    }
  }
  const int64_t pixels = static_cast<int64_t>(pair.width) * pair.height;
  store_rows(plane_at(b, 0, b.flow[0]), pair.flow);
  store_rows(plane_at(b, 0, b.flow[1]), pair.flow + pixels);
}

} // namespace

extern const Tvl1Kernels tvl1_kernels = {workspace_size, solve};

} // namespace PYACTION_SIMD_LEVEL
} // namespace pyaction
