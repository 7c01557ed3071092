#pragma once
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstdint>

#include "common/scratch.h"

namespace pyaction {

// Elements for which waking a thread pays.
constexpr int64_t kGrainElements = 16384;

// Shares `items` of `elements_per_item` elements each among torch's threads. `body(begin, end)` must not throw.
template <typename Body>
void parallel_rows(int64_t items, int64_t elements_per_item, const Body& body) {
  torch::stable::parallel_for(0, items, 1 + kGrainElements / (elements_per_item + 1), body);
}

// The same with memory for each share: body(begin, end, workspace), of `workspace_size` numbers. It has to exist before
// the threads start, because they must not throw.
template <typename scalar_t, typename Body>
void parallel_with_workspace(int64_t items, int64_t elements_per_item, int64_t workspace_size, const Body& body) {
  const int64_t most = 1 + items * elements_per_item / kGrainElements;
  const int64_t shares = std::min({int64_t{torch::stable::get_num_threads()}, items, most});
  const int64_t padded = (workspace_size + 63) / 64 * 64; // no cache line has two writers
  const Scratch memory(shares * padded * int64_t{sizeof(scalar_t) / sizeof(float)});
  scalar_t* first = reinterpret_cast<scalar_t*>(memory.data());
  torch::stable::parallel_for(0, shares, 1, [&](int64_t begin, int64_t end) {
    for (int64_t share = begin; share < end; ++share) {
      body(items * share / shares, items * (share + 1) / shares, first + share * padded);
    }
  });
}

} // namespace pyaction
