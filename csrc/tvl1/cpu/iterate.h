#pragma once
// The primal-dual iterations.
#include "tvl1/cpu/sample.h"

namespace pyaction {
namespace PYACTION_SIMD_LEVEL {
namespace {

// Flow and dual variables of one level.
struct Solution {
  Plane u1, u2;
  Plane p11, p12, p21, p22; // (p11, p12): dual of u1; (p21, p22): dual of u2
  Plane change;             // squared update of u in the last iteration; written where the stopping rule asks for it
  const float* zero_row;    // stands for the row above the first one
};

// Divergence of the dual variables (px, py) of one component of u.
HOST_DEVICE Vec divergence(const float* px, const float* py, const float* py_above, int x) {
  // Left of the first pixel px is zero: the floats there are never written.
  return (load(px + x) - load(px + x - 1)) + (load(py + x) - load(py_above + x));
}

// u of row y, from u and p of row y and p of row y - 1.
template <bool exact, bool measure>
void primal_row(const Solution& s, const DataTerm& term, int y, Vec limit, Vec theta) {
  float *u1 = s.u1.row(y), *u2 = s.u2.row(y), *change = s.change.row(y);
  const float *p11 = s.p11.row(y), *p12 = s.p12.row(y), *p21 = s.p21.row(y), *p22 = s.p22.row(y);
  const float* p12_above = y > 0 ? s.p12.row(y - 1) : s.zero_row;
  const float* p22_above = y > 0 ? s.p22.row(y - 1) : s.zero_row;
  const float *wx = term.wx.row(y), *wy = term.wy.row(y);
  const float *constant = term.constant.row(y), *norm = term.norm.row(y);
  const int width = s.u1.width;
  for (int x = 0; x < width; x += kLanes) {
    Vec divergence1 = divergence(p11, p12, p12_above, x), divergence2 = divergence(p21, p22, p22_above, x);
    if (exact && x == 0) { // OpenCV adds up the first column in another order
      divergence1.lanes[0] = (p11[0] + p12[0]) - p12_above[0];
      divergence2.lanes[0] = (p21[0] + p22[0]) - p22_above[0];
    }
    const Vec old1 = load(u1 + x), old2 = load(u2 + x);
    Vec new1 = old1, new2 = old2;
    primal_step<exact>(new1, new2, load(wx + x), load(wy + x), load(constant + x), load(norm + x), divergence1,
                       divergence2, limit, theta);
    store(u1 + x, new1);
    store(u2 + x, new2);
    if (measure) {
      store(change + x, (new1 - old1) * (new1 - old1) + (new2 - old2) * (new2 - old2));
    }
  }
  // The forward gradient is zero in the last column.
  u1[width] = u1[width - 1];
  u2[width] = u2[width - 1];
}

// p of row y, from p and u of row y and u of row y + 1.
template <bool exact>
void dual_row(const Solution& s, int y, Vec ratio) {
  const bool last = y == s.u1.height - 1; // where the forward gradient along y is zero
  const float *u1 = s.u1.row(y), *u2 = s.u2.row(y);
  const float *u1_below = last ? u1 : s.u1.row(y + 1), *u2_below = last ? u2 : s.u2.row(y + 1);
  float *p11 = s.p11.row(y), *p12 = s.p12.row(y), *p21 = s.p21.row(y), *p22 = s.p22.row(y);
  for (int x = 0; x < s.u1.width; x += kLanes) {
    const Vec center1 = load(u1 + x), center2 = load(u2 + x);
    Vec px = load(p11 + x), py = load(p12 + x);
    dual_step<exact>(px, py, load(u1 + x + 1) - center1, load(u1_below + x) - center1, ratio);
    store(p11 + x, px);
    store(p12 + x, py);
    px = load(p21 + x);
    py = load(p22 + x);
    dual_step<exact>(px, py, load(u2 + x + 1) - center2, load(u2_below + x) - center2, ratio);
    store(p21 + x, px);
    store(p22 + x, py);
  }
}

// `count` iterations in one sweep over the image: iteration k works one row behind iteration k - 1, so that all of
// them pass over rows that are still in the cache. Every value is the one that iterations over the whole image,
// one after the other, would give. measure: leaves the squared update of the last iteration in s.change.
template <bool exact, bool measure>
void iterate(const Solution& s, const DataTerm& term, int count, const Tvl1Params& params) {
  const Vec limit = params.limit(), theta = static_cast<float>(params.theta), ratio = params.dual_ratio();
  for (int front = 0; front < s.u1.height + count; ++front) {
    for (int k = 0; k < count; ++k) {
      const int y = front - k;
      if (y >= 0 && y < s.u1.height) {
        primal_row<exact, measure>(s, term, y, limit, theta);
      }
      if (y >= 1 && y <= s.u1.height) {
        dual_row<exact>(s, y - 1, ratio);
      }
    }
  }
}

// Whether the sum of a plane is above a threshold. OpenCV adds pixel by pixel in float32, whose rounding decides when
// it is close; that order is followed only then, because it is slow.
bool sum_exceeds(const Plane& plane, float threshold) {
  Vec sums(0.0f);
  float rest = 0;
  for (int y = 0; y < plane.height; ++y) {
    const float* row = plane.row(y);
    int x = 0;
    for (; x + kLanes <= plane.width; x += kLanes) {
      sums = sums + load(row + x);
    }
    for (; x < plane.width; ++x) {
      rest += row[x];
    }
  }
  const float estimate = sum_of(sums) + rest;
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
