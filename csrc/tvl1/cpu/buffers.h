#pragma once
// The memory of one sequence.
#include "tvl1/cpu/opencv_term.h"
#include "tvl1/cpu/pyramid.h"

namespace pyaction {
namespace PYACTION_SIMD_LEVEL {
namespace {

// What is kept from one frame of a sequence to the next.
struct State {
  float* frame[2][kMaxLevels]; // pyramids of the frames with even and with odd index
  float* flow[2][kMaxLevels];  // u1 and u2 of the last pair
};

State place_state(const Levels& levels, Workspace& memory) {
  State state;
  for (int level = 0; level < levels.count; ++level) {
    for (int i = 0; i < 2; ++i) {
      state.frame[i][level] = memory.take(framed_size(levels.width[level], levels.height[level]));
      state.flow[i][level] = memory.take(plane_size(levels.width[level], levels.height[level]));
    }
  }
  return state;
}

// What solving needs besides, at its largest: the finest level. What belongs to one level shares these sizes.
struct Buffers {
  float* solution;
  float* spare;  // where bands write to, because their neighbours still read; then the two change places
  float* copies; // see Band
  float* term;
  float* flow[2]; // of the solution, as planes
  float* texels;
  float* change; // also: the difference of two residuals
  float* zero_row;
  float* row_sums;
  ColumnTaps columns;
};

Buffers place_buffers(const Levels& levels, Workspace& memory) {
  const int width = levels.width[0], height = levels.height[0];
  const int64_t size = plane_size(width, height), solution = packed_stride<kSolutionFields>(width);
  Buffers b;
  b.solution = memory.take(solution * height);
  b.spare = memory.take(solution * height);
  b.copies = memory.take(solution * height);
  b.term = memory.take(packed_stride<kTermFields>(width) * height);
  for (float*& flow : b.flow) {
    flow = memory.take(size);
  }
  b.texels = memory.take(texel_plane_size(width, height));
  b.change = memory.take(size);
  b.zero_row = memory.take(solution);
  b.row_sums = memory.take(height);
  b.columns = take_column_taps(memory, width);
  return b;
}

} // namespace
} // namespace PYACTION_SIMD_LEVEL
} // namespace pyaction
