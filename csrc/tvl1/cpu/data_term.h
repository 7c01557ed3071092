#pragma once
// Warping: frame 1 and its gradient, sampled where the flow points; and which of two flows explains frame 1 better.
#include "common/gather.h"
#include "tvl1/cpu/plane.h"
#include "tvl1/tvl1_math.h"

namespace pyaction {
namespace PYACTION_SIMD_LEVEL {
namespace {

// The flow (u1, u2) and its dual variables: (p11, p12) of u1 and (p21, p22) of u2.
enum SolutionField { kU1, kU2, kP11, kP12, kP21, kP22, kSolutionFields };
using Solution = Packed<kSolutionFields>;

// What the iterations need of a warp: the warped gradient, warped value - (wx, wy) . u - frame 0, and data_norm.
enum TermField { kWx, kWy, kConstant, kNorm, kTermFields };
using DataTerm = Packed<kTermFields>;

HOST_DEVICE Vec load_u(const Solution& solution, int x, int y, SolutionField component) {
  return load(at<kSolutionFields>(solution.row(y), x, component));
}

// Rows [begin, end) of a warp's data term. Both frames have repeated edges.
void make_data_term(const Plane& frame0, const Plane& frame1, const Solution& solution, const DataTerm& term, int begin,
                    int end) {
  const Vec zero(0.0f), half_share(0.5f * kReferenceShare), rest(1.0f - kReferenceShare);
  const int width = frame0.width;
  for (int y = begin; y < end; ++y) {
    const float *row = frame0.row(y), *above = frame0.row(y - 1), *below = frame0.row(y + 1);
    for (int x = 0; x < width; x += kLanes) {
      const Vec flow_x = load_u(solution, x, y, kU1), flow_y = load_u(solution, x, y, kU2);
      const Position<Vec> p = position_of(counting() + Vec(static_cast<float>(x)) + flow_x,
                                          Vec(static_cast<float>(y)) + flow_y, width, frame0.height);
      alignas(kVectorBytes) int offset[kLanes];
      offsets_of(p.base_x, p.base_y, frame1.stride, offset);
      Vec x_weight[4], y_weight[4], x_slope[4], y_slope[4];
      cubic_weights(p.x - p.base_x, x_weight[0], x_weight[1], x_weight[2], x_weight[3]);
      cubic_slopes(p.x - p.base_x, x_slope[0], x_slope[1], x_slope[2], x_slope[3]);
      cubic_weights(p.y - p.base_y, y_weight[0], y_weight[1], y_weight[2], y_weight[3]);
      cubic_slopes(p.y - p.base_y, y_slope[0], y_slope[1], y_slope[2], y_slope[3]);
      Vec value = zero, gx = zero, gy = zero;
      UNROLL
      for (int j = 0; j < 4; ++j) {
        Vec tap[4];
        load_fours(frame1.data + (j - 1) * frame1.stride - 1, offset, tap);
        Vec along = x_weight[0] * tap[0], slope = x_slope[0] * tap[0];
        UNROLL
        for (int i = 1; i < 4; ++i) {
          along = fma_of(x_weight[i], tap[i], along);
          slope = fma_of(x_slope[i], tap[i], slope);
        }
        value = fma_of(y_weight[j], along, value);
        gx = fma_of(y_weight[j], slope, gx);
        gy = fma_of(y_slope[j], along, gy);
      }
      gx = p.inside * fma_of(rest, gx, half_share * (load(row + x + 1) - load(row + x - 1)));
      gy = p.inside * fma_of(rest, gy, half_share * (load(below + x) - load(above + x)));
      const Vec constant = value - load(row + x) - fma_of(gx, flow_x, gy * flow_y);
      store(at<kTermFields>(term.row(y), x, kWx), gx);
      store(at<kTermFields>(term.row(y), x, kWy), gy);
      store(at<kTermFields>(term.row(y), x, kConstant), constant);
      store(at<kTermFields>(term.row(y), x, kNorm), data_norm<false>(gx, gy));
    }
  }
}

// |frame 1 at x + u - frame 0|, bilinear, at most kLargestResidual.
HOST_DEVICE Vec residual_of(const Plane& frame0, const Plane& frame1, Vec flow_x, Vec flow_y, int x, int y) {
  const Position<Vec> p = position_of(counting() + Vec(static_cast<float>(x)) + flow_x,
                                      Vec(static_cast<float>(y)) + flow_y, frame0.width, frame0.height);
  alignas(kVectorBytes) int offset[kLanes];
  offsets_of(p.base_x, p.base_y, frame1.stride, offset);
  const Vec right = p.x - p.base_x, down = p.y - p.base_y;
  Vec row[2];
  UNROLL
  for (int j = 0; j < 2; ++j) {
    Vec tap[4];
    load_fours(frame1.data + j * frame1.stride, offset, tap);
    row[j] = fma_of(right, tap[1] - tap[0], tap[0]);
  }
  const Vec difference = fma_of(down, row[1] - row[0], row[0]) - load(frame0.row(y) + x);
  return min_of(max_of(difference, -difference), Vec(kLargestResidual));
}

// A flow in two planes.
struct Flow {
  Plane u1, u2;
};

// Rows [begin, end) of: the residual of the kept flow less that of the solution's.
void compare_residuals(const Plane& frame0, const Plane& frame1, const Solution& solution, const Flow& kept,
                       const Plane& difference, int begin, int end) {
  for (int y = begin; y < end; ++y) {
    float* row = difference.row(y);
    for (int x = 0; x < frame0.width; x += kLanes) {
      const Vec u1 = load_u(solution, x, y, kU1), u2 = load_u(solution, x, y, kU2);
      store(row + x, residual_of(frame0, frame1, load(kept.u1.row(y) + x), load(kept.u2.row(y) + x), x, y) -
                         residual_of(frame0, frame1, u1, u2, x, y));
    }
    // Windows reach over the edges, where nothing is decided.
    for (int i = 1; i <= kCompareRadius; ++i) {
      row[-i] = row[frame0.width - 1 + i] = 0.0f;
    }
  }
}

// Rows [begin, end) of the solution's flow: the kept one where the difference, summed over a window around the pixel,
// is negative.
void take_better(const Plane& difference, const Flow& kept, const Solution& solution, int begin, int end) {
  const Vec zero(0.0f);
  for (int y = begin; y < end; ++y) {
    for (int x = 0; x < difference.width; x += kLanes) {
      Vec sum = zero;
      for (int from = y - kCompareRadius; from <= y + kCompareRadius; ++from) {
        for (int i = -kCompareRadius; from >= 0 && from < difference.height && i <= kCompareRadius; ++i) {
          sum = sum + load(difference.row(from) + x + i);
        }
      }
      float *u1 = at<kSolutionFields>(solution.row(y), x, kU1), *u2 = at<kSolutionFields>(solution.row(y), x, kU2);
      store(u1, where_less(sum, zero, load(kept.u1.row(y) + x), load(u1)));
      store(u2, where_less(sum, zero, load(kept.u2.row(y) + x), load(u2)));
    }
  }
}

} // namespace
} // namespace PYACTION_SIMD_LEVEL
} // namespace pyaction
