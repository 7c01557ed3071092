// TV-L1 of one sequence of frames by one team of threads, compiled once per instruction set (common/simd.h).
#include "tvl1/cpu/buffers.h"
#include "tvl1/cpu/iterate.h"
#include "tvl1/cpu/median.h"
#include "tvl1/cpu/opencv_term.h"
#include "tvl1/tvl1.h"

namespace pyaction {
namespace PYACTION_SIMD_LEVEL {
namespace {

// Solves the newest pair of a sequence.
class Solver {
 public:
  Solver(const Tvl1Step& step, const Tvl1Params& params, float* state, float* workspace, Team& team)
      : step_(step), params_(params), team_(team), levels_(plan_levels(step.height, step.width, params)) {
    Workspace memory = {state, 0};
    state_ = place_state(levels_, memory);
    memory = {workspace, 0};
    b_ = place_buffers(levels_, memory);
    memset(b_.zero_row, 0, sizeof(float) * packed_stride<kSolutionFields>(step.width));
  }

  // The pyramid of the step's frame.
  void load() {
    const Plane finest = frame_at(step_.index, 0);
    share_rows(team_, finest.height, [&](int begin, int end) { load_frame(step_.frame, finest, begin, end); });
    repeat_edges(finest);
    for (int level = 1; level < levels_.count; ++level) {
      const Plane frame = frame_at(step_.index, level);
      shrink(frame_at(step_.index, level - 1), level, frame);
      repeat_edges(frame);
    }
  }

  void solve() {
    const bool keeps = !step_.last && !params_.as_opencv;
    start_flow();
    for (int level = levels_.count - 1; level >= 0; --level) {
      if (level < levels_.count - 1) {
        carry(level + 1, level);
      }
      if (params_.as_opencv) {
        solve_level<true>(level);
      } else {
        if (step_.index > 1) {
          prefer_kept_flow(level);
        }
        solve_level<false>(level);
      }
      if (keeps || level == 0) {
        unpack_flow(level, keeps ? kept_at(level) : flow_at(level));
      }
    }
    const Flow flow = keeps ? kept_at(0) : flow_at(0);
    const int64_t pixels = static_cast<int64_t>(step_.width) * step_.height;
    share_rows(team_, step_.height, [&](int begin, int end) {
      store_rows(flow.u1, step_.flow, begin, end);
      store_rows(flow.u2, step_.flow + pixels, begin, end);
    });
  }

 private:
  Plane plane_at(int level, float* memory) const {
    return make_plane(memory, levels_.width[level], levels_.height[level]);
  }
  Flow flow_at(int level) const {
    return {plane_at(level, b_.flow[0]), plane_at(level, b_.flow[1])};
  }
  Plane frame_at(int64_t index, int level) const {
    return make_framed_plane(state_.frame[index % 2][level], levels_.width[level], levels_.height[level]);
  }
  Flow kept_at(int level) const {
    return {plane_at(level, state_.flow[0][level]), plane_at(level, state_.flow[1][level])};
  }
  Solution solution_at(int level, float* memory) const {
    return make_packed<kSolutionFields>(memory, levels_.width[level], levels_.height[level]);
  }
  Solution solution_at(int level) const {
    return solution_at(level, b_.solution);
  }

  double x_ratio(int from, int to) const {
    return level_ratio(levels_.width, from, to, params_);
  }
  double y_ratio(int from, int to) const {
    return level_ratio(levels_.height, from, to, params_);
  }
  double flow_factor(int from, int to, int component) const {
    return level_factor(component == kU1 ? levels_.width : levels_.height, from, to, params_);
  }

  // Resamples a frame of level `level` - 1.
  void shrink(const Plane& source, int level, const Plane& target) {
    const double ratio = y_ratio(level - 1, level);
    make_column_taps(source.width, target.width, x_ratio(level - 1, level), PlaneRow::kBlock, b_.columns);
    share_rows(team_, target.height, [&](int begin, int end) {
      for (int y = begin; y < end; ++y) {
        const ResizeTap tap = resize_tap(y, ratio, source.height);
        const PlaneRow top = {source.row(tap.index)},
                       bottom = {source.row(tap.fraction > 0 ? tap.index + 1 : tap.index)};
        resize_row(top, bottom, tap.fraction, target.width, b_.columns, 1.0,
                   [row = target.row(y)](int x, Vec value) { store(row + x, value); });
      }
    });
  }

  // Resamples the first `fields` of the solution of level `from` for level `to`.
  void resize_solution(int from, int to, int fields) {
    const Solution source = solution_at(from), target = solution_at(to, b_.spare);
    const double ratio = y_ratio(from, to), factors[] = {flow_factor(from, to, kU1), flow_factor(from, to, kU2)};
    make_column_taps(source.width, target.width, x_ratio(from, to), FieldRow::kBlock, b_.columns);
    share_rows(team_, target.height, [&](int begin, int end) {
      for (int y = begin; y < end; ++y) {
        const ResizeTap tap = resize_tap(y, ratio, source.height);
        const float *top = source.row(tap.index), *bottom = source.row(tap.fraction > 0 ? tap.index + 1 : tap.index);
        for (int field = 0; field < fields; ++field) {
          resize_row(FieldRow{top, field}, FieldRow{bottom, field}, tap.fraction, target.width, b_.columns,
                     field < kP11 ? factors[field] : 1.0, [row = target.row(y), field](int x, Vec value) {
                       store(at<kSolutionFields>(row, x, field), value);
                     });
        }
      }
    });
    swap_solution();
  }

  void swap_solution() {
    float* written = b_.spare;
    b_.spare = b_.solution;
    b_.solution = written;
  }

  // The solution at the coarsest level before anything is known: zero, but for an initial flow, carried down.
  void start_flow() {
    const int coarsest = levels_.count - 1;
    if (step_.initial_flow != nullptr) {
      const int64_t pixels = static_cast<int64_t>(step_.width) * step_.height;
      const Plane flow[] = {flow_at(0).u1, flow_at(0).u2};
      for (int field = kU1; field <= kU2; ++field) {
        load_rows(step_.initial_flow + field * pixels, flow[field], 0, step_.height);
        pack_rows(flow[field], solution_at(0), field);
      }
      for (int level = 1; level < levels_.count; ++level) {
        resize_solution(level - 1, level, kP11);
      }
    }
    clear_fields(solution_at(coarsest), step_.initial_flow == nullptr ? kU1 : kP11);
  }

  // The flow of level `from` becomes the start of the finer level `to`; so do the dual variables, except for OpenCV,
  // where they start at zero. In the last column and row, where there is no gradient across the edge, p11 and p21 or
  // p12 and p22 stay zero: those of a finer level come from the last of the coarser one alone.
  void carry(int from, int to) {
    resize_solution(from, to, params_.as_opencv ? kP11 : kSolutionFields);
    if (params_.as_opencv) {
      clear_fields(solution_at(to), kP11);
    }
  }

  // Field `first` and all behind it become zero.
  void clear_fields(const Solution& solution, int first) {
    share_rows(team_, solution.height, [&](int begin, int end) {
      for (int y = begin; y < end; ++y) {
        for (int x = 0; x < solution.width; x += kLanes) {
          float* fields = at<kSolutionFields>(solution.row(y), x, first);
          memset(fields, 0, sizeof(float) * kLanes * (kSolutionFields - first));
        }
      }
    });
  }

  // Where the flow of the pair before explains this pair better than what the coarser level says, it is taken.
  void prefer_kept_flow(int level) {
    const Solution solution = solution_at(level);
    const Plane difference = plane_at(level, b_.change);
    share_rows(team_, solution.height, [&](int begin, int end) {
      compare_residuals(frame_at(step_.index - 1, level), frame_at(step_.index, level), solution, kept_at(level),
                        difference, begin, end);
    });
    share_rows(team_, solution.height,
               [&](int begin, int end) { take_better(difference, kept_at(level), solution, begin, end); });
  }

  void unpack_flow(int level, const Flow& flow) {
    share_rows(team_, levels_.height[level], [&](int begin, int end) {
      unpack_rows(solution_at(level), kU1, flow.u1, begin, end);
      unpack_rows(solution_at(level), kU2, flow.u2, begin, end);
    });
  }

  template <bool as_opencv>
  void solve_level(int level) {
    const DataTerm term = make_packed<kTermFields>(b_.term, levels_.width[level], levels_.height[level]);
    const Plane frame0 = frame_at(step_.index - 1, level), frame1 = frame_at(step_.index, level);
    const TexelPlane texels = make_texel_plane(b_.texels, frame1.width, frame1.height);
    if (as_opencv) {
      share_rows(team_, frame1.height, [&](int begin, int end) { make_texels(frame1, texels, begin, end); });
    }
    for (int warp = 0; warp < params_.warps; ++warp) {
      share_rows(team_, frame0.height, [&](int begin, int end) {
        if (as_opencv) {
          make_opencv_term(frame0, texels, solution_at(level), term, begin, end);
        } else {
          make_data_term(frame0, frame1, solution_at(level), term, begin, end);
        }
      });
      solve_warp<as_opencv>(level, term);
    }
  }

  // The iterations of one warp. With a stopping threshold they are run one by one, else many per sweep.
  template <bool as_opencv>
  void solve_warp(int level, const DataTerm& term) {
    const bool stops = params_.epsilon > 0;
    const float threshold = params_.stop_threshold(levels_.width[level], levels_.height[level]);
    const int sweep = stops ? 1 : sweep_length(levels_.width[level]);
    bool moving = true;
    for (int outer = 0; moving && outer < params_.outer_iterations; ++outer) {
      filter_flow(level);
      for (int done = 0; moving && done < params_.inner_iterations; done += sweep) {
        const int left = params_.inner_iterations - done, count = left < sweep ? left : sweep;
        if (!stops) {
          iterate<as_opencv, false>(level, term, count);
          continue;
        }
        iterate<as_opencv, true>(level, term, count);
        const Plane change = plane_at(level, b_.change);
        share_rows(team_, change.height, [&](int begin, int end) { sum_rows(change, b_.row_sums, begin, end); });
        moving = sum_exceeds(change, b_.row_sums, threshold);
      }
    }
  }

  void filter_flow(int level) {
    if (params_.median_size == 1) {
      return;
    }
    const Plane flow[] = {flow_at(level).u1, flow_at(level).u2};
    const Solution solution = solution_at(level);
    share_rows(team_, solution.height, [&](int begin, int end) {
      for (int field = kU1; field <= kU2; ++field) {
        unpack_rows(solution, field, flow[field], begin, end);
        for (int y = begin; y < end; ++y) {
          pad_row(flow[field].row(y), flow[field].width, params_.median_size / 2);
        }
      }
    });
    share_rows(team_, solution.height, [&](int begin, int end) {
      for (int field = kU1; field <= kU2; ++field) {
        if (params_.median_size == 3) {
          median_rows<3>(flow[field], solution, field, begin, end);
        } else {
          median_rows<5>(flow[field], solution, field, begin, end);
        }
      }
    });
  }

  // As many iterations as keep the rows that a sweep works on within half a megabyte.
  static int sweep_length(int width) {
    const int64_t row_bytes =
        sizeof(float) * (packed_stride<kSolutionFields>(width) + packed_stride<kTermFields>(width));
    const int rows = static_cast<int>((512 << 10) / row_bytes);
    return rows < 2 ? 2 : rows < kSweep ? rows : kSweep;
  }

  template <bool as_opencv, bool measure>
  void iterate(int level, const DataTerm& term, int count) {
    const StepConstants constants = {params_.limit(), static_cast<float>(params_.theta), params_.dual_ratio()};
    const int height = levels_.height[level];
    // Each band computes `count` rows of its neighbours again.
    const int most = height / (2 * kSweep + 8), bands = most < 1 ? 1 : most < team_.size ? most : team_.size;
    const Solution before = solution_at(level), after = bands == 1 ? before : solution_at(level, b_.spare);
    share(team_, bands, [&](int index) {
      const Band band = {after, solution_at(level, b_.copies), band_start(height, bands, index),
                         band_start(height, bands, index + 1), 2 * kSweep * index};
      iterate_band<as_opencv, measure>({before, band, term, plane_at(level, b_.change), b_.zero_row}, count, constants);
    });
    if (bands > 1) {
      swap_solution();
    }
  }

  const Tvl1Step& step_;
  const Tvl1Params& params_;
  Team& team_;
  const Levels levels_;
  State state_;
  Buffers b_;
};

int64_t state_size(int height, int width, const Tvl1Params& params) {
  Workspace count = {nullptr, 0};
  place_state(plan_levels(height, width, params), count);
  return count.used;
}

int64_t workspace_size(int height, int width, const Tvl1Params& params) {
  Workspace count = {nullptr, 0};
  place_buffers(plan_levels(height, width, params), count);
  return count.used;
}

void push(const Tvl1Step& step, const Tvl1Params& params, float* state, float* workspace, Team& team) {
  Solver solver(step, params, state, workspace, team);
  solver.load();
  if (step.index > 0) {
    solver.solve();
  }
}

} // namespace

extern const Tvl1Kernels tvl1_kernels = {state_size, workspace_size, push};

} // namespace PYACTION_SIMD_LEVEL
} // namespace pyaction
