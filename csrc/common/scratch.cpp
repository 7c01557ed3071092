#include "common/scratch.h"

#include <torch/headeronly/util/Exception.h>

#include <cstdlib>
#include <mutex>
#include <vector>

namespace pyaction {
namespace {

// Kept in all; what is more goes back to the system.
constexpr int64_t kMostKept = int64_t{1} << 30;

struct Block {
  float* data;
  int64_t bytes;
};

std::mutex mutex;
std::vector<Block> kept; // as many as were in use at the same time, at most
int64_t kept_bytes = 0;

// The last kept block, which is the one that the caches may still hold; {nullptr, 0} if there is none.
Block take_kept() {
  const std::lock_guard<std::mutex> lock(mutex);
  if (kept.empty()) {
    return {nullptr, 0};
  }
  const Block block = kept.back();
  kept.pop_back();
  kept_bytes -= block.bytes;
  return block;
}

} // namespace

Scratch::Scratch(int64_t floats) {
  const int64_t wanted = (floats * int64_t{sizeof(float)} + 63) / 64 * 64;
  Block block = take_kept();
  if (block.bytes < wanted) {
    std::free(block.data);
    block = {static_cast<float*>(std::aligned_alloc(64, wanted)), wanted};
    STD_TORCH_CHECK(block.data != nullptr, "pyaction: ", wanted >> 20, " MiB of memory could not be allocated");
  }
  data_ = block.data;
  bytes_ = block.bytes;
}

Scratch::~Scratch() {
  {
    const std::lock_guard<std::mutex> lock(mutex);
    if (kept_bytes + bytes_ <= kMostKept) {
      kept.push_back({data_, bytes_});
      kept_bytes += bytes_;
      return;
    }
  }
  std::free(data_);
}

} // namespace pyaction
