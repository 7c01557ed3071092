#pragma once
// TV-L1 optical flow (Zach, Pock and Bischof, "A Duality Based Approach for Realtime TV-L1 Optical Flow", 2007).
//
// frame0, frame1   [N, C, H, W]     C = 1 (grey) or 3 (RGB); uint8 in 0..255, or float32 / float64 in [0, 1]
// clip             [N, T, C, H, W]  the same; T >= 1
// initial_flow     [N, 2, H, W]     float32, pixels; optional start, used at the coarsest level
// result           [N, 2, H, W]     float32, pixels, channel 0 = x, channel 1 = y:
//                  [N, T-1, 2, H, W]    frame0(x, y) ~ frame1(x + u, y + v)
//
// Per level of the pyramid, coarse to fine: the flow u is taken over from the coarser level. Per warp: frame 1 and its
// gradient are sampled at x + u (bicubic). Per outer iteration: u is median filtered. Per inner iteration: one step of
// u, one step of the dual variables p.
//
// Two variants share this frame. `as_opencv` is OpenCV 5's DualTVL1OpticalFlow, to the last bit. The other departs
// from it where flow becomes better or sooner ready:
//   * the smoothness term is the total variation of the vector (u1, u2), not the sum of its components' (one norm);
//   * the gradient is the derivative of the very bicubic surface that is sampled, mixed with frame 0's (Wedel et al.,
//     "An Improved Algorithm for TV-L1 Optical Flow", 2009), not a sample of central differences;
//   * a pixel that leaves the image has no data term, not a black partner;
//   * p is carried from level to level like u, not started at zero;
//   * levels are mapped onto each other by their true sizes, not by the nominal scale step;
//   * in a sequence, at every level, the previous pair's flow replaces that from the coarser level where it explains
//     this pair better (prefer_kept_flow).
#include <cstdint>

#include "common/simd.h"
#include "common/team.h"

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
  bool as_opencv;       // see above

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

// The next frame of a sequence of frames of one size.
struct Tvl1Step {
  Tvl1Frame frame;
  int height, width;
  int64_t index;             // number of the frame within its sequence; the first has no flow
  const float* initial_flow; // [2, H, W], or null
  float* flow;               // [2, H, W], written: from the previous frame to this one
  bool last;                 // of the sequence: nothing has to be kept for later
};

// A sequence has a state: the pyramids of two frames, and the last flow at every level. A pair is a sequence of two.
struct Tvl1Kernels {
  // In floats. State and workspace are aligned to 64 bytes.
  int64_t (*state_size)(int height, int width, const Tvl1Params&);
  int64_t (*workspace_size)(int height, int width, const Tvl1Params&);
  // The content of the workspace does not matter, nor that of the state before the first frame.
  void (*push)(const Tvl1Step&, const Tvl1Params&, float* state, float* workspace, Team&);
};

PYACTION_SIMD_TABLE(Tvl1Kernels, tvl1_kernels)

} // namespace pyaction
