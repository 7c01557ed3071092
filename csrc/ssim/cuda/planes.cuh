#pragma once
#include "common/cuda/launch.h"
#include "ssim/ssim_entry.h"
#include "ssim/ssim_math.h"

namespace pyaction {

// `blocks` for each plane, numbered by x. Planes are numbered by y: a block goes on to plane y + gridDim.y, as CUDA
// limits it.
inline dim3 plane_grid(unsigned blocks, int64_t planes) {
  return dim3(blocks, static_cast<unsigned>(std::min(planes, int64_t{65535})));
}

} // namespace pyaction
