#pragma once
// The primal-dual iterations.
#include "tvl1/cpu/data_term.h"

namespace pyaction {
namespace PYACTION_SIMD_LEVEL {
namespace {

// Iterations that pass over the image in one sweep.
constexpr int kSweep = 16;

// The part of the solution that one band of rows is worked on in. Rows outside of the band belong to other threads: the
// band has copies of those that it reaches.
struct Band {
  Solution whole, copies;
  int first, last; // rows of the band
  int copy;        // row of `copies` that stands for row first - kSweep; that for row last is kSweep further on

  float* row(int y) const {
    return y < first  ? copies.row(copy + kSweep + y - first)
           : y < last ? whole.row(y)
                      : copies.row(copy + kSweep + y - last);
  }
};

// One row of work: u of row y from u and p of row y and p of row y - 1; then p of row y - 1, which needs the new u of
// both rows. Both at once, because each alone leaves half of the processor idle.
struct RowStep {
  const float *old_here, *old_above; // rows y and y - 1 of the solution, before
  float *here, *above;               // and after; the flow of `above` is there already
  const float* term;                 // row y
  float* change;                     // row y: squared update of u, where it is asked for
};

struct StepConstants {
  Vec limit, theta, ratio;
};

template <bool as_opencv>
HOST_DEVICE void store_dual(float* row, const DualStep<Vec>& step, int x, Vec ratio) {
  Vec p11, p12, p21, p22;
  end_dual_step<as_opencv>(step, p11, p12, p21, p22, ratio);
  store(at<kSolutionFields>(row, x, kP11), p11);
  store(at<kSolutionFields>(row, x, kP12), p12);
  store(at<kSolutionFields>(row, x, kP21), p21);
  store(at<kSolutionFields>(row, x, kP22), p22);
}

// primal, dual: which of the two is done. measure: leaves the squared update.
template <bool as_opencv, bool measure, bool primal, bool dual>
void step_row(const RowStep& r, int width, const StepConstants& c) {
  const Vec zero(0.0f);
  const auto field = [](const float* row, int x, SolutionField f) { return load(at<kSolutionFields>(row, x, f)); };
  Vec before11 = zero, before21 = zero; // p11 and p21 of the vector to the left: zero left of the image
  Vec above1 = dual ? field(r.above, 0, kU1) : zero, above2 = dual ? field(r.above, 0, kU2) : zero;
  DualStep<Vec> begun; // of the vector to the left: its roots and quotients are found while this one is begun
  for (int x = 0; x < width; x += kLanes) {
    const Vec above12 = field(r.old_above, x, kP12), above22 = field(r.old_above, x, kP22);
    const Vec above11 = dual ? field(r.old_above, x, kP11) : zero, above21 = dual ? field(r.old_above, x, kP21) : zero;
    Vec u1 = above1, u2 = above2; // the forward gradient is zero in the last row
    if (dual && x > 0) {
      store_dual<as_opencv>(r.above, begun, x - kLanes, c.ratio);
    }
    if (primal) {
      const Vec p11 = field(r.old_here, x, kP11), p12 = field(r.old_here, x, kP12);
      const Vec p21 = field(r.old_here, x, kP21), p22 = field(r.old_here, x, kP22);
      Vec divergence1 = (p11 - left_of(before11, p11)) + (p12 - above12);
      Vec divergence2 = (p21 - left_of(before21, p21)) + (p22 - above22);
      if (as_opencv && x == 0) { // OpenCV adds up the first column in another order
        divergence1.lanes[0] = (p11.lanes[0] + p12.lanes[0]) - above12.lanes[0];
        divergence2.lanes[0] = (p21.lanes[0] + p22.lanes[0]) - above22.lanes[0];
      }
      before11 = p11;
      before21 = p21;
      const Vec old1 = field(r.old_here, x, kU1), old2 = field(r.old_here, x, kU2);
      u1 = old1;
      u2 = old2;
      const float* term = at<kTermFields>(r.term, x, 0);
      primal_step<as_opencv>(u1, u2, load(term + kWx * kLanes), load(term + kWy * kLanes),
                             load(term + kConstant * kLanes), load(term + kNorm * kLanes), divergence1, divergence2,
                             c.limit, c.theta);
      store(at<kSolutionFields>(r.here, x, kU1), u1);
      store(at<kSolutionFields>(r.here, x, kU2), u2);
      if (measure) {
        store(r.change + x, (u1 - old1) * (u1 - old1) + (u2 - old2) * (u2 - old2));
      }
    }
    if (dual) {
      const Vec right1 = field(r.above, x + kLanes, kU1), right2 = field(r.above, x + kLanes, kU2);
      begun = begin_dual_step<as_opencv>(above11, above12, above21, above22, right_of(above1, right1) - above1,
                                         u1 - above1, right_of(above2, right2) - above2, u2 - above2, c.ratio);
      above1 = right1;
      above2 = right2;
    }
  }
  if (dual) {
    store_dual<as_opencv>(r.above, begun, (width - 1) / kLanes * kLanes, c.ratio);
  }
  if (primal) { // the forward gradient is zero in the last column
    value_at<kSolutionFields>(r.here, width, kU1) = value_at<kSolutionFields>(r.here, width - 1, kU1);
    value_at<kSolutionFields>(r.here, width, kU2) = value_at<kSolutionFields>(r.here, width - 1, kU2);
  }
}

// What the iterations of a band work on.
struct BandWork {
  Solution before; // the first iteration; the same as band.whole where the band is the whole image
  Band band;
  DataTerm term;
  Plane change;
  const float* zero_row; // of a solution
};

// `count` iterations, at most kSweep, of the rows of one band in one sweep: iteration k works one row behind
// iteration k - 1, so that all of them pass over rows that are still in the cache. Every value is the one that
// iterations over the whole image, one after the other, would give: rows next to the band that later iterations need
// are computed here too, in the band's copies.
template <bool as_opencv, bool measure>
void iterate_band(const BandWork& work, int count, const StepConstants& constants) {
  const Band& band = work.band;
  const int width = work.term.width, height = work.term.height;
  for (int front = band.first - count; front < band.last + 2 * count; ++front) {
    for (int k = 0; k < count; ++k) {
      const int y = front - k, later = count - 1 - k; // rows beyond the band that are still needed
      const bool primal = y >= 0 && y < height && y >= band.first - later && y <= band.last + later;
      const bool dual = y >= 1 && y <= height && y > band.first - later && y <= band.last + later;
      if (!primal && !dual) {
        continue;
      }
      const auto old_row = [&](int row) { return k == 0 ? work.before.row(row) : band.row(row); };
      RowStep r = {};
      r.old_above = y > 0 ? old_row(y - 1) : work.zero_row;
      r.above = y > 0 ? band.row(y - 1) : nullptr;
      if (primal) {
        r.old_here = old_row(y);
        r.here = band.row(y);
        r.term = work.term.row(y);
        // A neighbour's row is measured by the neighbour; here its update goes where nothing is kept.
        r.change = y >= band.first && y < band.last ? work.change.row(y) : band.copies.row(band.copy);
      }
      if (primal && dual) {
        step_row<as_opencv, measure, true, true>(r, width, constants);
      } else if (primal) {
        step_row<as_opencv, measure, true, false>(r, width, constants);
      } else {
        step_row<as_opencv, measure, false, true>(r, width, constants);
      }
    }
  }
}

// Sums of the rows [begin, end) of a plane.
void sum_rows(const Plane& plane, float* sums, int begin, int end) {
  for (int y = begin; y < end; ++y) {
    const float* row = plane.row(y);
    Vec lanes(0.0f);
    int x = 0;
    for (; x + kLanes <= plane.width; x += kLanes) {
      lanes = lanes + load(row + x);
    }
    float sum = sum_of(lanes);
    for (; x < plane.width; ++x) {
      sum += row[x];
    }
    sums[y] = sum;
  }
}

// Whether the sum of a plane is above a threshold. OpenCV adds pixel by pixel in float32, whose rounding decides when
// it is close; that order is followed only then, because it is slow.
bool sum_exceeds(const Plane& plane, const float* row_sums, float threshold) {
  float estimate = 0;
  for (int y = 0; y < plane.height; ++y) {
    estimate += row_sums[y];
  }
  if (estimate < 0.9f * threshold || estimate > 1.1f * threshold) {
    return estimate > threshold;
  }
  float sum = 0;
  for (int y = 0; y < plane.height; ++y) {
    for (int x = 0; x < plane.width; ++x) {
      sum += plane.row(y)[x];
    }
  }
  return sum > threshold;
}

} // namespace
} // namespace PYACTION_SIMD_LEVEL
} // namespace pyaction
