#pragma once
// TV-L1 optical flow (Zach, Pock and Bischof, "A Duality Based Approach for Realtime TV-L1 Optical Flow", 2007), with
// the pyramid, warping, median filter and stopping rule of OpenCV 5's DualTVL1OpticalFlow.
//
// frame0, frame1   [N, C, H, W]  C = 1 (grey) or 3 (RGB); uint8 in 0..255, or float32 / float64 in [0, 1]
// initial_flow     [N, 2, H, W]  float32, pixels; optional start, used at the coarsest level
// result           [N, 2, H, W]  float32, pixels, channel 0 = x, channel 1 = y:
//                                frame0(x, y) ~ frame1(x + u, y + v)
//
// Per level of the pyramid, coarse to fine: the flow u is taken over from the coarser level, the dual variables p
// start at zero. Per warp: frame 1 and its gradient are sampled at x + u (bicubic). Per outer iteration: u is median
// filtered. Per inner iteration: one step of u, one step of p.
#include <cstdint>

#include "common/simd.h"

namespace pyaction {

struct Tvl1Params {
  double tau;           // step of the dual variables, at most 1/4
  double attachment;    // lambda: weight of the data term, for grey levels 0..255
  double theta;         // tightness of the coupling between the two terms
  int scales;           // levels of the pyramid, where the image allows as many
  double scale_step;    // size of a level relative to the next finer one
  int warps;            // per level
  int outer_iterations; // per warp
  int inner_iterations; // per outer iteration
  double epsilon;       // stops a warp when the mean squared update is not above epsilon^2; 0: never
  int median_size;      // 1 (none), 3 or 5
  bool opencv_rounding; // round every operation as OpenCV 5 does (tvl1_math.h)

  float limit() const { // of the data term's step
    return static_cast<float>(attachment * theta);
  }
  float dual_ratio() const {
    return static_cast<float>(tau / theta);
  }
  float stop_threshold(int width, int height) const { // for the sum of squared updates
    return static_cast<float>(epsilon * epsilon * width * height);
  }
};

enum class FrameType { kUint8, kFloat32, kFloat64 };

// One frame in memory, [C, H, W], dense.
struct Tvl1Frame {
  const void* data;
  FrameType type;
  int channels;
};

struct Tvl1Pair {
  Tvl1Frame frame0, frame1;
  const float* initial_flow; // [2, H, W], or null
  float* flow;               // [2, H, W], written
  int height, width;
};

struct Tvl1Kernels {
  // Floats of workspace that solve() needs.
  int64_t (*workspace_size)(int height, int width, const Tvl1Params&);
  // One pair on the calling thread. The workspace is aligned to 64 bytes; its content does not matter.
  void (*solve)(const Tvl1Pair&, const Tvl1Params&, float* workspace);
};

PYACTION_SIMD_TABLE(Tvl1Kernels, tvl1_kernels)

} // namespace pyaction
